"""D5. How many tokens are clipped."""

from __future__ import annotations

from analysis.claims.dcpo import CAPPED, CAPPED_DCPO, CITATION, DCPO, GRPO, PAPER
from analysis.judging.claim import StatisticalClaim, register
from analysis.judging.estimands import average, contrast
from analysis.judging.on_record import OnRecord
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry
from analysis.statistics import Verdict

file_entry(
    Entry(
        number="D5",
        source=PAPER,
        statement="DCPO's token clipping ratio is about ten times below GRPO's and DAPO's and stays constant, DAPO's "
        "rises, and GSPO's exceeds 11 to 15 %.",
        status="toy",
        reason="The trend over hundreds of steps, and GSPO's level, depend on the drift of a language model.",
    )
)


def _clips_less(
    name: str, *, rate: float, size: str, recorded: Verdict, on_record: OnRecord | None = None
) -> StatisticalClaim:
    return StatisticalClaim(
        id=f"dcpo/{name}",
        paper=PAPER,
        judges=("D5", "M7"),
        title=f"Token clipping ratio at {size} updates",
        source=f"{CITATION}, statement D5",
        statement="DCPO clips several times fewer tokens than GRPO: GRPO's token clipping ratio exceeds five times "
        "DCPO's.",
        scope=f"Tabular policy on modular sum, learning rate {rate:g}, four passes over each rollout; equal "
        "reduction and advantage, so that only the bounds differ.",
        unit="share of response tokens",
        setting=MODULAR_SUM | {"learning_rate": rate},
        arms={"grpo": {"objective": GRPO}, "dcpo": {"objective": DCPO}, "dapo": {"objective": "dapo"}},
        estimand=contrast(average("clip/fraction"), of="grpo", minus="dcpo", times=5.0),
        direction="greater",
        threshold=0.0,
        planted=0.02,
        acts=(("grpo", "clip/fraction"),),
        curves=("clip/fraction", "exact/regret"),
        falsifier=CAPPED,
        recorded=recorded,
        on_record=on_record,
        notes=(
            "The paper speaks of about ten times. How many times depends on the size of the updates, which is why "
            "the statement is judged at two of them: DCPO's wider bounds are reached as well when updates are "
            "large.",
        ),
    )


ON_RECORD = OnRecord(
    arms={"grpo": GRPO, "dcpo": DCPO}, sabotaged={"dcpo": CAPPED_DCPO}, acts=(("grpo", "clip/fraction"),)
)

register(_clips_less("token-clip-ratio", rate=16.0, size="moderate", recorded="reproduced", on_record=ON_RECORD))
register(_clips_less("token-clip-ratio-large-updates", rate=64.0, size="large", recorded="refuted"))
