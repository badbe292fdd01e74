from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.theory.gradient_weights import autograd_update, random_tokens
from analysis.theory.on_policy import on_policy_weight, positive_share


def test_identity_ends_with_the_first_step_off_policy():
    # The same eight objectives that agree at ratio 1 give eight different gradients once the ratio has moved.
    names = ["ppo", "dapo", "gspo", "sapo", "dcpo", "ce_gppo", "erc", "bapo"]
    assert all(np.abs(on_policy_weight(name) - 1).max() < 1e-12 for name in names)
    tokens = random_tokens(0)
    gradients = [autograd_update(f"{name}(reduction=token_mean)", tokens) for name in names]
    for index, first in enumerate(gradients):
        for second in gradients[:index]:
            assert np.abs(first - second).max() > 1e-4


@pytest.mark.parametrize("successes", [1, 3, 7])
def test_group_centred_advantages_balance(successes):
    rewards = np.array([1.0] * successes + [0.0] * (8 - successes))
    assert positive_share(rewards - rewards.mean()) == pytest.approx(0.5, rel=1e-12)


def test_degenerate_group_has_no_share():
    assert math.isnan(positive_share([0.0, 0.0]))
