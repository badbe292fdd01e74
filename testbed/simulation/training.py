"""The loop: rollout, advantages, inner updates, measurements; every replica at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from envs.automaton import Automaton
from models.mismatch import make_mismatch
from models.policy import Policy, Samples
from testbed.advantages import estimate, inputs_of, make_advantage_estimator, zero_variance
from testbed.batch import TokenBatch
from testbed.diagnostics import batch_metrics
from testbed.errors import ConfigError
from testbed.objectives import Objective
from testbed.records import RecordWriter
from testbed.simulation.compiled import CompiledLoop
from testbed.simulation.gradients import LossGradient, Update
from testbed.simulation.measurement import ExactMeasurement
from testbed.simulation.optimisers import clip_by_norm, gradient_norm, optimisers
from testbed.simulation.settings import Settings
from testbed.simulation.streams import UniformStreams

__all__ = ["Row", "Training"]


@dataclass(frozen=True)
class Row:
    """What was measured after one rollout and its updates.

    Attributes:
        step: rollouts so far; 0 is the initial policy.
        metrics: name to `(R,)`.
    """

    step: int
    metrics: dict[str, Tensor]


class Training:
    """One objective on one environment, over replicas, on the device of the policy.

    Args:
        objective: what is minimised.
        spec: the environment with tables `(R, S, V)`, see `Automaton.for_seeds`.
        policy: the policy that is trained, in place.
        settings: the loop.
        seeds: each replica's seed number; replicas of equal seed and environment see the same random numbers.
        master_seed: changes all of them.
        writer: where every update is written down; `None`: nowhere.

    Raises:
        ConfigError: programs are to be compiled for a policy or an objective that cannot be, or they would hide what is
            to be written down or read; or the objective reads κ at sampling time and a response has several writers.
    """

    def __init__(
        self,
        objective: Objective,
        spec: Automaton,
        policy: Policy,
        settings: Settings,
        seeds: Sequence[int],
        master_seed: int,
        writer: RecordWriter | None = None,
    ) -> None:
        device = policy.parameters[0].device
        self.objective = objective
        self.spec = spec.to(device)
        self._measured_spec = spec
        self.policy = policy
        self.settings = settings
        sequences = spec.prompts * settings.group_size
        self._shape = (len(seeds), sequences, spec.horizon)
        self._uniforms = UniformStreams(master_seed, seeds, sequences * (spec.horizon + 1), device=device)
        self._initial_states = self.spec.initial_states.repeat_interleave(settings.group_size)
        self._groups = torch.arange(spec.prompts, device=device).repeat_interleave(settings.group_size)
        self._advantages = make_advantage_estimator(settings.resolve_advantage(objective.advantage))
        self._reads_lengths = "lengths" in inputs_of(self._advantages)
        self._optimiser = optimisers[settings.optimizer](policy.parameters, settings.learning_rate)
        self._loss_gradient = LossGradient(objective)
        reads_kappas = not {"kappas", "old_kappas"}.isdisjoint(objective.needs)
        self._needs_entropies = reads_kappas or not {"entropies", "old_entropies"}.isdisjoint(objective.needs)
        self._needs_kappas = reads_kappas
        self._writer = writer
        self._rollouts = 0
        self._compiled = None
        if settings.compile and (writer is not None or reads_kappas):
            what = "a record is asked for" if writer is not None else f"{objective.label()} reads κ"
            raise ConfigError(f"compile is on and {what}, which compiled programs do not give; switch compile off")
        if settings.partial is not None and reads_kappas:
            raise ConfigError(
                f"partial is {settings.partial}, and {objective.label()} reads κ of the policy that wrote a token; it "
                "is known for responses that one policy wrote. Switch partial off"
            )
        if settings.compile:
            self._compiled = CompiledLoop(objective, policy, self._optimiser, settings.epochs, settings.max_grad_norm)
        self._writers = 1 if settings.partial is None else -(-spec.horizon // settings.partial)
        self._past: deque[Policy] = deque(maxlen=settings.staleness + self._writers)
        self._mismatch = None if settings.mismatch is None else make_mismatch(settings.mismatch)
        self._noise = None
        if self._mismatch is not None:
            numbers = self._mismatch.numbers(policy, sequences, spec.horizon)
            self._noise = UniformStreams(master_seed, seeds, numbers, purpose=1, device=device)
        self._minibatches = [_positions(spec.prompts, settings, index, device) for index in range(settings.minibatches)]
        self._batches: list[TokenBatch] = []

    def run(self) -> Iterator[Row | None]:
        """Train; yields one item per rollout, a `Row` where one is due, after a first row for the initial policy."""
        measure = ExactMeasurement(self._measured_spec, self.policy)
        yield Row(0, measure.after(self.policy, every_step=True))
        every = self.settings.record_every
        for step in range(1, self.settings.steps + 1):
            due = step % every == 0 or step == self.settings.steps
            if due:
                measure.before(self.policy)
            sampled = self._iterate(record=due and self.settings.sampled_metrics)
            exact = measure.after(self.policy, every_step=every == 1) if due else {}
            yield Row(step, {name: value.cpu() for name, value in sampled.items()} | exact) if due else None

    # -- one rollout and its updates -------------------------------------------------------------------------

    def _iterate(self, *, record: bool) -> dict[str, Tensor]:
        replicas, sequences, horizon = self._shape
        uniforms = self._uniforms.next()
        self._rollouts += 1
        samples, sampler_log_probs, old_kappas = self._rollout(uniforms[:, : sequences * horizon].view(self._shape))
        rewards = self.spec.draw_rewards(
            samples.final_states, samples.final_tokens, uniforms[:, sequences * horizon :], samples.log_probs.dtype
        )
        groups = rewards.view(replicas, self.spec.prompts, self.settings.group_size)
        lengths = samples.mask.sum(-1).view_as(groups) if self._reads_lengths else None
        advantages = estimate(self._advantages, groups, lengths=lengths).view(replicas, sequences)

        minibatches: list[tuple[Samples, TokenBatch]] = []
        for number, positions in enumerate(self._minibatches):
            taken = _take_sequences(samples, positions)
            # What only a record asks for is not shown to the objective, whose metrics would be others.
            entropies = taken.entropies if self._needs_entropies else None
            fields: dict[str, Any] = {
                "log_probs": taken.log_probs,
                "old_log_probs": taken.log_probs,
                "advantages": advantages if positions is None else advantages[:, positions],
                "mask": taken.mask,
                "entropies": entropies,
                "old_entropies": entropies,
                "old_kappas": _columns(old_kappas, positions) if self._needs_kappas else None,
                "sampler_log_probs": _columns(sampler_log_probs, positions),
                "groups": self._groups if positions is None else self._groups[positions],
            }
            # The first rollout is checked; the same code makes the others, and exact metrics refuse a diverged policy.
            batch = TokenBatch.trusted(like=self._batches[number], **fields) if self._batches else TokenBatch(**fields)
            minibatches.append((taken, batch))
        self._batches = [batch for _, batch in minibatches]
        recorder = _UpdateRecorder(self.settings)
        write = None
        if self._writer is not None:
            write = _RolloutWriter(self._writer, self._rollouts, rewards, self._groups, self._minibatches, old_kappas)
        for update in self._updates(minibatches, record=record, write=write):
            with torch.no_grad():
                recorder.add(self.objective, update)
        if not record:
            return {}
        return recorder.means() | {
            "reward/mean": rewards.mean(-1),
            "group/zero_variance_fraction": zero_variance(groups).to(rewards.dtype).mean(-1),
        }

    def _rollout(self, uniforms: Tensor) -> tuple[Samples, Tensor | None, Tensor | None]:
        """Responses with the log-probabilities of the ratio's denominator, those of a sampler that differs, and κ.

        κ is the denominator's, where somebody wants it and it is of one policy.
        """
        entropies = self._needs_entropies or self._writer is not None
        if self._past.maxlen == 1:
            writers = [self.policy]
        else:
            self._past.append(self.policy.snapshot())
            # The policies of L+n-1 to L rollouts ago, for n writers at staleness L; before the run, the initial one.
            ages = range(self.settings.staleness + self._writers, self.settings.staleness, -1)
            writers = [self._past[max(0, len(self._past) - age)] for age in ages]
        if self._mismatch is not None:
            assert self._noise is not None
            normals = torch.special.ndtri(self._noise.next().clamp(1e-12, 1 - 1e-12))
            drawn = self._mismatch.sample(
                writers[0], self._initial_states, self.spec.step, uniforms, normals, entropies=entropies
            )
            recomputed = writers[0].recompute(drawn, entropies=entropies)
            return recomputed, drawn.log_probs, self._old_kappas(writers, recomputed)
        if self._compiled is not None and len(writers) == 1:
            start, step = self._initial_states, self.spec.step
            return self._compiled.sample(writers[0], start, step, uniforms, entropies=entropies), None, None
        samples = None
        for number, writer in enumerate(writers, start=1):
            width = self.spec.horizon if self.settings.partial is None else number * self.settings.partial
            samples = writer.sample(
                self._initial_states, self.spec.step, uniforms[..., :width], entropies=entropies, prefix=samples
            )
        assert samples is not None
        if len(writers) == 1 and not writers[0].samples_exactly:
            # Otherwise rounding would pass for a ratio.
            samples = writers[0].recompute(samples, entropies=entropies)
        return samples, None, self._old_kappas(writers, samples)

    def _old_kappas(self, writers: Sequence[Policy], samples: Samples) -> Tensor | None:
        wanted = len(writers) == 1 and (self._needs_kappas or self._writer is not None)
        return writers[0].kappas(samples) if wanted else None

    def _updates(
        self, minibatches: Sequence[tuple[Samples, TokenBatch]], *, record: bool, write: _RolloutWriter | None
    ) -> Iterator[Update]:
        """Make the updates that a rollout serves; yields what each of them saw, if recorded."""
        if self._compiled is not None:
            yield from self._compiled.update(minibatches, record=record)
            return
        limit = self.settings.max_grad_norm
        for number, (samples, batch) in enumerate([*minibatches] * self.settings.epochs):
            log_probs, entropies = self.policy.evaluate(samples, entropies=self._needs_entropies or write is not None)
            kappas = self.policy.kappas(samples) if self._needs_kappas or write is not None else None
            current = batch.with_current(
                log_probs, entropies if self._needs_entropies else None, kappas if self._needs_kappas else None
            )
            if write is not None:
                write.add(number, samples, current, entropies, kappas)
            gradients = self.policy.gradient(samples, *self._loss_gradient(current))
            norm = gradient_norm(gradients) if record or limit is not None else None
            if limit is not None:
                assert norm is not None
                gradients = clip_by_norm(gradients, norm, limit)
            self._optimiser.step(gradients)
            if record:
                assert norm is not None
                yield Update(current, norm)
            if self.objective.adapts:
                self.objective = self.objective.next_step(current)
                self._loss_gradient = LossGradient(self.objective)


class _RolloutWriter:
    """Writes down the updates that one rollout serves.

    Args:
        writer: where they go.
        step: number of the rollout, from 1.
        rewards: `(R, B)`.
        groups: `(B,)`, the prompt of each response.
        minibatches: the responses of each mini-batch; `None`: all of them.
        old_kappas: `(R, B, T)`, or `None`.
    """

    def __init__(
        self,
        writer: RecordWriter,
        step: int,
        rewards: Tensor,
        groups: Tensor,
        minibatches: Sequence[Tensor | None],
        old_kappas: Tensor | None,
    ) -> None:
        self._writer, self._step, self._rewards, self._groups = writer, step, rewards, groups
        self._minibatches, self._old_kappas = minibatches, old_kappas

    def add(
        self, number: int, samples: Samples, batch: TokenBatch, entropies: Tensor | None, kappas: Tensor | None
    ) -> None:
        """Write down update `number` of the rollout, with what the objective was not shown."""
        positions = self._minibatches[number % len(self._minibatches)]
        responses = torch.arange(len(self._groups), device=self._groups.device) if positions is None else positions
        advantages = batch.response_advantages
        assert advantages is not None
        whole = TokenBatch.trusted(
            like=batch,
            log_probs=batch.log_probs,
            old_log_probs=batch.old_log_probs,
            advantages=advantages.squeeze(-1),
            mask=batch.mask,
            entropies=entropies,
            old_entropies=samples.entropies,
            kappas=kappas,
            old_kappas=_columns(self._old_kappas, positions),
            sampler_log_probs=batch.sampler_log_probs,
        )
        self._writer.add(
            whole,
            step=self._step,
            update=number,
            prompts=self._groups[responses],
            rewards=self._rewards[:, responses],
            responses=responses,
        )


class _UpdateRecorder:
    """Averages sampled metrics over those of an iteration's updates in which they have data.

    The first pass after a fresh rollout is left out where there is another one: all its ratios are 1 by construction,
    and counting it would dilute every clip share.
    """

    def __init__(self, settings: Settings) -> None:
        fresh = settings.staleness == 0 and settings.partial is None and settings.updates_per_step > 1
        self._skip = 1 if fresh else 0
        self._seen = 0
        self._counts: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._norms: list[Tensor] = []

    def add(self, objective: Objective, update: Update) -> None:
        batch, norm = update
        self._norms.append(norm)
        self._seen += 1
        if self._seen <= self._skip:
            return
        metrics = batch_metrics(batch, objective.clip_interval(batch))
        metrics.update(objective.own_metrics(batch))
        for name, value in metrics.items():
            known = ~value.isnan()
            count, total = self._counts.get(name, 0), self._sums.get(name, 0)
            self._counts[name], self._sums[name] = count + known, total + value.detach().where(known, 0)

    def means(self) -> dict[str, Tensor]:
        norms = torch.stack(self._norms)
        # 0/0 is NaN: a metric without data in any update stays missing.
        return {name: total / self._counts[name] for name, total in self._sums.items()} | {
            "gradient/norm": norms.mean(0),
            "gradient/norm_max": norms.amax(0),
        }


def _positions(prompts: int, settings: Settings, index: int, device: torch.device) -> Tensor | None:
    """The sequences of mini-batch `index`, or `None` for all of them."""
    if settings.minibatches == 1:
        return None
    size = settings.group_size // settings.minibatches
    within = torch.arange(index * size, (index + 1) * size, device=device)
    return (torch.arange(prompts, device=device).unsqueeze(-1) * settings.group_size + within).flatten()


def _take_sequences(samples: Samples, positions: Tensor | None) -> Samples:
    if positions is None:
        return samples
    taken = {name: value[:, positions] for name, value in vars(samples).items() if value is not None}
    return replace(samples, **taken)


def _columns(values: Tensor | None, positions: Tensor | None) -> Tensor | None:
    return values if values is None or positions is None else values[:, positions]
