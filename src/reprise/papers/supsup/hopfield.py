"""A Hopfield network: patterns of +1 and -1 that are written into one matrix, and found again as minima of an energy.

Psi ``[d, d]`` is symmetric and has the same size whatever number of patterns it holds. Section 3.5 of the paper.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def hebbian(psi: Tensor, z: Tensor) -> Tensor:
    """Psi + z z^T / d, as in the paper's main text; ``[d, d], [d] -> [d, d]``."""
    return psi + torch.outer(z, z) / len(z)


def storkey(psi: Tensor, z: Tensor) -> Tensor:
    """Psi + (z z^T - I - z h^T - h z^T) / d with h = Psi z; ``[d, d], [d] -> [d, d]``.

    After Storkey (1997), which takes back what the patterns before already say about this one. As in the official code
    h is the full sum (Storkey's leaves out two units), and the diagonal is not set to zero afterwards.
    """
    across = torch.outer(z, psi @ z)
    return psi + (torch.outer(z, z) - torch.eye(len(z), device=z.device, dtype=z.dtype) - across - across.T) / len(z)


WRITE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"hebbian": hebbian, "storkey": storkey}


def energy(psi: Tensor, z: Tensor) -> Tensor:
    """E = - 1/2 z^T Psi z, a number; its gradient is - Psi z. About - d / 2 for a stored pattern."""
    return -(z @ (psi @ z)) / 2


def update(psi: Tensor, z: Tensor, unit: int | None = None) -> Tensor:
    """What the units turn into, ``[d]``: all at once, or one alone, which never raises the energy.

    A unit takes the sign of what it hears from all others, and stays if that is 0. What it would hear from itself adds
    the same to the energy of every pattern, and is left out.
    """
    heard = psi @ z - psi.diagonal() * z
    turned = torch.where(heard == 0, z, heard.sign())
    if unit is None:
        return turned
    return torch.where(torch.arange(len(z), device=z.device) == unit, turned, z)


def hamming(a: Tensor, b: Tensor) -> Tensor:
    """In how many places two patterns differ, ``[..., d], [..., d] -> [...]``."""
    return (a != b).sum(-1)
