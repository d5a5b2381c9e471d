"""What a bank costs in bytes, by what is really stored and by other codes for the same masks.

The paper's own numbers follow from 16-bit indices of the kept weights with pointers and BatchNorm statistics, but its
exact recipe is not known: the indices alone explain two thirds of what it prints.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from reprise.papers.supsup.bank import MaskBank

FLOAT = 4
SEED = 8
INDEX = 2  # bytes of one index in the paper's code (compressed columns, 16 bits)


def bit_bytes(weights: int) -> int:
    """Bytes of one mask as bits."""
    return -(-weights // 8)


def entropy_bytes(weights: int, kept: int) -> float:
    """N h(f) / 8, the least that any code needs for masks that keep a share f of N weights (h in bits)."""
    f = kept / weights
    if f in (0.0, 1.0):
        return 0.0
    return -weights * (f * math.log2(f) + (1 - f) * math.log2(1 - f)) / 8


def statistics_bytes(channels: int) -> int:
    """Mean and variance of every BatchNorm channel, for one task."""
    return 2 * channels * FLOAT


def account(bank: MaskBank) -> dict[str, float]:
    """Metrics of a bank: bytes in all and per task, and per task by other codes; how many weights a mask keeps.

    ``bytes/index_code`` has an index for every kept weight, ``bytes/entropy_bound`` is the least for such densities,
    layer by layer, ``bytes/float_scores`` one float per weight as in the official code, all with BatchNorm statistics.
    ``bytes/dense_network`` is a network of its own for a task.
    """
    from reprise.papers.supsup.bank import unpack

    sizes = [math.prod(shape) for shape in bank.network.shapes]
    kept = torch.zeros(len(sizes), dtype=torch.float64)
    for rows in bank.packed.split(64):
        parts = unpack(rows, sum(sizes)).split(sizes, dim=1)
        kept += torch.tensor([float(part.sum(dtype=torch.int64)) for part in parts], dtype=torch.float64)
    tasks = max(bank.size, 1)
    each, extra = (kept / tasks).tolist(), statistics_bytes(bank.network.channels)
    stored = bank.packed.shape[1] + extra
    return {
        "bytes/bank": SEED + bank.size * stored,
        "bytes/per_task": stored,
        "bytes/index_code": INDEX * sum(each) + extra,
        "bytes/entropy_bound": sum(entropy_bytes(n, k) for n, k in zip(sizes, each, strict=True)) + extra,
        "bytes/float_scores": FLOAT * sum(sizes) + extra,
        "bytes/dense_network": FLOAT * (sum(sizes) + 2 * bank.network.channels),
        "masks/density": sum(each) / sum(sizes),
    }
