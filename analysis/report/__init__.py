"""The report: one self-contained HTML file made from the results of a run, and the comparison of two runs."""

from __future__ import annotations

from analysis.report.comparison import Comparison, VerdictChange, compare_runs
from analysis.report.page import write_report

__all__ = ["Comparison", "VerdictChange", "compare_runs", "write_report"]
