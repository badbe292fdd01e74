"""Mechanisms (M): what the papers' statements rest on, and what their baselines do."""

from __future__ import annotations

from analysis.ledger._entry import Entry, file_entry

SOURCE = "Mechanisms"

for number, status, statement, claims, reason in (
    (
        "M1",
        "toy",
        "Without a reward signal the entropy falls or rises with (ε_low, ε_high); the boundary lies at equal offsets "
        "(arithmetic) or at ε_low/(1-ε_low) (logarithmic).",
        (
            "baselines/noise-grid",
            "baselines/noise-order-peaked",
            "baselines/noise-order-spread",
            "baselines/noise-boundary-arithmetic",
            "baselines/noise-boundary-logarithmic",
            "ce-gppo/null-reward-order",
        ),
        "Directions over a grid, the boundary at the two points that tell the rules apart. Over tens of rollouts "
        "repeated wins of single arms take over, and from spread policies noise lowers the entropy at any offsets.",
    ),
    (
        "M2",
        "toy",
        "Without a lower clip the entropy collapses; with a tight one it explodes.",
        ("baselines/no-lower-clip-collapses", "baselines/tight-lower-clip-explodes"),
        "",
    ),
    (
        "M3",
        "toy",
        "The unclipped ratio objective against PPO on modular sum.",
        ("baselines/clip-protects-reward", "baselines/clip-limits-divergence"),
        "A table forgives large steps; damage to other states needs shared parameters.",
    ),
    (
        "M4",
        "toy",
        "A higher upper bound keeps entropy at equal reward.",
        ("baselines/clip-higher-keeps-entropy", "bapo/raising-the-upper-bound"),
        "",
    ),
    (
        "M5",
        "toy",
        "CE-GPPO's β₁ and β₂ steer the entropy monotonically, in opposite directions.",
        (
            "ce-gppo/beta1-lowers-entropy",
            "ce-gppo/beta2-raises-entropy",
            "ce-gppo/order-of-decay",
            "ce-gppo/null-reward-order",
        ),
        "",
    ),
    (
        "M6",
        "toy",
        "ERC masks many times more tokens than PPO clips, mostly at low entropy, and so keeps divergence and entropy "
        "ratios small.",
        (
            "erc/mask-share",
            "erc/masks-low-entropy-tokens",
            "erc/smaller-steps",
            "erc/smaller-entropy-excursions",
            "erc/rarer-entropy-excursions",
            "erc/rarer-entropy-excursions-same-movement",
        ),
        "",
    ),
    (
        "M7",
        "toy",
        "DCPO's token clip ratio against that of GRPO and DAPO, and the updates for which an order of magnitude holds.",
        ("dcpo/token-clip-ratio", "dcpo/token-clip-ratio-large-updates", "dcpo/likely-tokens-are-never-clipped"),
        "",
    ),
    (
        "M8",
        "toy",
        "Discovery of rare arms: DCPO against GRPO, DAPO and no clip.",
        ("dcpo/rare-arm-regret", "dcpo/rare-arm-regret-tuned", "ce-gppo/rare-solution-regret"),
        "",
    ),
    (
        "M9",
        "toy",
        "GSPO, GRPO and SAPO when ratios are noisy in long responses.",
        ("sapo/outlier-tokens", "sapo/staleness-reward", "sapo/replay-narrows-ratios"),
        "Noise enters through stale rollouts, routing and single outliers. Noise added to the ratio itself, and "
        "responses of 32 tokens, are not simulated: the ratio's denominator is always the trainer's own.",
    ),
    (
        "M10",
        "toy",
        "Clip share, drift, gradient norm, entropy and reward as rollouts get older.",
        (
            "baselines/staleness-clips-in-order",
            "baselines/staleness-costs-reward-in-order",
            "bapo/staleness-clips-more",
            "bapo/staleness-gradients",
            "bapo/staleness-lowers-entropy",
            "bapo/reward-under-staleness",
            "sapo/extreme-staleness",
        ),
        "",
    ),
    (
        "M11",
        "toy",
        "Without a clip the policy commits to what it happened to see first.",
        ("baselines/no-clip-locks-in", "dcpo/rare-arm-regret"),
        "At moderate steps the order is reversed: there the clip is what keeps rare arms from being found.",
    ),
    (
        "M12",
        "toy",
        "BAPO against PPO and its own fixed intervals, under staleness and with longer wrong responses.",
        (
            "bapo/entropy-against-ppo-at-equal-lengths",
            "bapo/entropy-against-ppo-when-wrong-is-longer",
            "bapo/entropy-against-its-starting-interval",
            "bapo/reward-under-staleness",
            "bapo/search-moves-at-equal-lengths",
            "bapo/search-moves-when-wrong-is-longer",
            "bapo/length-lowers-the-positive-share",
        ),
        "",
    ),
    (
        "M13",
        "toy",
        "SAPO's τ_neg around and far from 1, and the gradient that clean tokens keep beside an outlier.",
        ("sapo/tau-order", "sapo/tau-order-wide", "sapo/outlier-tokens"),
        "",
    ),
    (
        "M14",
        "toy",
        "Smooth standardisation and dynamic sampling: share of responses used, samples to a target reward.",
        (
            "dcpo/response-utilisation",
            "dcpo/samples-to-target",
            "dcpo/samples-to-target-tuned",
            "dcpo/dynamic-sampling-cost",
        ),
        "",
    ),
    (
        "M15",
        "small",
        "With shared parameters ratios leave the interval in a single pass, without any reuse of responses.",
        ("baselines/sharing-clips-without-reuse", "erc/unsampled-drift-shared"),
        "",
    ),
    (
        "M16",
        "small",
        "In a mixture of experts changes of routing widen the ratio, replay narrows it, and objectives differ in what "
        "they tolerate.",
        ("sapo/replay-narrows-ratios", "sapo/needs-no-replay", "sapo/grpo-needs-replay"),
        "",
    ),
):
    file_entry(Entry(number=number, source=SOURCE, statement=statement, status=status, claims=claims, reason=reason))
