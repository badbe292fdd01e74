from __future__ import annotations

from types import SimpleNamespace

import pytest

from analysis.diagnose.live import LiveDiagnosis, RunWarning
from analysis.diagnose.verl_logger import RunStopped, VerlLogger, watch
from testbed.errors import ConfigError, UnknownNameError


def row(step, clipped=0.02):
    return {"reward": 0.3 + 0.01 * (step % 7), "entropy": 0.5, "completions/clipped_ratio": clipped, "grad_norm": 0.3}


def watched(steps, **options):
    said = []
    live = LiveDiagnosis(share=1.0, report=lambda finding: said.append((finding.id, finding.level)), **options)
    for step in range(steps):
        live.update(step, row(step, clipped=0.02 if step < 20 else 0.9))
    return live, said


def test_a_finding_is_said_once_and_again_when_it_gets_worse():
    live = LiveDiagnosis(share=1.0, report=lambda finding: said.append((finding.id, finding.level)))
    said: list[tuple[str, str]] = []
    for step in range(60):
        live.update(step, row(step, clipped=0.4 if step < 30 else 0.9))
    assert said == [("truncation", "warning"), ("truncation", "problem")]


def test_a_sound_run_is_not_spoken_of():
    assert watched(20)[1] == []


@pytest.mark.parametrize("stop_on", ["problem", "truncation", ["truncation", "mismatch"]])
def test_it_stops_where_that_is_asked_for(stop_on):
    live, _ = watched(40, stop_on=stop_on)
    assert live.should_stop


def test_it_does_not_stop_otherwise():
    assert not watched(40)[0].should_stop
    assert not watched(40, stop_on=["mismatch"])[0].should_stop


def test_the_rules_take_their_share_of_the_time_and_no_more():
    # A clock on which a step takes a second and a look takes a hundred: a look is allowed every 20,000 seconds.
    now = [0.0]
    live = LiveDiagnosis(share=0.005, clock=lambda: now[0])
    looks = []
    original = live.look

    def slow_look():
        looks.append(now[0])
        original()
        now[0] += 100.0
        live._spent, live._last = live._spent + 100.0, 100.0

    live.look = slow_look
    for step in range(60_000):
        now[0] += 1.0
        live.update(step, row(step)) if step < 20 or step % 1000 == 0 else None
    assert 2 <= len(looks) <= 4
    assert 100.0 * len(looks) <= 0.005 * now[0] + 200.0


def test_warnings_are_warnings():
    live = LiveDiagnosis(share=1.0)
    for step in range(11):
        live.update(step, row(step, clipped=0.9))
    with pytest.warns(RunWarning, match="truncation"):
        live.update(11, row(11, clipped=0.9))


def test_what_is_no_level_and_no_rule_is_refused():
    with pytest.raises(UnknownNameError, match="truncation"):
        LiveDiagnosis(stop_on="trunkation")
    with pytest.raises(ConfigError, match="share is 0"):
        LiveDiagnosis(share=0)


def test_it_is_a_logger_of_verl():
    data = {"critic/score/mean": 0.5, "response_length/clip_ratio": 0.9, "actor/entropy": 0.4}
    tracking = SimpleNamespace(logger={"console": None})
    logger = watch(
        tracking, {"data": {"max_response_length": 512}}, stop_on="problem", share=1.0, report=lambda _: None
    )
    assert tracking.logger["testbed"] is logger
    for step in range(11):
        logger.log(data=data | {"critic/score/mean": 0.1 * step}, step=step)
    with pytest.raises(RunStopped, match=r"stopped at step 11: .*\[truncation\]"):
        logger.log(data=data, step=11)


def test_a_logger_of_verl_does_not_stop_by_itself():
    logger = VerlLogger(share=1.0, report=lambda _: None)
    for step in range(30):
        logger.log(data={"critic/score/mean": 0.5, "response_length/clip_ratio": 0.9}, step=step)
    assert logger.live.latest is not None


def test_it_is_a_callback_of_transformers():
    from analysis.diagnose.trl_callback import TestbedCallback

    callback = TestbedCallback(stop_on="problem", share=1.0, report=lambda _: None)
    args = SimpleNamespace(num_iterations=2, gradient_accumulation_steps=1, world_size=1)
    state = SimpleNamespace(global_step=0, is_world_process_zero=True)
    control = SimpleNamespace(should_training_stop=False)
    callback.on_train_begin(args, state, control)
    for step in range(20):
        state.global_step = step
        callback.on_log(args, state, control, logs=row(step, clipped=0.9))
    assert control.should_training_stop
    assert callback.live.latest is not None
    assert callback.live.latest.log.configuration.number("updates_per_rollout") == 2
