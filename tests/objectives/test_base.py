"""What every objective shares: the call, the label, the errors of `make_objective`, and the wrappers' delegation."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, dataclass, fields

import pytest
import torch

from testbed import TokenBatch
from testbed.diagnostics import ClipInterval
from testbed.errors import ConfigError, TestbedError, UnknownNameError
from testbed.objectives import (
    HardClip,
    Objective,
    Wrapper,
    make_objective,
    objective_names,
    registry,
)

WRAPPERS = [name for name in objective_names() if issubclass(registry[name], Wrapper)]


@pytest.mark.parametrize("name", objective_names())
def test_label_makes_the_same_object(name):
    default = make_objective(name)
    assert default.label() == name
    assert make_objective(default.label()) == default
    changed = make_objective(name, reduction="seq_mean_token_sum_norm")
    assert changed.label() == (
        name if default.reduction == changed.reduction else f"{name}(reduction=seq_mean_token_sum_norm)"
    )
    assert make_objective(changed.label()) == changed


@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name in objective_names() for preset in registry[name].presets]
)
def test_presets_differ_from_the_defaults_and_have_a_label(name, preset):
    chosen = make_objective(name, preset=preset)
    assert chosen != make_objective(name)
    assert make_objective(chosen.label()) == chosen
    assert make_objective(f"{name}(preset={preset})") == chosen


def test_a_hyper_parameter_overrides_the_preset():
    assert make_objective("dcpo", preset="released", clip_high=0.3).label() == (
        "dcpo(clip_low=0.2,clip_high=0.3,reduction=token_mean)"
    )


def test_an_objective_is_returned_as_it_is():
    objective = make_objective("ppo")
    assert make_objective(objective) is objective


def test_objectives_are_frozen():
    objective = make_objective("ppo")
    with pytest.raises(FrozenInstanceError):
        objective.clip_low = 0.1


@pytest.mark.parametrize("name", objective_names())
def test_a_documented_objective_states_formula_reference_departures_and_gradient(name):
    text = registry[name].__doc__
    for section in ("Reference: ", "Departures: ", "Example:"):
        assert section in text, f"{name} lacks {section}"
    assert "Gradient: " in text


@pytest.mark.parametrize(
    ("name", "hyper_parameters", "error", "message"),
    [
        ("grop", {}, UnknownNameError, r"unknown objective 'grop'; did you mean 'grpo'\?"),
        ("ppo", {"clip_hi": 0.2}, ConfigError, r"ppo has no hyper-parameter 'clip_hi'; did you mean 'clip_high'\?"),
        ("reinforce", {"zzz": 1}, ConfigError, r"reinforce has no hyper-parameter 'zzz'\. It has: reduction"),
        ("ppo", {"reduction": "mean"}, UnknownNameError, r"unknown reduction 'mean'.* Known: seq_mean_token_mean, "),
        ("ppo", {"preset": "released"}, ConfigError, r"ppo has no presets; leave preset='released' out"),
        ("dcpo", {"preset": "relesed"}, UnknownNameError, r"unknown preset of dcpo 'relesed'; did you mean 'released'"),
        ("ppo(clip_low=0.1", {}, ConfigError, r"cannot read 'ppo\(clip_low=0\.1'; expected name or name\(key=value"),
        ("erc", {"base": "dpao"}, UnknownNameError, r"unknown objective 'dpao'; did you mean 'dapo'\?"),
    ],
)
def test_make_objective_rejects(name, hyper_parameters, error, message):
    with pytest.raises(error, match=message):
        make_objective(name, **hyper_parameters)


def test_make_objective_rejects_settings_for_a_finished_object():
    objective = make_objective("dapo")
    with pytest.raises(ConfigError, match=r"\['clip_low'\] given together with the finished objective dapo; pass its"):
        make_objective(objective, clip_low=0.1)


# -- the call ------------------------------------------------------------------------------------------------


def test_output_is_shaped_like_the_batch_and_detached(tokens):
    batch = tokens([[1.1, 0.9, None, None]], [1.0])
    output = make_objective("ppo")(batch)
    assert output.loss.shape == ()
    assert output.loss.requires_grad
    assert output.token_loss.shape == batch.mask.shape
    assert not output.token_loss.requires_grad
    assert all(value.shape == () and not value.requires_grad for value in output.metrics.values())


def test_loss_alone_is_the_loss_of_the_call(tokens):
    batch = tokens([[1.1, 0.9, None], [2.0, None, None]], [1.0, -1.0])
    for name in objective_names():
        objective = make_objective(name)
        if not objective.needs:
            assert torch.equal(objective.loss(batch), objective(batch).loss)


def test_one_batch_serves_any_number_of_backward_passes():
    log_probs = torch.tensor([[-0.5, -1.0, 9.0]], dtype=torch.float64, requires_grad=True)
    batch = TokenBatch(
        log_probs=log_probs,
        old_log_probs=torch.full((1, 3), -0.7, dtype=torch.float64),
        advantages=torch.ones(1, dtype=torch.float64),
        mask=torch.tensor([[True, True, False]]),
    )
    gradients = []
    for objective in (make_objective("ppo"), make_objective("sapo"), make_objective("ppo")):
        log_probs.grad = None
        objective(batch).loss.backward()
        gradients.append(log_probs.grad)
    assert torch.equal(gradients[0], gradients[2])
    assert gradients[0].abs().sum() > 0
    assert gradients[0][0, 2] == 0


# -- wrappers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("base", objective_names())
def test_wrappers_take_over_what_their_base_declares(wrapper, base):
    if base == wrapper:
        with pytest.raises(ConfigError, match=rf"{wrapper}: base is {wrapper}, which holds another {wrapper}"):
            make_objective(wrapper, base=base)
        return
    inside, outside = make_objective(base), make_objective(wrapper, base=base)
    assert isinstance(outside, Objective)
    assert outside.reduction == inside.reduction
    assert outside.advantage == inside.advantage
    assert set(outside.needs) == set(inside.needs) | set(registry[wrapper].needs)
    assert outside.needs_whole_batch == (inside.needs_whole_batch or registry[wrapper].needs_whole_batch)
    assert outside.max_length_or(17) == inside.max_length_or(17)
    for reason in ("exact_on_policy", "acts_without_advantage", "cuts_gradient"):
        assert bool(getattr(outside, reason)) == bool(getattr(inside, reason) or getattr(registry[wrapper], reason))


def test_a_wrapper_leaves_its_class_alone():
    make_objective("erc", base="bapo")
    assert not make_objective("erc").needs_whole_batch
    assert make_objective("erc").needs == ("entropies", "old_entropies")


def test_wrappers_nest():
    label = "reference_kl(base=importance_correction(base=erc(base=dcpo)),kind=k2)"
    nested = make_objective(label)
    assert nested.label() == label
    assert set(nested.needs) == {"entropies", "old_entropies", "sampler_log_probs", "ref_log_probs"}
    assert (nested.reduction, nested.advantage) == ("seq_sum_token_mean", "smooth_standardised")


WRONG = [
    None,
    "wide",
    True,
    3,
    (1.0,),
    {},
    torch.tensor([0.1, 0.2]),
    # Whole numbers that fit into no tensor or no float, and numbers that overflow or vanish in single precision.
    10**25,
    -(10**400),
    1e308,
    5e-324,
    math.inf,
    math.nan,
    (0.6, 10**400),
    # Tensors of the wrong kind, and empty ones.
    torch.tensor(1j),
    torch.tensor(True),
    torch.empty(0, 1, 1),
    torch.tensor(math.inf),
    # Hashed as a key, compared with text, called as a function.
    [],
    b"x",
    1j,
    "1" * 5000,
    "ppo(",
    len,
]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("name", objective_names())
def test_a_hyper_parameter_of_the_wrong_kind_never_reaches_the_loss(name, value):
    """Each either works or is an error of ours at construction; None is a value of some of them, 3 of most."""
    numbers = torch.full((1, 2, 3), -1.0)
    batch = TokenBatch(
        log_probs=numbers,
        old_log_probs=numbers,
        advantages=torch.ones(1, 2),
        mask=torch.ones(1, 2, 3, dtype=torch.bool),
        **dict.fromkeys(("entropies", "old_entropies", "old_kappas", "sampler_log_probs", "ref_log_probs"), -numbers),
    )
    for item in fields(registry[name]):
        try:
            objective = make_objective(name, **{item.name: value})
        except TestbedError:
            continue
        loss = objective(batch).loss
        assert loss.shape == (1,), item.name
        assert loss.isfinite(), item.name
        assert make_objective(objective.label()).label() == objective.label()


def test_a_message_is_short_whatever_was_given():
    with pytest.raises(ConfigError, match=r"ppo: clip_low is '1+…1+'; expected a number") as caught:
        make_objective("ppo", clip_low="1" * 5000)
    assert len(str(caught.value)) < 300


def test_a_search_with_too_many_steps_is_refused():
    # 0.3/1e-9 steps would be as many bounds to compare every token with.
    with pytest.raises(ConfigError, match=r"bapo: low_step is 1e-09; .* from 0\.6 to 0\.9 in at most 1000 steps"):
        make_objective("bapo", low_step=1e-9)


def test_one_value_per_token_is_no_hyper_parameter():
    with pytest.raises(
        ConfigError, match=r"clip_low is a tensor of shape \(3,\); .* Write clip_low\[\.\.\., None, None\]"
    ):
        make_objective("ppo", clip_low=torch.tensor([0.1, 0.2, 0.3]))


# -- objectives by others --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Unregistered(HardClip):
    """Written with what `testbed.objectives` offers: bounds and nothing else."""

    name = "unregistered"

    def clip_interval(self, batch):
        return ClipInterval(0.9, 1.1)


def test_a_hard_clip_states_its_bounds_alone(tokens):
    batch = tokens([[1.5, 1.0, 0.5], [1.5, 1.0, 0.5]], [1.0, -1.0])
    own, ppo = Unregistered(), make_objective("ppo", clip_low=0.1, clip_high=0.1)
    torch.testing.assert_close(own(batch).token_loss, ppo(batch).token_loss, rtol=1e-12, atol=0)
    assert own.has_closed_form
    with torch.no_grad():
        closed = own.log_prob_gradient(batch)
    assert torch.equal(closed, ppo.log_prob_gradient(batch))


def test_hard_clips_are_those_of_one_class():
    hard = {name for name in objective_names() if issubclass(registry[name], HardClip)}
    assert {"ppo", "grpo", "dapo", "dr_grpo", "dcpo", "bapo"} <= hard


def test_a_closed_form_is_declared_where_the_loss_is():
    class Doubled(Unregistered):
        def token_loss(self, batch):
            return 2 * super().token_loss(batch)

    class Stated(Doubled):
        def log_prob_gradient(self, batch):
            return 2 * super().log_prob_gradient(batch)

    class Declared(Unregistered):
        closed_form = False

    class Renamed(Stated):
        name = "renamed"

    assert [kind().has_closed_form for kind in (Doubled, Stated, Declared, Renamed)] == [False, True, False, True]
    assert make_objective("erc", base=Renamed()).has_closed_form
    assert not make_objective("erc", base=Doubled()).has_closed_form
    assert not make_objective("bapo").has_closed_form
