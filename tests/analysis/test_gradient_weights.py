"""The pictures' curves against the closed forms, whose derivations they share no code with."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.gradient_weights import LARGEST_RATIO, RATIOS, describe, gradient_weight_curves, gradient_weight_figure
from analysis.theory.gradient_weights import Tokens, gradient_weight, objectives_with_closed_form
from testbed.objectives import make_objective, objective_names


def closed_form(name, sign, old=0.1):
    """F of one-token responses of every ratio, a batch each: no statistic of a batch sees two of them."""
    ones = np.ones((1, 1))

    def weight(ratio):
        return gradient_weight(
            name,
            Tokens(np.log(old * ratio) * ones, np.log(old) * ones, sign * ones, ones.astype(bool), ones, ones),
        )[0, 0]

    return np.array([weight(ratio) for ratio in RATIOS])


@pytest.mark.parametrize("name", objectives_with_closed_form())
def test_curves_are_the_closed_forms(name):
    curves = {curve.label: curve for curve in gradient_weight_curves(name)}
    curve = curves.get("q = 0.1") or curves.get("H/H_old = 1") or curves[name]
    np.testing.assert_allclose(curve.positive, closed_form(name, 1.0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(curve.negative, closed_form(name, -1.0), rtol=1e-9, atol=1e-12)


def test_curves_end_where_the_probability_would_exceed_one():
    (curve,) = [curve for curve in gradient_weight_curves("dcpo") if curve.label == "q = 0.5"]
    assert (np.isnan(curve.positive) == (RATIOS > 2)).all()


def test_old_probabilities_that_make_no_difference_are_drawn_once():
    assert [curve.label for curve in gradient_weight_curves("sapo(tau_pos=2.0)")] == [
        "ppo, for comparison",
        "sapo(tau_pos=2.0)",
    ]
    assert [curve.label for curve in gradient_weight_curves("dcpo")][1:] == [f"q = {q}" for q in (0.01, 0.1, 0.5, 0.9)]


def test_conditions_an_objective_reads_have_curves():
    # A sampler a quarter as likely weights by 2, the cap, and a sampler twice as likely by ½.
    curves = {curve.label: curve for curve in gradient_weight_curves("importance_correction(base=reinforce)")}
    for label, weight in (("q/p_sampler = 1", 1.0), ("q/p_sampler = 0.5", 0.5), ("q/p_sampler = 4", 2.0)):
        np.testing.assert_allclose(curves[label].positive, weight, rtol=1e-12)


def test_a_penalty_adds_to_the_weight():
    # k2 with p_ref = q: β·log r, in the direction of -A·F: F = 1 - β·log r for A = 1.
    curves = {curve.label: curve for curve in gradient_weight_curves("reference_kl(base=reinforce,kind=k2)")}
    np.testing.assert_allclose(curves["p_ref/q = 1"].positive, 1 - 0.04 * np.log(RATIOS), rtol=1e-12)
    np.testing.assert_allclose(curves["p_ref/q = 1"].negative, 1 + 0.04 * np.log(RATIOS), rtol=1e-12)


def test_an_objective_that_is_registered_nowhere_can_be_drawn():
    from testbed.objectives.ppo import PPO

    class Halved(PPO):
        name = "halved"

        def token_loss(self, batch):
            return super().token_loss(batch) / 2

    reference, halved = gradient_weight_curves(Halved())
    np.testing.assert_allclose(2 * halved.positive, reference.positive, rtol=1e-12)


def test_figure_is_labelled():
    figure = gradient_weight_figure("dcpo")
    left, right = figure.axes
    assert left.get_title(loc="left") == "dcpo, A > 0"
    assert right.get_title(loc="left") == "dcpo, A < 0"
    assert left.get_xlabel() == "ratio r = p/q (1)"
    assert left.get_ylabel() == "gradient weight F (1)"
    assert left.get_xlim() == right.get_xlim() == (0, LARGEST_RATIO)
    assert len(left.get_lines()) == 5


@pytest.mark.parametrize("name", objective_names())
def test_description_has_the_formula_and_no_code(name):
    text = describe(name)
    assert "ℓ" in text or "L = " in text
    assert "Reference: " in text
    assert ">>>" not in text
    assert make_objective(name).name == name
