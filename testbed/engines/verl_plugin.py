"""The entry point of the group `verl.plugins`: importing it registers this project's objectives in verl.

verl passes over a plugin that fails without a word, so that the failure is logged here; `check_verl` looks for it.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec

from testbed.engines.verl import register_objectives

if find_spec("verl") is not None:
    try:
        register_objectives()
    except Exception:
        logging.getLogger(__name__).exception("the objectives of testbed could not be registered in verl")
        raise
