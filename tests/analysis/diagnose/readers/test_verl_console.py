from __future__ import annotations

from analysis.diagnose.log import read_log

LINES = """\
some banner
\x1b[36m(TaskRunner pid=47)\x1b[0m step:0 - actor/pg_loss:np.float64(1) - actor/ppo_kl:-1.5e-05 - critic/score/mean:0.5
(TaskRunner pid=4711) Training Progress:   1%|          | 1/100
\x1b[36m(TaskRunner pid=4711)\x1b[0m step:1 - actor/pg_loss:nan - actor/ppo_kl:0.0 - critic/score/mean:np.float32(0.75)
step:2 - actor/pg_loss:tensor(0.5) - val-core/openai/gsm8k/reward/mean@1:0.3 - critic/score/mean:1
"""


def test_prefixes_colours_and_scalars(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text(LINES)
    log = read_log(path)
    assert log.engine.name == "verl"
    assert log.series["reward/mean"].values.tolist() == [0.5, 0.75, 1.0]
    assert log.series["kl/old"].values.tolist() == [-1.5e-05, 0.0]
    assert log.series["loss"].bad.tolist() == [0, 1, 0]
    assert log.series["evaluation/reward"].values.tolist() == [0.3]
