"""Q20. Training on pass@k."""

from __future__ import annotations

from functools import partial

from analysis.claims.engines import PAPER, expected_factor, largest
from analysis.judging.claim import ExactClaim, Falsifier, Null, StatisticalClaim, register
from analysis.judging.estimands import difference, final
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry
from testbed.advantages import make_advantage_estimator

file_entry(
    Entry(
        number="Q20",
        source=PAPER,
        statement="Training on pass@k raises entropy and pass@k without costing pass@1.",
        status="toy",
        reason="pass@k itself is not measured; its gradient is.",
    )
)

_RATES, _SIZE = (0.02, 0.1, 0.3, 0.5, 0.9), 8


def _bias(form: str) -> float:
    """Largest difference from k(1-p)^{k-1}, the derivative of pass@k, over k and success rates."""
    return largest(
        [
            _SIZE * expected_factor(partial(make_advantage_estimator("pass_at_k"), k=k, form=form), rate, _SIZE)
            - k * (1 - rate) ** (k - 1)
            for k in (1, 2, 4, 8)
            for rate in _RATES
        ]
    )


register(
    ExactClaim(
        id="engines/pass-at-k-is-unbiased",
        paper=PAPER,
        judges=("Q20",),
        title="PKPO's rewards give the gradient of pass@k",
        source="PKPO, arXiv 2505.15201, as restated; times G, for a mean over responses",
        statement="G times the unbiased form's expected gradient is that of pass@k, for every success rate and k.",
        scope="Exact, in float64, by enumeration: groups of 8, k of 1, 2, 4 and 8, success rates of 0.02 to 0.9. The "
        "analytic form of arXiv 2508.10751 is another estimator, standardised, and not the gradient of pass@k.",
        unit="multiples of the policy gradient",
        measure=lambda: _bias("unbiased"),
        tolerance=1e-10,
        falsifier=Falsifier("The analytic form takes its place.", measure=lambda: _bias("analytic")),
        recorded="reproduced",
    )
)

BANDIT = MODULAR_SUM | {"env": "MultiCorrectBandit-v1"}
PASS_AT_4 = {"objective": "ppo", "advantage": "pass_at_k(k=4)"}
PASS_AT_1 = {"objective": "ppo", "advantage": "group_standardised"}
SCOPE = (
    "MultiCorrectBandit-v1, tabular policy, learning rate 16, 60 rollouts of groups of 16, four passes; k = 4, the "
    "analytic form."
)
SOURCE = "arXiv 2508.10751, abstract"

register(
    StatisticalClaim(
        id="engines/pass-at-k-keeps-entropy",
        paper=PAPER,
        judges=("Q20",),
        title="Training on pass@k keeps entropy",
        source=SOURCE,
        statement="Training on pass@4 ends with at least 0.3 nats more entropy than training on pass@1.",
        scope=SCOPE,
        unit="nats",
        setting=BANDIT,
        arms={"pass@4": PASS_AT_4, "pass@1": PASS_AT_1},
        estimand=difference(final("exact/entropy"), of="pass@4", minus="pass@1"),
        direction="greater",
        threshold=0.3,
        null=Null(BANDIT | {"env": "NullBandit-v1"}, difference(final("exact/entropy"), of="pass@4", minus="pass@1")),
        falsifier=Falsifier("k is 1.", {"pass@4": {"objective": "ppo", "advantage": "pass_at_k(k=1)"}}),
        recorded="reproduced",
        seeds=24,
    )
)

register(
    StatisticalClaim(
        id="engines/pass-at-k-costs-nothing",
        paper=PAPER,
        judges=("Q20",),
        title="Training on pass@k does not cost pass@1",
        source=SOURCE,
        statement="Training on pass@4 ends with a pass@1 within 0.05 of that of training on pass@1.",
        scope=SCOPE,
        unit="reward",
        setting=BANDIT,
        arms={"pass@4": PASS_AT_4, "pass@1": PASS_AT_1},
        estimand=difference(final("exact/return"), of="pass@4", minus="pass@1"),
        direction="equivalent",
        threshold=0.05,
        planted=0.0,
        curves=("exact/return", "exact/entropy"),
        falsifier=Falsifier(
            "The arm of pass@4 learns at a sixteenth of the rate.", {"pass@4": PASS_AT_4 | {"learning_rate": 1.0}}
        ),
        recorded="refuted",
        notes=("Groups in which more than G - k responses are right teach nothing, so that pass@1 stays below one.",),
        seeds=24,
    )
)
