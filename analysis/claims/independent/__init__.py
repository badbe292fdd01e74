"""Published evidence from outside the five papers that bears on their statements."""

from __future__ import annotations

PAPER = "Independent"
UNCLIPPED = {"objective": "ppo(clip_low=1e9,clip_high=1e9)"}
