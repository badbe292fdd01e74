"""The report card: which objectives it can read, what it finds, and what it writes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import analysis.audit
from analysis.audit import STRESSES, Measured, StressResult, _verdict, audit, load_objective, twins
from analysis.judging.estimands import average, final
from analysis.laws import Finding, check_laws
from testbed.cli import app
from testbed.errors import ConfigError, RunExistsError, UnknownNameError
from testbed.objectives import make_objective, objective_names
from testbed.objectives.ppo import PPO

WRITTEN = '''
from dataclasses import dataclass
import torch
from testbed.objectives import Objective

@dataclass(frozen=True, kw_only=True)
class SoftWall(Objective):
    """<b>Pulled back</b> smoothly.

        L = -A tanh(k (r - 1)) / k
    """
    sharpness: float = 2.0

    def token_loss(self, batch):
        return -batch.advantages * torch.tanh(self.sharpness * (batch.ratio - 1)) / self.sharpness

class Whitened(SoftWall):
    """Divides by the batch's own spread."""

    def token_loss(self, batch):
        return super().token_loss(batch) / batch.advantages.square().mean((-2, -1), keepdim=True).sqrt()

class NeedsReference(SoftWall):
    needs = ("ref_log_probs",)

    def token_loss(self, batch):
        (reference,) = batch.require("ref_log_probs", reason="NeedsReference compares with it")
        return super().token_loss(batch) + batch.log_probs - reference

class Forgets(SoftWall):
    """The weight without the log-probability it should weigh."""

    def token_loss(self, batch):
        return -batch.advantages * batch.ratio.detach().clamp(max=1.2)

def plain(log_probs, old_log_probs, advantages, mask):
    ratio = torch.exp(log_probs - old_log_probs)
    return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)

def averaged(log_probs, old_log_probs, advantages, mask):
    return plain(log_probs, old_log_probs, advantages, mask)[mask].mean()

class Raises(SoftWall):
    def token_loss(self, batch):
        raise ValueError("no such mode")

finished = SoftWall(sharpness=3.0)
number = 3
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_loss.py"
    path.write_text(WRITTEN, encoding="utf-8")
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stresses of few steps and two step sizes: the same code, in a second."""
    short = {"steps": 4, "group_size": 4}
    chosen = [stress for stress in STRESSES if stress.name in ("No signal", "A rare arm")]
    monkeypatch.setattr(
        analysis.audit,
        "STRESSES",
        tuple(
            type(item)(item.name, item.question, item.setting | short, item.measures, item.curves) for item in chosen
        ),
    )
    monkeypatch.setattr(analysis.audit, "LEARNING_RATES", (1.0, 16.0))


# -- what can be audited ---------------------------------------------------------------------------------------


def test_a_class_of_a_file_and_its_hyper_parameters(file: Path) -> None:
    assert load_objective(f"{file}:SoftWall").label() == "SoftWall"
    assert load_objective(f"{file}:SoftWall(sharpness=4.0)").label() == "SoftWall(sharpness=4.0)"


def test_a_finished_object_of_a_file(file: Path) -> None:
    assert load_objective(f"{file}:finished").label() == "SoftWall(sharpness=3.0)"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("{0}:SoftWal", r"has nothing called 'SoftWal'; did you mean 'SoftWall'"),
        ("{0}:number", r"number is 3; expected a frozen dataclass that derives from"),
        ("{0}:SoftWall(sharp=1)", r"SoftWall cannot be made: .*sharp"),
        ("{0}x.py:SoftWall", "there is no file .*; expected file.py:Class"),
    ],
)
def test_what_is_no_objective_is_refused(file: Path, target: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_objective(target.format(file))


def test_a_file_that_fails_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken_loss.py"
    path.write_text("import nothing_of_that_name\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken_loss.py cannot be loaded: ModuleNotFoundError"):
        load_objective(f"{path}:Loss")


def test_an_unknown_registered_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="dapo"):
        load_objective("dapoo")


# -- is it new -------------------------------------------------------------------------------------------------


def test_twins_are_found_by_their_gradient(file: Path) -> None:
    # Clip-higher is all that DAPO adds to PPO; GRPO's token loss is PPO's; tanh is nobody's.
    assert twins(make_objective("ppo(clip_high=0.28)")) == ["dapo"]
    assert set(twins(PPO())) >= {"grpo", "dr_grpo"}
    assert twins(load_objective(f"{file}:SoftWall")) == []


def test_twins_under_another_name_of_the_number() -> None:
    # The bounds of BandPO's bands are where DPPO's masks begin, for total variation and for KL; χ² is nobody's.
    assert twins(make_objective("bandpo")) == ["dppo(threshold=0.05)"]
    assert twins(make_objective('bandpo(divergence="kl")')) == ["dppo(divergence=kl,threshold=0.05)"]
    assert twins(make_objective('bandpo(divergence="chi2")')) == []


def test_gspo_and_gspo_token_agree_in_gradient_with_one_advantage_per_response() -> None:
    assert twins(make_objective("gspo")) == ["gspo_token"]


# -- the audit -------------------------------------------------------------------------------------------------


def test_a_sound_objective(file: Path, small: None, tmp_path: Path) -> None:
    done = audit(f"{file}:SoftWall", seeds=5, out=tmp_path / "out")
    assert done.broken == ()
    assert [stress.name for stress in done.stresses] == ["No signal", "A rare arm"]
    assert all(not stress.not_run for stress in done.stresses)
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert content["objective"] == "SoftWall"
    assert content["stresses"][0]["measures"][0]["unit"] == "nats per response"
    page = done.report.read_text()
    assert "&lt;b&gt;Pulled back&lt;/b&gt;" in page
    assert "<b>Pulled back</b>" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_plain_function_is_audited_as_an_objective(file: Path, small: None, tmp_path: Path) -> None:
    done = audit(f"{file}:plain", seeds=5, out=tmp_path / "out")
    assert done.objective == "plain"
    assert "dapo" in done.twins
    # Without a clamp of the log-ratio a function overflows 10,000 nats away; both laws go that far.
    assert [finding.law for finding in done.broken] == ["other responses", "extremes"]
    assert all(not stress.not_run for stress in done.stresses)


def test_a_function_that_returns_a_mean_is_refused_with_a_way_out(file: Path) -> None:
    with pytest.raises(ConfigError, match="averaged returns a single number; an objective needs one loss per token"):
        load_objective(f"{file}:averaged")


def test_the_verdict_is_three_sentences(file: Path, small: None, tmp_path: Path) -> None:
    done = audit("dapo", against="dapo", seeds=5, out=tmp_path / "out")
    sound, new, measured = done.verdict
    assert re.fullmatch(r"dapo keeps the \d+ laws that every loss obeys\.", sound)
    # Clip-higher is PPO with another bound, whatever the mean.
    assert new == "Its gradient is that of dr_grpo(clip_high=0.28), grpo(clip_high=0.28), ppo(clip_high=0.28)."
    assert measured == "Beside dapo, at its step size and over paired seeds, its regret is clearly different nowhere."
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["verdict"] == list(done.verdict)
    assert measured in done.report.read_text()


def test_the_verdict_names_what_is_broken_and_where_the_regret_differs() -> None:
    def stress(name: str, low: float, high: float) -> StressResult:
        triple = (math.nan, math.nan, math.nan)
        measured = Measured("exact/regret after the last step", "reward", triple, triple, ((low + high) / 2, low, high))
        return StressResult(name, "?", "", (measured,))

    findings = [Finding("order", "It does not matter", "broken", "it does"), Finding("mask", "Kept", "holds", "")]
    stresses = [stress("A", -2.0, -1.0), stress("B", 1.0, 2.0), stress("C", -1.0, 1.0)]
    assert _verdict("mine", "ppo", findings, ["dapo"], stresses) == (
        "mine breaks 1 of 2 laws that every loss obeys: order.",
        "Its gradient is that of dapo.",
        'Beside ppo, at its step size and over paired seeds, its regret is lower under "a" and higher under "b", and '
        "not clearly different elsewhere.",
    )
    assert _verdict("mine", "ppo", findings, [], [])[2] == "It was not measured beside ppo."


def test_an_objective_beside_itself_differs_in_nothing(small: None, tmp_path: Path) -> None:
    # Paired seeds: the two runs are the same run.
    done = audit("dapo", against="dapo", seeds=5, out=tmp_path / "out")
    differences = [item.difference for stress in done.stresses for item in stress.measures]
    assert [difference[0] for difference in differences] == [0.0] * len(differences)
    # Equal values have no interval.
    assert all(math.isnan(end) for _, low, high in differences for end in (low, high))
    assert {item.reading for stress in done.stresses for item in stress.measures} == {"no clear difference"}
    assert "dapo, audited" in done.report.read_text()


def test_the_reference_takes_the_audited_reduction(small: None, tmp_path: Path) -> None:
    # Another reduction is another scale; PPO under DCPO's sum is not PPO under its own mean.
    done = audit("ppo(reduction=seq_sum_token_mean)", against="ppo", seeds=5, out=tmp_path / "out")
    assert all(item.difference[0] == 0.0 for stress in done.stresses for item in stress.measures)


def test_a_broken_law_is_named_and_exits_with_one(file: Path, small: None, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["audit", f"{file}:Whitened", "--seeds", "5", "--out", str(tmp_path / "out")], catch_exceptions=False
    )
    assert result.exit_code == 1
    # The spread of a part is another one, it rescales the gradient at ratio 1, and without advantages it is 0/0: all
    # of that follows from one mistake.
    assert "1 law broken: other responses" in result.stderr
    assert "because of it: own advantage, order, replicas, micro-batches, on-policy, no advantage" in " ".join(
        result.stdout.split()
    )
    assert "declare needs_whole_batch" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        ("Forgets", "the loss has no gradient: nothing in it depends on log_probs"),
        ("Raises", "ValueError: no such mode"),
    ],
)
def test_a_loss_that_cannot_be_trained_is_one_finding(loss: str, sentence: str, file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["audit", f"{file}:{loss}", "--seeds", "5", "--out", str(tmp_path / "out")], catch_exceptions=False
    )
    assert result.exit_code == 1
    assert "1 law broken: gradient" in result.stderr
    said = " ".join(result.stdout.split())
    assert said.count(sentence) == 1
    assert said.count("There is nothing to train with while 'gradient' is broken") == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count(sentence) == 1
    assert "Not checked because of it: purity, shapes," in page


def test_what_cannot_be_run_says_why(file: Path, small: None, tmp_path: Path) -> None:
    done = audit(f"{file}:NeedsReference", seeds=5, out=tmp_path / "out")
    assert all("ref_log_probs missing" in stress.not_run for stress in done.stresses)
    assert "Not run. BatchError" in done.report.read_text()


def test_every_registered_objective_can_be_audited_or_says_why() -> None:
    # The laws decide nothing here; it is the parts around them that must not stumble.
    for name in objective_names():
        objective = make_objective(name)
        assert isinstance(analysis.audit._weights(objective), list)
        assert name not in twins(objective)


def test_too_few_seeds_and_a_taken_folder_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seeds is 4; an interval needs at least 5"):
        audit("ppo", seeds=4, out=tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunExistsError, match="already holds something"):
        audit("ppo", seeds=5, out=tmp_path)


def test_the_readme_shows_an_objective_that_breaks_no_law(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    block = next(
        part for part in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if part.startswith("# my_loss.py")
    )
    path = tmp_path / "my_loss.py"
    path.write_text(block, encoding="utf-8")
    assert {finding.outcome for finding in check_laws(load_objective(f"{path}:MyObjective"))} == {"holds", "exempt"}


# -- reading a difference --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "reading"),
    [
        ((1.0, 0.5, 1.5), "higher"),
        ((-1.0, -1.5, -0.5), "lower"),
        ((0.1, -0.1, 0.3), "no clear difference"),
        ((0.0, math.nan, math.nan), "no clear difference"),
        ((math.nan, math.nan, math.nan), "not measured"),
    ],
)
def test_the_reading_is_the_side_of_the_whole_interval(difference: tuple[float, ...], reading: str) -> None:
    assert Measured("m", "", (0, 0, 0), (0, 0, 0), difference).reading == reading


def test_the_stresses_ask_seven_questions_of_registered_environments() -> None:
    names = [stress.name for stress in STRESSES]
    assert len(set(names)) == len(names) == 7
    assert all(stress.question.endswith("?") and stress.measures for stress in STRESSES)
    assert average("exact/regret").description in STRESSES[1].measures[0].description
    assert final("exact/entropy").description in STRESSES[2].measures[1].description
