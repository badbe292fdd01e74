"""Published statements as executable, falsifiable objects; one file per paper, discovered.

>>> from analysis.claims import claim_names
>>> "dcpo/token-clip-ratio" in claim_names()
True
"""

from __future__ import annotations

from analysis.claims._claim import Claim, ExactClaim, StatisticalClaim, claim_names, get_claim
from analysis.claims._judging import MASTER_SEED, Verdict, run_claim

__all__ = [
    "MASTER_SEED",
    "Claim",
    "ExactClaim",
    "StatisticalClaim",
    "Verdict",
    "claim_names",
    "get_claim",
    "run_claim",
]
