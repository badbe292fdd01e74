"""Whether what a toy shows of an objective also shows in a language model: the same claim, judged on both."""

from __future__ import annotations

from analysis.transfer._claim import LanguageModelClaim, Scale, TransferClaim
from analysis.transfer._running import Outcome, Transfer, run_transfer
from analysis.transfer.claims import TRANSFERS, transfer_names

__all__ = [
    "TRANSFERS",
    "LanguageModelClaim",
    "Outcome",
    "Scale",
    "Transfer",
    "TransferClaim",
    "run_transfer",
    "transfer_names",
]
