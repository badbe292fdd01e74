"""What the tokens of a language model look like: how probable, how uncertain, and what else could have stood there.

    testbed profile smollm2-135m --task arithmetic(level=2)

`measure` samples answers and scores them, `profile` is what was measured and its file, `command` the command with its
picture.
"""

from __future__ import annotations

from analysis.profile.measure import measure
from analysis.profile.profile import Profile, read_profile

__all__ = ["Profile", "measure", "read_profile"]
