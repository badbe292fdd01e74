"""Reading results.json: what has to be there is checked here, what may be missing stays missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from testbed.errors import ConfigError

__all__ = ["VERDICTS", "load_results"]

VERDICTS = {
    "reproduced": "The whole interval lies on the claimed side of the threshold. For an exact statement: the "
    "largest deviation is within its tolerance.",
    "refuted": "The whole interval lies on the other side. The statement does not hold here, within the stated scope.",
    "inconclusive": "The interval contains the threshold, or there are too few seeds. Nothing is claimed either way.",
    "broken": "The deliberately sabotaged variant passed as well, so the check cannot tell true from false.",
    "vacuous": "The mechanism under test never acted: no clipping, zero gradients or every ratio equal to 1.",
}
"""Each verdict and what it means, in the order in which a report lists them."""


def load_results(run_folder: str | Path) -> dict[str, Any]:
    """The content of `run_folder`/results.json: `run`, a mapping, and `claims`, a list of mappings with an `id`.

    Raises:
        ConfigError: there is no such file, or it is not the result of a run.
    """
    path = Path(run_folder) / "results.json"
    if not path.is_file():
        raise ConfigError(
            f"{str(run_folder)!r} holds no results.json; give the folder of a finished run, such as runs/quick"
        )
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} is not valid JSON ({error}); run `testbed verify` again") from error
    if not isinstance(results, dict) or not isinstance(results.get("claims"), list):
        raise ConfigError(f"{str(path)!r} has no list of claims; expected the results.json of `testbed verify`")
    for position, claim in enumerate(results["claims"]):
        if not isinstance(claim, dict) or not claim.get("id"):
            raise ConfigError(f"claim number {position} of {str(path)!r} has no id; run `testbed verify` again")
    run = results.get("run")
    return {"run": run if isinstance(run, dict) else {}, "claims": results["claims"]}
