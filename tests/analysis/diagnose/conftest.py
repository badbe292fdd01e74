"""Small logs, written the way engines write them."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def trainer_state(tmp_path):
    """Write rows as a trainer_state.json; returns its path."""

    def write(rows, name="trainer_state.json", **top):
        path = tmp_path / name
        content = {"global_step": len(rows), "logging_steps": 1, "log_history": rows, **top}
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def verl_file(tmp_path):
    """Write rows as verl's file logger does: nested, NaN as null."""

    def write(rows, name="run.jsonl"):
        path = tmp_path / name
        lines = [json.dumps({"step": step, "data": row}) for step, row in enumerate(rows, 1)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write
