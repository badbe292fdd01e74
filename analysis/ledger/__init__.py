"""The ledger: a row for every numbered statement of the papers, so that none is silently absent.

One file per source, discovered; each row says where its statement can be judged, by which claims, or why not.

>>> from analysis.ledger import entries
>>> {entry.number for entry in entries()} >= {"D5", "E2", "C2", "B4", "S2"}
True
"""

from __future__ import annotations

from analysis.ledger._entry import STATUSES, Entry, entries, ledger_page

__all__ = ["STATUSES", "Entry", "entries", "ledger_page"]
