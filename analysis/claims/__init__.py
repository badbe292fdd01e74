"""Published statements as executable, falsifiable objects; one file per paper, discovered.

>>> from analysis.claims import claim_names
>>> "dcpo/token-clip-ratio" in claim_names()
True
"""

from __future__ import annotations

from analysis.claims._claim import Claim, ExactClaim, StatisticalClaim, claim_names, get_claim
from analysis.claims._judging import Verdict, run_claim

__all__ = ["Claim", "ExactClaim", "StatisticalClaim", "Verdict", "claim_names", "get_claim", "run_claim"]
