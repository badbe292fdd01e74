from __future__ import annotations

from analysis.diagnose.log import read_log

SLIME = """\
[2026-08-21 10:00:00] rollout.py:99 - rollout 3: {'rollout/raw_reward': 0.25, 'rollout/rewards': np.float64(1e-9)}
[2026-08-21 10:00:09] model.py:12 - step 12: {'train/loss': 0.1, 'train/entropy_loss': 0.6, 'train/ppo_kl': nan}
[2026-08-21 10:01:00] rollout.py:99 - rollout 4: {'rollout/raw_reward': 0.5, 'rollout/truncated_ratio': 0.0}
[2026-08-21 10:01:09] model.py:12 - step 13: {'train/loss': -0.1, 'train/entropy_loss': 0.5, 'train/ppo_kl': 0.001}
"""


def test_slime_has_an_axis_for_rollouts_and_one_for_updates(tmp_path):
    path = tmp_path / "slime.log"
    path.write_text(SLIME)
    log = read_log(path)
    assert log.engine.name == "slime"
    # raw_reward and not rewards, which are normalised.
    assert log.series["reward/mean"].values.tolist() == [0.25, 0.5]
    assert log.series["reward/mean"].steps.tolist() == [3, 4]
    assert log.series["entropy/mean"].steps.tolist() == [12, 13]
    assert log.series["kl/old"].bad.tolist() == [1, 0]


def test_what_transformers_prints(tmp_path):
    path = tmp_path / "out.log"
    path.write_text("".join(f"{{'loss': '0.0', 'reward': '0.{i}', 'entropy': 0.5, 'epoch': 0.1}}\n" for i in range(5)))
    log = read_log(path)
    assert log.engine.name == "trl"
    assert log.series["reward/mean"].values.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]


def test_nothing_is_executed(tmp_path):
    path = tmp_path / "out.log"
    path.write_text("{'reward': __import__('os').abort()}\n{'reward': 0.5, 'entropy': 1.0}\n")
    assert read_log(path).series["reward/mean"].values.tolist() == [0.5]
