"""Objectives inside TRL: `ObjectiveTrainer` is its `GRPOTrainer` with loss, advantages and selection from this project.

TRL samples, scores, schedules, shards, logs and saves; what is learned from the samples is the objective's affair. The
same object that trained a bandit trains a transformers model here, on one process or on many through accelerate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import logging
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from models.prompts import adopt_tokens, encode_prompts, plain_prompt
from testbed.advantages import make_advantage_estimator
from testbed.batch import TokenBatch
from testbed.configuration import shown
from testbed.errors import BatchError, ConfigError
from testbed.objectives import Objective, make_objective
from testbed.sampling import collect_groups, informative_groups, overlong_penalty
from testbed.token_statistics import token_statistics_from_hidden

try:
    from trl import GRPOConfig, GRPOTrainer
    from trl.trainer.utils import FusedCausalLMOutput, RepeatSampler
except ModuleNotFoundError as error:
    # Tools that import every module to read it (doctest, documentation) work without TRL; training says what to do.
    if error.name != "trl":
        raise
    GRPOConfig = GRPOTrainer = FusedCausalLMOutput = RepeatSampler = object

__all__ = ["ObjectiveTrainer", "check_settings", "overlong_reward"]

_log = logging.getLogger(__name__)

DECIDED_BY_THE_OBJECTIVE = (
    "delta",
    "entropy_coef",
    "epsilon",
    "epsilon_high",
    "importance_sampling_level",
    "loss_type",
    "multi_objective_aggregation",
    "off_policy_mask_threshold",
    "sapo_temperature_neg",
    "sapo_temperature_pos",
    "scale_rewards",
    "top_entropy_quantile",
    "use_adaptive_entropy",
    "use_bias_correction_kl",
    "vespo_k_neg",
    "vespo_k_pos",
    "vespo_lambda_neg",
    "vespo_lambda_pos",
)
"""Settings of TRL's own losses. Here they would be ignored, so that a value other than TRL's default is an error."""

_LEFT_PADDED = ("prompt_ids", "prompt_mask")
_RIGHT_PADDED = (
    "completion_ids",
    "completion_mask",
    "old_entropies",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
    "tool_mask",
)
_PER_RESPONSE = ("advantages", "prompt_number", "rewards")
# Both are TRL's own denominators and weights, which the objective replaces.
_UNUSED = ("importance_sampling_ratio", "num_items_in_batch")

STATE_FILE = "objective_state.pt"
LABEL_FILE = "objective.json"


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
    resumed run continues with the same numbers.

    Departures from `GRPOTrainer`: 1. losses that TRL normalises over a micro-batch, or over a whole generation, are
    normalised over the optimiser step. 2. Prompts of the second and later epochs come in an order that
    depends on the epoch alone, not on how often the run was resumed. 3. A group with a response that no reward function
    could score, or scored as infinite, is left out as a whole (advantage 0) and counted in `group/unscorable_fraction`.

    Args:
        objective: an objective, its name, or `name(key=value,…)`.
        args: TRL's configuration. Settings in `DECIDED_BY_THE_OBJECTIVE` must have TRL's defaults, `beta` included
            unless the objective reads `ref_log_probs`; its own coefficient then counts.
        reward_funcs: as TRL takes them: a function or a list of functions.
        train_dataset: as TRL takes it. A column `prompt_id` names each prompt for good; without one, a row's position
            does.
        advantage: estimator, a name or `name(key=value,…)`; `None`: the objective's own.
        dynamic_sampling: rounds of sampling a batch may take until all its groups are informative; 1: none is
            replaced. See `testbed.sampling.collect_groups`. Further prompts are drawn at random from the data set.
        routing_replay: for a mixture of experts: send every token to the experts the old policy chose (R2). Needs an
            old-policy pass, that is several updates per generation; without one there is nothing to replay.
        overlong_cache: L_cache of DAPO's soft overlong punishment, with `max_completion_length` as L_max; `None`: no
            punishment. Overlong filtering is TRL's `mask_truncated_completions`.
        **trl: every other argument of `GRPOTrainer`.

    Raises:
        ConfigError: TRL is not installed, or settings contradict each other.
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
        **trl: Any,
    ) -> None:
        if GRPOTrainer is object:
            raise ConfigError("TRL is not installed; install this package with its llm extra, or trl==1.16.*")
        if not hasattr(GRPOTrainer, "_get_grad_norm"):
            raise ConfigError(
                "this release of transformers offers no place to refuse a bad step before it reaches the weights; "
                "install transformers 5.23 or newer"
            )
        self.objective = make_objective(objective)
        self.advantage = advantage or self.objective.advantage
        self._estimate: Any = make_advantage_estimator(self.advantage)
        self._rounds = dynamic_sampling
        self._replays = routing_replay
        check_settings(self.objective, args, trl.get("rollout_func"))
        if dynamic_sampling < 1:
            raise ConfigError(f"dynamic_sampling is {dynamic_sampling}; expected at least 1 round, 1 replaces no group")
        if routing_replay and (args.gradient_checkpointing or dynamic_sampling > 1):
            raise ConfigError(
                "routing_replay holds the choice of experts during one forward pass over one batch; "
                "gradient_checkpointing repeats the pass, and dynamic_sampling joins batches. Switch "
                "those off"
            )

        reward_funcs = list(reward_funcs) if isinstance(reward_funcs, Sequence) else [reward_funcs]
        if overlong_cache is not None:
            reward_funcs.append(overlong_reward(args.max_completion_length, overlong_cache))
            if args.reward_weights is not None:
                args.reward_weights = [*args.reward_weights, 1.0]
        if "ref_log_probs" in self.objective.needs:
            # TRL loads a reference model where beta is not 0; the penalty's weight is the objective's.
            args.beta = args.beta or 1.0

        if trl.get("rollout_func") is not None:
            trl["rollout_func"] = _with_empty_responses(trl["rollout_func"])
        train_dataset, self._prompt_numbers = _number_prompts(train_dataset, self._stateful or dynamic_sampling > 1)
        tokenizer = trl.get("processing_class")
        if hasattr(model, "generation_config") and hasattr(tokenizer, "eos_token_id"):
            # TRL knows the tokenizer's end token and those of the generation configuration.
            model.generation_config.eos_token_id = adopt_tokens(model, tokenizer)
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, train_dataset=train_dataset, **trl)
        self._check_prompts()

        prompts = args.generation_batch_size // self.num_generations
        if hasattr(train_dataset, "__len__") and len(train_dataset) < prompts:
            raise ConfigError(
                f"a rollout takes {prompts} prompts and train_dataset has {len(train_dataset)}; TRL leaves an "
                "incomplete rollout out and would train on nothing. Give more prompts or a smaller batch"
            )
        local = args.per_device_train_batch_size * args.steps_per_generation
        if dynamic_sampling > 1 and local % self.num_generations:
            raise ConfigError(
                f"dynamic sampling replaces whole groups on each process, but {local} responses a process and "
                f"generation are not a multiple of num_generations={self.num_generations}. Change "
                "per_device_train_batch_size or steps_per_generation"
            )
        # Before every tracker.
        self.callback_handler.callbacks.insert(0, _without_missing())
        self._split = args.gradient_accumulation_steps > 1 or self.accelerator.num_processes > 1
        self._step_batches: list[TokenBatch] = []
        self._step_counts: dict[str, Tensor] = {}
        self._whole: _WholeStep | None = None
        self._refusal = ""
        self._sampled: dict[str, Tensor] | None = None
        if not args.cast_lm_head_to_fp32:
            base = self.accelerator.unwrap_model(self.model)
            _use_own_head(base.get_base_model() if hasattr(base, "get_base_model") else base, self.temperature)

    def _check_prompts(self) -> None:
        """Say before the first step when prompts cannot be read."""
        data = self.train_dataset
        if self._is_vlm or not hasattr(data, "__len__") or "prompt" not in data.column_names:
            return
        prompts = [plain_prompt(prompt) for prompt in data["prompt"]]
        if self.rollout_func is None:
            self._tokenize_prompts(prompts[:1] if not isinstance(prompts[0], str) else prompts)

    @property
    def _stateful(self) -> bool:
        return hasattr(self._estimate, "state_dict")

    # -- sampling ----------------------------------------------------------------------------------------------

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "prompt_id" not in self._signature_columns:
            self._signature_columns.append("prompt_id")

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        return _EpochSampler(lambda: int(self.state.epoch or 0), super()._get_train_sampler(dataset))

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        if isinstance(prompts[0], str):
            return encode_prompts(self._tokenizer, prompts, self._vocabulary), None, {}
        try:
            return super()._tokenize_prompts(prompts)
        except Exception as error:
            # A chat template is a program of its own and raises what it likes.
            raise ConfigError(
                f"the chat template cannot write {shown(prompts[0])}: {' '.join(str(error).split())[:200]}. Change the "
                "conversation, or set tokenizer.chat_template"
            ) from error

    @property
    def _vocabulary(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[0])

    def _generate(self, prompts: list[Any]) -> Any:
        generated = super()._generate(prompts)
        vocabulary = self._vocabulary
        largest = max(max(ids) for ids in generated[1])
        if largest >= vocabulary:
            raise BatchError(
                f"a completion holds token id {largest}; expected ids below the model's vocabulary of {vocabulary}. "
                "Model and tokenizer do not belong together"
            )
        self._cut_ends(generated[1], generated[3])
        return generated

    def _cut_ends(self, tokens: list[list[int]], completions: list[Any]) -> None:
        """Take the text of an end token out of what is graded; that of a special token is left out by TRL."""
        ordinary = set(self.eos_token_ids) - set(self._tokenizer.all_special_ids)
        for place, written in enumerate(tokens):
            if written and written[-1] in ordinary:
                text = self._tokenizer.decode(written[:-1], skip_special_tokens=True)
                if isinstance(completions[place], str):
                    completions[place] = text
                elif isinstance(completions[place][-1].get("content"), str):
                    completions[place][-1]["content"] = text

    def _calculate_rewards(self, *arguments: Any) -> Tensor:
        per_function: Tensor = super()._calculate_rewards(*arguments)
        if self._sampled is not None:
            # Products and sums of single-precision numbers are exact in double, whatever the order of the functions.
            weighted = per_function.double() * self.reward_weights.to(per_function.device)
            rewards = weighted.nansum(1).to(per_function.dtype)
            self._sampled["rewards"] = rewards.masked_fill(per_function.isnan().all(1), torch.nan)
        return per_function

    def _get_per_token_logps_and_entropies(self, model: Any, *arguments: Any, **settings: Any) -> Any:
        # The first pass over freshly sampled tokens is the old policy's; one for the reference may follow.
        sampled = self._sampled
        if sampled is None or "old_pass" in sampled or model is not self.model:
            return super()._get_per_token_logps_and_entropies(model, *arguments, **settings)
        sampled["old_pass"] = torch.tensor(True)
        settings["compute_entropy"] = "old_entropies" in self.objective.needs
        with self._recording(sampled):
            results = super()._get_per_token_logps_and_entropies(model, *arguments, **settings)
        if results[1] is not None:
            sampled["old_entropies"] = results[1]
        return results

    @contextlib.contextmanager
    def _recording(self, sampled: dict[str, Tensor]) -> Iterator[None]:
        if not self._replays:
            yield
            return
        from models.causal_lm import record_routing

        with record_routing(self.accelerator.unwrap_model(self.model)) as routing:
            yield
        sampled["experts"] = routing.experts

    def _replaying(self, inputs: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
        if "experts" not in inputs:
            return contextlib.nullcontext()
        from models.causal_lm import replay_routing

        return replay_routing(self.accelerator.unwrap_model(self.model), inputs["experts"])

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self._is_vlm:
            inputs = [{**row, "prompt": plain_prompt(row["prompt"])} for row in inputs]
        if not self.model.training:
            evaluated: dict[str, Any] = super()._generate_and_score_completions(inputs)
            return evaluated
        output = self._sample(inputs) if self._rounds == 1 else self._sample_until_informative(inputs)
        output["advantages"] = self._own_advantages(output["rewards"], output["prompt_number"])
        if self._rounds == 1:
            everywhere = self.accelerator.gather(output["advantages"]).tolist()
            for _ in everywhere:
                self._logs["advantages"].pop()
            self._logs["advantages"].extend(everywhere)
        return output

    def _sample(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """One round: TRL's output without what is TRL's own affair, plus rewards and the numbers of the prompts."""
        sampled: dict[str, Tensor] = {}
        self._sampled = sampled
        output = super()._generate_and_score_completions(inputs)
        self._sampled = None
        output = {name: value for name, value in output.items() if name not in _UNUSED}
        here = slice(self.accelerator.process_index * len(inputs), (self.accelerator.process_index + 1) * len(inputs))
        output["rewards"] = sampled["rewards"][here]
        numbers = [self._prompt_numbers.get(row.get("prompt_id"), -1) for row in inputs]
        output["prompt_number"] = torch.tensor(numbers, device=self.accelerator.device)
        if "old_per_token_logps" in output:
            output |= {name: sampled[name] for name in ("old_entropies", "experts") if name in sampled}
        return output

    def _sample_until_informative(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        size, local = self.num_generations, len(inputs)
        rows = inputs
        seen: set[int] = set()
        round_number = 0
        exhausted = False

        def draw() -> tuple[Tensor, list[dict[str, Any]]]:
            nonlocal rows, round_number, exhausted
            output = self._sample(rows)
            seen.update(self.accelerator.gather(output["prompt_number"]).tolist())
            groups = [
                {name: value[start : start + size] for name, value in output.items()} for start in range(0, local, size)
            ]
            round_number += 1
            further = self._further_prompts(seen, round_number)
            exhausted, rows = not further, further
            # A group that cannot be scored is as good as one without any difference.
            rewards = output["rewards"].view(-1, size)
            return rewards.where(rewards.isfinite().all(1, keepdim=True), 0.0), groups

        def finished(enough: bool) -> bool:
            lacking = torch.tensor([int(not enough)], device=self.accelerator.device)
            return not bool(self.accelerator.gather(lacking).any()) or exhausted

        collected = collect_groups(draw, local // size, max_rounds=self._rounds, finished=finished)
        self._record("group/rounds", collected.rounds)
        self._record("group/informative_fraction", collected.informative / len(collected.groups))
        return _join(collected.groups, self._tokenizer.pad_token_id)

    def _further_prompts(self, seen: set[int], round_number: int) -> list[dict[str, Any]]:
        """Rows for this process's next round, each prompt once per response; none if the data set is used up.

        A function of seed, step and round, so that processes agree and a resumed run draws the same.
        """
        unseen = [row for row, number in enumerate(self._row_numbers) if number not in seen]
        wanted = self.args.generation_batch_size // self.num_generations
        if len(unseen) < wanted:
            return []
        generator = torch.Generator().manual_seed(hash((self.args.seed, self._step, round_number)) % 2**63)
        chosen = [unseen[index] for index in torch.randperm(len(unseen), generator=generator)[:wanted].tolist()]
        share = wanted // self.accelerator.num_processes
        mine = chosen[self.accelerator.process_index * share : (self.accelerator.process_index + 1) * share]
        return [self.train_dataset[row] for row in mine for _ in range(self.num_generations)]

    @functools.cached_property
    def _row_numbers(self) -> list[int]:
        return [self._prompt_numbers[name] for name in self.train_dataset["prompt_id"]]

    def _own_advantages(self, rewards: Tensor, prompt_numbers: Tensor) -> Tensor:
        """The estimator on the rewards of all processes; every process computes the same and takes its part."""
        local = len(rewards)
        groups = self.accelerator.gather(rewards).view(-1, self.num_generations)
        numbers = self.accelerator.gather(prompt_numbers).view(-1, self.num_generations)[:, 0]
        scorable = groups.isfinite().all(1)
        estimated = torch.zeros_like(groups)
        if bool(scorable.any()):
            known, extra = groups[scorable], (numbers[scorable].cpu(),) if self._stateful else ()
            estimated[scorable] = self._estimate(known.cpu(), *extra).to(groups)
            self._record("group/zero_variance_fraction", 1 - informative_groups(known).float().mean())
            self._record("reward/mean", known.mean())
        self._record("group/unscorable_fraction", (~scorable).float().mean())
        return estimated.view(-1)[self.accelerator.process_index * local :][:local]

    # -- one optimiser step ------------------------------------------------------------------------------------

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
            self._open_step()
        return inputs

    @property
    def _position(self) -> int:
        """Which micro-batch of the optimiser step comes next."""
        return int(self._step % self.args.gradient_accumulation_steps)

    def _open_step(self) -> None:
        self._step_batches, self._whole, self._refusal = [], None, ""
        lengths = torch.cat([_response_mask(batch).sum(1) for batch in self._micro_batches()])
        counts = torch.stack([lengths.sum(), (lengths > 0).sum()])
        tokens, sequences = self.accelerator.reduce(counts, reduction="sum").unbind()
        self._step_counts = {"token_count": tokens, "sequence_count": sequences}
        if int(tokens) == 0:
            self._refuse("no response token is left in the step; all of them were truncated and filtered")

    def _micro_batches(self) -> list[dict[str, Any]]:
        start = self._step % self.args.steps_per_generation
        batches: list[dict[str, Any]] = self._buffered_inputs[start : start + self.args.gradient_accumulation_steps]
        return batches

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        training = self.model.training
        log_probs, entropies, auxiliary = self._score(model, inputs)
        try:
            loss = self._objective_loss(model, inputs, log_probs, entropies)
        except BatchError as problem:
            self._refuse(str(problem))
            # The graph stays connected: other processes wait for this one's gradients.
            loss = 0 * log_probs.sum()
        if training and self._position == self.args.gradient_accumulation_steps - 1:
            self._close_step()
        if auxiliary is not None:
            self._record("aux_loss", auxiliary)
            loss = loss + self.router_aux_loss_coef * auxiliary / (
                self.current_gradient_accumulation_steps if training else 1
            )
        return loss

    def _objective_loss(self, model: Any, inputs: dict[str, Any], log_probs: Tensor, entropies: Tensor) -> Tensor:
        if not self.model.training:
            output = self.objective(self._token_batch(inputs, log_probs, entropies))
            self._record_all(output.metrics)
            return output.loss
        if self._refusal:
            return 0 * log_probs.sum()
        # Data parallelism averages gradients over processes; the loss is a sum over them.
        processes: int = self.accelerator.num_processes
        if self.objective.needs_whole_batch and self._split:
            self._whole = self._whole or self._score_whole_step(model)
            return self._whole.loss(self._position, log_probs, entropies, processes)
        batch = self._token_batch(inputs, log_probs, entropies, self._step_counts)
        self._step_batches.append(_detached(batch))
        return self.objective.loss(batch) * processes

    def _score(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log-probabilities, entropies and, for a mixture of experts with one, the auxiliary loss."""
        images = {name: inputs[name] for name in _image_arguments() if name in inputs}
        with self._replaying(inputs):
            scored: tuple[Tensor, Tensor, Tensor | None] = self._get_per_token_logps_and_entropies(
                model,
                torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
                inputs["completion_ids"].size(1),
                compute_entropy=True,
                compute_aux_loss=self.aux_loss_enabled,
                **images,
            )
        return scored

    def _token_batch(
        self,
        inputs: dict[str, Any],
        log_probs: Tensor,
        entropies: Tensor,
        counts: Mapping[str, Tensor] | None = None,
        make: Callable[..., TokenBatch] = TokenBatch,
    ) -> TokenBatch:
        old = inputs.get("old_per_token_logps")
        old_log_probs = log_probs.detach() if old is None else old
        old_entropies = inputs.get("old_entropies") if old is not None else entropies.detach()
        sampler = inputs.get("sampling_per_token_logps")
        if sampler is not None:
            # vLLM reports no number for some tokens; they count as sampled from the trainer's policy.
            sampler = torch.where(sampler.isnan(), old_log_probs, sampler)
        # Padding to the longest response makes a constant divisor, such as Dr. GRPO's, the same in every micro-batch.
        padding = max(self.max_completion_length - log_probs.shape[1], 0)
        fields = {
            "log_probs": log_probs,
            "old_log_probs": old_log_probs,
            "entropies": entropies,
            "old_entropies": old_entropies,
            "sampler_log_probs": sampler,
            "ref_log_probs": inputs.get("ref_per_token_logps"),
            "mask": _response_mask(inputs),
        }
        padded = {
            name: None if value is None else torch.nn.functional.pad(value, (0, padding))
            for name, value in fields.items()
        }
        return make(**padded, advantages=inputs["advantages"], **(counts or {}))

    def _score_whole_step(self, model: Any) -> _WholeStep:
        """The gradient of the objective on all tokens of the step, for those that read them all at once."""
        with torch.no_grad():
            parts = [
                # Checked after all processes have exchanged them: a lone error would leave the others waiting.
                self._token_batch(
                    batch, *self._score(model, batch)[:2], counts=self._step_counts, make=TokenBatch.trusted
                )
                for batch in self._micro_batches()
            ]
        self._step_batches = parts
        whole = self._everywhere(parts)
        log_probs, entropies = whole.log_probs.requires_grad_(), cast(Tensor, whole.entropies).requires_grad_()
        device = self.accelerator.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            # An objective that draws tokens draws the same ones on every process.
            torch.manual_seed(self.args.seed + self._step)
            loss = self.objective.loss(dataclasses.replace(whole, log_probs=log_probs, entropies=entropies))
        slopes = torch.autograd.grad(loss, (log_probs, entropies), allow_unused=True)
        rows = sum(len(part.mask) for part in parts)
        here = slice(self.accelerator.process_index * rows, (self.accelerator.process_index + 1) * rows)
        of_log_probs, of_entropies = (
            None if slope is None else torch.split(slope[here], rows // len(parts)) for slope in slopes
        )
        return _WholeStep(loss.detach(), of_log_probs, of_entropies)

    def _everywhere(self, parts: list[TokenBatch]) -> TokenBatch:
        """One batch of all parts of all processes, process by process."""

        def joined(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            if values[0] is None:
                return None
            # A rollout function may return responses longer than max_completion_length.
            together = _right_aligned(values)
            if self.accelerator.num_processes == 1:
                return together
            return cast(Tensor, self.accelerator.gather(self.accelerator.pad_across_processes(together, dim=1)))

        names = [field.name for field in dataclasses.fields(TokenBatch) if not field.name.endswith("_count")]
        return TokenBatch(**cast(Any, {name: joined(name) for name in names}), **cast(Any, self._step_counts))

    def _close_step(self) -> None:
        refused = torch.tensor([int(bool(self._refusal))], device=self.accelerator.device)
        if bool(self.accelerator.gather(refused).any()):
            # Another process may be the one that met the problem; all refuse together.
            self._refusal = self._refusal or "another process refused the step"
            return
        with torch.no_grad():
            self._record_all(self.objective(self._everywhere(self._step_batches)).metrics)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """TRL's gradient norm; the last moment before the optimiser moves, and where a bad step is refused."""
        norm = super()._get_grad_norm(model, grad_norm)
        if self.accelerator.scaler is None and norm is not None and not math.isfinite(float(norm)):
            self._refuse(f"the gradient norm is {float(norm)}")
        if self._refusal:
            # An optimiser passes over parameters without a gradient: neither they nor its state change.
            model.zero_grad(set_to_none=True)
        self._record("update/refused", float(bool(self._refusal)))
        return norm

    def _refuse(self, reason: str) -> None:
        self._refusal = self._refusal or reason
        _log.warning("step %d is refused, the weights stay as they are: %s", self.state.global_step + 1, reason)

    def _record(self, name: str, value: Any) -> None:
        self._metrics["train" if self.model.training else "eval"][name].append(float(value))

    def _record_all(self, metrics: Mapping[str, Tensor]) -> None:
        for name, value in metrics.items():
            self._record(name, value)

    # -- checkpoints -------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = {"step": self._step, "buffer": self._buffered_inputs}
        if self._stateful:
            state |= {"prompt_ids": list(self._prompt_numbers), "estimator": self._estimate.state_dict()}
        torch.save(state, folder / f"{self.accelerator.process_index}_{STATE_FILE}")
        if self.args.should_save:
            described = {"objective": self.objective.label(), "advantage": self.advantage}
            (folder / LABEL_FILE).write_text(json.dumps(described) + "\n", encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        label_file, state_file = folder / LABEL_FILE, folder / f"{self.accelerator.process_index}_{STATE_FILE}"
        if not label_file.exists() or not state_file.exists():
            raise ConfigError(
                f"{folder.name} has no {LABEL_FILE} and {state_file.name}; expected a checkpoint of ObjectiveTrainer "
                "saved by as many processes as resume it"
            )
        saved = json.loads(label_file.read_text(encoding="utf-8"))
        current = {"objective": self.objective.label(), "advantage": self.advantage}
        if saved != current:
            raise ConfigError(
                f"{folder.name} belongs to {_described(saved)}; this run is {_described(current)}. Resume with the "
                "same objective, or start anew in another output folder"
            )
        state = torch.load(state_file, map_location=self.accelerator.device, weights_only=True)
        self._step, self._buffered_inputs = state["step"], state["buffer"]
        if self._stateful:
            self._estimate.load_state_dict(self._renumbered(state["prompt_ids"], state["estimator"]))

    def _renumbered(self, names: list[Any], state: dict[str, Tensor]) -> dict[str, Tensor]:
        """An estimator's state in this data set's numbering; prompts that are no longer in it are forgotten."""
        pairs = [(self._prompt_numbers[name], old) for old, name in enumerate(names) if name in self._prompt_numbers]
        result = {}
        for key, values in state.items():
            moved = values.new_zeros(len(self._prompt_numbers))
            for new, old in pairs:
                if old < len(values):
                    moved[new] = values[old]
            result[key] = moved.cpu()
        return result


class _WholeStep(NamedTuple):
    """An objective's loss on a whole step, and its slope at every token of this process's micro-batches."""

    value: Tensor
    of_log_probs: Sequence[Tensor] | None
    of_entropies: Sequence[Tensor] | None

    def loss(self, position: int, log_probs: Tensor, entropies: Tensor, processes: int) -> Tensor:
        """A loss with the value of this micro-batch's share and the gradient of its tokens."""
        surrogate = log_probs.new_zeros(())
        micro_batches = 1
        for slopes, values in ((self.of_log_probs, log_probs), (self.of_entropies, entropies)):
            if slopes is not None:
                micro_batches = len(slopes)
                slope = slopes[position][:, : values.shape[1]]
                # Masked positions have slope zero and may hold anything.
                surrogate = surrogate + (slope * values.masked_fill(slope == 0, 0)).sum() * processes
        return surrogate - surrogate.detach() + self.value / micro_batches


class _EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's sampler with the permutation of an epoch as a function of seed and epoch alone."""

    def __init__(self, epoch: Callable[[], int], original: Any) -> None:
        self.__dict__.update(original.__dict__)
        self._epoch = epoch

    def __iter__(self) -> Any:
        if self.shuffle and self.seed is not None:
            self.generator.manual_seed(self.seed)
            for _ in range(self._epoch()):
                torch.randperm(self.num_samples, generator=self.generator)
        return super().__iter__()


def overlong_reward(max_length: int, cache: int) -> Callable[..., list[float]]:
    """DAPO's soft overlong punishment as a reward function for TRL, to be added to the others.

    Args:
        max_length: L_max, tokens.
        cache: L_cache, tokens.

    Raises:
        ConfigError: `cache` is not between 1 and `max_length`.

    Example:
        >>> overlong_reward(max_length=4, cache=2)(completion_ids=[[7], [7, 7, 7], [7, 7, 7, 7]])
        [0.0, -0.5, -1.0]
    """
    overlong_penalty(torch.tensor([0]), max_length=max_length, cache=cache)

    def overlong(completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths = torch.tensor([len(ids) for ids in completion_ids])
        return [abs(x) and x for x in overlong_penalty(lengths, max_length=max_length, cache=cache).tolist()]

    return overlong


def _with_empty_responses(rollout: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A rollout function whose empty responses are a padding token outside the mask: TRL cannot hold them otherwise.

    They have no token to learn from, are left out of the number of responses, and are counted in
    `completions/empty_fraction`; their reward still is one of their group.
    """

    @functools.wraps(rollout)
    def marked(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        output = dict(rollout(prompts, trainer))
        written = output["completion_ids"]
        masks = output.get("env_mask") or [[1] * len(ids) for ids in written]
        output["env_mask"] = [mask if ids else [0] for ids, mask in zip(written, masks, strict=True)]
        output["completion_ids"] = [ids or [trainer.processing_class.pad_token_id] for ids in written]
        if output.get("logprobs") is not None:
            output["logprobs"] = [values or [0.0] for values in output["logprobs"]]
        trainer._record("completions/empty_fraction", sum(not ids for ids in written) / len(written))
        return output

    return marked


def check_settings(objective: Objective, args: Any, rollout_func: Any = None) -> None:
    """What of TRL's configuration contradicts an objective, before a trainer is made.

    Raises:
        ConfigError: a setting would have no effect, or the objective needs another.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    for name in DECIDED_BY_THE_OBJECTIVE:
        value = getattr(args, name, None)
        if name in defaults and value != defaults[name]:
            raise ConfigError(
                f"{name}={value!r} would have no effect: the loss is {objective.label()}. Leave it out of GRPOConfig "
                "and give the objective, the advantage or a wrapper that setting"
            )
    if args.beta and "ref_log_probs" not in objective.needs:
        raise ConfigError(
            f"beta={args.beta} would have no effect: {objective.label()} has no reference term. Use "
            f"reference_kl(base={objective.label()},coefficient={args.beta}) and leave beta out"
        )
    if args.steps_per_generation % args.gradient_accumulation_steps:
        raise ConfigError(
            f"steps_per_generation={args.steps_per_generation} is not a multiple of gradient_accumulation_steps="
            f"{args.gradient_accumulation_steps}; an optimiser step would then mix two generations, and its "
            "token count would be unknown when its first micro-batch is due"
        )
    corrects = "sampler_log_probs" in objective.needs
    if corrects and not args.use_vllm and rollout_func is None:
        raise ConfigError(
            f"{objective.label()} corrects for a sampler with other probabilities than the trainer, but transformers' "
            "generate samples from the trainer's own. Leave the correction out, or use vLLM or a rollout_func"
        )
    if args.use_vllm and args.vllm_importance_sampling_correction and not corrects:
        raise ConfigError(
            "vllm_importance_sampling_correction is on, TRL's default, and would have no effect. Wrap the objective: "
            f"importance_correction(base={objective.label()}), or switch it off"
        )


def _number_prompts(dataset: Any, needed: bool) -> tuple[Any, dict[Any, int]]:
    """The data set with a `prompt_id` column, and a number for each distinct id in order of appearance."""
    if not hasattr(dataset, "__len__"):
        if needed:
            raise ConfigError(
                "a streamed data set has no list of prompts to remember or draw from; expected a data set of known "
                "length for smooth_standardised advantages and dynamic sampling"
            )
        return dataset, {}
    if len(dataset) == 0:
        raise ConfigError("train_dataset is empty; expected at least one prompt")
    if "prompt_id" not in dataset.column_names:
        dataset = dataset.add_column("prompt_id", list(range(len(dataset))))
    return dataset, {name: number for number, name in enumerate(dict.fromkeys(dataset["prompt_id"]))}


def _without_missing() -> Any:
    """Trackers get numbers only; that a metric had no data is in the trainer's own history, as TRL writes it, None."""
    from transformers import TrainerCallback

    class WithoutMissing(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            logs: dict[str, Any] = given["logs"]
            for name in [name for name, value in logs.items() if value is None]:
                del logs[name]

    return WithoutMissing()


def _use_own_head(model: Any, temperature: float) -> None:
    """Let `model(…, fused_lm_head=True)` score response positions with `token_statistics_from_hidden`.

    TRL's own head stays where logits are scaled or capped on the way, where the head's weight is spread over processes,
    and for the pass that also asks a mixture of experts for its auxiliary loss.
    """
    config = model.config.get_text_config()
    scaled = any(
        getattr(config, name, None) is not None
        for name in (
            "final_logit_softcapping",
            "lm_head_multiplier",
            "logit_scale",
            "logits_scaling",
            "output_multiplier",
        )
    )
    if scaled or config is not model.config:
        return
    trl_forward = model.forward

    # generate() reads the signature to see which arguments a model knows.
    @functools.wraps(type(model).forward)
    def forward(self: Any, *arguments: Any, fused_lm_head: bool = False, labels: Any = None, **settings: Any) -> Any:
        head = self.get_output_embeddings()
        # The marks of FSDP2 and of DeepSpeed's ZeRO-3.
        spread = hasattr(head.weight, "full_tensor") or hasattr(head.weight, "ds_id")
        if not fused_lm_head or labels is None or settings.get("output_router_logits") or spread:
            return trl_forward(*arguments, fused_lm_head=fused_lm_head, labels=labels, **settings)
        states = self.base_model(*arguments, **{**settings, "use_cache": False}).last_hidden_state[:, :-1]
        labels = labels[:, 1:]
        scored = labels != -100
        results = token_statistics_from_hidden(
            states[scored], head.weight, labels[scored], temperature, bias=head.bias, check=False
        )
        log_probs, entropies = (value.new_zeros(scored.shape).masked_scatter(scored, value) for value in results)
        return FusedCausalLMOutput(log_probs=log_probs, entropy=entropies, label_mask=scored)

    model.forward = types.MethodType(forward, model)


def _image_arguments() -> list[str]:
    own = ("self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size")
    known = inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters
    return [name for name in known if name not in own and not name.startswith("compute_")]


def _response_mask(inputs: Mapping[str, Any]) -> Tensor:
    mask: Tensor = inputs["completion_mask"]
    if "tool_mask" in inputs:
        mask = mask * inputs["tool_mask"]
    return mask.bool()


def _detached(batch: TokenBatch) -> TokenBatch:
    return batch.with_current(batch.log_probs.detach(), None if batch.entropies is None else batch.entropies.detach())


def _right_aligned(values: list[Tensor]) -> Tensor:
    width = max(value.shape[1] for value in values)
    return torch.cat([torch.nn.functional.pad(value, (0, width - value.shape[1])) for value in values])


def _join(groups: list[dict[str, Any]], pad_token: int) -> dict[str, Any]:
    """One batch of groups whose prompts and responses were padded to different widths."""
    filling = {"prompt_ids": pad_token, "completion_ids": pad_token, "tool_mask": 1}
    joined = {}
    for name in groups[0]:
        values = [group[name] for group in groups]
        if name in _PER_RESPONSE:
            joined[name] = torch.cat(values)
        elif name in _LEFT_PADDED or name in _RIGHT_PADDED:
            width = max(value.shape[1] for value in values)
            joined[name] = torch.cat(
                [
                    torch.nn.functional.pad(
                        value,
                        (width - value.shape[1], 0) if name in _LEFT_PADDED else (0, width - value.shape[1]),
                        value=filling.get(name, 0),
                    )
                    for value in values
                ]
            )
        else:
            raise ConfigError(
                f"dynamic sampling cannot put {name} of several rounds into one batch; it works for text. Set "
                "dynamic_sampling=1"
            )
    return joined


def _described(label: Mapping[str, str]) -> str:
    return f"{label['objective']} with {label['advantage']} advantages"
