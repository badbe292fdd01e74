"""`ObjectiveTrainer`: which of TRL's methods do something else here.

TRL samples, scores, schedules, shards, logs and saves; what is learned from the samples is the objective's affair. The
same object that trained a bandit trains a transformers model here, on one process or on many through accelerate.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from models.prompts import adopt_tokens
from testbed.advantages import make_advantage_estimator
from testbed.batch import TokenBatch
from testbed.engines.folders import seal, storing, unseal
from testbed.engines.trl.checkpoint import Label, load_converted, newest_whole, required_whole, rotate
from testbed.engines.trl.head import Kappas, takes_own_head, use_own_head
from testbed.engines.trl.installed import GRPOConfig, GRPOTrainer, require_trl
from testbed.engines.trl.metrics import Recorder, without_missing
from testbed.engines.trl.prompts import EpochSampler, PromptNumbers, PromptReader, with_empty_responses
from testbed.engines.trl.recording import Recording, names_of_numbers, settings_of
from testbed.engines.trl.rewards import with_overlong_reward
from testbed.engines.trl.rounds import Sampling
from testbed.engines.trl.routing import RoutingReplay
from testbed.engines.trl.sampler import Sampler, truncations
from testbed.engines.trl.settings import check_sampling, check_settings, check_stop
from testbed.engines.trl.shared_prefixes import SharedPrefixes
from testbed.engines.trl.step import OptimiserStep, Scored, token_batch
from testbed.errors import BatchError, ConfigError
from testbed.objectives import Objective, make_objective
from testbed.records import RecordWriter, check_thinning

__all__ = ["ObjectiveTrainer"]

_log = logging.getLogger(__name__)


class ObjectiveTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's `GRPOTrainer` whose loss, advantages and choice of responses are objects of this project.

    Denominators are those of the whole optimiser step, over all its micro-batches and processes: how a step is split
    does not change its gradient. Metrics are computed once per step on all of its tokens, under the names of
    `testbed.diagnostics`. An objective that reads the whole batch at once (BAPO, the covariance clips) gets it: the
    step's tokens are scored first without a graph, and each micro-batch then back-propagates its part of the gradient,
    at the price of a second forward pass where a step has several micro-batches or processes.

    A step that meets NaN, in logits, log-probabilities, advantages or gradients, is refused: no weight and no
    optimiser state changes, and `update/refused` is 1 in that step's log. The learning-rate schedule goes on.

    Checkpoints also hold the state of the advantage estimator and the responses still to be trained on, so that a
    resumed run continues with the same numbers. One that was being written when the process was killed is passed over.

    Departures from `GRPOTrainer`: 1. losses that TRL normalises over a micro-batch, or over a whole generation, are
    normalised over the optimiser step. 2. Prompts of the second and later epochs come in an order that
    depends on the epoch alone, not on how often the run was resumed. 3. A group with a response that no reward function
    could score, or scored as infinite, is left out as a whole (advantage 0) and counted in `group/unscorable_fraction`.
    4. A text starts and a response ends as `models.prompts` says, and the text of an end token is not graded.
    5. Weights that are saved in another layout than the model's, as those of experts are, are loaded from a checkpoint
    too.

    Args:
        objective: an objective, its name, or `name(key=value,…)`.
        args: TRL's configuration. Settings in `DECIDED_BY_THE_OBJECTIVE` must have TRL's defaults, `beta` included
            unless the objective reads `ref_log_probs`; its own coefficient then counts.
        reward_funcs: as TRL takes them: a function or a list of functions.
        train_dataset: as TRL takes it; content parts of prompts are read as their text. A column `prompt_id` names each
            prompt for good; without one, a row's position does.
        advantage: estimator, a name or `name(key=value,…)`; `None`: the objective's own.
        dynamic_sampling: rounds of sampling a batch may take until all its groups are informative; 1: none is
            replaced. See `testbed.sampling.collect_groups`. Further prompts are drawn at random from the data set.
        routing_replay: for a mixture of experts: send every token to the experts the old policy chose (R2). Needs an
            old-policy pass, that is several updates per generation; without one there is nothing to replay.
        record: folder to write every update down in, token by token, for `testbed replay`; `None`: nothing is written.
            A resumed run continues it; several processes write shards of their own.
        record_every: only rollouts whose number is a multiple of it.
        record_share: about this share of the prompts of each rollout, in (0, 1].
        shared_prefixes: run a prompt once for all of its responses in generation and, within a micro-batch, in scoring
            and training; `None`: where it saves a tenth of the tokens and the model allows it. See
            `testbed.engines.trl.shared_prefixes`.
        overlong_cache: L_cache of DAPO's soft overlong punishment, with `max_completion_length` as L_max; `None`: no
            punishment. Overlong filtering is TRL's `mask_truncated_completions`.
        stop: strings that end a response as end tokens do; the token that completes one is the response's last.
        **trl: every other argument of `GRPOTrainer`.

    Raises:
        ConfigError: TRL is not installed, settings contradict each other, nothing says which token ends a response, or
            a prompt cannot be read.
    """

    def __init__(
        self,
        objective: Objective | str,
        *,
        model: Any,
        reward_funcs: Any,
        args: GRPOConfig,
        train_dataset: Any,
        advantage: str | None = None,
        dynamic_sampling: int = 1,
        overlong_cache: int | None = None,
        routing_replay: bool = False,
        record: str | Path | None = None,
        record_every: int = 1,
        record_share: float = 1.0,
        shared_prefixes: bool | None = None,
        stop: Sequence[str] = (),
        **trl: Any,
    ) -> None:
        require_trl()
        self.objective = make_objective(objective)
        self.advantage = advantage or self.objective.advantage
        estimate: Any = make_advantage_estimator(self.advantage)
        check_settings(self.objective, args, trl.get("rollout_func"))
        check_thinning(record_every, record_share)
        numbers = PromptNumbers(train_dataset, needed=hasattr(estimate, "state_dict") or dynamic_sampling > 1)
        check_sampling(args, numbers.rows, dynamic_sampling, routing_replay)
        check_stop(args, stop, trl.get("rollout_func"))
        reward_funcs = with_overlong_reward(reward_funcs, args, overlong_cache)
        if "ref_log_probs" in self.objective.needs:
            # TRL loads a reference model where beta is not 0; the penalty's weight is the objective's.
            args.beta = args.beta or 1.0
        if trl.get("rollout_func") is not None:
            trl["rollout_func"] = with_empty_responses(trl["rollout_func"])
        if hasattr(model, "generation_config") and hasattr(trl.get("processing_class"), "eos_token_id"):
            # TRL knows the tokenizer's end token and those of the generation configuration.
            model.generation_config.eos_token_id = adopt_tokens(model, trl["processing_class"])
        self.record = Recorder(lambda: self._metrics["train" if self.model.training else "eval"])

        super().__init__(model=model, reward_funcs=reward_funcs, args=args, train_dataset=numbers.dataset, **trl)

        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        self.reader = PromptReader(self._tokenizer, vocabulary, self.eos_token_ids, images=self._is_vlm)
        self.sampler = Sampler(
            self._tokenizer,
            stop=stop,
            ends=self.eos_token_ids,
            temperature=self.temperature,
            truncating={} if args.use_vllm else truncations(args),
        )
        self.reader.check(numbers.dataset, self._tokenize_prompts if self.rollout_func is None else None)
        self.kappas = Kappas()
        self.reads_kappas = record is not None or not {"kappas", "old_kappas"}.isdisjoint(self.objective.needs)
        self.routing = RoutingReplay(lambda: self.accelerator.unwrap_model(self.model), routing_replay)
        self.sampling = Sampling(
            estimate,
            numbers,
            rounds=dynamic_sampling,
            group_size=self.num_generations,
            prompts=args.generation_batch_size // self.num_generations,
            seed=args.seed,
            old_entropies=record is not None or "old_entropies" in self.objective.needs,
            kappas=self.kappas if self.reads_kappas else None,
            pad_token=self._tokenizer.pad_token_id,
            recording=self.routing.recording,
            accelerator=self.accelerator,
            record=self.record,
        )
        self.label = Label(self.objective.label(), self.advantage, self.accelerator.process_index)
        self.recording = None
        if record is not None:
            writer = RecordWriter(
                record,
                every=record_every,
                share=record_share,
                objective=self.objective.label(),
                settings=settings_of(args, self.advantage),
                rank=self.accelerator.process_index,
            )
            micro_batches = args.steps_per_generation * args.num_iterations
            self.recording = Recording(
                writer, names_of_numbers(numbers), micro_batches, args.gradient_accumulation_steps
            )
        self.optimiser_step: OptimiserStep | None = None
        # Before every tracker.
        self.callback_handler.callbacks.insert(0, without_missing())
        whole = self.accelerator.unwrap_model(self.model)
        self.shared_prefixes = SharedPrefixes(whole, shared_prefixes, self._obstacle_to_sharing(whole, routing_replay))
        own_head = not args.cast_lm_head_to_fp32 and use_own_head(
            whole, self.temperature, self.kappas, self.shared_prefixes
        )
        if not own_head and not {"kappas", "old_kappas"}.isdisjoint(self.objective.needs):
            raise ConfigError(
                f"{self.objective.label()} reads κ of every position, which TRL's head does not give; it stays where "
                "logits are scaled, capped or cast to single precision. Choose a model or an objective without that"
            )

    def _obstacle_to_sharing(self, model: Any, routing_replay: bool) -> str:
        """What of this trainer's settings speaks against running a prompt once for several responses."""
        obstacles = {
            "prompts have images, which belong to one response each": self._is_vlm,
            "routing_replay replays the experts of a batch in which every response has its own prompt": routing_replay,
            "the model's weights are spread over processes": self.is_fsdp_enabled or self.is_deepspeed_enabled,
            "torch_compile compiles for one shape of batches": self.args.torch_compile,
            "the head of this model is TRL's own": self.args.cast_lm_head_to_fp32 or not takes_own_head(model),
        }
        return next((reason for reason, holds in obstacles.items() if holds), "")

    # -- prompts and responses -------------------------------------------------------------------------------------

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "prompt_id" not in self._signature_columns:
            self._signature_columns.append("prompt_id")

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        return EpochSampler(lambda: int(self.state.epoch or 0), super()._get_train_sampler(dataset))

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        return self.reader.tokens(prompts, super()._tokenize_prompts)

    def _generate_single_turn(self, *arguments: Any, **settings: Any) -> Any:
        model = self.accelerator.unwrap_model(self.model)
        with self.shared_prefixes.generating(model), self.sampler.guiding(model):
            responses, log_probs = super()._generate_single_turn(*arguments, **settings)
        return self.sampler.cut(responses, log_probs)

    def _generate(self, prompts: list[Any]) -> Any:
        generated = super()._generate(prompts)
        responses, completions = generated[1], generated[3]
        self.reader.check_written(responses)
        self.reader.cut_ends(responses, completions)
        self._note_finished(responses)
        for place, text in enumerate(completions):
            if isinstance(text, str):
                completions[place] = self.sampler.stop.before(text)
        return generated

    def _note_finished(self, responses: Sequence[Sequence[int]]) -> None:
        """Lengths and share of the responses that ended by themselves; TRL knows of end tokens alone."""
        if not self.sampler.stop:
            return
        device = self.accelerator.device
        lengths = torch.tensor([len(ids) for ids in responses], device=device, dtype=torch.float32)
        ended = torch.tensor([self.sampler.finished(ids) for ids in responses], device=device)
        lengths, ended = self.accelerator.gather(lengths), self.accelerator.gather(ended)
        of_ended = lengths[ended] if bool(ended.any()) else lengths.new_full((1,), math.nan)
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in (
            ("clipped_ratio", 1 - ended.float().mean()),
            ("mean_terminated_length", of_ended.mean()),
            ("min_terminated_length", of_ended.min()),
            ("max_terminated_length", of_ended.max()),
        ):
            metrics[f"completions/{name}"][-1] = float(value)

    def _calculate_rewards(self, *arguments: Any) -> Tensor:
        per_function: Tensor = super()._calculate_rewards(*arguments)
        self.sampling.note_rewards(per_function, self.reward_weights)
        return per_function

    def _get_per_token_logps_and_entropies(self, model: Any, *arguments: Any, **settings: Any) -> Any:
        pass_ = functools.partial(super()._get_per_token_logps_and_entropies, model, *arguments, **settings)
        return self.sampling.score(pass_) if model is self.model else pass_()

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        inputs, generate = self.reader.plain(inputs), super()._generate_and_score_completions
        if not self.model.training:
            return cast(dict[str, Any], generate(inputs))
        output = self.sampling.responses(inputs, generate, self._step)
        if not self.sampling.replaces_groups:
            everywhere = self.accelerator.gather(output["advantages"]).tolist()
            for _ in everywhere:
                self._logs["advantages"].pop()
            self._logs["advantages"].extend(everywhere)
        return output

    # -- one optimiser step ----------------------------------------------------------------------------------------

    def training_step(self, *arguments: Any, **settings: Any) -> Tensor:
        """TRL's, without cuDNN's attention.

        Where a row is masked altogether, as padding before a prompt is, its gradient is NaN at some lengths: 64 and 192
        of all those tried between 50 and 256, with PyTorch 2.11.
        """
        allowed = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
        torch.backends.cuda.enable_cudnn_sdp(False)
        try:
            return cast(Tensor, super().training_step(*arguments, **settings))
        finally:
            torch.backends.cuda.enable_cudnn_sdp(allowed)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        inputs = super()._prepare_inputs(generation_batch)
        if self.model.training and self._position == 0:
            start = self._step % self.args.steps_per_generation
            self.optimiser_step = OptimiserStep(
                self.objective,
                self._buffered_inputs[start : start + self.args.gradient_accumulation_steps],
                width=self.max_completion_length,
                seed=self.args.seed + self._step,
                number=self.state.global_step + 1,
                accelerator=self.accelerator,
            )
        return inputs

    @property
    def _position(self) -> int:
        """Which micro-batch of the optimiser step comes next."""
        return int(self._step % self.args.gradient_accumulation_steps)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        scored, step = self._score(model, inputs), self.optimiser_step
        if not self.model.training or step is None:
            loss, share = self._evaluation_loss(inputs, scored), 1
        else:
            loss = step.loss(self._position, scored, functools.partial(self._score, model))
            share = self.current_gradient_accumulation_steps
            if self._position == self.args.gradient_accumulation_steps - 1:
                batch = step.close()
                if batch is not None:
                    self._finish_step(step, batch)
        if scored.auxiliary is not None:
            self.record("aux_loss", scored.auxiliary)
            loss = loss + self.router_aux_loss_coef * scored.auxiliary / share
        return loss

    def _evaluation_loss(self, inputs: Mapping[str, Any], scored: Scored) -> Tensor:
        try:
            output = self.objective(token_batch(inputs, scored, self.max_completion_length))
        except BatchError as problem:
            _log.warning("a batch of the evaluation has no loss: %s", problem)
            return scored.log_probs.new_tensor(math.nan)
        self.record.every(output.metrics)
        return output.loss

    def _finish_step(self, step: OptimiserStep, batch: TokenBatch) -> None:
        """What is made of a step's tokens once they are all scored; prompts and rewards are in its micro-batches."""
        with torch.no_grad():
            self.record.every(step.objective(batch).metrics)
        if self.recording is not None:
            self.recording.add(step.micro_batches, step.scored, self._step)

    def _score(self, model: Any, inputs: Mapping[str, Any]) -> Scored:
        score = functools.partial(
            self._get_per_token_logps_and_entropies,
            model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            inputs["completion_ids"].size(1),
            compute_entropy=True,
            compute_aux_loss=self.aux_loss_enabled,
            **{name: inputs[name] for name in _image_arguments() if name in inputs},
        )
        with self.routing.replaying(inputs):
            scored, kappas = self.kappas.beside(score) if self.reads_kappas else (score(), None)
        log_probs, entropies, auxiliary = scored
        return Scored(log_probs, entropies, auxiliary, kappas)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """TRL's gradient norm; the last moment before the optimiser moves, and where a bad step is refused."""
        norm, step = super()._get_grad_norm(model, grad_norm), self.optimiser_step
        assert step is not None
        if self.accelerator.scaler is None and norm is not None and not math.isfinite(float(norm)):
            step.refuse(f"the gradient norm is {float(norm)}")
        if step.refusal:
            # An optimiser passes over parameters without a gradient: neither they nor its state change.
            model.zero_grad(set_to_none=True)
        self.record("update/refused", float(bool(step.refusal)))
        return norm

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, **settings: Any) -> Any:
        """TRL's; a checkpoint has to be whole, and `True` means the newest one that is.

        Raises:
            ConfigError: there is no such checkpoint.
        """
        chosen: Path | None = None
        if resume_from_checkpoint is True:
            folder = Path(self.args.output_dir)
            chosen = newest_whole(folder, _log.warning)
            if chosen is None:
                raise ConfigError(f"{folder} has no checkpoint that is whole; start without resuming")
        elif resume_from_checkpoint:
            chosen = required_whole(Path(resume_from_checkpoint))
        if chosen is None and self.recording is not None:
            self.recording.start_anew()
        with contextlib.nullcontext() if self.recording is None else self.recording.kept():
            return super().train(resume_from_checkpoint=None if chosen is None else str(chosen), **settings)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        runs = Path(self._get_output_dir(trial=trial))
        folder = runs / f"checkpoint-{self.state.global_step}"
        unseal(folder)
        # TRL deletes older ones before this one is whole.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        with storing(folder):
            super()._save_checkpoint(model, trial)
            self.label.save(folder, self._state(), first=self.args.should_save)
            if self.recording is not None:
                # The run goes on from here, and what came before would be missing.
                self.recording.writer.flush()
        self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal(folder)
            rotate(runs, limit, self.state.best_model_checkpoint)

    def _state(self) -> dict[str, Any]:
        """What a resumed run needs beside weights and optimiser."""
        state: dict[str, Any] = {"step": self._step, "buffer": self._buffered_inputs}
        if self.sampling.has_memory:
            state |= {"prompt_ids": self.sampling.numbers.names, "estimator": self.sampling.estimate.state_dict()}
        return state

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        state = self.label.load(Path(checkpoint), self.accelerator.device)
        self._step, self._buffered_inputs = state["step"], state["buffer"]
        if self.sampling.has_memory:
            renumbered = self.sampling.numbers.renumbered(state["prompt_ids"], state["estimator"])
            self.sampling.estimate.load_state_dict(renumbered)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        whole = None if self.is_fsdp_enabled else self.accelerator.unwrap_model(self.model)
        if not load_converted(whole, Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)


def _image_arguments() -> list[str]:
    own = ("self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size")
    known = inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters
    return [name for name in known if name not in own and not name.startswith("compute_")]
