"""Q10. The fifth of the tokens with the highest entropy."""

from __future__ import annotations

from analysis.claims.engines import PAPER, PPO
from analysis.judging.claim import Falsifier, StatisticalClaim, Tuning, register
from analysis.judging.estimands import difference, final
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="Q10",
        source=PAPER,
        statement="The fifth of the tokens with the highest entropy suffices: Qwen3-32B gains 11.04 points on AIME25 "
        "and 7.71 on AIME24 over all tokens; training only the others degrades.",
        status="toy",
        reason="In a toy every token is a fork: its entropies differ by state, and not between forks and filling "
        "words. Training only the others is not judged.",
    )
)

TOP = {"objective": "top_entropy(base=ppo)"}

register(
    StatisticalClaim(
        id="engines/top-entropy-suffices",
        paper=PAPER,
        judges=("Q10",),
        title="A fifth of the tokens suffices",
        source="arXiv 2506.01939, abstract",
        statement="Training on the fifth of the tokens with the highest entropy gives a final return within 0.05 of "
        "that of all tokens, or above, each at its best learning rate.",
        scope="Tabular policy on modular sum, 60 rollouts; five learning rates from 4 to 1,024.",
        unit="reward",
        setting=MODULAR_SUM,
        arms={"top": TOP, "all": PPO},
        estimand=difference(final("exact/return"), of="top", minus="all"),
        direction="greater",
        threshold=-0.05,
        planted=0.0,
        tuning=Tuning((4.0, 16.0, 64.0, 256.0, 1024.0), final("exact/return")),
        acts=(("top", "mask/fraction"),),
        curves=("exact/return", "mask/fraction"),
        falsifier=Falsifier(
            "One token in a hundred is trained on.", {"top": {"objective": "top_entropy(base=ppo,share=0.01)"}}
        ),
        recorded="reproduced",
        notes=("At PPO's best rate the fifth is far behind; it catches up with a rate that is many times larger.",),
        tier="full",
        seeds=24,
    )
)
