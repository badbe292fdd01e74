"""Whether the model hub can be asked, found out in seconds, and what to say when it cannot.

Left to themselves the hub's clients retry for minutes before they give up.
"""

from __future__ import annotations

import os
import threading

from testbed.errors import ConfigError

__all__ = ["OFFLINE_CONFIGURATIONS", "hub_obstacle", "offline_error"]

OFFLINE_CONFIGURATIONS = ("cpu-smoke", "cpu-moe", "gpu-arithmetic", "smollm2-sums")
"""Configurations of `testbed finetune` that need nothing from the hub; the last needs `make pretrained`."""


def hub_obstacle(seconds: float = 2.5) -> str | None:
    """Why the hub cannot be asked, or `None` if it answers within `seconds`; a proxy of the environment is used."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=seconds)
            answered.set()
        except Exception:
            # No route, no name, no certificate, a refused connection: all mean that nothing can be fetched.
            return

    # Looking a name up has no time limit of its own, so the question is put in a thread that may be left behind.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return None if answered.is_set() else f"{constants.ENDPOINT} did not answer within {seconds:g} s"


def offline_error(kind: str, name: str, obstacle: str) -> ConfigError:
    """The error for something that is neither on this machine nor within reach.

    >>> print(offline_error("data set", "openai/gsm8k", "HF_HUB_OFFLINE is set"))
    cannot fetch the data set 'openai/gsm8k': this machine is offline (HF_HUB_OFFLINE is set), and no copy is in the
    cache that HF_HOME names (...). Give a local path, point HF_HOME at a cache that has it (and set HF_HUB_OFFLINE=1),
    or use a configuration that needs no hub: cpu-smoke, cpu-moe, gpu-arithmetic, smollm2-sums
    """
    cache = os.environ.get("HF_HOME", "not set: ~/.cache/huggingface")
    return ConfigError(
        f"cannot fetch the {kind} {name!r}: this machine is offline ({obstacle}), and no copy is in the cache that "
        f"HF_HOME names ({cache}). Give a local path, point HF_HOME at a cache that has it (and set HF_HUB_OFFLINE=1), "
        f"or use a configuration that needs no hub: {', '.join(OFFLINE_CONFIGURATIONS)}"
    )
