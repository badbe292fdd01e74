"""Selectors over a batch that only see a micro-batch."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.diagnose.rule import Case, Finding, Rule, rule

__all__ = ["BATCH_SCOPE"]

_SELECTORS = {
    "clip_cov": "picks the tokens of largest covariance",
    "kl_cov": "picks the tokens of largest covariance",
    "bapo": "chooses its bounds by the balance of positive and negative tokens",
    "m2po": "drops tokens by the second moment of the whole batch",
}


def _check(case: Case) -> Iterator[Finding]:
    loss = str(case.setting("loss") or "").lower().replace("-", "_")
    if loss not in _SELECTORS:
        return
    micro, mini, gpus = case.number("micro_batch"), case.number("mini_batch"), case.number("gpus")
    dynamic = str(case.setting("dynamic_micro_batch")).lower() == "true"
    does = f"{loss} {_SELECTORS[loss]}"
    if dynamic:
        yield BATCH_SCOPE.finding(
            "warning",
            f"{does} among those of one micro-batch, and micro-batches are cut by tokens "
            f"({case.source('dynamic_micro_batch')}): the choice depends on how a batch was cut.",
        )
        return
    if micro is None or mini is None:
        yield BATCH_SCOPE.finding(
            "note",
            f"{does} among those of one micro-batch; whether that is less than the mini-batch is not known.",
            title="A selector whose micro-batch is not known",
            needs=case.takes("micro_batch", "mini_batch"),
        )
        return
    seen = micro
    if seen < mini:
        share = f"{seen:g} of the {mini:g} responses of an update" + (
            "" if gpus is None else f", on each of {gpus:g} GPUs"
        )
        yield BATCH_SCOPE.finding(
            "warning",
            f"{does} among {share} ({case.source('micro_batch')}): another micro-batch size is another objective.",
        )


BATCH_SCOPE = rule(
    Rule(
        id="batch-scope",
        title="A selector sees only a micro-batch",
        mechanism="Clip-Cov, KL-Cov, BAPO and the like choose tokens or bounds by a statistic of the batch, but an "
        "engine "
        "calls the loss once per micro-batch. The top thousandth of a micro-batch is not that of the batch, so results "
        "depend on how much fits into memory.",
        reads=(),
        threshold="the loss is such a selector and the micro-batch is smaller than the mini-batch, or cut by tokens",
        remedy="Make the micro-batch as large as the mini-batch, or compute the statistic before the batch is cut.",
        silent="where the configuration does not name the loss",
        check=_check,
        rank=25,
        settings=("loss", "micro_batch", "mini_batch"),
    )
)
