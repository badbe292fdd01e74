from __future__ import annotations

import torch

from testbed.objectives import make_objective


def test_value_by_hand(tokens, check):
    # s = 1, 2 and ½ as in the tests of gspo; interval [0.6, 1.5]. Each token is judged by its own A.
    # s = 2: held at 1.5 for A = 1, kept for A = -2. s = ½: kept for A = 1, held at 0.6 for A = -2.
    batch = tokens(
        [[2.0, 0.5], [4.0, 1.0], [0.25, 1.0]],
        [[1.0, -2.0], [1.0, -2.0], [1.0, -2.0]],
    )
    check(
        "gspo_token(clip_low=0.4,clip_high=0.5)",
        batch,
        token_loss=[[-1.0, 2.0], [-1.5, 4.0], [-0.5, 1.2]],
        gradient=[[-1.0, 2.0], [0.0, 4.0], [-0.5, 0.0]],
        loss=(0.5 + 1.25 + 0.35) / 3,
    )


def mutate(monkeypatch):
    """The stop-gradient on the sequence ratio is missing."""
    from testbed.objectives.gspo_token import GSPOToken, clipped_surrogate, straight_through

    def leaking(self, batch):
        ratio = self.sequence_ratio(batch) * straight_through(batch.log_ratio)
        return clipped_surrogate(ratio, batch.advantages, 1 - self.clip_low, 1 + self.clip_high)

    monkeypatch.setattr(GSPOToken, "token_loss", leaking)


def test_equals_gspo_for_one_advantage_per_response(tokens):
    batch = tokens([[2.0, 0.5, None], [4.0, 1.0, 1.1], [0.2, 1.0, 1.0]], [1.0, -0.5, 2.0])
    outputs = [make_objective(name, clip_low=0.4, clip_high=0.5)(batch) for name in ("gspo", "gspo_token")]
    gradients = [torch.autograd.grad(output.loss, batch.log_probs)[0] for output in outputs]
    torch.testing.assert_close(outputs[0].loss, outputs[1].loss, rtol=1e-12, atol=0)
    masked = [gradient.masked_fill(~batch.mask, 0) for gradient in gradients]
    torch.testing.assert_close(masked[0], masked[1], rtol=1e-12, atol=1e-15)
    assert masked[0].abs().sum() > 0
