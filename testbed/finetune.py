"""Fine-tuning from one file: model, task, warm start, objective, training, and what it brought.

    testbed finetune cpu-smoke

A run is a folder. `configuration.yaml` is what was asked for, `log.jsonl` has one row of metrics a step under the names
of `testbed.diagnostics`, `evaluation.json` how often the model was right before and after with intervals,
`samples.jsonl` its answers, `threads.json` how many threads were chosen, `start/` the model reinforcement learning
began with, `checkpoints/` where it can be resumed, `model/` the result, `record/` with `record: true` every update
token by token. On the CPU a resumed run continues with the same numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from testbed.configuration import build_settings, check_keys, parse_yaml, read_settings, read_yaml, shown
from testbed.diagnostics import GLOSSARY
from testbed.engines.folders import flaw, storing, write_whole
from testbed.errors import ConfigError, RunExistsError, UnknownNameError
from testbed.objectives import make_objective
from testbed.output import missing_as_null
from testbed.reading import read_json
from testbed.records import check_thinning
from testbed.simulation.storage import write_atomically

if TYPE_CHECKING:
    from envs.grading import Grade, Grader
    from envs.math_tasks import MathTask
    from testbed.engines.evaluation import Evaluation

__all__ = [
    "EvaluationSettings",
    "FinetuneResult",
    "FinetuneSettings",
    "TaskSettings",
    "WarmStartSettings",
    "configuration_names",
    "finished_run",
    "load_settings",
    "percent",
    "prepare_start",
    "run_finetune",
]

CONFIGURATION_FILE, LOG_FILE, EVALUATION_FILE, SAMPLES_FILE = (
    "configuration.yaml",
    "log.jsonl",
    "evaluation.json",
    "samples.jsonl",
)
THREADS_FILE = "threads.json"
START_FOLDER, CHECKPOINT_FOLDER, MODEL_FOLDER, RECORD_FOLDER = "start", "checkpoints", "model", "record"

# TRL's and the trainer's names for what has a name here; several of TRL's numbers are logged twice otherwise.
_RENAMED = {"grad_norm": "gradient/norm"}
_DUPLICATES = {info.trl for info in GLOSSARY.values() if info.trl} - set(_RENAMED)
_DUPLICATES |= {"rewards/reward/mean", "rewards/reward/std"}


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Problems, as `envs.math_tasks.load_task` takes them."""

    source: str
    """`arithmetic(level=2,count=500)`, a JSONL file, or a data set of the hub."""
    split: str | None = None
    """Split of generated problems or of a data set of the hub."""
    subset: str | None = None
    """Configuration of a data set of the hub."""
    template: str | None = None
    """Prompt template: a name, or a text with `{question}`."""
    limit: int | None = None
    """Only the first so many problems."""
    question_field: str | None = None
    """Column of the question."""
    answer_field: str | None = None
    """Column of the answer."""
    any_of_list: bool = False
    """Whether a list in that column means that any of its answers will do."""
    chat: bool = False
    """Whether prompts are put into the tokenizer's chat template."""
    system_turn: bool = True
    """Whether a turn that the chat template itself puts before the user's stays there."""


@dataclass(frozen=True, kw_only=True)
class WarmStartSettings:
    """Supervised training on worked solutions before reinforcement learning, as `models.causal_lm.warm_start` does."""

    target: float = 0.3
    """Success at which it stops."""
    ceiling: float = 0.5
    """Success that is too much."""
    max_steps: int = 2000
    """Most optimiser steps."""
    batch_size: int = 64
    """Problems per step."""
    learning_rate: float = 3e-3
    """AdamW's."""
    check_every: int = 20
    """Steps between measurements of success."""
    probes: int | None = None
    """Problems success is measured on, the first so many; None: all."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is asked before and after training."""

    samples: int = 8
    """k: responses per problem for avg@k and pass@k."""
    temperature: float = 1.0
    """Of the sampled responses."""
    batch_size: int = 256
    """Responses per forward pass."""
    shown: int = 16
    """Greedy responses kept in samples.jsonl, from the first problems."""


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """A whole run.

    Raises:
        ConfigError: a value is out of range, or two contradict each other.
        UnknownNameError: no such objective.
    """

    model: str
    """A size of `models.causal_lm.SIZES`, the folder of a saved model, or a name on the hub."""
    train: TaskSettings
    """Problems learned from."""
    test: TaskSettings
    """Problems the model is evaluated on."""
    objective: str
    """`name` or `name(key=value,…)`."""
    tokenizer: str | None = None
    """The model's own unless given."""
    dtype: str = "float32"
    """Of the weights."""
    matmul_precision: str = "highest"
    """Of products of single-precision matrices, as `torch.set_float32_matmul_precision` takes it. With `medium` their
    factors are rounded to bfloat16, which is several times as fast on a processor with AMX; sums stay in float32."""
    warm_start: WarmStartSettings | None = None
    """None: the model starts as it is."""
    beyond: TaskSettings | None = None
    """Further problems the model is evaluated on before and after, such as harder ones."""
    shots: int = 0
    """The first so many problems of `train` stand solved before every question, and are not learned from."""
    answer_prefix: str = ""
    """How every answer begins; the model goes on from there, and is graded with it."""
    numbers_only: bool = False
    """Whether nothing but a number is an answer. Otherwise an expression that equals the answer is right, and a model
    that is asked for 9+4 learns to write 9 + 4."""
    stop: list[str] = field(default_factory=list)
    """Strings that end an answer, for models that do not end it: a newline, the next question."""
    advantage: str | None = None
    """Advantage estimator; None: the objective's own."""
    dynamic_sampling: int = 1
    """Rounds of sampling a batch may take until all its groups are informative."""
    overlong_cache: int | None = None
    """L_cache of the soft overlong punishment; None: no punishment."""
    routing_replay: bool = False
    """Whether a mixture of experts replays the old policy's choice of experts."""
    record: bool = False
    """Whether every update is written down token by token in `record/`, for `testbed replay`."""
    record_every: int = 1
    """Of the record: only rollouts whose number is a multiple of it."""
    record_share: float = 1.0
    """Of the record: about this share of the prompts of each rollout, in (0, 1]."""
    shared_prefixes: bool | None = None
    """Whether a prompt is run once for all of its responses; None: where it pays and the model allows."""
    lora: Mapping[str, Any] | None = None
    """Fields of peft's LoraConfig; None: all weights are trained."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TRL's GRPOConfig."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """How the model is evaluated."""
    seed: int = 0
    """Of the initial weights, the order of problems and all sampling."""
    device: str | None = None
    """`cpu` or `cuda`; None: a GPU where there is one."""

    def __post_init__(self) -> None:
        make_objective(self.objective)
        check_thinning(self.record_every, self.record_share)
        reserved = sorted({"output_dir", "seed", "use_cpu"} & set(self.trainer))
        if reserved:
            raise ConfigError(
                f"trainer sets {' and '.join(reserved)}; seed and device have their own fields, the folder is --out"
            )
        if self.device not in (None, "cpu", "cuda"):
            raise ConfigError(f"device is {shown(self.device)}; expected cpu or cuda, or leave it out")
        if "max_steps" not in self.trainer:
            # It may be there with a typing error, which only TRL's own names tell from another setting.
            with contextlib.suppress(ImportError):
                from trl import GRPOConfig

                check_keys(GRPOConfig, self.trainer, "trainer")
            raise ConfigError(
                f"trainer lacks max_steps, the number of optimiser steps; it has {', '.join(self.trainer) or 'no key'}"
            )
        steps = self.trainer["max_steps"]
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ConfigError(f"trainer.max_steps is {shown(steps)}; expected a whole number of at least 1")
        if self.matmul_precision not in ("highest", "high", "medium"):
            raise ConfigError(f"matmul_precision is {shown(self.matmul_precision)}; expected highest, high or medium")
        if self.shots < 0:
            raise ConfigError(f"shots is {self.shots}; expected at least 0")
        if not all(isinstance(text, str) and text for text in self.stop):
            raise ConfigError(f"stop is {shown(self.stop)}; expected a list of texts of at least one character")
        if self.answer_prefix and self.warm_start is not None:
            raise ConfigError(
                "a warm start learns whole solutions, and answer_prefix has their beginning written already; leave one "
                "of the two out"
            )
        if self.evaluation.samples < 1 or not self.evaluation.temperature > 0:
            raise ConfigError(
                f"evaluation has samples={self.evaluation.samples} and temperature={self.evaluation.temperature}; "
                "expected at least one sample and a positive temperature"
            )


@dataclass(frozen=True)
class FinetuneResult:
    """What `run_finetune` brought."""

    folder: Path
    """Where everything lies."""
    evaluation: Mapping[str, Any]
    """The content of evaluation.json: `before`, `after`, `difference` (avg@k, paired by problem), `facts`."""
    log: Sequence[Mapping[str, Any]]
    """One row per optimiser step; a metric without data is None."""
    main_process: bool = True
    """False in the processes that shared the training with the first one, which wrote everything."""

    def summary(self) -> list[str]:
        """One line per measure, before and after with 90 % intervals over problems."""
        k, problems = self.evaluation["after"]["k"], self.evaluation["after"]["problems"]
        lines = [f"{problems} problems, {k} samples each; 90 % intervals over problems"]
        for name, label in (("average", f"avg@{k}"), ("any_right", f"pass@{k}"), ("greedy", "greedy")):
            before, after = (percent(self.evaluation[phase][name]) for phase in ("before", "after"))
            lines.append(f"{label:<8} {before}  ->  {after}")
        lines.append(f"{'change':<8} {percent(self.evaluation['difference'])} of avg@{k}, paired by problem")
        beyond = self.evaluation.get("beyond")
        if beyond is not None:
            before, after = (percent(beyond[phase]["average"]) for phase in ("before", "after"))
            lines.append(f"{'beyond':<8} {before}  ->  {after} of avg@{k}, {beyond['after']['problems']} problems")
        before, after = (f"{self.evaluation[phase]['unfinished']:.1%}" for phase in ("before", "after"))
        lines.append(f"{'unended':<8} {before}  ->  {after} of the sampled answers were cut off at the limit")
        return lines


def configuration_names() -> list[str]:
    """The ready configurations, sorted.

    >>> "cpu-smoke" in configuration_names()
    True
    """
    return sorted(path.name.removesuffix(".yaml") for path in _ready() if path.name.endswith(".yaml"))


def load_settings(source: str | Path) -> FinetuneSettings:
    """Settings from a YAML file or a ready configuration.

    Raises:
        ConfigError: the file is not there or not YAML, a key is unknown or missing, or a value is out of range.
        UnknownNameError: no ready configuration of that name.

    >>> load_settings("cpu-smoke").objective
    'dapo'
    """
    name = str(source)
    if name in configuration_names():
        content = parse_yaml(next(path for path in _ready() if path.name == f"{name}.yaml").read_bytes(), name)
    elif _exists(name):
        content = read_yaml(source)
    elif "/" in name or name.endswith((".yaml", ".yml")):
        raise ConfigError(
            f"there is no file {name!r}; expected a YAML file or one of {', '.join(configuration_names())}"
        )
    else:
        raise UnknownNameError("configuration", name, configuration_names())
    return read_settings(FinetuneSettings, content, name)


def run_finetune(
    source: str | Path | FinetuneSettings,
    resume: bool = False,
    out: str | Path | None = None,
    report: Callable[[str], None] | None = None,
    start: str | Path | None = None,
    choose_threads: bool = False,
) -> FinetuneResult:
    """Warm start, evaluate, train, evaluate; or go on with a run that was interrupted.

    Several processes started by `accelerate launch` share the training; the first one does the rest.

    Args:
        source: settings, a YAML file, or the name of a ready configuration.
        resume: continue the run in `out` from its last checkpoint instead of starting one.
        out: the folder; `None`: `runs/finetune/<name of the configuration>`.
        report: called with a line of text whenever something worth knowing happened.
        start: a folder of `prepare_start`, whose model and first evaluation are taken over instead of made again.
        choose_threads: on a processor, choose the number of threads by the model's size and the machine's load, and
            keep to it when the run is resumed: another number rounds differently. False: PyTorch's own number.

    Raises:
        ConfigError: TRL is missing, a setting is wrong, the hub is out of reach, the folder to resume holds another
            run, or `start` was prepared with other settings.
        RunExistsError: the folder is not empty and `resume` is False.
    """
    settings = source if isinstance(source, FinetuneSettings) else load_settings(source)
    name = "run" if isinstance(source, FinetuneSettings) else Path(str(source)).stem
    folder = Path(out) if out is not None else Path("runs") / "finetune" / name
    _require_trl()
    _check_sources(settings)
    from accelerate import PartialState

    processes = PartialState(cpu=_on_cpu(settings))
    _trainer_arguments(settings, folder)
    say = report if report is not None and processes.is_main_process else _silent
    fresh = not resume and processes.is_main_process
    with processes.main_process_first():
        # The others find what the first one has just written.
        _open_folder(folder, settings, resume=not fresh)
    started = time.perf_counter()
    run = _Run(settings, folder, say, processes, choose_threads)
    with _without_chatter(), contextlib.closing(run.grader), _precision(settings.matmul_precision):
        with _forgotten_unless_usable(folder) if fresh else contextlib.nullcontext():
            if fresh and start is not None:
                _take_over(Path(start), folder, settings)
            processes.wait_for_everyone()
            run.start()
            run.prepare(resume)
        run.train()
        run.finish(time.perf_counter() - started)
    evaluation = json.loads((folder / EVALUATION_FILE).read_text(encoding="utf-8"))
    return FinetuneResult(folder, evaluation, read_log(folder / LOG_FILE), bool(processes.is_main_process))


def prepare_start(settings: FinetuneSettings, folder: str | Path) -> None:
    """Make the model that reinforcement learning starts from, evaluate it, and stop there.

    Runs that differ in nothing but what comes after may share it: `run_finetune(…, start=folder)`. A folder that
    already holds it is left as it is.

    Raises:
        ConfigError: as `run_finetune`.
    """
    _require_trl()
    from accelerate import PartialState

    folder = Path(folder)
    known = (folder / CONFIGURATION_FILE).is_file()
    _open_folder(folder, settings, resume=known)
    run = _Run(settings, folder, _silent, PartialState(cpu=_on_cpu(settings)))
    unusable = contextlib.nullcontext() if known else _forgotten_unless_usable(folder)
    with _without_chatter(), contextlib.closing(run.grader), _precision(settings.matmul_precision), unusable:
        run.start()


def finished_run(settings: FinetuneSettings, folder: str | Path) -> FinetuneResult | None:
    """The run of these settings that a folder holds, if it is finished.

    Raises:
        ConfigError: the folder holds a run of other settings.
    """
    folder = Path(folder)
    path = folder / EVALUATION_FILE
    if not (folder / CONFIGURATION_FILE).is_file() or not path.is_file():
        return None
    _open_folder(folder, settings, resume=True)
    evaluation = json.loads(path.read_text(encoding="utf-8"))
    return FinetuneResult(folder, evaluation, read_log(folder / LOG_FILE)) if "after" in evaluation else None


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log.jsonl; a last one that was being written when the process ended is left out."""
    *lines, _ = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
    return [json.loads(line) for line in lines]


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """No progress bars for files of a megabyte, and no warnings of transformers about its own future."""
    from transformers.utils import logging

    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        yield
    if shown:
        bars.enable_progress_bar()


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _forgotten_unless_usable(folder: Path) -> Iterator[None]:
    """Take a new run's folder away again if the run can never work, so that it does not refuse the next start.

    That is when its model could not be made, or its settings are refused.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ConfigError) or flaw(folder / START_FOLDER) is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


class _Run:
    """One run in one folder: its model, its problems, its grader."""

    def __init__(
        self,
        settings: FinetuneSettings,
        folder: Path,
        say: Callable[[str], None],
        processes: Any,
        choose_threads: bool = False,
    ) -> None:
        from envs.grading import Grader

        self.settings, self.folder, self.say, self.processes = settings, folder, say, processes
        self.grader: Grader = Grader(numbers_only=settings.numbers_only)
        self.length: int = _trainer_arguments(settings, folder).max_completion_length
        self.steps: int = settings.trainer["max_steps"]
        self.training_seconds = 0.0
        self.choose_threads = choose_threads and _on_cpu(settings)

    def start(self) -> None:
        """The model reinforcement learning begins with, and how good it is."""
        from models.causal_lm import load_causal_lm
        from models.pretrained import dequantised, is_gguf

        start = self.folder / START_FOLDER
        with self.processes.main_process_first():
            problem = flaw(start)
            if start.exists() and problem is not None:
                self.say(f"{START_FOLDER} is made again: {problem}")
            if problem is None:
                self.model, self.tokenizer = load_causal_lm(str(start), dtype=self.settings.dtype)
            else:
                if is_gguf(self.settings.model):
                    dequantised(self.settings.model, self.settings.dtype, self.say)
                self.model, self.tokenizer = load_causal_lm(
                    self.settings.model,
                    tokenizer=self.settings.tokenizer,
                    seed=self.settings.seed,
                    dtype=self.settings.dtype,
                )
                self._use_threads()
                self.tasks = self._tasks()
                if self.settings.warm_start is not None:
                    self._warm_start(self.settings.warm_start)
                if self.processes.is_main_process:
                    write_whole(start, self._save)
            self._use_threads()
            self.tasks = self._tasks()
        self.model.to(self.processes.device)
        if self.processes.is_main_process and "before" not in self._evaluations():
            self._evaluate("before")
        self.processes.wait_for_everyone()

    def _use_threads(self) -> None:
        """As many as were chosen when the run began."""
        import torch

        from testbed.engines.threads import choose_threads, idle_cores

        if not self.choose_threads:
            return
        self.choose_threads = False
        path = self.folder / THREADS_FILE
        if path.is_file():
            kept = read_json(path)
            if not isinstance(kept, int) or kept < 1:
                raise ConfigError(f"{path} holds {shown(kept)}; expected a number of threads. Remove it to choose anew")
            torch.set_num_threads(kept)
            self.say(f"threads: {kept}, as when the run began")
            return
        size = sum(value.numel() for value in self.model.parameters())
        chosen = choose_threads(size, *idle_cores())
        torch.set_num_threads(chosen.number)
        self.say(f"threads: {chosen.number}, as {chosen.reason}; OMP_NUM_THREADS sets another number")
        if self.processes.is_main_process:
            write_atomically(path, f"{chosen.number}\n".encode())

    def _save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _tasks(self) -> dict[str, MathTask]:
        from models.prompts import adopt_tokens, check_text, encode_prompts, encode_solutions

        adopt_tokens(self.model, self.tokenizer)
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        tasks: dict[str, MathTask] = {}
        settings = {"train": self.settings.train, "test": self.settings.test, "beyond": self.settings.beyond}
        loaded = {phase: _load(task) for phase, task in settings.items() if task is not None}
        examples = loaded["train"][: self.settings.shots]
        for phase, task in settings.items():
            if task is None:
                continue
            tasks[phase] = loaded[phase].with_examples(examples) if self.settings.shots else loaded[phase]
            if task.chat:
                tasks[phase] = tasks[phase].with_chat_template(self.tokenizer, system_turn=task.system_turn)
            tasks[phase] = tasks[phase].with_answer_prefix(self.settings.answer_prefix)
            encode_prompts(self.tokenizer, [problem.prompt for problem in tasks[phase]], vocabulary)
            encode_solutions(self.tokenizer, [(item.prompt, item.solution) for item in tasks[phase]], vocabulary)
            for problem in tasks[phase]:
                check_text(problem.answer)
        return tasks

    def grade(self, responses: Sequence[str], answers: Sequence[str]) -> list[Grade]:
        """Verdicts on answers with the beginning that was written for them."""
        return self.grader.grade_batch([self.settings.answer_prefix + text for text in responses], answers)

    def reward(self, completions: Sequence[str], answer: Sequence[str], **_: Any) -> list[float]:
        """1 for a right answer and 0 for any other, with the signature TRL calls reward functions by."""
        return [float(grade.correct) for grade in self.grade(completions, answer)]

    def _warm_start(self, settings: WarmStartSettings) -> None:
        from models.causal_lm import warm_start

        def correct(responses: Sequence[str], answers: Sequence[str]) -> list[bool]:
            return [grade.correct for grade in self.grade(responses, answers)]

        problems = list(self.tasks["train"])
        done = warm_start(
            self.model.to(self.processes.device),
            self.tokenizer,
            problems,
            correct=correct,
            max_new_tokens=self.length,
            stop=self.settings.stop,
            seed=self.settings.seed,
            **{**dataclasses.asdict(settings), "probes": problems[: settings.probes]},
        )
        self.say(f"warm start: {done.success:.1%} right after {done.steps} steps, {done.seconds:.0f} s")

    def prepare(self, resume: bool) -> None:
        """A trainer that stands at the beginning, or at the newest checkpoint that is whole."""
        from testbed.engines.trl.checkpoint import newest_whole, number_of

        self.checkpoint = newest_whole(self.folder / CHECKPOINT_FOLDER, self.say) if resume else None
        self.done = number_of(self.checkpoint) if self.checkpoint else 0
        if self.processes.is_main_process:
            _keep_rows(self.folder / LOG_FILE, self.done)
            if self.checkpoint is None:
                # A run that died before its first checkpoint is trained from the beginning.
                shutil.rmtree(self.folder / RECORD_FOLDER, ignore_errors=True)
        self.processes.wait_for_everyone()
        if resume:
            self.say(f"resuming after step {self.done} of {self.steps}")
        self.trainer = self._trainer() if self.done < self.steps else None

    def train(self) -> None:
        """Reinforcement learning, unless it was finished before."""
        if self.trainer is None:
            self._load(str(self.checkpoint))
            return
        self._disclose(self.trainer)
        began = time.perf_counter()
        self.trainer.train(resume_from_checkpoint=None if self.checkpoint is None else str(self.checkpoint))
        self.training_seconds = time.perf_counter() - began
        self.model = self.trainer.accelerator.unwrap_model(self.trainer.model)

    def _trainer(self) -> Any:
        from testbed.engines.trl import ObjectiveTrainer

        peft = None
        if self.settings.lora is not None:
            from peft import LoraConfig

            peft = build_settings(LoraConfig, self.settings.lora, "lora")
        trainer = ObjectiveTrainer(
            self.settings.objective,
            model=self.model,
            processing_class=self.tokenizer,
            args=_trainer_arguments(self.settings, self.folder),
            train_dataset=self.tasks["train"].dataset(),
            reward_funcs=self.reward,
            advantage=self.settings.advantage,
            dynamic_sampling=self.settings.dynamic_sampling,
            overlong_cache=self.settings.overlong_cache,
            routing_replay=self.settings.routing_replay,
            record=self.folder / RECORD_FOLDER if self.settings.record else None,
            record_every=self.settings.record_every,
            record_share=self.settings.record_share,
            shared_prefixes=self.settings.shared_prefixes,
            stop=self.settings.stop,
            peft_config=peft,
        )
        _follow(trainer, self.folder / LOG_FILE, self.say if self.processes.is_main_process else None)
        return trainer

    def _load(self, checkpoint: str) -> None:
        if self.settings.lora is not None:
            from peft import PeftModel

            self.model = PeftModel.from_pretrained(self.model, checkpoint)
        else:
            from models.causal_lm import load_causal_lm

            self.model = load_causal_lm(checkpoint, dtype=self.settings.dtype).model.to(self.processes.device)

    def _disclose(self, trainer: Any) -> None:
        self.say(f"{trainer.objective.label()} with {trainer.advantage} advantages on {self.processes.device}")

    def finish(self, seconds: float) -> None:
        """Save the model and evaluate it once more."""
        if self.processes.is_main_process:
            write_whole(self.folder / MODEL_FOLDER, self._save)
            self._evaluate("after", seconds)
        self.processes.wait_for_everyone()

    def _evaluations(self) -> dict[str, Any]:
        path = self.folder / EVALUATION_FILE
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return known

    def _evaluate(self, phase: str, seconds: float | None = None) -> None:
        from testbed.engines.evaluation import paired_difference

        measured = self._measured("test")
        known = self._evaluations() | {phase: measured.facts()}
        if "beyond" in self.tasks:
            known["beyond"] = known.get("beyond", {}) | {phase: self._measured("beyond").facts()}
        if phase == "after":
            known["facts"] = self._facts(seconds)
            for both in (known, *([known["beyond"]] if "beyond" in known else [])):
                difference = paired_difference(both["before"]["per_problem"], both["after"]["per_problem"])
                both["difference"] = difference._asdict()
        text = json.dumps(missing_as_null(known), indent=1, allow_nan=False) + "\n"
        write_atomically(self.folder / EVALUATION_FILE, text.encode())
        self._write_samples(phase, measured)
        self.say(f"{phase}: avg@{measured.k} {percent(measured.average._asdict())}")

    def _measured(self, task: str) -> Evaluation:
        from testbed.engines.evaluation import evaluate

        return evaluate(
            self.model,
            self.tokenizer,
            list(self.tasks[task]),
            self.grade,
            samples=self.settings.evaluation.samples,
            max_new_tokens=self.length,
            temperature=self.settings.evaluation.temperature,
            batch_size=self.settings.evaluation.batch_size,
            seed=self.settings.seed,
            stop=self.settings.stop,
        )

    def _facts(self, seconds: float | None) -> dict[str, Any]:
        packages = ("torch", "transformers", "trl", "accelerate")
        return {
            "objective": make_objective(self.settings.objective).label(),
            "parameters": sum(value.numel() for value in self.model.parameters()),
            "device": str(self.processes.device),
            "processes": self.processes.num_processes,
            "seconds": seconds,
            "training_seconds": self.training_seconds,
            "peak_bytes": _peak_bytes(),
            "versions": {package: metadata.version(package) for package in packages},
        }

    def _write_samples(self, phase: str, measured: Evaluation) -> None:
        path = self.folder / SAMPLES_FILE
        rows = [row for row in read_log(path) if row["phase"] != phase]
        rows += [{"phase": phase, **sample._asdict()} for sample in measured.samples[: self.settings.evaluation.shown]]
        _write_rows(path, rows)


def _load(task: TaskSettings) -> MathTask:
    from envs.math_tasks import load_task

    apart = ("source", "chat", "system_turn")
    return load_task(task.source, **{key: value for key, value in vars(task).items() if key not in apart})


def _trainer_settings(settings: FinetuneSettings, checkpoints: Path) -> dict[str, Any]:
    cpu = _on_cpu(settings)
    return {
        "bf16": not cpu,
        "use_cpu": cpu,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "steps",
        "save_steps": 10,
        "save_total_limit": 2,
        "disable_tqdm": True,
        **settings.trainer,
        "output_dir": str(checkpoints),
        "seed": settings.seed,
    }


def _trainer_arguments(settings: FinetuneSettings, folder: Path) -> Any:
    """TRL's configuration; what it or the objective refuses is an error before anything is made or written."""
    from trl import GRPOConfig

    from testbed.engines.trl import check_settings

    with _without_chatter():
        arguments = build_settings(GRPOConfig, _trainer_settings(settings, folder / CHECKPOINT_FOLDER), "trainer")
    check_settings(make_objective(settings.objective), arguments)
    return arguments


def _follow(trainer: Any, log: Path, say: Callable[[str], None] | None) -> None:
    """One row of log.jsonl a step, and a bar on a terminal; in place of the printing transformers does."""
    from transformers import PrinterCallback, TrainerCallback

    from testbed.progress import LateProgress

    class Follower(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.progress = LateProgress("training", state.max_steps - state.global_step)
            self.progress.__enter__()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.progress.advance()

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.progress.__exit__(None, None, None)

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # What the trackers were given leaves out metrics without data.
            latest = state.log_history[-1]
            if state.is_world_process_zero and "loss" in latest:
                with storing(log), log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(log_row(state.global_step, latest), allow_nan=False) + "\n")

    trainer.remove_callback(PrinterCallback)
    if say is not None:
        trainer.add_callback(Follower())


def log_row(step: int, logs: Mapping[str, Any]) -> dict[str, Any]:
    """A row of log.jsonl: the metrics of a step under this project's names; `None` where one has no data.

    >>> log_row(3, {"loss": 0.5, "grad_norm": float("nan"), "reward": 1.0, "reward/mean": 1.0})
    {'step': 3, 'loss': 0.5, 'gradient/norm': None, 'reward/mean': 1.0}
    """
    kept = {_RENAMED.get(key, key): value for key, value in logs.items() if key not in _DUPLICATES}
    return {"step": step, **missing_as_null(kept)}


def _keep_rows(path: Path, last: int) -> None:
    _write_rows(path, [row for row in read_log(path) if row["step"] <= last])


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def _open_folder(folder: Path, settings: FinetuneSettings, resume: bool) -> None:
    path = folder / CONFIGURATION_FILE
    described = _described(settings)
    if resume:
        if not path.is_file():
            raise ConfigError(
                f"{folder} holds no run to resume; expected {CONFIGURATION_FILE} in it. Start without --resume"
            )
        saved = _described(_saved(path))
        changed = sorted(key for key in described if saved[key] != described[key])
        if changed:
            raise ConfigError(
                f"{folder} holds a run with other settings ({', '.join(changed)}); resume with the same configuration, "
                "or start a new run in another folder"
            )
        return
    if folder.exists() and (folder.is_file() or any(not _is_temporary(path) for path in folder.iterdir())):
        raise RunExistsError(f"{folder} already holds something; nothing was written. Use --resume, or another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, yaml.safe_dump(described, sort_keys=False, allow_unicode=True).encode())


def _is_temporary(path: Path) -> bool:
    """Whether it was left by a process that was killed while it wrote its first file."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def _described(settings: FinetuneSettings) -> dict[str, Any]:
    """Settings as plain data; sequences that a file wrote as tuples come back as lists, and both mean the same."""
    described: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings), default=dict))
    return described


def _saved(path: Path) -> FinetuneSettings:
    """The settings of a run; what an older version did not know of has its default."""
    return read_settings(FinetuneSettings, read_yaml(path), str(path))


_BEFORE_TRAINING = (
    "model",
    "tokenizer",
    "dtype",
    "matmul_precision",
    "train",
    "test",
    "beyond",
    "shots",
    "answer_prefix",
    "numbers_only",
    "stop",
    "warm_start",
    "evaluation",
    "seed",
    "device",
)
"""The settings that decide a start and its evaluation, the length of a response among the trainer's aside."""


def _take_over(start: Path, folder: Path, settings: FinetuneSettings) -> None:
    """Copy the start, the first evaluation and its samples of another folder."""
    path = start / CONFIGURATION_FILE
    if not path.is_file() or not (start / EVALUATION_FILE).is_file() or flaw(start / START_FOLDER) is not None:
        raise ConfigError(f"{start} holds no finished start; expected a folder that prepare_start has written")
    saved, described = _described(_saved(path)), _described(settings)
    changed = [key for key in _BEFORE_TRAINING if saved[key] != described[key]]
    length = "max_completion_length"
    if saved["trainer"].get(length) != described["trainer"].get(length):
        changed.append(length)
    if changed:
        raise ConfigError(f"{start} was prepared with another {', '.join(changed)}; prepare one with these settings")
    write_whole(
        folder / START_FOLDER, lambda partial: shutil.copytree(start / START_FOLDER, partial, dirs_exist_ok=True)
    )
    for name in (EVALUATION_FILE, SAMPLES_FILE):
        shutil.copy(start / name, folder / name)


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:
        # Too long to be a name.
        return False


def _ready() -> list[Any]:
    return list(resources.files("testbed").joinpath("finetune_configs").iterdir())


def _require_trl() -> None:
    try:
        metadata.version("trl")
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            "fine-tuning needs TRL, which is not installed; install this package with its llm extra, or trl==1.16.*"
        ) from error


def _check_sources(settings: FinetuneSettings) -> None:
    """What is not there and out of reach is said before anything heavy is loaded or anything is written."""
    from envs.math_tasks import check_available as check_task
    from models.causal_lm import check_available as check_model

    check_model(settings.model)
    for task in (settings.train, settings.test, settings.beyond):
        if task is not None:
            check_task(task.source)


def _on_cpu(settings: FinetuneSettings) -> bool:
    import torch

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, and PyTorch sees no GPU; use cpu, or leave device out")
    return settings.device == "cpu" or not torch.cuda.is_available()


def percent(estimate: Mapping[str, float | None]) -> str:
    """A share with its interval, `value [low, high]`, as a reader sees it."""
    value, low, high = (
        "missing" if estimate[name] is None else f"{estimate[name]:.1%}" for name in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def _peak_bytes() -> int | None:
    """The most memory this process ever held; `None` where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    # In kilobytes, but on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _silent(line: str) -> None:
    """Where nobody wants to be told."""
