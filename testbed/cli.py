"""The command line: the only file that sees every floor, and imports each only when a command needs it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import sys
import traceback
import warnings
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from testbed.errors import ConfigError, TestbedError, TestbedWarning
from testbed.options import documented_fields, with_options
from testbed.output import fresh_file, kept_folder, lacks_room
from testbed.terminal import make_printable, printable, silence_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from analysis.judging.result import ClaimResult

__all__ = ["app", "main"]


EXIT_CODES = (
    "Exit codes: 0 fine; 1 a verdict, a law or a comparison is not as recorded; 2 bad input, or no room to write; 3 a "
    "fault of testbed itself; 130 stopped by Ctrl-C; 141 nobody reads the output any more."
)


class _Commands(TyperGroup):
    """Every way in which a command can end, as a sentence and an exit code; 1 is for results alone."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except TestbedError as error:
            raise _ended(str(error), 2) from error
        except BrokenPipeError as error:
            silence_output()
            raise typer.Exit(141) from error
        except OSError as error:
            if error.filename is None and not lacks_room(error):
                raise _fault(error) from error
            place = "the output" if error.filename is None else error.filename
            reason = os.strerror(error.errno) if error.errno else error
            raise _ended(f"cannot use {place}: {reason}; choose another path or make room", 2) from error
        except KeyboardInterrupt as error:
            raise _ended(f"stopped. {str(error) or 'Nothing was kept'}", 130) from error
        except BrokenExecutor as error:
            lost = "a worker process was killed, most often because the memory ran out; try again with fewer --jobs"
            raise _ended(lost, 3) from error
        except Exception as error:
            # Typer's own endings, such as a wrong option, carry their exit code.
            if hasattr(error, "exit_code"):
                raise
            raise _fault(error) from error


def _say(text: str, *, err: bool = False) -> None:
    # Not Typer's echo, which writes UTF-8 where ASCII was asked for.
    print(text, file=sys.stderr if err else sys.stdout)


def _ended(sentence: str, code: int) -> typer.Exit:
    _say(f"testbed: {sentence}", err=True)
    return typer.Exit(code)


def _fault(error: Exception) -> typer.Exit:
    """What should not happen: all that is known about it, for whoever mends it."""
    traceback.print_exception(error)
    return _ended("this is a fault of testbed, not of your input; please report it with the lines above", 3)


app = typer.Typer(
    name="testbed",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: drawing it with rich would take longer than everything else that `--help` does.
    rich_markup_mode=None,
)

engines = typer.Typer(help="What connects the objectives with training engines.", rich_markup_mode=None)
app.add_typer(engines, name="engines")

Seed = Annotated[int, typer.Option(min=0, help="Master seed; the same one gives the same numbers, bit for bit.")]
NoSeed = Annotated[
    int, typer.Option("--seed", min=0, help="Accepted by every command; this one draws nothing that depends on it.")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
File = Annotated[Path | None, typer.Option("--out", help="File to write as well, .json; it must not exist.")]


def _processes(jobs: int) -> int:
    if jobs == 0:
        raise ConfigError("jobs is 0; expected a number of processes, or -1 for one per core")
    return jobs


Jobs = Annotated[int, typer.Option(help="Processes; -1: one per core.", callback=_processes)]

_SETTINGS = documented_fields(Path(__file__).parent / "simulation" / "settings.py", "Settings")

_MARKS = {
    "reproduced": ("✓", "green"),
    "refuted": ("✗", "red"),
    "inconclusive": ("?", "yellow"),
    "broken": ("!", "magenta"),
    "vacuous": ("∅", "magenta"),
}


def main() -> None:
    """Run the command line; a warning is one sentence, and so is every way to end but 0 and a fault of our own."""
    make_printable()
    usual = warnings.formatwarning

    def sentence(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        ours = issubclass(category, TestbedWarning)
        return f"testbed: {message}\n" if ours else usual(message, category, filename, lineno, line)

    warnings.formatwarning = sentence
    try:
        app()
    finally:
        warnings.formatwarning = usual


def _version(asked: bool) -> None:
    if asked:
        from testbed import __version__

        _say(f"testbed {__version__}")
        raise typer.Exit


@app.callback(epilog=EXIT_CODES)
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Published claims about LLM reinforcement-learning objectives, judged where the right answer is known."""


@app.command("list")
def list_names(as_json: Json = False, out: File = None, seed: NoSeed = 0) -> None:
    """Every registered objective, environment, model, advantage, reduction and claim."""
    from analysis.claims import claim_names
    from envs import env_names
    from models import policy_names
    from testbed.advantages import advantage_names
    from testbed.objectives import objective_names
    from testbed.reductions import reduction_names

    names = {
        "objectives": objective_names(),
        "environments": env_names(),
        "models": policy_names(),
        "advantages": advantage_names(),
        "reductions": reduction_names(),
        "claims": claim_names(),
    }
    with _new_file(out) as file:
        _write_json(file, names)
    if as_json:
        _print_json(names)
        return
    for kind, items in names.items():
        _say(f"{kind} ({len(items)})")
        for item in items:
            _say(f"  {item}")


@app.command()
@with_options(_SETTINGS, {"steps": 100})
def compare(
    objectives: Annotated[
        list[str], typer.Argument(help="Objectives, each name or name(key=value,…), such as 'erc(base=gppo)'.")
    ],
    env: Annotated[str, typer.Option(help="Environment id, such as RareArm-v1 or 'RareArm-v1(arms=10)'.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: a new one below runs/.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds per objective.")] = 32,
    seed: Seed = 0,
    model: Annotated[str, typer.Option(help="Policy.")] = "tabular",
    **settings: Any,
) -> None:
    """Train objectives on one environment over paired seeds; curves, a table and the full run are written."""
    from analysis.comparison import compare as run_comparison

    done = run_comparison(objectives, env, out=out, seeds=seeds, seed=seed, model=model, **settings)
    _print_summary(done.summary, seeds)
    _say(f"curves: {done.folder / 'curves.png'}")
    _remark(done.remark)


@app.command()
def verify(
    claims: Annotated[list[str] | None, typer.Argument(help="Claims, or papers; none: all of the tier.")] = None,
    tier: Annotated[
        str, typer.Option(help="quick, full (all tabular claims as well), or networks (all claims).")
    ] = "quick",
    seeds: Annotated[
        int | None, typer.Option(help="Seeds of each statistical claim; default: the claim's own.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Master seed; default: that of the record.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: a new one below runs/.")] = None,
    jobs: Jobs = -1,
    resume: Annotated[bool, typer.Option(help="Continue what an interrupted call began in --out.")] = False,
    on: Annotated[
        Path | None, typer.Option(help="A recorded run: judge the claims about tokens on it, see `testbed replay`.")
    ] = None,
) -> None:
    """Judge claims; exit with 1 when a verdict differs from the one on record."""
    if on is not None:
        _verify_record(on, claims or (), tier, seeds, seed, out, resume)
        return
    from analysis.claims import MASTER_SEED
    from analysis.verify import verify as run_verification

    if resume and out is None:
        raise ConfigError("resume needs the folder of the interrupted verification; pass --out")
    with _continued(out, "verify", "--resume") as folder:
        done = run_verification(
            claims or (),
            tier=tier,
            seeds=seeds,
            seed=MASTER_SEED if seed is None else seed,
            out=folder,
            jobs=jobs,
            resume=resume,
            command=_command(),
        )
    _print_verdicts(done.results)
    _say(f"report: {done.report}")
    if done.changed:
        changes = ", ".join(f"{item.claim.id} ({item.claim.recorded} → {item.verdict})" for item in done.changed)
        _say(f"testbed: {len(done.changed)} verdicts differ from the record: {changes}", err=True)
        raise typer.Exit(1)


def _verify_record(
    record: Path, names: Sequence[str], tier: str, seeds: int | None, seed: int | None, out: Path | None, resume: bool
) -> None:
    from analysis.replay.verdicts import verify_record

    given = {"--seeds": seeds is not None, "--seed": seed is not None, "--tier": tier != "quick", "--resume": resume}
    unused = [name for name, is_given in given.items() if is_given]
    if unused:
        raise ConfigError(
            f"{' and '.join(unused)} would have no effect with --on: nothing is simulated, and the rollouts of the "
            "record take the place of seeds. Leave it out"
        )
    folder, results = verify_record(record, names, out=out, command=_command())
    _print_verdicts(results)
    _say(f"report: {folder / 'report.html'}")


@app.command()
def claims(as_json: Json = False, out: File = None, seed: NoSeed = 0) -> None:
    """The ledger: every numbered statement of the papers, where it can be judged, and the verdicts on record."""
    from analysis.claims import claim_names, get_claim
    from analysis.ledger import entries

    rows = [
        {
            "id": claim.id,
            "paper": claim.paper,
            "judges": claim.judges,
            "title": claim.title,
            "source": claim.source,
            "statement": claim.statement,
            "tier": claim.tier,
            "recorded": claim.recorded,
            "on_record": claim.on_record is not None,
        }
        for claim in map(get_claim, claim_names())
    ]
    everything = {"ledger": [entry.to_json() for entry in entries()], "claims": rows}
    with _new_file(out) as file:
        _write_json(file, everything)
    if as_json:
        _print_json(everything)
        return
    ledger = [
        (
            entry.number,
            entry.statement,
            entry.status,
            "\n".join(f"{claim}: {verdict}" for claim, verdict in entry.verdicts.items()) or entry.reason,
        )
        for entry in entries()
    ]
    _print_table(("", "statement", "status", "judged by, or why not"), ledger)
    listed = [
        (str(row["id"]), str(row["recorded"]), "yes" if row["on_record"] else "", str(row["title"])) for row in rows
    ]
    _print_table(("claim", "verdict", "--on RECORD", "what it tests"), listed)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished verify run.")],
    against: Annotated[Path | None, typer.Option(help="Another run; the report says which verdicts moved.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write, .html, which must not exist; default: the run's report.html.")
    ] = None,
    seed: NoSeed = 0,
) -> None:
    """Write a run's report.html again, optionally comparing it with another run."""
    from analysis.report import write_report

    with _new_file(out):
        page = write_report(run, against=against, out=out)
    _say(f"report: {page}")


@app.command()
def calibrate(
    claims: Annotated[list[str] | None, typer.Argument(help="Claims; none: every one that can be.")] = None,
    repeats: Annotated[int, typer.Option(help="Repetitions per claim, each with fresh seeds.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Folder for calibration.json; default: nothing is written.")] = None,
    resume: Annotated[bool, typer.Option(help="Keep the claims an interrupted call finished in --out.")] = False,
    jobs: Jobs = -1,
) -> None:
    """Measure the suite's false verdicts on null experiments, and its power on planted effects."""
    from analysis.calibration import calibrate as run_calibration

    place = contextlib.nullcontext(None) if out is None else _continued(out, "calibrate", "--resume")
    with place as folder:
        done = run_calibration(claims or (), repeats=repeats, jobs=jobs, out=folder, resume=resume, command=_command())
    rows = [
        (
            item.claim,
            str(item.seeds),
            f"{item.false_verdicts}/{item.repeats}",
            "none" if item.at_threshold is None else f"{item.at_threshold}/{item.repeats}",
            f"{item.planted:.3g}",
            "none" if item.power is None else f"{item.power:.2f}",
        )
        for item in done.claims
    ]
    _print_table(("claim", "seeds", "false verdicts", "at the threshold", "planted effect", "power"), rows)
    low, high = done.rate_interval
    _say(
        f"{done.false_verdicts} false of {done.verdicts} null verdicts: {done.false_verdicts / done.verdicts:.2%}, "
        f"95 % interval [{low:.2%}, {high:.2%}]"
    )


@app.command()
def audit(
    objective: Annotated[
        str,
        typer.Argument(
            help="file.py:Class or file.py:function, which is executed, or a registered objective; hyper-parameters "
            "follow in brackets."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: a new one below runs/.")] = None,
    against: Annotated[str, typer.Option(help="The objective it is measured beside.")] = "ppo",
    seeds: Annotated[int, typer.Option(help="Paired seeds per stress.")] = 32,
    seed: Seed = 0,
) -> None:
    """A report card for an objective, also an unpublished one; exit with 1 when it breaks a law it does not declare."""
    from analysis.audit import audit as run_audit

    done = run_audit(objective, against=against, seeds=seeds, seed=seed, out=out, command=_command())
    laws = []
    for item in done.findings:
        resting = [other.law for other in done.findings if other.cause == item.law]
        folded = f"; not checked because of it: {', '.join(resting)}" if resting else ""
        if item.outcome != "unchecked":
            laws.append((item.law, item.outcome, _plain((item.detail or item.statement) + folded)))
    _print_table(("law", "outcome", "what was found, or what has to hold"), laws)
    rows = [
        (
            stress.name,
            item.description,
            *(_estimated(triple) for triple in (item.audited, item.reference)),
            item.reading,
        )
        for stress in done.stresses
        for item in stress.measures
    ]
    reasons: dict[str, list[str]] = {}
    for stress in done.stresses:
        if stress.not_run:
            reasons.setdefault(stress.not_run, []).append(stress.name)
    rows += [(", ".join(names), _plain(f"not run: {reason}"), "", "", "") for reason, names in reasons.items()]
    _print_table(("stress", "measure", done.objective, done.reference, "reading"), rows)
    if done.twins:
        _say(f"same gradient as: {', '.join(done.twins)}")
    for sentence in done.verdict:
        _say(sentence)
    _say(f"report: {done.report}")
    if done.broken:
        broken = f"{len(done.broken)} law{'s' * (len(done.broken) > 1)} broken"
        _say(f"testbed: {broken}: {', '.join(item.law for item in done.broken)}", err=True)
        raise typer.Exit(1)


@app.command()
def show(
    objective: Annotated[str, typer.Argument(help="An objective, name or name(key=value,…).")],
    out: Annotated[Path | None, typer.Option(help="Picture to write, .png or .svg; default: only the text.")] = None,
    seed: NoSeed = 0,
) -> None:
    """An objective's formula, and a picture of its gradient weight over the ratio, against PPO's."""
    from analysis.gradient_weights import describe, gradient_weight_figure
    from analysis.plots import save

    with _new_file(out) as file:
        text = describe(objective)
        if file is not None:
            save(gradient_weight_figure(objective), file)
    _say(text)
    if file is not None:
        _say(f"picture: {file}")


@app.command()
@with_options(_SETTINGS)
def sweep(
    config: Annotated[Path | None, typer.Argument(help="A YAML file of a sweep; options below override it.")] = None,
    objective: Annotated[str | None, typer.Option(help="Objective.")] = None,
    env: Annotated[str | None, typer.Option(help="Environment id.")] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(help="An axis, such as clip_low=0.05:0.4:8, learning_rate=1:64:7:log or staleness=0,4."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: a new one below runs/.")] = None,
    samples: Annotated[int | None, typer.Option(help="Sobol points over the axes that are ranges.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds per cell; default 32.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Master seed; default 0.")] = None,
    model: Annotated[str | None, typer.Option(help="Policy; default tabular.")] = None,
    chunk: Annotated[int | None, typer.Option(help="Replicas in a block at most; default: what a cache holds.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="key=value: the same as the option of that name.")
    ] = None,
    jobs: Jobs = -1,
    backend: Annotated[str, typer.Option(help="loky: this machine; ray: a Ray cluster.")] = "loky",
    shard: Annotated[
        str | None, typer.Option(help="i/n: only that part, for a machine of its own; then merge.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue what an interrupted call began in --out.")] = False,
    **settings: Any,
) -> None:
    """Train over a grid or sample of settings as one program; a table and a phase diagram."""
    from analysis.clipping import unclipped_corners
    from testbed.simulation.shards import run_sweep
    from testbed.simulation.sweep import Sweep

    given = {"objective": objective, "env": env, "vary": vary, "samples": samples, "seeds": seeds, "seed": seed}
    given |= {"model": model, "chunk": chunk}
    arguments = {key: value for key, value in given.items() if value is not None} | settings | _settings(setting)
    if config is None and ("objective" not in arguments or "env" not in arguments):
        raise ConfigError("a sweep needs --objective and --env, or a YAML file that names them")
    planned = Sweep.of(**arguments) if config is None else Sweep.from_yaml(config, **arguments)
    with _continued(out, "sweep", "--resume") as folder:
        if not resume:
            _remark(unclipped_corners(planned))
        run = run_sweep(planned, folder, jobs=jobs, backend=backend, shard=shard, resume=resume)
    if run is None:
        _say(f"this shard is done; run the others, then: testbed merge {folder} …")
        return
    _draw_phases(run, folder)


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of the shards of one sweep.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
) -> None:
    """Put the shards of a sweep together."""
    from testbed.simulation.shards import merge as merge_shards

    _draw_phases(merge_shards(folders, out), out)


@app.command()
def finetune(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a ready configuration.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: runs/finetune/<name>.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue an interrupted run from its last checkpoint.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Master seed; default: that of the configuration.")] = None,
) -> None:
    """Train a language model on math with any objective: warm start, evaluation, training, evaluation."""
    from dataclasses import replace

    from testbed.engines.threads import wait_passively

    # Somebody who sets a number of threads means it.
    choose_threads = "OMP_NUM_THREADS" not in os.environ
    wait_passively()

    from testbed.finetune import load_settings, run_finetune

    settings = load_settings(config)
    if seed is not None:
        settings = replace(settings, seed=seed)
    with _continued(Path("runs") / "finetune" / Path(config).stem if out is None else out, "", "--resume") as folder:
        done = run_finetune(settings, resume=resume, out=folder, report=_say, choose_threads=choose_threads)
    if not done.main_process:
        return
    from analysis.report.finetune import write_finetune_report

    for line in done.summary():
        _say(line)
    _say(f"report: {write_finetune_report(done.folder)}")


@app.command()
def transfer(
    claims: Annotated[list[str] | None, typer.Argument(help="Comparisons; none: all of them.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda, each with models of its size; default: a GPU where there is one.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Seeds of the language-model side; default: each comparison's own.")
    ] = None,
    seed: Seed = 0,
    jobs: Jobs = -1,
    out: Annotated[Path | None, typer.Option(help="Folder to write or go on with; default: runs/transfer.")] = None,
) -> None:
    """Judge claims on the toy and on a language model, side by side; exit with 1 when a verdict is not the recorded."""
    from analysis.transfer import run_transfer
    from analysis.transfer.claims import choose
    from analysis.transfer.page import summary_rows

    chosen, scale = choose(claims or [], device)
    with _continued(Path("runs") / "transfer" if out is None else out, "") as folder:
        done = run_transfer(chosen, scale, folder, seeds=seeds, seed=seed, jobs=jobs, command=_command(), report=_say)
    _print_table(("claim", "toy", "language model", ""), summary_rows(done))
    _say(f"page: {done.page}")
    if done.changed:
        changes = ", ".join(f"{side.claim.id} ({side.claim.recorded} → {side.verdict})" for side in done.changed)
        _say(f"testbed: {len(done.changed)} verdicts differ from the record: {changes}", err=True)
        raise typer.Exit(1)


@engines.command("check")
def check_engine(engine: Annotated[str, typer.Argument(help="The engine: verl.")]) -> None:
    """Prove that an engine knows our objectives: verl says nothing when a plug-in fails to load."""
    if engine != "verl":
        raise ConfigError(f"engine is {engine!r}; only verl is extended through a plug-in that can fail unnoticed")
    from testbed.engines.verl import check_verl

    for line in check_verl():
        _say(line)


@app.command()
def conformance(
    engine: Annotated[
        str,
        typer.Option(
            help="The engine whose own loss functions are run, such as trl or verl; all: every one that runs in this "
            "environment."
        ),
    ],
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="File to write as well, .json, or .md for a page of differences; it must not exist."
        ),
    ] = None,
    include: Annotated[
        list[Path] | None,
        typer.Option(help="A .json of engines that ran in another environment, to be put together; may be repeated."),
    ] = None,
) -> None:
    """Compare our losses and gradients with an engine's own, on the same random batches.

    Exit with 1 when one differs that should not, or a difference is not the known one.
    """
    import pandas as pd

    from testbed.engines.conformance import conformance_table, format_conformance
    from testbed.engines.differences import compare_all, differences_page, read_table

    others = [read_table(path) for path in include or ()]
    with _new_file(out) as file:
        if engine == "all":
            table, absent = compare_all(seed=seed)
        else:
            table, absent = conformance_table(engine, seed=seed), {}
        if others:
            table = pd.concat([table, *others], ignore_index=True).astype({"as_expected": "boolean"})
            absent = {name: reason for name, reason in absent.items() if name not in set(table["engine"])}
        if file is not None and out is not None and out.suffix == ".md":
            file.write_text(differences_page(table, absent), encoding="utf-8")
        else:
            _write_json(file, json.loads(table.to_json(orient="records")))
    if "engine" in table and table["engine"].nunique() > 1:
        for name, rows in table.groupby("engine", sort=False):
            _say(f"{name} {rows['version'].iloc[0]}")
            _say(format_conformance(rows))
            _say("")
    else:
        _say(format_conformance(table))
    for name, reason in absent.items():
        _say(f"{name}: {reason}")
    surprises = table[~table["as_expected"].fillna(True).astype(bool)]
    if len(surprises):
        named = ", ".join(f"{row.objective} against {row.setting}" for row in surprises.itertuples())
        _say(f"testbed: not as expected: {named}", err=True)
        raise typer.Exit(1)


@app.command()
def conformance_changes(
    before: Annotated[Path, typer.Argument(help="A .json that `testbed conformance --out` wrote.")],
    after: Annotated[Path, typer.Argument(help="Another one, of a later version of the engine.")],
) -> None:
    """What changed between two versions of an engine; exit with 1 when something did."""
    from testbed.engines.differences import changes, read_table, versions

    tables = [read_table(path) for path in (before, after)]
    found = changes(*tables)
    _say(f"{', '.join(versions(tables[0]))} and {', '.join(versions(tables[1]))}")
    for sentence in found:
        _say(sentence)
    if not found:
        _say("nothing changed")
    else:
        raise typer.Exit(1)


@app.command()
def theory(out: File = None, seed: NoSeed = 0) -> None:
    """Every closed-form prediction beside its measurement by another route; exit with 1 when one does not hold."""
    from dataclasses import asdict

    from analysis.theory import predictions

    rows, records, failed = [], [], 0
    with _new_file(out) as file:
        for item in predictions():
            found = item.compare()
            failed += not found.holds
            records.append({"id": item.id, "name": item.name, "unit": item.unit, "scale": item.scale, **asdict(found)})
            rows.append(
                (
                    item.id,
                    item.name,
                    f"{found.predicted:.6g}",
                    f"{found.measured:.6g}",
                    f"{found.error:.1e}",
                    f"{found.tolerance:.0e} {item.scale}",
                    "holds" if found.holds else "FAILS",
                )
            )
        _write_json(file, records)
    _print_table(("", "prediction", "predicted", "measured", "largest error", "tolerance", ""), rows)
    if failed:
        raise typer.Exit(1)


@app.command()
def diagnose(
    log: Annotated[
        list[str], typer.Argument(help="A log, several files of one run, a folder, or - for standard input.")
    ],
    config: Annotated[
        str | None, typer.Option(help="The run's configuration: a YAML or JSON file, or its command line in quotes.")
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(help="Exit with 1 when there is a finding of this level or worse: note, warning, problem."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another run's log: what differs, and where the curves part.")
    ] = None,
    as_json: Json = False,
    out: Annotated[Path | None, typer.Option(help="Page to write, .html, or .json; it must not exist.")] = None,
    seed: NoSeed = 0,
) -> None:
    """What went wrong in a training run, from its log: findings with their mechanism, worst first."""
    from analysis.diagnose.command import run

    if run(log, config=config, fail_on=fail_on, against=against, as_json=as_json, out=out, say=_say):
        raise typer.Exit(1)


@app.command()
def replay(
    record: Annotated[str, typer.Argument(help="Folder that a run recorded its tokens in.")],
    objectives: Annotated[
        list[str] | None,
        typer.Argument(help="Objectives, name or name(key=value,…); none: all it allows."),
    ] = None,
    advantage: Annotated[
        str | None, typer.Option(help="Estimator to compute the advantages with again, from the recorded rewards.")
    ] = None,
    as_json: Json = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables; it must not exist.")] = None,
    seed: NoSeed = 0,
) -> None:
    """What every objective would have done with the tokens of a recorded run, without its model."""
    from analysis.replay.command import run

    run(record, objectives or (), advantage=advantage, as_json=as_json, out=out, say=_say)


@app.command()
def profile(
    model: Annotated[str, typer.Argument(help="A model by name, folder, GGUF file or hub name.")],
    task: Annotated[str, typer.Option(help="Problems, such as arithmetic(level=2) or problems.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")] = Path("runs/profile"),
    split: Annotated[str | None, typer.Option(help="Split of the problems.")] = None,
    template: Annotated[str | None, typer.Option(help="Prompt template, a name or a text with {question}.")] = None,
    chat: Annotated[bool, typer.Option(help="Put prompts into the model's chat template.")] = False,
    problems: Annotated[int, typer.Option(min=1, help="Problems that are answered, once each.")] = 48,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Limit on the length of an answer.")] = 64,
    temperature: Annotated[float, typer.Option(help="Of the sampling.")] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(help="A string that ends an answer; may be given again.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights.")] = "float32",
    seed: Seed = 0,
) -> None:
    """How probable and how uncertain the tokens of a language model's answers are, with next-token tables."""
    from analysis.profile.command import run

    run(
        model,
        task,
        out=out,
        split=split,
        template=template,
        chat=chat,
        problems=problems,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        stop=stop or (),
        dtype=dtype,
        seed=seed,
        say=_say,
    )


# -- input ---------------------------------------------------------------------------------------------------------


def _settings(written: list[str] | None) -> dict[str, Any]:
    """`key=value` options as arguments."""
    from testbed.registry import parse_call

    return parse_call(f"set({','.join(written or ())})")[1]


def _command() -> str:
    """How this was started, for the record."""
    return " ".join(["testbed", *sys.argv[1:]])


# -- where results go ----------------------------------------------------------------------------------------------


def _new_file(path: Path | None) -> contextlib.AbstractContextManager[Path | None]:
    """The file of --out, taken before anything is computed for it."""
    return contextlib.nullcontext() if path is None else fresh_file(path)


@contextlib.contextmanager
def _continued(out: Path | None, kind: str, *options: str) -> Iterator[Path]:
    """The folder of a command that keeps what it finishes; stopped by Ctrl-C, it says how to go on."""
    with kept_folder(out, kind) as folder:
        try:
            yield folder
        except KeyboardInterrupt:
            if not any(folder.iterdir()):
                raise
            given = sys.argv[1:]
            named = [] if any(word.partition("=")[0] == "--out" for word in given) else ["--out", str(folder)]
            words = ["testbed", *given, *named, *(option for option in options if option not in given)]
            raise KeyboardInterrupt(f"What is finished is kept; go on with: {shlex.join(words)}") from None


def _write_json(path: Path | None, content: Any) -> None:
    if path is not None:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# -- output --------------------------------------------------------------------------------------------------------


def _print_verdicts(results: Sequence[ClaimResult]) -> None:
    rows = []
    for result in results:
        mark, colour = _MARKS[result.verdict]
        bounds = (
            f"{result.estimate:.3g}"
            if result.interval is None
            else f"{result.estimate:.3g} [{result.interval[0]:.3g}, {result.interval[1]:.3g}]"
        )
        side = {"greater": ">", "less": "<", "equivalent": "within ±", "identity": "≤"}[result.direction]
        note = "" if result.claim.recorded is None or result.as_recorded else f" (recorded: {result.claim.recorded})"
        rows.append(
            (
                result.claim.id,
                f"[{colour}]{mark} {result.verdict}[/]{note}",
                bounds,
                f"{side} {result.threshold:.3g}",
                result.claim.unit,
            )
        )
    _print_table(("claim", "verdict", "estimate [99 % interval]", "claimed", "unit"), rows)
    counts = {kind: sum(result.verdict == kind for result in results) for kind in _MARKS}
    _say(", ".join(f"{count} {kind}" for kind, count in counts.items() if count))


def _plain(text: str) -> str:
    """Text from outside, in which brackets are not markup."""
    from rich.markup import escape

    return escape(text)


def _estimated(triple: tuple[float, float, float]) -> str:
    estimate, low, high = triple
    if math.isnan(estimate):
        return "missing"
    return f"{estimate:.3g}" if math.isnan(low) else f"{estimate:.3g} [{low:.3g}, {high:.3g}]"


def _remark(sentence: str) -> None:
    if sentence:
        _say(f"testbed: {sentence}", err=True)


def _print_summary(summary: Any, seeds: int) -> None:
    columns = list(dict.fromkeys(name for name, _ in summary.columns))
    rows = []
    for label, row in summary.iterrows():
        cells = [
            f"{row[name, 'mean']:.4g} [{row[name, 'low']:.3g}, {row[name, 'high']:.3g}]"
            if seeds >= 5
            else f"{row[name, 'mean']:.4g}"
            for name in columns
        ]
        rows.append((str(label), *(cell.replace(" [nan, nan]", "").replace("nan", "missing") for cell in cells)))
    _print_table(("objective", *columns), rows)


def _draw_phases(run: Any, folder: Path) -> None:
    from analysis.phase_diagram import draw_phase_diagram

    _say(f"table: {folder}")
    picture = draw_phase_diagram(run, folder)
    _say("no phase diagram: it needs two axes of numbers" if picture is None else f"phase diagram: {picture}")


def _print_json(content: Any) -> None:
    """Every letter as it is, or as JSON's escape where the output has no such letter."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    _say(text if printable(text) == text else json.dumps(content, indent=1))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table(box=None, pad_edge=False, header_style="bold")
    # Stand-ins have other widths: they are put in before the columns are laid out.
    for name in header:
        table.add_column(printable(name), overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    with console.capture() as drawn:
        console.print(table)
    _say(drawn.get().rstrip("\n"))
