"""Objectives inside verl: registered as policy losses in every process, or set as the loss of the actor's workers.

Two routes, as an objective needs:

* Log-probabilities, advantages and the mask: `register_objectives`, which the entry point `verl.plugins` runs in each
  process that imports verl. Choose one with `actor_rollout_ref.actor.policy_loss.loss_mode=testbed_dcpo`.
* Entropies as well (ERC, an entropy bonus), or a reference: `actor_worker_group.set_loss_fn(WorkerLoss("erc"))`, with
  `actor.calculate_entropy=True`; verl's trainer stores the old entropies beside the old log-probabilities.

verl's configuration has no place for the hyper-parameters of other people's losses, so that they are part of the name's
entry: the environment variable `TESTBED_VERL_OBJECTIVES` names a YAML file of `name: dapo(clip_high=0.3)`. Ray workers
see the variable if `ray_kwargs.ray_init.runtime_env.env_vars` passes it on.

`TESTBED_VERL_RECORD` names a folder in which every worker writes down its updates for `testbed replay`, see
`testbed.engines.verl_recording`. A policy loss is handed neither prompts nor rewards nor entropies; the record of a
`WorkerLoss(…, record=…)` has what the mini-batch has.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.engines.verl_recording import VerlRecording, recording_asked_for
from testbed.errors import ConfigError, TestbedError
from testbed.masking import MAX_LOG_RATIO
from testbed.objectives import Objective, make_objective, objective_names

__all__ = ["FILE_VARIABLE", "PREFIX", "WorkerLoss", "check_verl", "policy_loss", "register_objectives"]

PREFIX = "testbed_"
"""What precedes an objective's name among verl's loss modes."""
FILE_VARIABLE = "TESTBED_VERL_OBJECTIVES"
"""Environment variable with the path of a YAML file, name to objective."""

_VERL_MEANS = {
    "token_mean": "token-mean",
    "seq_mean_token_mean": "seq-mean-token-mean",
    "seq_mean_token_sum": "seq-mean-token-sum",
    "seq_mean_token_sum_norm": "seq-mean-token-sum-norm",
}


def policy_loss(objective: Objective | str) -> Callable[..., tuple[Tensor, dict[str, float]]]:
    """An objective as a policy loss of verl's, to be called by keyword as verl does.

    Denominators are verl's global ones where the configuration carries them, the reduction is the objective's.
    `rollout_is_weights` multiply the token loss.

    Raises:
        ConfigError: the objective needs more than verl hands a policy loss, or a record is asked for without saying how
            many updates a rollout serves. When called: `loss_agg_mode` was changed to another mean than the
            objective's, or an objective that reads the whole mini-batch got a part of it.
    """
    resolved = make_objective(objective)
    recording = recording_asked_for(resolved.label())
    if resolved.needs:
        raise ConfigError(
            f"{resolved.label()} needs {', '.join(resolved.needs)}, which verl does not hand to a policy loss; use "
            f"set_loss_fn(WorkerLoss({resolved.label()!r})) on the actor's workers"
        )

    def loss(
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        _check_mean(resolved, loss_agg_mode)
        information: Mapping[str, Any] = {} if config is None else config.global_batch_info
        weighted, sampler = resolved, None
        if rollout_is_weights is not None:
            # w = q/p_sampler, so that importance_correction applies just these weights.
            weighted = make_objective("importance_correction", base=resolved, cap=math.inf)
            floor = math.exp(-MAX_LOG_RATIO)
            sampler = old_log_prob - rollout_is_weights.expand_as(old_log_prob).clamp(min=floor).log()
        fields = {
            "log_probs": log_prob,
            "old_log_probs": old_log_prob,
            "advantages": advantages,
            "mask": response_mask.bool(),
            "sampler_log_probs": sampler,
        }
        batch, value, metrics = _evaluate(weighted, fields, information)
        if recording is not None and log_prob.requires_grad:
            recording.add(batch, information)
        return value, metrics

    return loss


@dataclass(frozen=True)
class WorkerLoss:
    """An objective as the whole loss of verl's actor workers, for what a policy loss does not get to see.

        actor_rollout_worker_group.set_loss_fn(WorkerLoss("erc(base=gppo)"))

    Called in the workers with what the model put out and the mini-batch; can be pickled. It is the whole loss: verl's
    own entropy and reference terms are not added, wrap the objective instead.

    Raises:
        ConfigError: the objective does not exist, changes from step to step, or reads the whole mini-batch and got a
            part of it.
        BatchError: when called, an entropy or a reference is not in the mini-batch; the message says which.
    """

    objective: Objective | str
    """An objective, its name, or `name(key=value,…)`."""
    record: str | None = None
    """Folder to write every update down in; `None`: nothing is written."""
    resolved: Objective = field(init=False, repr=False)
    """The objective itself."""
    _recording: VerlRecording | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolved", make_objective(self.objective))
        if self.resolved.adapts:
            raise ConfigError(
                f"{self.resolved.label()} changes from step to step ({self.resolved.adapts}), and verl's workers keep "
                "one objective for all of them; entropy_bonus has a coefficient that stays"
            )
        recording = None if self.record is None else VerlRecording(self.record, self.resolved.label(), updates=None)
        object.__setattr__(self, "_recording", recording)

    def __call__(
        self, model_output: Mapping[str, Any], data: Any, dp_group: Any = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Loss and metrics of a micro-batch, with verl's own conversion of its packed tensors."""
        from verl.utils.metric import AggregationType, Metric
        from verl.workers.utils.padding import no_padding_2_padding

        # The names on the right are verl's; "entropy" in the data is that of the old pass.
        stored = {
            "old_log_probs": "old_log_probs",
            "advantages": "advantages",
            "mask": "response_mask",
            "old_entropies": "entropy",
            "ref_log_probs": "ref_log_prob",
            "sampler_log_probs": "rollout_log_probs",
        }
        present = [name for name in stored.values() if name in data]
        padded = data.select(*present).to_padded_tensor()
        fields = {ours: padded[theirs] for ours, theirs in stored.items() if theirs in present}
        fields["mask"] = fields["mask"].bool()
        fields["log_probs"] = no_padding_2_padding(model_output["log_probs"], data)
        if model_output.get("entropy") is not None:
            fields["entropies"] = no_padding_2_padding(model_output["entropy"], data)
        information = {
            name: data[name] for name in ("dp_size", "batch_num_tokens", "global_batch_size") if name in data
        }
        batch, loss, metrics = _evaluate(self.resolved, fields, information)
        if self._recording is not None and fields["log_probs"].requires_grad:
            scores = next((name for name in ("token_level_scores", "rm_scores") if name in data), None)
            self._recording.add(
                batch,
                information,
                prompts=data.select("prompts").to_padded_tensor()["prompts"] if "prompts" in data else None,
                rewards=None if scores is None else data.select(scores).to_padded_tensor()[scores].sum(-1),
                last=bool(data["update_lr_scheduler"]) if "update_lr_scheduler" in data else False,
            )
        # Each micro-batch contributes its part of a sum, as in verl's own loss.
        return loss, {**metrics, "actor/pg_loss": Metric(value=loss.detach(), aggregation=AggregationType.SUM)}


def register_objectives() -> list[str]:
    """Register every objective that verl can feed, and those of the file in `TESTBED_VERL_OBJECTIVES`.

    Returns the names of the loss modes, sorted. Calling it again changes nothing.

    Raises:
        ConfigError: the file is not there or names something that cannot be registered.
    """
    from verl.trainer.ppo.core_algos import register_policy_loss

    losses = {f"{PREFIX}{name}": policy_loss(name) for name in _registered()}
    losses |= {name: policy_loss(text) for name, text in _file_objectives().items()}
    for name, loss in losses.items():
        register_policy_loss(name)(loss)
    return sorted(losses)


def _registered() -> list[str]:
    """The objectives that verl's arguments of a loss suffice for."""
    return [
        name
        for name in objective_names()
        if not (make_objective(name).needs or make_objective(name).compares_responses)
    ]


def check_verl() -> list[str]:
    """Prove that verl knows our losses because its plugin mechanism ran, and that it computes them.

    verl swallows an error in a plugin, so that nothing but the missing name would tell. Returns one line per finding.

    Raises:
        ConfigError: verl is not installed.
        TestbedError: the entry point is missing, a name is not registered, or a loss comes out different.
    """
    try:
        version = metadata.version("verl")
    except metadata.PackageNotFoundError as error:
        raise ConfigError("verl is not installed; it needs an environment of its own, with the verl extra") from error
    found = [point for point in metadata.entry_points(group="verl.plugins") if point.value.startswith(__package__)]
    if not found:
        raise TestbedError(
            "no entry point of this package in the group verl.plugins; install the package in verl's environment with "
            "pip, not only on the path"
        )
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    expected = [f"{PREFIX}{name}" for name in _registered()]
    expected += list(_file_objectives())
    missing = [name for name in expected if name not in POLICY_LOSS_REGISTRY]
    if missing:
        raise TestbedError(
            f"verl {version} lacks {', '.join(missing)}; its plugins are filtered by VERL_USE_EXTERNAL_PLUGINS, and an "
            "error while loading is only logged at level DEBUG by verl and at ERROR by testbed.engines.verl_plugin"
        )
    worst = max(_registered_difference(POLICY_LOSS_REGISTRY[name], name) for name in expected)
    if worst > 0:
        raise TestbedError(f"a registered loss differs from its objective by {worst}; expected the very same number")
    return [
        f"verl {version} loaded the entry point {found[0].name} = {found[0].value}",
        f"{len(expected)} loss modes are registered: {', '.join(expected)}",
        "each gives the loss of its objective, exactly",
    ]


def _registered_difference(registered: Callable[..., tuple[Tensor, Any]], name: str) -> float:
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(4, 6, generator=generator, dtype=torch.float64) - 0.1
    new = old + 0.4 * torch.randn(4, 6, generator=generator, dtype=torch.float64)
    advantages = torch.randn(4, 1, generator=generator, dtype=torch.float64).expand(4, 6)
    mask = torch.arange(6) < torch.tensor([[6], [4], [2], [5]])
    text = _file_objectives().get(name, name.removeprefix(PREFIX))
    # A covariance clip draws its tokens; both draw the same.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        direct = make_objective(text).loss(
            TokenBatch(log_probs=new, old_log_probs=old, advantages=advantages, mask=mask)
        )
        torch.manual_seed(0)
        through, _ = registered(old_log_prob=old, log_prob=new, advantages=advantages, response_mask=mask)
    return abs(float(direct - through))


def _evaluate(
    objective: Objective, fields: Mapping[str, Tensor | None], information: Mapping[str, Any]
) -> tuple[TokenBatch, Tensor, dict[str, float]]:
    tokens, sequences = information.get("batch_num_tokens"), information.get("global_batch_size")
    processes = int(information.get("dp_size") or 1)
    mask = fields["mask"]
    assert mask is not None
    if objective.compares_responses:
        raise ConfigError(
            f"{objective.label()} compares the responses of a prompt, and verl does not tell a loss whose response is "
            "whose; train it with the TRL engine"
        )
    if objective.needs_whole_batch and (processes > 1 or (tokens is not None and int(tokens) != int(mask.sum()))):
        raise ConfigError(
            f"{objective.label()} reads all tokens of a mini-batch at once, and got {int(mask.sum())} of "
            f"{tokens} on {processes} processes; use one process with ppo_micro_batch_size_per_gpu as large as the "
            "mini-batch, or the TRL engine, which collects them"
        )
    batch = TokenBatch(**fields, token_count=tokens, sequence_count=sequences)  # type: ignore[arg-type]
    # One evaluation gives both; data parallelism averages gradients, the loss is a sum over processes.
    output = objective(batch)
    metrics = {f"actor/{name}": value.item() for name, value in output.metrics.items() if bool(value.isfinite())}
    return batch, output.loss * processes, metrics


def _check_mean(objective: Objective, configured: str) -> None:
    own = _VERL_MEANS.get(objective.reduction, objective.reduction)
    if configured not in ("token-mean", own):
        raise ConfigError(
            f"loss_agg_mode={configured} would have no effect: {objective.label()} is reduced by {own}. Leave it at "
            f"token-mean, verl's default, and give the objective its reduction, such as reduction={objective.reduction}"
        )


def _file_objectives() -> dict[str, str]:
    path = os.environ.get(FILE_VARIABLE)
    if not path:
        return {}
    import yaml

    if not Path(path).is_file():
        raise ConfigError(f"{FILE_VARIABLE} is {path!r}; expected the path of a YAML file of name: objective")
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not all(isinstance(item, str) for pair in content.items() for item in pair):
        raise ConfigError(f"{path} holds {type(content).__name__}; expected lines of name: objective")
    return content
