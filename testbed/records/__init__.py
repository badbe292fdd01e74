"""What a run did, token by token: written once, read under every objective.

>>> import tempfile, torch
>>> from testbed import TokenBatch
>>> from testbed.records import RecordWriter, read_record
>>> old = torch.full((2, 3), -1.0)
>>> batch = TokenBatch(log_probs=old, old_log_probs=old, advantages=torch.tensor([1.0, -1.0]), mask=old < 0)
>>> with tempfile.TemporaryDirectory() as folder:
...     with RecordWriter(f"{folder}/record") as writer:
...         writer.add(batch, step=1, update=0, prompts=["a", "a"], rewards=[1.0, 0.0])
...     [update] = read_record(f"{folder}/record").updates()
>>> update.batch().log_probs.equal(batch.log_probs)
True
"""

from __future__ import annotations

from testbed.records.reader import Record, RecordedUpdate, read_record, stacked
from testbed.records.writer import RecordWriter, check_thinning

__all__ = ["Record", "RecordWriter", "RecordedUpdate", "check_thinning", "read_record", "stacked"]
