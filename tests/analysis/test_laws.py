"""Each law can be broken: an objective sabotaged in one way fails that law, and a true declaration exempts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from analysis import laws
from analysis.laws import LAWS, check_laws, draw, loss_and_gradient
from testbed import TokenBatch
from testbed.objectives import Hyper, Objective


@dataclass(frozen=True, kw_only=True)
class Plain(Objective):
    """-r·A, which breaks no law."""

    name = "plain"
    scale: Hyper = 1.0

    def token_loss(self, batch: TokenBatch) -> torch.Tensor:
        return -self.scale * batch.ratio * batch.advantages


class Spills(Plain):
    def token_loss(self, batch):
        return super().token_loss(batch) + (~batch.mask).to(batch.log_probs.dtype)


class Writes(Plain):
    def token_loss(self, batch):
        loss = super().token_loss(batch)
        batch.old_log_probs.data.add_(0.1)
        return loss


class Draws(Plain):
    def token_loss(self, batch):
        return super().token_loss(batch) * (1 + torch.rand(()))


class DividesByWidth(Plain):
    def loss(self, batch):
        return self(batch).token_loss.sum((-2, -1)) * 0 + self.token_loss(batch).sum((-2, -1)) / batch.mask.shape[-1]


class PrefersTheFirst(Plain):
    def token_loss(self, batch):
        order = torch.arange(batch.mask.shape[-2], dtype=batch.log_probs.dtype).unsqueeze(-1)
        return super().token_loss(batch) / (1 + order)


class AveragesReplicas(Plain):
    def token_loss(self, batch):
        return super().token_loss(batch) * batch.advantages.abs().mean()


class WhitensTheBatch(Plain):
    def token_loss(self, batch):
        return super().token_loss(batch) / batch.advantages.square().mean((-2, -1), keepdim=True)


class ReadsInSecret(Plain):
    def token_loss(self, batch):
        loss = super().token_loss(batch)
        return loss if batch.entropies is None else loss * (1 + batch.entropies)


class AsksForWhatItIgnores(Plain):
    needs = ("ref_log_probs",)

    def _readable(self, batch):
        return batch.trimmed()


class DoublesTheGradient(Plain):
    def token_loss(self, batch):
        return 2 * super().token_loss(batch)


class ActsWithoutAdvantage(Plain):
    def token_loss(self, batch):
        return super().token_loss(batch) + 0.1 * batch.log_ratio.square()


class Overflows(Plain):
    def token_loss(self, batch):
        return -(10 * batch.log_ratio).exp() * batch.advantages


class ReadsTheNextToken(Plain):
    def token_loss(self, batch):
        return -self.scale * (batch.ratio * batch.advantages.roll(1, -1)).where(batch.mask, 0)


class CentresTheResponse(Plain):
    def token_loss(self, batch):
        return -self.scale * batch.ratio * (batch.advantages - batch.advantages.mean(-1, keepdim=True))


class FollowsTheNextToken(Plain):
    def token_loss(self, batch):
        # The value is right, the gradient is the neighbour's.
        pull = (batch.ratio - batch.ratio.detach()) * (batch.advantages.roll(-1, -1) - batch.advantages)
        return super().token_loss(batch) - self.scale * pull


class ReadsTheNextResponse(Plain):
    def token_loss(self, batch):
        return -self.scale * (batch.ratio * batch.advantages.roll(1, -2)).where(batch.mask, 0)


class DividesByTheMaximum(Plain):
    def token_loss(self, batch):
        return super().token_loss(batch) / batch.advantages.abs().amax((-2, -1), keepdim=True).clamp(min=4)


class YieldsToOneFarToken(Plain):
    def token_loss(self, batch):
        # Beyond any ratio of an ordinary batch, so that only an extreme one brings it out.
        far = batch.log_ratio.detach().amax((-2, -1), keepdim=True) > 9
        return super().token_loss(batch) * torch.where(far, 0.5, 1.0)


class YieldsToOneUnlikelyToken(Plain):
    def token_loss(self, batch):
        return super().token_loss(batch) * torch.where(batch.old_log_probs.amin((-2, -1), keepdim=True) < -20, 0.5, 1.0)


class DividesByTheMeanLength(Plain):
    def token_loss(self, batch):
        return super().token_loss(batch) / batch.mask.sum(-1, keepdim=True).double().mean(-2, keepdim=True)


class StopsWhenMostAreClipped(Plain):
    def token_loss(self, batch):
        most = (batch.ratio.detach() > 1.2).double().mean((-2, -1), keepdim=True) > 0.4
        return super().token_loss(batch) * torch.where(most, 0.0, 1.0)


class AveragesOverEverything(Plain):
    def token_loss(self, batch):
        return super().token_loss(batch) / (1 + batch.ratio.detach().mean())


class HasNoGradient(Plain):
    def token_loss(self, batch):
        return -batch.advantages * batch.ratio.detach().clamp(max=1.2)


class LosesDigits(Plain):
    def token_loss(self, batch):
        return -((batch.ratio + 1e6) - 1e6) * batch.advantages


class CutsInSecret(Plain):
    def token_loss(self, batch):
        return -batch.ratio.detach() * batch.advantages * batch.log_probs


class StatesAWrongGradient(Plain):
    def log_prob_gradient(self, batch):
        return batch.ratio * batch.advantages


class TakesNoTensor(Plain):
    def token_loss(self, batch):
        return -float(torch.as_tensor(self.scale).mean()) * batch.ratio * batch.advantages


SABOTAGE = [
    ("shapes", Spills, "not 0 outside the mask"),
    ("purity", Writes, "changes .*old_log_probs"),
    ("purity", Draws, "two calls"),
    ("padding", DividesByWidth, "depends on the padding"),
    ("gradient", HasNoGradient, "the loss has no gradient: nothing in it depends on log_probs"),
    ("own advantage", ReadsTheNextToken, "declare mixes_advantages"),
    ("own advantage", CentresTheResponse, "declare mixes_advantages"),
    ("own advantage", FollowsTheNextToken, "the gradient of token_loss differs .* declare mixes_advantages"),
    ("other responses", ReadsTheNextResponse, "one response has an extreme advantages, .* declare needs_whole_batch"),
    ("other responses", DividesByTheMaximum, "an extreme advantages"),
    ("other responses", YieldsToOneFarToken, "an extreme log_probs"),
    ("other responses", YieldsToOneUnlikelyToken, "an extreme old_log_probs"),
    ("other responses", DividesByTheMeanLength, "an extreme length"),
    ("other responses", StopsWhenMostAreClipped, "all but one response have an extreme log_probs"),
    ("other responses", AveragesOverEverything, "an extreme log_probs"),
    ("order", PrefersTheFirst, "differs by"),
    ("replicas", AveragesReplicas, "beside another replica"),
    ("micro-batches", WhitensTheBatch, "declare needs_whole_batch"),
    ("needs", ReadsInSecret, "changes without .*entropies"),
    ("needs", AsksForWhatItIgnores, "a batch without it is accepted"),
    ("on-policy", DoublesTheGradient, "declare exact_on_policy"),
    ("no advantage", ActsWithoutAdvantage, "declare acts_without_advantage"),
    ("extremes", Overflows, "not finite"),
    ("single precision", LosesDigits, "five digits"),
    ("derivative", CutsInSecret, "declare cuts_gradient"),
    ("closed form", StatesAWrongGradient, "against autograd"),
    ("hyper-parameters", TakesNoTensor, "with three values of scale"),
]


def test_an_honest_objective_breaks_no_law() -> None:
    outcomes = {finding.law: finding.outcome for finding in check_laws(Plain())}
    assert outcomes == {law.name: "exempt" if law.name == "closed form" else "holds" for law in LAWS}


def test_every_law_has_a_sabotage() -> None:
    assert {name for name, *_ in SABOTAGE} == {law.name for law in LAWS}


@pytest.mark.parametrize(("law", "sabotaged", "words"), SABOTAGE, ids=[item[1].__name__ for item in SABOTAGE])
def test_a_sabotaged_objective_breaks_it(law: str, sabotaged: type[Plain], words: str) -> None:
    (finding,) = check_laws(sabotaged(), [item for item in LAWS if item.name == law])
    assert finding.outcome == "broken"
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(finding.detail)


@pytest.mark.parametrize(
    ("law", "declaration"),
    [
        ("micro-batches", {"needs_whole_batch": True}),
        ("own advantage", {"mixes_advantages": "a reason"}),
        ("on-policy", {"exact_on_policy": "a reason"}),
        ("no advantage", {"acts_without_advantage": "a reason"}),
        ("derivative", {"cuts_gradient": "a reason"}),
    ],
)
def test_an_untrue_declaration_is_a_finding(law: str, declaration: dict[str, object]) -> None:
    declared = type("Declared", (Plain,), declaration)()
    (finding,) = check_laws(declared, [item for item in LAWS if item.name == law])
    assert (finding.outcome, "declares" in finding.detail) == ("broken", True)


def test_a_true_declaration_exempts_with_its_reason() -> None:
    declared = type("Declared", (CutsInSecret,), {"cuts_gradient": "the ratio"})()
    (finding,) = check_laws(declared, [law for law in LAWS if law.name == "derivative"])
    assert (finding.outcome, finding.detail) == ("exempt", "the ratio")


def test_an_error_is_a_finding_and_not_a_crash() -> None:
    class Crashes(Plain):
        def token_loss(self, batch):
            raise IndexError("no such token")

    first, *others = check_laws(Crashes())
    assert (first.outcome, first.detail) == ("broken", "it raised IndexError: no such token")
    assert {(finding.outcome, finding.cause) for finding in others} == {("unchecked", "gradient")}


@pytest.mark.parametrize(
    ("sabotaged", "broken"),
    [
        (HasNoGradient, "gradient"),
        (Draws, "purity"),
        (Spills, "shapes"),
        (ReadsTheNextToken, "own advantage"),
        (ReadsTheNextResponse, "other responses"),
        (DividesByTheMaximum, "other responses"),
        (YieldsToOneFarToken, "other responses"),
        (AveragesOverEverything, "other responses"),
        (WhitensTheBatch, "other responses"),
    ],
)
def test_one_mistake_is_one_finding(sabotaged: type[Plain], broken: str) -> None:
    findings = check_laws(sabotaged())
    assert [finding.law for finding in findings if finding.outcome == "broken"] == [broken]
    assert {finding.cause for finding in findings if finding.outcome == "unchecked"} == {broken}


def test_what_a_law_rests_on_comes_before_it() -> None:
    names = [law.name for law in LAWS]
    assert all(name in names[: names.index(law.name)] for law in LAWS for name in law.rests_on)


@pytest.mark.parametrize("rows", [laws._ONE, laws._OTHERS], ids=["one", "others"])
def test_every_extreme_leaves_the_other_responses_alone(rows: list[int]) -> None:
    given, kept = draw(2, 40, 8), [row for row in range(40) if row not in rows]
    for name, size in laws._EXTREMES:
        changed = laws._with_extreme(given, name, size, rows)
        moved = {field for field in given if not torch.equal(given[field], changed[field])}
        # Four log-probabilities go together: a token that was unlikely for everybody.
        assert name in moved
        assert moved == {name} or name == "old_log_probs"
        for field in given:
            assert torch.equal(changed[field][0], given[field][0])
            assert torch.equal(changed[field][1, kept], given[field][1, kept])


def test_drawn_batches_meet_both_sides_and_an_empty_response() -> None:
    given = draw(2, 160, 64)
    ratio = (given["log_probs"] - given["old_log_probs"]).exp()[given["mask"]]
    assert (ratio < 0.5).any()
    assert (ratio > 2).any()
    assert ((ratio - 1).abs() < 1e-3).any()
    assert (~given["mask"].any(-1)).any()
    assert (given["advantages"] == 0).any()


def test_the_gradient_is_taken_of_the_callers_tensor() -> None:
    # -r·A averaged over tokens: the gradient of one token alone is -r·A.
    given = draw(1, 1)
    given["mask"] = torch.ones(1, 1, dtype=torch.bool)
    given["advantages"] = torch.tensor([2.0], dtype=torch.float64)
    given["log_probs"] = given["old_log_probs"] + torch.tensor(3.0, dtype=torch.float64).log()
    loss, gradient = loss_and_gradient(replace(Plain(), scale=1.0), given.batch())
    assert loss.item() == pytest.approx(-6.0, rel=1e-12)
    assert gradient.item() == pytest.approx(-6.0, rel=1e-12)
