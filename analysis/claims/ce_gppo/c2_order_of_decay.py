"""C2. The order in which (β₁, β₂) let the entropy decay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analysis.claims.ce_gppo import BOTH, CITATION, NO_BETA1, NO_BETA2, PAPER, SCOPE, betas
from analysis.judging.claim import ExactClaim, Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import at_matched, difference, final, in_order
from analysis.judging.settings import AT_DIVERGENCE, MODULAR_SUM, NULL_REWARD
from analysis.ledger.entry import Entry, file_entry
from analysis.theory.entropy_dynamics import (
    BanditState,
    entropy_gradient,
    naive_threshold,
    raising_threshold,
    random_state,
)

file_entry(
    Entry(
        number="C2",
        source=PAPER,
        statement="Entropy decays fastest at (β₁, β₂) = (1, ½), slowest at (0, 1), where it even rises early on 7B, "
        "and most steadily at (¾, 1).",
        status="toy",
        reason="Which of the settings is steadiest is not judged: the paper names no measure of it.",
    )
)

AT_90 = "Entropy of a response where the exact return first reaches 0.9."

MATCHED = at_matched("exact/entropy", "exact/return", 0.9)

register(
    StatisticalClaim(
        id="ce-gppo/beta1-lowers-entropy",
        paper=PAPER,
        judges=("C2", "M5"),
        title="β₁ lowers the entropy",
        source=f"{CITATION}, section 3.1 and statement C2",
        statement="Restoring the gradient of clipped negative tokens (β₁ from 0 to 1) lowers the entropy at equal "
        "reward by at least 0.2 nats.",
        scope=f"{SCOPE} {AT_90}",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms={"with β₁": {"objective": BOTH}, "without β₁": {"objective": NO_BETA1}},
        estimand=difference(MATCHED, of="with β₁", minus="without β₁"),
        direction="less",
        threshold=-0.2,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="with β₁", minus="without β₁")),
        controls=(difference(AT_DIVERGENCE, of="with β₁", minus="without β₁"),),
        acts=(("with β₁", "band/outside_fraction"),),
        falsifier=Falsifier(
            "The coefficient is moved to the other bound: the second arm lacks β₂ instead of β₁.",
            {"without β₁": {"objective": NO_BETA2}},
        ),
        recorded="reproduced",
        seeds=96,
    )
)

register(
    StatisticalClaim(
        id="ce-gppo/beta2-raises-entropy",
        paper=PAPER,
        judges=("C2", "M5"),
        title="β₂ raises the entropy",
        source=f"{CITATION}, section 3.1 and statement C2",
        statement="Restoring the gradient of clipped positive tokens (β₂ from 0 to 1) raises the entropy at equal "
        "reward by at least 0.1 nats.",
        scope=f"{SCOPE} {AT_90}",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms={"with β₂": {"objective": BOTH}, "without β₂": {"objective": NO_BETA2}},
        estimand=difference(MATCHED, of="with β₂", minus="without β₂"),
        direction="greater",
        threshold=0.1,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="with β₂", minus="without β₂")),
        controls=(difference(AT_DIVERGENCE, of="with β₂", minus="without β₂"),),
        acts=(("with β₂", "band/outside_fraction"),),
        seeds=544,
        falsifier=Falsifier(
            "The coefficient is moved to the other bound: the second arm lacks β₁ instead of β₂.",
            {"without β₂": {"objective": NO_BETA1}},
        ),
        recorded="reproduced",
        tier="full",
    )
)

SETTINGS = {"(1, ½)": (1.0, 0.5), "(¾, 1)": (0.75, 1.0), "(½, 1)": (0.5, 1.0), "(0, 1)": (0.0, 1.0)}
"""The paper's (β₁, β₂), from the fastest to the slowest decay of entropy it reports."""

register(
    StatisticalClaim(
        id="ce-gppo/order-of-decay",
        paper=PAPER,
        judges=("C2", "C8", "M5"),
        title="The order of entropy decay",
        source=f"{CITATION}, statement C2",
        statement="At equal reward the entropy rises in the order (β₁, β₂) = (1, ½), (¾, 1), (½, 1), (0, 1).",
        scope=f"{SCOPE} {AT_90} The smallest of the three steps is judged.",
        unit="nats per response",
        setting=MODULAR_SUM,
        arms={name: betas(*pair) for name, pair in SETTINGS.items()},
        estimand=in_order(MATCHED, list(SETTINGS)),
        statistic="smallest step",
        direction="greater",
        threshold=0.0,
        planted=0.1,
        null=Null(NULL_REWARD, difference(final("exact/entropy"), of="(0, 1)", minus="(1, ½)")),
        controls=(difference(AT_DIVERGENCE, of="(0, 1)", minus="(1, ½)"),),
        acts=(("(1, ½)", "band/outside_fraction"),),
        falsifier=Falsifier(
            "The two coefficients of every setting are exchanged.",
            {name: betas(above, below) for name, (below, above) in SETTINGS.items()},
        ),
        recorded="reproduced",
        seeds=448,
        tier="full",
    )
)

register(
    StatisticalClaim(
        id="ce-gppo/null-reward-order",
        paper=PAPER,
        judges=("C2", "M1", "M5"),
        title="The order of entropy decay, without a reward",
        source=f"{CITATION}, statement C2",
        statement="The setting (β₁, β₂) = (1, ½) ends at least half a nat below (0, 1) in entropy.",
        scope="Null bandit: 100 arms with a fair coin each, so nothing is learned and the difference is the "
        "objective's own. Tabular policy, learning rate 16.",
        unit="nats per response",
        setting=NULL_REWARD,
        arms={
            "(1, ½)": {"objective": "ce_gppo(beta1=1.0,beta2=0.5)"},
            "(¾, 1)": {"objective": "ce_gppo(beta1=0.75,beta2=1.0)"},
            "(0, 1)": {"objective": NO_BETA1},
        },
        estimand=difference(final("exact/entropy"), of="(1, ½)", minus="(0, 1)"),
        direction="less",
        threshold=-0.5,
        acts=(("(1, ½)", "band/outside_fraction"),),
        curves=("exact/entropy", "band/outside_fraction"),
        falsifier=Falsifier(
            "The two coefficients of the first arm are exchanged.",
            {"(1, ½)": {"objective": "ce_gppo(beta1=0.5,beta2=1.0)"}, "(0, 1)": {"objective": NO_BETA2}},
        ),
        recorded="reproduced",
    )
)


def _misplaced_classes(boundary: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
    """Largest share of sampled tokens, over random policies, whose class moves the entropy the other way.

    The class is the sign of A and the side of the boundary; the truth is the step of the shipped PPO loss on that one
    token at ratio 1, times the gradient of the entropy.
    """
    worst = 0.0
    for seed in range(4):
        logits = random_state(seed).logits
        policy = np.exp(logits - np.logaddexp.reduce(logits))
        low = policy < boundary(logits)
        wrong = 0.0
        for sign in (1.0, -1.0):
            for token in range(logits.size):
                step = BanditState(logits, logits, sign * np.eye(logits.size)[token]).logit_step("ppo")
                rises = float(entropy_gradient(logits) @ step) > 0
                wrong += policy[token] * (rises != (low[token] == (sign > 0))) / 2
        worst = max(worst, float(wrong))
    return worst


register(
    ExactClaim(
        id="ce-gppo/four-classes",
        paper=PAPER,
        judges=("C2", "T4"),
        title="Four classes of tokens and what each does to the entropy",
        source=f"{CITATION}, sections 1 and 3.1",
        statement="An update on one sampled token raises the entropy if the token is improbable with A > 0 or probable "
        "with A < 0 and lowers it otherwise, where improbable means below exp(W₀(κ e^H) - H).",
        scope="Exact, to first order, for a softmax over 50 tokens at ratio 1. The paper gives no boundary between "
        "improbable and probable; with the usual one, a probability of e^-H, the statement is false, and that is the "
        "falsifier.",
        unit="share of sampled tokens in the wrong class",
        measure=lambda: _misplaced_classes(raising_threshold),
        tolerance=0.0,
        falsifier=Falsifier(
            "The boundary is the mean log-probability, as in BAPO: p against e^-H.",
            measure=lambda: _misplaced_classes(naive_threshold),
        ),
        recorded="reproduced",
    )
)
