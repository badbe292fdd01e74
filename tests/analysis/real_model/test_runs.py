"""Runs of a pretrained model: each once, from a shared start, and nothing of its weights kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.real_model import runs
from analysis.real_model.runs import finished, folder_of, settings_of, train
from tests.extras import needs

SMALL = """
model: qwen2-0.1m
train: {source: "arithmetic(level=1,count=8)"}
test: {source: "arithmetic(level=1,count=4)", split: test}
beyond: {source: "arithmetic(level=2,count=4)", split: test}
objective: grpo
trainer:
  {max_steps: 2, per_device_train_batch_size: 8, steps_per_generation: 2, num_generations: 4, max_completion_length: 3}
evaluation: {samples: 2}
"""


def test_a_run_has_a_folder_of_its_objective_and_seed() -> None:
    assert folder_of(Path("x"), "dapo(clip_high=0.28)", 3) == Path("x/dapo-clip_high-0.28/3")
    settings = settings_of("dapo", 7)
    assert (settings.objective, settings.seed, settings.record) == ("dapo", 7, True)
    assert settings.model == "smollm2-135m"


@pytest.mark.filterwarnings("ignore")
def test_a_run_is_made_once_and_its_seed_shares_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("trl")
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    configuration = str(tmp_path / "small.yaml")
    made: list[Any] = []
    original = runs.run_finetune
    monkeypatch.setattr(runs, "run_finetune", lambda *given, **more: (made.append(more), original(*given, **more))[1])
    assert finished(tmp_path / "runs", "grpo", 0, configuration) is None
    for objective in ("grpo", "dapo", "grpo"):
        train(tmp_path / "runs", objective, 0, configuration)
    assert len(made) == 2
    assert {str(call["start"]) for call in made} == {str(tmp_path / "runs" / "starts" / "0")}
    one, other = (finished(tmp_path / "runs", name, 0, configuration) for name in ("grpo", "dapo"))
    assert one is not None
    assert other is not None
    assert one.evaluation["before"] == other.evaluation["before"]
    left = {path.name for path in folder_of(tmp_path / "runs", "grpo", 0).iterdir()}
    assert {"record", "evaluation.json", "log.jsonl", "machine.json"} <= left
    assert not left & {"model", "start", "checkpoints"}
