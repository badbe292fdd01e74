"""What stands in a record: one row per response and update, in Parquet shards beside a manifest.

| column | type | |
|---|---|---|
| step | int64 | the rollout, from whatever number the trainer counts |
| update | int32 | the optimiser step on that rollout, from 0 |
| replica | int32 | which of the replica dimensions' runs; 0 for a language model |
| response | int64 | its number within the rollout, or its place in the update plus 2³² times the rank of the process |
| prompt | string | what it answers, the same text for all responses of a group |
| reward | float32 | NaN where it could not be graded |
| advantage | float32 | the same for all its tokens; absent where `advantages` stands |
| advantages | list of float32 | one per token |
| log_probs, old_log_probs | list of float32 | natural logarithms at the response tokens |
| entropies, old_entropies, kappas, old_kappas, sampler_log_probs, ref_log_probs | list of float32 | optional |
| token_count, sequence_count | float64 | of the whole optimiser step, thinned or not: the divisors of a mean |

Shards are called `shard-RANK-NUMBER.parquet`; each holds whole updates, in order of step and update.
"""

from __future__ import annotations

import pyarrow as pa

__all__ = [
    "LONGEST_RESPONSE",
    "MANIFEST",
    "OPTIONAL",
    "REQUIRED",
    "SCHEMA_VERSION",
    "shard_name",
    "shard_schema",
]

SCHEMA_VERSION = 1
"""Raised when a reader of this version could take a record for something else."""
MANIFEST = "manifest.json"
REQUIRED = ("log_probs", "old_log_probs")
"""Numbers per token without which there is no ratio."""
OPTIONAL = ("entropies", "old_entropies", "kappas", "old_kappas", "sampler_log_probs", "ref_log_probs")
"""Numbers per token that some objectives and some figures read."""
LONGEST_RESPONSE = 1_000_000
"""Tokens; a longer response is taken for a mistake, because a batch is padded to its longest one."""


def shard_name(rank: int, number: int) -> str:
    """A shard's file name.

    >>> shard_name(0, 12)
    'shard-000-000012.parquet'
    """
    return f"shard-{rank:03d}-{number:06d}.parquet"


def shard_schema(columns: tuple[str, ...], per_token_advantages: bool) -> pa.Schema:
    """The columns of every shard of a record that holds these numbers per token.

    >>> shard_schema(("log_probs", "old_log_probs"), False).names[:4]
    ['step', 'update', 'replica', 'response']
    """
    numbers = pa.list_(pa.float32())
    advantage = ("advantages", numbers) if per_token_advantages else ("advantage", pa.float32())
    return pa.schema(
        [
            ("step", pa.int64()),
            ("update", pa.int32()),
            ("replica", pa.int32()),
            ("response", pa.int64()),
            ("prompt", pa.string()),
            ("reward", pa.float32()),
            advantage,
            ("token_count", pa.float64()),
            ("sequence_count", pa.float64()),
            *((name, numbers) for name in columns),
        ]
    )
