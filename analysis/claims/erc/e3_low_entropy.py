"""E3. Which tokens are masked."""

from __future__ import annotations

import torch
from torch import Tensor

from analysis.claims.erc import ACTS, ARMS, CITATION, PAPER
from analysis.judging.claim import Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import average, between, value_of
from analysis.judging.on_record import OnRecord
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry
from testbed.batch import TokenBatch

file_entry(
    Entry(
        number="E3",
        source=PAPER,
        statement="The masked tokens are predominantly of low entropy.",
        status="toy",
    )
)

VARIED = "initial=normal,scale=3.0"

MASKED_BELOW_KEPT = between(average("erc/masked_entropy"), average("erc/kept_entropy"), arm="erc", times=0.9)


def _with_foreign_entropies(_: object, batch: TokenBatch, slopes: Tensor) -> Tensor:
    """Mean entropy of the tokens without a gradient minus 0.9 of the others', each read at another token."""
    assert batch.old_entropies is not None
    results = []
    for mask, entropies, slope in zip(batch.mask, batch.old_entropies, slopes, strict=True):
        own = entropies[mask]
        # Half of the tokens away: another response's, as a rule.
        foreign, stopped = own.roll(len(own) // 2), slope[mask] == 0
        results.append(foreign[stopped].mean() - 0.9 * foreign[~stopped].mean())
    return torch.stack(results)


ON_RECORD = OnRecord(
    arms={"erc": "erc"},
    sabotaged_estimand=value_of(average("masked below kept, entropies of other tokens"), "erc"),
    sabotage="Each token is given the entropy of another one, so low entropy cannot be what is selected.",
    measures={"masked below kept, entropies of other tokens": _with_foreign_entropies},
    acts=ACTS,
)

register(
    StatisticalClaim(
        id="erc/masks-low-entropy-tokens",
        paper=PAPER,
        judges=("E3", "M6"),
        title="Masked tokens sit at low entropy",
        source=f"{CITATION}, statement E3",
        statement="The tokens ERC masks have a mean old entropy at least a tenth below that of the tokens it keeps.",
        scope="Tabular policy on modular sum whose states start with entropies of every size (logits from N(0, 3²)). "
        "Where all states start with the same entropy the statement has no content, and that is the falsifier.",
        unit="nats",
        setting=MODULAR_SUM | {"env": f"ModularSum-v1({VARIED})", "learning_rate": 4.0},
        arms=ARMS,
        estimand=MASKED_BELOW_KEPT,
        direction="less",
        threshold=0.0,
        planted=-0.15,
        null=Null({"env": f"NullBandit-v1({VARIED})"}, MASKED_BELOW_KEPT),
        acts=ACTS,
        curves=("erc/masked_entropy", "erc/kept_entropy"),
        falsifier=Falsifier(
            "Every state starts with the same entropy, so low entropy cannot be what is selected.",
            {"erc": {"objective": "erc", "env": "ModularSum-v1(initial=peaked)"}},
        ),
        recorded="reproduced",
        on_record=ON_RECORD,
    )
)
