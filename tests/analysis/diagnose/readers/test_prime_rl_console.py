from __future__ import annotations

from analysis.diagnose.log import read_log

PARTS = "Time: {}s | Loss: 0.0123 | Entropy: {} | Mismatch KL: {} | Grad. Norm: {} | LR: 1.00e-06"
LINES = f"""\
12:00:01    INFO Starting
12:00:09 SUCCESS Step 7 | {PARTS.format("3.25", "0.4012", "0.0009", "0.1100")} | Throughput: 12,345 tokens/s
12:00:19 SUCCESS Step 8 | {PARTS.format("3.50", "0.3900", "0.0010", "0.1200")}
"""


def test_the_parts_of_a_line(tmp_path):
    path = tmp_path / "trainer.log"
    path.write_text(LINES)
    log = read_log(path)
    assert log.engine.name == "prime-rl"
    assert log.series["entropy/mean"].steps.tolist() == [7, 8]
    assert log.series["sampler/kl_k3"].values.tolist() == [0.0009, 0.001]
    assert log.series["gradient/norm"].values.tolist() == [0.11, 0.12]
    assert log.series["learning_rate"].values.tolist() == [1e-6, 1e-6]
    assert log.series["time/step"].values.tolist() == [3.25, 3.5]
