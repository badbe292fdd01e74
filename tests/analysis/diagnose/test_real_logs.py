"""Logs that were not planted: runs of TRL made for this test, and numbers people published beside a question.

The numbers are retyped from public threads, named in each test; where a thread gives a range, its ends alternate.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.diagnose import diagnose

REAL = Path(__file__).parent / "real"


def found(path, config=None):
    return {item.id: item for item in diagnose(path, config).findings}


def lines(tmp_path, rows):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# -- made here: TRL 1.16, a one-layer model, rewards for digits, at most 12 tokens -------------------------------------


def test_a_run_of_trl_with_one_update_per_rollout():
    named = found(REAL / "trl_one_update.json")
    # It learns to write digits only, never to stop: all responses are cut off from the start, entropy is spent, and
    # groups are equal since.
    assert set(named) == {"truncation", "entropy-collapse", "clipping-cannot-act"}
    assert named["entropy-collapse"].extra["consequences"] == ["no-signal"]
    assert named["clipping-cannot-act"].level == "note"
    assert 5 <= named["entropy-collapse"].since <= 12


def test_its_event_file_says_the_same_and_holds_the_arguments():
    state, events = diagnose(REAL / "trl_one_update.json"), diagnose(REAL / "trl_one_update.tfevents")
    assert [item.id for item in state.findings] == [item.id for item in events.findings]
    assert events.log.configuration.number("updates_per_rollout") == 1
    assert events.findings[-1].level == "warning"
    entropy = events.log.series["entropy/mean"]
    assert state.log.series["entropy/mean"].steps.tolist() == entropy.steps.tolist()
    # Event files hold single precision.
    assert state.log.series["entropy/mean"].values == pytest.approx(entropy.values, rel=1e-6)


def test_a_run_of_trl_with_four_updates_per_rollout():
    named = found(REAL / "trl_four_updates.json", {"num_iterations": 1, "steps_per_generation": 4})
    assert "clipping-cannot-act" not in named
    assert "truncation" in named


# -- published beside a question ---------------------------------------------------------------------------------------


def test_loss_zero_because_every_group_is_dead(tmp_path):
    # huggingface/trl#3857: "if the deviation is not 0, the advantages are not": one of five functions varies, their sum
    # does not.
    row = {
        "loss": 0.0,
        "grad_norm": 0.0,
        "learning_rate": 1.7050844078611056e-06,
        "completions/mean_length": 701.8125,
        "completions/clipped_ratio": 0.0,
        "rewards/if_rewrite_reward/mean": -3.0,
        "rewards/if_rewrite_reward/std": 5.080004692077637,
        "rewards/json_format_reward/mean": 2.0,
        "reward": 3.0,
        "reward_std": 0.0,
        "frac_reward_zero_std": 1.0,
        "clip_ratio/region_mean": 0.0,
    }
    named = found(lines(tmp_path, [row | {"step": step} for step in range(1, 5)]))
    assert named["no-signal"].level == "problem"
    assert "clipping-cannot-act" not in named


def test_clip_ratio_always_zero(tmp_path):
    # huggingface/trl#3120: answered with "what value of num_iterations do you use?"; it was 1.
    rows = [{"step": step, "reward": 0.1 * (step % 4), "clip_ratio": 0.0, "kl": 0.001 * step} for step in range(1, 30)]
    assert found(lines(tmp_path, rows))["clipping-cannot-act"].needs
    config = {"num_iterations": 1, "steps_per_generation": 8, "gradient_accumulation_steps": 8}
    assert found(lines(tmp_path, rows), config)["clipping-cannot-act"].level == "warning"


def test_a_sound_row_of_verl(tmp_path):
    # verl-project/verl#7412, step 34: 7.9e-4 of the tokens clipped, 6e-7 by the dual clip, divergence 8e-6.
    row = {
        "actor/entropy": 0.22266578674316406,
        "actor/pg_clipfrac": 0.0007935191160472839,
        "actor/ppo_kl": -8.163164312320433e-06,
        "actor/pg_clipfrac_lower": 6.1140820869933e-07,
        "actor/pg_loss": 0.042396901015308686,
        "actor/kl_loss": 0.0013280365410537343,
        "actor/grad_norm": 0.129638671875,
        "actor/lr": 2e-06,
        "critic/score/mean": -0.0182796623557806,
        "critic/score/max": 1.0,
        "critic/score/min": -1.0,
        "critic/advantages/max": 1.7888524532318115,
        "critic/advantages/min": -1.7888524532318115,
        "response_length/mean": 1267.024169921875,
        "response_length/max": 3072.0,
    }
    rows = [{"step": 30 + i, "data": row | {"critic/score/mean": -0.018 + 0.001 * (i % 3)}} for i in range(10)]
    assert found(lines(tmp_path, rows)) == {}


def test_mismatch_of_a_quarter(tmp_path):
    # Gen-Verse/OpenClaw-RL#69: train/train_rollout_logprob_abs_diff between 0.2 and 0.4.
    text = "".join(
        f"step {i}: {{'train/train_rollout_logprob_abs_diff': {0.2 + 0.2 * (i % 2)}, 'train/pg_clipfrac': 0.01}}\n"
        for i in range(20)
    )
    path = tmp_path / "slime.log"
    path.write_text(text)
    assert found(path)["mismatch"].level == "problem"


def test_sequence_weights_although_tokens_agree(tmp_path):
    # huggingface/trl#5814: mean weight 0.4 to 0.7 between 0 and the cap, log-probabilities almost equal.
    rows = [
        {
            "step": i,
            "reward": 0.5 + 0.01 * (i % 3),
            "sampling/importance_sampling_ratio/mean": 0.4 + 0.3 * (i % 2),
            "sampling/importance_sampling_ratio/min": 0.0,
            "sampling/importance_sampling_ratio/max": 3.0,
            "sampling/sampling_logp_difference/mean": 0.004,
        }
        for i in range(20)
    ]
    named = found(lines(tmp_path, rows))
    assert set(named) == {"rejected-sequences"}


@pytest.mark.parametrize(("mean", "expected"), [(0.896, "kept-mass"), (0.965, "kept-mass"), (0.9955, None)])
def test_the_mean_weight_is_the_kept_mass(tmp_path, mean, expected):
    # huggingface/trl#7269, vLLM 0.28: means of 0.896, 0.965 and (control) 0.995 where 0.895, 0.965 and 0.994 was kept.
    rows = [
        {
            "step": i,
            "reward": 0.5 + 0.01 * (i % 3),
            "sampling/importance_sampling_ratio/mean": mean + 0.001 * (i % 3 - 1),
            "sampling/importance_sampling_ratio/min": 0.3,
            "sampling/importance_sampling_ratio/max": 1.5 + 0.1 * (i % 4),
            "sampling/sampling_logp_difference/mean": 1.1 * (1 - mean),
        }
        for i in range(20)
    ]
    assert next(iter(found(lines(tmp_path, rows))), None) == expected


def test_an_advantage_of_thousands(tmp_path):
    # NVIDIA-NeMo/RL#4161: an advantage of 7,428.
    rows = [
        {"step": i, "train/advantages/max": 7428.0 if i == 12 else 2.1, "train/reward": 0.5 + 0.01 * (i % 3)}
        for i in range(20)
    ]
    named = found(lines(tmp_path, rows))
    assert (named["advantage-scale"].level, named["advantage-scale"].since) == ("problem", 12)


def test_everything_truncated(tmp_path):
    # huggingface/trl#5697: clipped_ratio 1, mean_terminated_length 0, reward 0.
    row = {"completions/clipped_ratio": 1.0, "completions/mean_terminated_length": 0.0, "reward": 0.0}
    named = found(lines(tmp_path, [row | {"step": i, "entropy": 0.4 + 0.01 * (i % 3)} for i in range(20)]))
    assert {"truncation", "reward-constant"} <= set(named)


def test_gspo_that_is_asynchronous(tmp_path):
    # verl-project/verl#7356: a clipped share of 0.35 to 0.44 where it was 0, with bounds of the paper.
    actor = "actor_rollout_ref.actor"
    config = {
        "data.train_batch_size": 64,
        f"{actor}.ppo_mini_batch_size": 64,
        f"{actor}.policy_loss.loss_mode": "gspo",
        f"{actor}.clip_ratio_low": 3e-4,
        f"{actor}.clip_ratio_high": 4e-4,
    }
    rows = [
        {"step": i, "data": {"actor/pg_clipfrac": 0.35 + 0.09 * (i % 2), "critic/score/mean": 0.5 + 0.01 * (i % 3)}}
        for i in range(20)
    ]
    assert next(iter(found(lines(tmp_path, rows), config))) == "divergence-on-policy"
