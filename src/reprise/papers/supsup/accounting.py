"""What a bank costs in bytes, by what is really stored and by other codes for the same masks.

The paper's own numbers follow from 16-bit indices of the kept weights with pointers and BatchNorm statistics, but its
exact recipe is not known: the indices alone explain two thirds of what it prints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reprise.papers.supsup.bank import MaskBank
    from reprise.papers.supsup.networks import Shape

FLOAT = 4
SEED = 8
INDEX = 2  # bytes of one index in the paper's code (compressed columns, 16 bits)
POINTER = 4  # bytes of one pointer to where a column begins


def bit_bytes(weights: int) -> int:
    """Bytes of one mask as bits."""
    return -(-weights // 8)


def index_bytes(kept: float) -> float:
    """Bytes of one mask as the places of kept weights within their columns, pointers to the columns left out."""
    return INDEX * kept


def pointer_bytes(shapes: Sequence[Shape]) -> int:
    """What one mask as indices needs beside them: where each input's column begins, and where the last ends."""
    return POINTER * sum(math.prod(shape[1:]) + 1 for shape in shapes)


def entropy_bytes(weights: int, kept: float) -> float:
    """N h(f) / 8, the least that any code needs for masks that keep a share f of N weights (h in bits)."""
    f = kept / weights
    if f in (0.0, 1.0):
        return 0.0
    return -weights * (f * math.log2(f) + (1 - f) * math.log2(1 - f)) / 8


def statistics_bytes(channels: int) -> int:
    """Mean and variance of every BatchNorm channel, for one task."""
    return 2 * channels * FLOAT


def float_bytes(weights: int) -> int:
    """One float per weight: a mask's scores, or a dense network."""
    return FLOAT * weights


def account(bank: MaskBank) -> dict[str, float]:
    """Metrics of a bank: bytes in all and per task, and per task by other codes; how many weights a mask keeps.

    ``bytes/index_code`` has an index for every kept weight (``bytes/index_pointers`` come on top),
    ``bytes/entropy_bound`` is the least for such densities (their mean over masks), layer by layer,
    ``bytes/float_scores`` one float per weight as in the official code, all with BatchNorm statistics.
    ``bytes/dense_network`` is a network of its own for a task.
    """
    sizes = [math.prod(shape) for shape in bank.network.shapes]
    each = (bank.kept().sum(0).double() / max(bank.size, 1)).tolist()  # of each layer
    extra = statistics_bytes(bank.network.channels)
    stored = bit_bytes(sum(sizes)) + extra
    return {
        "bytes/bank": SEED + bank.size * stored,
        "bytes/per_task": stored,
        "bytes/index_code": index_bytes(sum(each)) + extra,
        "bytes/index_pointers": pointer_bytes(bank.network.shapes),
        "bytes/entropy_bound": sum(entropy_bytes(n, k) for n, k in zip(sizes, each, strict=True)) + extra,
        "bytes/float_scores": float_bytes(sum(sizes)) + extra,
        "bytes/dense_network": float_bytes(sum(sizes)) + extra,
        "masks/density": sum(each) / sum(sizes),
    }
