"""A doctor for a run that went wrong: from the log of any of a dozen engines to findings with their mechanism."""

from __future__ import annotations

from analysis.diagnose.diagnosis import Diagnosis, diagnose
from analysis.diagnose.rule import LEVELS, Finding, Rule, rules

__all__ = ["LEVELS", "Diagnosis", "Finding", "Rule", "diagnose", "rules"]
