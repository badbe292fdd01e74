"""A record under every objective: what each would have done with the tokens of a real run, without a model.

The road: `testbed.records` streams the batches, `measures` says what an objective does with one, `walk` goes through
the record and puts the answers into a table.
"""

from __future__ import annotations

from analysis.replay.walk import Replay, replay

__all__ = ["Replay", "replay"]
