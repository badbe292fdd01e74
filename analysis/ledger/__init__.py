"""The ledger: a row for every numbered statement of the papers, so that none is silently absent.

Rows are filed by the files of `analysis.claims`, one file a statement; each says where its statement can be judged, or
why not. The claims that judge it name its number, so a row need not be touched when one is added.

>>> from analysis.ledger import entries
>>> {entry.number for entry in entries()} >= {"D5", "E2", "C2", "B4", "S2"}
True
"""

from __future__ import annotations

from analysis.ledger.entry import STATUSES, Entry, entries, file_entry
from analysis.ledger.page import ledger_page

__all__ = ["STATUSES", "Entry", "entries", "file_entry", "ledger_page"]
