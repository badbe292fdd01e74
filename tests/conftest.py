"""What every test relies on: no network, one thread per process."""

from __future__ import annotations

import os

# Before any test imports transformers, which reads this once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

# Small tensors are slower on several threads, and the test workers already use every core.
torch.set_num_threads(1)
