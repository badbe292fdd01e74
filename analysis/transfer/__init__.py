"""Whether what a toy shows of an objective also shows in a language model: the same claim, judged on both."""

from __future__ import annotations

from analysis.transfer.claims import TRANSFERS, transfer_names
from analysis.transfer.comparison import LanguageModelClaim, Scale, TransferClaim
from analysis.transfer.outcome import Outcome, Transfer
from analysis.transfer.run import run_transfer

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
