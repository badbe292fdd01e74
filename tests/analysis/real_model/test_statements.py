"""The statements about tokens by hand, on a record of six of them."""

from __future__ import annotations

import math

import pytest
import torch

from analysis.real_model.collect import PROBABILITIES, _judged, _likely, by_probability
from analysis.real_model.page import pretrained_page
from analysis.real_model.statements import OBJECTIVES, STATEMENTS
from analysis.replay.walk import Replay, replay
from testbed.batch import TokenBatch
from testbed.records import RecordWriter

# One rollout with two updates. In the second, tokens with old probabilities 0.6, 0.95 and 0.2 have ratios 1.5, 1 and 4.
OLD = torch.tensor([[0.6, 0.95, 0.2]], dtype=torch.float64).log()
RATIOS = torch.tensor([[1.5, 1.0, 4.0]], dtype=torch.float64)
OLD_ENTROPIES = torch.tensor([[1.0, 0.2, 2.0]], dtype=torch.float64)
ENTROPIES = torch.tensor([[1.01, 0.1, 2.02]], dtype=torch.float64)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    folder = tmp_path_factory.mktemp("record")
    with RecordWriter(folder / "record") as writer:
        for update, ratios in ((0, torch.ones_like(RATIOS)), (1, RATIOS)):
            batch = TokenBatch(
                log_probs=OLD + ratios.log(),
                old_log_probs=OLD,
                advantages=torch.ones(1, dtype=torch.float64),
                mask=torch.ones(1, 3, dtype=torch.bool),
                entropies=ENTROPIES if update else OLD_ENTROPIES,
                old_entropies=OLD_ENTROPIES,
                groups=torch.zeros(1, dtype=torch.int64),
            )
            writer.add(batch, step=1, update=update, prompts=["a"], rewards=[1.0])
    return replay(folder / "record", list(OBJECTIVES.values()))


def value(done: Replay, number: str) -> float:
    (statement,) = (item for item in STATEMENTS if item.number == number)
    return statement.value(done)


def test_values_by_hand(done: Replay) -> None:
    # GRPO's upper bound is 1.2 and A > 0: two of three tokens are clipped. DCPO's is wider the less likely a token was:
    # (1 + √(1 + 4·0.28/q))/2 = 1.35 at 0.6 and 1.78 at 0.2, so that it clips the same two.
    assert value(done, "D5") == pytest.approx(2 / 3 - 5 * 2 / 3)
    # Of three tokens one was likelier than 0.9.
    assert value(done, "D9") == pytest.approx(1 / 3)
    # The entropies moved by factors 1.01, ½ and 1.01: ERC's band of 5 % masks one; DAPO's 1.28 clips two.
    assert value(done, "E2") == pytest.approx(1 / 3 - 10 * 2 / 3)
    # Masked entropy 0.2, kept (1 + 2)/2.
    assert value(done, "E3") == pytest.approx(0.2 - 0.9 * 1.5, rel=1e-6)
    # Outside GRPO's interval lie 0.6 and 0.2, inside 0.95; entropies 1 and 2, inside 0.2.
    assert value(done, "C7") == pytest.approx(0.4 - 0.5 * 0.95, rel=1e-6)
    assert value(done, "B5") == pytest.approx(1.5 - 1.1 * 0.2, rel=1e-6)


def test_stopped_tokens_by_old_probability_by_hand(done: Replay) -> None:
    # Old probabilities 0.6, 0.95 and 0.2, each in a range of its own.
    found = by_probability([done.record.path])
    assert PROBABILITIES == (0.0, 0.01, 0.1, 0.5, 0.8, 0.9, 1.0)
    assert found["grpo"]["tokens"] == pytest.approx([0, 0, 1 / 3, 1 / 3, 0, 1 / 3])
    # Ratios 4, 1.5 and 1, A > 0: the first two are beyond 1.2. CE-GPPO leaves a gradient everywhere; ERC's band masks
    # the third as well.
    assert found["grpo"]["stopped"] == [None, None, 1.0, 1.0, None, 0.0]
    assert found["ce_gppo"]["stopped"] == [None, None, 0.0, 0.0, None, 0.0]
    assert found["erc"]["stopped"] == [None, None, 1.0, 1.0, None, 1.0]


def test_likely_tokens_are_counted_rollout_by_rollout(done: Replay) -> None:
    assert _likely(done) == pytest.approx([1 / 3])


def test_five_runs_are_judged_by_the_shared_rules(done: Replay) -> None:
    (statement,) = (item for item in STATEMENTS if item.number == "E2")
    few = _judged(statement, {0: done})
    assert few["verdict"] == "inconclusive"
    assert few["estimate"] == pytest.approx(1 / 3 - 20 / 3)
    assert len(few["values"]) == 1


def test_a_value_that_is_missing_leaves_the_verdict_open(done: Replay) -> None:
    (statement,) = (item for item in STATEMENTS if item.number == "E3")
    replaced = type(statement)(**{**vars(statement), "value": lambda run: math.nan})
    assert _judged(replaced, {0: done})["verdict"] == "inconclusive"


def test_the_page_says_what_is_missing(done: Replay) -> None:
    average = {"value": 0.5, "low": 0.4, "high": 0.6}
    phase = {"average": average, "any_right": average, "greedy": average, "unfinished": 0.5, "k": 8, "problems": 22}
    run = {
        "before": phase,
        "after": phase,
        "difference": average,
        "beyond": {"before": average, "after": average},
        "seconds": 60.0,
        "peak_bytes": 3 * 10**9,
        "machine": {"date": "2026-11-28T00:00:00+00:00"},
        "entropy": [1.0] * 40,
    }
    page = pretrained_page(
        {
            "configuration": "smollm2-sums",
            "seeds": [0, 1],
            "processors": 2,
            "versions": {"torch": "2"},
            "runs": {"grpo": {"0": run}, "dapo": {}},
            "statements": [_judged(item, {0: done}) for item in STATEMENTS],
            "shares": {},
            "likely": {},
            "by_probability": {},
            "order": [],
        }
    )
    assert "grpo (1 of 2 seeds), dapo (0 of 2 seeds)" in page
    assert "| grpo | 0 | 50.0% [40.0%, 60.0%] |" in page
