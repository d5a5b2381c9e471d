"""Where a layer's keys are like those of a query: scores of images to search by, and maps to look at."""

from __future__ import annotations

import torch
from torch import Tensor

from reprise.papers.rewriting.network import Network


def query_direction(c: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """C^-1 k_mean ``[I]``, scaled so that the query's own keys match with 1 on average.

    The paper's code averages the keys of a query, other than those of a context.

    Args:
        c: second moment ``[I, I]``.
        rows, weights: the query's keys ``[m, I]`` and weights ``[m]``.
    """
    mean = (rows * weights.unsqueeze(1)).sum(0) / weights.sum()
    direction = torch.linalg.solve(c, mean.to(c))
    return direction / (direction @ mean.to(c))


def match_maps(synthesis: Network, layer: int, ws: Tensor, direction: Tensor) -> Tensor:
    """How well each place matches ``[n, h, w]``, on the grid of the layer's keys."""
    keys, _ = synthesis.key(layer, ws)
    return torch.einsum("nihw,i->nhw", keys, direction.to(keys))
