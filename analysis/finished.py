"""Results kept one by one while a verification runs, so that an interruption costs no more than the claim at hand."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.claims import ClaimResult
from testbed.errors import ConfigError, StorageError
from testbed.simulation.folder import StorageWarning
from testbed.simulation.storage import is_intact, write_atomically, write_sealed

__all__ = ["PLAN", "FinishedResults"]

PLAN = "plan.json"
"""What decides the numbers of a verification, as a file of its folder."""
_VERDICTS = "verdicts"


class FinishedResults:
    """The results of one verification, each in a sealed file of its own.

    Args:
        folder: of the verification.
        plan: everything that decides a number; a folder belongs to one plan.

    Raises:
        ConfigError: the folder was begun with another plan; the message names what changed.
        StorageError: its record of the plan is damaged.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self._folder = folder / _VERDICTS
        self._folder.mkdir(parents=True, exist_ok=True)
        # As it will be read: tuples are lists.
        wanted = json.loads(json.dumps(plan))
        self._fingerprint = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
        kept = folder / PLAN
        if not kept.is_file():
            write_atomically(kept, (json.dumps(wanted, indent=1) + "\n").encode())
            return
        try:
            before = dict(json.loads(kept.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise StorageError(f"{kept} is damaged ({error}); begin in another folder") from error
        changed = [
            f"{name} was {_short(before.get(name))} and is {_short(wanted.get(name))}"
            for name in sorted(before.keys() | wanted.keys())
            if before.get(name) != wanted.get(name)
        ]
        if changed:
            raise ConfigError(
                f"{folder} holds a verification with another configuration: {'; '.join(changed)}. Choose another out, "
                "or restore it"
            )

    def load(self) -> dict[str, ClaimResult]:
        """The whole results by claim id; a damaged one is renamed, with a warning, so that its claim is judged again.

        Raises:
            StorageError: a result of another verification.
        """
        found: dict[str, ClaimResult] = {}
        for path in sorted(self._folder.glob("*.json")):
            content = path.read_bytes()
            if not is_intact(path, content):
                aside = path.rename(path.with_suffix(".damaged"))
                warnings.warn(
                    f"{path} is damaged: its {len(content)} bytes do not have the checksum in its name. It was renamed "
                    f"{aside.name} and the claim is judged again",
                    StorageWarning,
                    stacklevel=2,
                )
                continue
            kept = json.loads(content)
            if kept["plan"] != self._fingerprint:
                raise StorageError(f"{path} is a verdict of another verification; remove it")
            result = ClaimResult.from_json(kept["verdict"])
            found[result.claim.id] = result
        return found

    def add(self, result: ClaimResult) -> None:
        """Write one result, in one step.

        Raises:
            StorageError: the disk refuses.
        """
        content = json.dumps({"plan": self._fingerprint, "verdict": result.to_json()}, allow_nan=False).encode()
        write_sealed(self._folder, result.claim.id.replace("/", "--"), ".json", content)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
