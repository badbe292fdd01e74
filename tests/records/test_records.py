from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from testbed import TokenBatch
from testbed.errors import BatchError, ConfigError, StorageError
from testbed.objectives import make_objective
from testbed.records import RecordWriter, read_record, stacked
from testbed.records import reader as reading
from testbed.records import writer as writing


@pytest.fixture(autouse=True)
def no_shard_by_time(monkeypatch):
    """However long a busy machine takes over a test."""
    monkeypatch.setattr(writing, "_SHARD_SECONDS", math.inf)


PROMPTS = ["a", "a", "b", "b"]
REWARDS = [1.0, 0.0, math.nan, 0.5]


def a_batch(seed: int = 0, sequences: int = 4, width: int = 5, **changes) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*size):
        return torch.rand(*size, generator=generator)

    old = -0.1 - 3 * uniform(sequences, width)
    lengths = torch.tensor([5, 1, 3, 2] * sequences)[:sequences, None]
    fields = {
        "log_probs": old + 0.2 * uniform(sequences, width) - 0.1,
        "old_log_probs": old,
        "advantages": uniform(sequences) - 0.5,
        "mask": torch.arange(width) < lengths,
        "entropies": uniform(sequences, width),
        "old_entropies": uniform(sequences, width),
        **changes,
    }
    return TokenBatch(**fields)


def write(folder: Path, steps=(1, 2), updates: int = 2, **settings) -> dict[tuple[int, int], TokenBatch]:
    batches = {}
    with RecordWriter(folder, **settings) as writer:
        for step in steps:
            for update in range(updates):
                batch = batches[step, update] = a_batch(10 * step + update)
                writer.add(batch, step=step, update=update, prompts=PROMPTS, rewards=REWARDS)
    return batches


def same(actual: TokenBatch, expected: TokenBatch) -> None:
    for name in ("mask", "log_probs", "old_log_probs", "advantages", "entropies", "old_entropies"):
        assert torch.equal(getattr(actual, name), getattr(expected, name)), name


def test_what_was_written_is_read_to_the_last_bit(tmp_path):
    batches = write(tmp_path / "record")
    found = {(update.step, update.update): update for update in read_record(tmp_path / "record").updates()}
    assert list(found) == list(batches)
    for key, update in found.items():
        same(update.batch(), batches[key])
        assert update.prompts.tolist() == PROMPTS
        groups = update.batch().groups
        assert (groups[:, None] == groups).tolist() == [[first == second for second in PROMPTS] for first in PROMPTS]
        np.testing.assert_array_equal(update.rewards, np.float32(REWARDS))
        assert update.tokens == 11


@pytest.mark.parametrize("name", ["dapo", "gspo", "erc", "dr_grpo(max_length=7)", "dcpo"])
def test_loss_and_gradient_are_those_of_the_trained_step(tmp_path, name):
    batch = write(tmp_path / "record", steps=(1,), updates=1)[1, 0]
    (update,) = read_record(tmp_path / "record").updates()
    results = []
    for given in (batch, update.batch()):
        leaf = given.log_probs.detach().clone().requires_grad_()
        loss = make_objective(name).loss(given.with_current(leaf))
        results.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_updates_stacked_as_replicas_are_what_they_are_alone(tmp_path):
    write(tmp_path / "record")
    updates = list(read_record(tmp_path / "record").updates())
    objective = make_objective("dapo")
    together = objective(stacked(updates))
    for index, update in enumerate(updates):
        alone = objective(update.batch())
        assert together.loss[index] == alone.loss
        for metric, value in alone.metrics.items():
            assert torch.equal(together.metrics[metric][index], value) or bool(value.isnan()), metric


def test_one_advantage_per_token(tmp_path):
    batch = a_batch(advantages=torch.linspace(-1, 1, 20).view(4, 5))
    with RecordWriter(tmp_path / "record") as writer:
        writer.add(batch, step=0, update=0, prompts=PROMPTS, rewards=REWARDS)
    (update,) = read_record(tmp_path / "record").updates()
    same(update.batch(), batch)


def test_replicas_are_runs_of_their_own(tmp_path):
    pair = [a_batch(1), a_batch(2)]
    names = ("log_probs", "old_log_probs", "mask", "entropies", "old_entropies")
    both = TokenBatch(
        **{name: torch.stack([getattr(batch, name) for batch in pair]) for name in names},
        advantages=torch.stack([batch.advantages[:, 0] for batch in pair]),
    )
    with RecordWriter(tmp_path / "record") as writer:
        writer.add(both, step=1, update=0, prompts=PROMPTS, rewards=torch.zeros(2, 4))
    updates = list(read_record(tmp_path / "record").updates())
    assert [update.replica for update in updates] == [0, 1]
    for update, batch in zip(updates, pair, strict=True):
        same(update.batch(), batch)


def test_micro_batches_are_one_update(tmp_path):
    whole = a_batch(3)
    counts = {"token_count": 11, "sequence_count": 4}
    with RecordWriter(tmp_path / "record") as writer:
        for rows in (slice(0, 2), slice(2, 4)):
            part = TokenBatch(
                **{name: getattr(whole, name)[rows] for name in ("log_probs", "old_log_probs", "mask")},
                advantages=whole.advantages[rows, 0],
                **counts,
            )
            writer.add(part, step=1, update=0, prompts=PROMPTS[rows], rewards=REWARDS[rows])
    (update,) = read_record(tmp_path / "record").updates()
    assert torch.equal(update.batch().log_probs, whole.log_probs)
    assert make_objective("ppo")(update.batch()).loss == make_objective("ppo")(whole).loss


def test_ranks_are_merged_in_order(tmp_path):
    for rank in (0, 1):
        write(tmp_path / "record", rank=rank)
    updates = list(read_record(tmp_path / "record").updates())
    assert [(update.step, update.update) for update in updates] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert [len(update.lengths) for update in updates] == [8, 8, 8, 8]


def test_every_thins_by_rollout(tmp_path):
    write(tmp_path / "record", steps=range(1, 7), every=3)
    assert {update.step for update in read_record(tmp_path / "record").updates()} == {3, 6}


def test_share_thins_by_whole_groups_and_keeps_the_divisors(tmp_path):
    prompts = [str(number // 4) for number in range(160)]
    with RecordWriter(tmp_path / "record", share=0.5) as writer:
        for update in range(2):
            writer.add(a_batch(update, 160), step=1, update=update, prompts=prompts, rewards=np.zeros(160))
    first, second = read_record(tmp_path / "record").updates()
    names, counts = np.unique(first.prompts, return_counts=True)
    assert (counts == 4).all()
    # 40 prompts, each kept with probability ½: 20 ± 4 standard deviations of 3.16.
    assert 8 <= len(names) <= 32
    assert second.prompts.tolist() == first.prompts.tolist()
    assert first.token_count == int(a_batch(0, 160).mask.sum())


def test_a_killed_run_leaves_whole_rollouts_and_a_resumed_one_no_doubles(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_SHARD_TOKENS", 1)
    killed = RecordWriter(tmp_path / "record")
    for step in (1, 2, 3):
        for update in range(2):
            killed.add(a_batch(10 * step + update), step=step, update=update, prompts=PROMPTS, rewards=REWARDS)
    # The process ends here: rollout 3 was never complete.
    assert [(item.step, item.update) for item in read_record(tmp_path / "record").updates()] == [
        (1, 0), (1, 1), (2, 0), (2, 1),
    ]  # fmt: skip
    # A checkpoint of rollout 1 is continued: rollout 2 comes again.
    batches = write(tmp_path / "record", steps=(2, 3, 4))
    found = list(read_record(tmp_path / "record").updates())
    assert [(item.step, item.update) for item in found] == [
        (step, update) for step in (1, 2, 3, 4) for update in (0, 1)
    ]
    same(found[-1].batch(), batches[4, 1])
    assert not list((tmp_path / "record").glob(".*"))


def test_an_error_in_the_loop_leaves_no_half_rollout(tmp_path):
    def interrupted():
        with RecordWriter(tmp_path / "record") as writer:
            writer.add(a_batch(), step=1, update=0, prompts=PROMPTS, rewards=REWARDS)
            writer.add(a_batch(), step=2, update=0, prompts=PROMPTS, rewards=REWARDS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [update.step for update in read_record(tmp_path / "record").updates()] == [1]


def test_about_twenty_bytes_a_token(tmp_path):
    with RecordWriter(tmp_path / "record") as writer:
        for step in range(20):
            writer.add(a_batch(step, 200, 40), step=step, update=0, prompts=["a"] * 200, rewards=np.zeros(200))
    tokens = sum(update.tokens for update in read_record(tmp_path / "record").updates())
    size = sum(path.stat().st_size for path in (tmp_path / "record").glob("*.parquet"))
    # Four numbers of four bytes, random digits and therefore hardly compressible, and a row per response.
    assert size < 25 * tokens


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "every is 0; expected a positive number of rollouts"),
        ({"share": 0.0}, r"share is 0\.0; expected a share of the prompts in \(0, 1\]"),
        ({"share": True}, "share is True"),
    ],
)
def test_a_setting_out_of_its_range(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        RecordWriter(tmp_path / "record", **settings)


def test_steps_go_forward(tmp_path):
    writer = RecordWriter(tmp_path / "record")
    writer.add(a_batch(), step=2, update=0, prompts=PROMPTS, rewards=REWARDS)
    with pytest.raises(BatchError, match="step is 1 after 2"):
        writer.add(a_batch(), step=1, update=0, prompts=PROMPTS, rewards=REWARDS)


def test_columns_stay_the_same(tmp_path):
    writer = RecordWriter(tmp_path / "record")
    writer.add(a_batch(), step=1, update=0, prompts=PROMPTS, rewards=REWARDS)
    with pytest.raises(BatchError, match="Pass the same optional fields in every call"):
        writer.add(a_batch(entropies=None), step=1, update=1, prompts=PROMPTS, rewards=REWARDS)


def test_one_prompt_per_response(tmp_path):
    with pytest.raises(BatchError, match="prompts has 2 entries; expected 4"):
        RecordWriter(tmp_path / "record").add(a_batch(), step=1, update=0, prompts=["a", "b"], rewards=REWARDS)


def test_another_record_is_not_continued(tmp_path):
    write(tmp_path / "record", objective="dapo")
    with pytest.raises(StorageError, match="holds a record with another objective"):
        write(tmp_path / "record", steps=(3,), objective="grpo")


def test_a_folder_with_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="holds something that is no record"):
        RecordWriter(tmp_path)


def test_no_record_at_all(tmp_path):
    with pytest.raises(StorageError, match=r"is no record: it has no readable manifest\.json"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 7}, "has schema 7; this version of the package reads schema 1"),
        ({"columns": ["log_probs"]}, r"has columns \['log_probs'\]; expected log_probs, old_log_probs"),
        ({"columns": "all"}, "has columns 'all'"),
    ],
)
def test_a_manifest_of_another_kind(tmp_path, change, message):
    write(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(StorageError, match=message):
        read_record(tmp_path)


def test_a_manifest_that_is_no_json(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(StorageError, match=r"manifest\.json is not JSON"):
        read_record(tmp_path)


def read_all(path):
    return [update.batch() for update in read_record(path).updates()]


def rewritten(folder: Path, change) -> None:
    shard = next(folder.glob("*.parquet"))
    table = pq.read_table(shard)
    pq.write_table(change(table), shard)


def test_a_truncated_shard(tmp_path):
    write(tmp_path)
    shard = next(tmp_path.glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(StorageError, match=r"cannot be read: .*; it is damaged or no shard"):
        read_all(tmp_path)


def test_rows_out_of_order(tmp_path):
    write(tmp_path)
    rewritten(tmp_path, lambda table: table.take(list(reversed(range(table.num_rows)))))
    with pytest.raises(StorageError, match="is out of order: step 2, update 0 comes after step 2, update 1"):
        read_all(tmp_path)


def test_a_missing_column(tmp_path):
    write(tmp_path)
    rewritten(tmp_path, lambda table: table.drop_columns(["entropies"]))
    with pytest.raises(StorageError, match="has no column entropies; its record's manifest says it does"):
        read_all(tmp_path)


def test_a_number_that_is_none(tmp_path):
    write(tmp_path)

    def spoiled(table):
        values = table.column("log_probs").to_pylist()
        values[5][0] = math.nan
        index = table.column_names.index("log_probs")
        return table.set_column(index, table.schema.field(index), pa.array(values, type=pa.list_(pa.float32())))

    rewritten(tmp_path, spoiled)
    with pytest.raises(StorageError, match="the record at step 1, update 1 is not a batch: log_probs holds NaN"):
        read_all(tmp_path)
    with pytest.raises(StorageError, match="the record at step 1, update 1 is not a batch"):
        stacked(list(read_record(tmp_path).updates()))


def test_lists_of_different_lengths(tmp_path):
    write(tmp_path)

    def shortened(table):
        values = [row[:-1] for row in table.column("entropies").to_pylist()]
        index = table.column_names.index("entropies")
        return table.set_column(index, table.schema.field(index), pa.array(values, type=pa.list_(pa.float32())))

    rewritten(tmp_path, shortened)
    with pytest.raises(StorageError, match="entropies has another number of tokens than log_probs"):
        read_all(tmp_path)


def test_a_record_within_itself(tmp_path):
    write(tmp_path)
    shard = next(tmp_path.glob("*.parquet"))
    (tmp_path / "shard-001-000000.parquet").write_bytes(shard.read_bytes())
    with pytest.raises(StorageError, match="holds step 1, update 0 twice"):
        read_all(tmp_path)


def test_a_response_that_is_a_file(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr(reading, "LONGEST_RESPONSE", 4)
    with pytest.raises(StorageError, match="holds a response of 5 tokens; expected at most 4"):
        read_all(tmp_path)


def test_no_rollout(tmp_path):
    write(tmp_path)
    next(tmp_path.glob("*.parquet")).unlink()
    with pytest.raises(StorageError, match="holds no rollout"):
        read_all(tmp_path)


def test_what_was_not_recorded_is_named_with_its_remedy(tmp_path):
    write(tmp_path)
    record = read_record(tmp_path)
    record.require("entropies", reason="erc reads them")
    with pytest.raises(
        StorageError, match=r"has no ref_log_probs \(the reference policy's log-probability\); reference"
    ):
        record.require("ref_log_probs", reason="reference_kl reads it")
