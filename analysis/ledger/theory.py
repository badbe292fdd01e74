"""Exact statements (T): what can be proved and is checked to a tolerance, with the statistical claims that use it."""

from __future__ import annotations

from analysis.ledger._entry import Entry, file_entry

SOURCE = "Theory"

for number, statement, claims in (
    (
        "T1",
        "At ratio 1 all objectives with a clip, a gate or a band have the same gradient.",
        ("theory/on-policy-identity", "bapo/balanced-on-policy"),
    ),
    (
        "T2",
        "The gradients of the shipped losses are the closed-form weights of the published equations.",
        ("theory/gradient-weights", "ce-gppo/zero-betas-are-ppo", "erc/kept-means-unmoved"),
    ),
    (
        "T3",
        "Entropy moves at the rate -Cov(π(log π + H), X·A) for every gate X; a finite step departs in first order.",
        ("theory/entropy-rate", "bapo/entropy-rule-with-the-probability", "bapo/entropy-rule-as-printed"),
    ),
    (
        "T4",
        "A threshold given by Lambert's function decides which sampled tokens raise the entropy.",
        ("theory/raising-threshold", "ce-gppo/four-classes"),
    ),
    ("T5", "The needle's flow and regret, and the replicator, in closed form.", ("theory/bandit-flow",)),
    (
        "T6",
        "Dynamic programming finds the Gibbs optimum; for a right-or-wrong reward success and divergence are explicit.",
        ("theory/gibbs-optimum",),
    ),
    (
        "T7",
        "The largest total variation under in-clip ratios of the sampled tokens is attained and never exceeded.",
        ("theory/trust-region-drift", "erc/unsampled-drift", "erc/unsampled-drift-shared"),
    ),
    (
        "T8",
        "Identities of DCPO's bounds, its cap, and the probability above which nothing can be clipped.",
        ("theory/dcpo-bounds", "dcpo/likely-tokens-are-never-clipped"),
    ),
    (
        "T9",
        "SAPO's gradient weight is r·sech²(τ(r-1)/2), within a variance bound of a gate on the sequence.",
        ("theory/sapo-gate", "sapo/outlier-tokens"),
    ),
    (
        "T10",
        "The factors of group standardisation and centring on the expected gradient, and the surrogate reward of a "
        "mean per response.",
        ("theory/normalisation-bias", "baselines/standardisation-favours-hard-prompts", "baselines/length-bias"),
    ),
    (
        "T11",
        "Shares of groups without contrast, with and without smooth standardisation, and the cost of resampling.",
        ("theory/degenerate-groups", "dcpo/response-utilisation", "dcpo/dynamic-sampling-cost"),
    ),
    (
        "T12",
        "Noise moves the entropy by a trace whose sign changes with the policy's peakedness.",
        ("theory/neutral-drift", "baselines/neutral-drift-changes-sign"),
    ),
):
    file_entry(Entry(number=number, source=SOURCE, statement=statement, status="exact", claims=claims))
