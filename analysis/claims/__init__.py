"""Published statements as executable, falsifiable objects; one file per paper, discovered.

>>> from analysis.claims import claim_names
>>> "dcpo/token-clip-ratio" in claim_names()
True
"""

from __future__ import annotations

from analysis.judging.claim import Claim, ExactClaim, StatisticalClaim, claim_names, get_claim
from analysis.judging.result import ClaimResult
from analysis.judging.run import MASTER_SEED, run_claim

__all__ = [
    "MASTER_SEED",
    "Claim",
    "ClaimResult",
    "ExactClaim",
    "StatisticalClaim",
    "claim_names",
    "get_claim",
    "run_claim",
]
