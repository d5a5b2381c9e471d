"""A convolution as an associative memory: what its keys are like, which direction one key has, and how to store one.

A key is the layer's input at one place, a value its output there. Writing one more pair (k*, v*) with the least damage
to the others moves the weights along C^-1 k*, where C = E[k k^T] is the second moment of all keys (paper, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reprise.errors import UserError

FLOOR = 1e-12  # of the largest eigenvalue: what float64 cannot tell from 0


class Moment:
    """C = E[k k^T] of the keys seen so far, in double precision; not centred.

    Args:
        channels: I, numbers of a key.
        device: where keys come from.
    """

    def __init__(self, channels: int, device: torch.device | str = "cpu") -> None:
        self.sum = torch.zeros(channels, channels, dtype=torch.float64, device=device)
        self.count = 0

    def add(self, keys: Tensor) -> None:
        """See the keys of some images ``[n, I, h, w]``."""
        rows = keys.movedim(1, -1).flatten(0, -2)
        self.sum += (rows.T @ rows).double()
        self.count += len(rows)

    def matrix(self, ridge: float = 0.0) -> Tensor:
        """C ``[I, I]`` in float64 plus ``ridge`` times its mean eigenvalue on the diagonal.

        Activations after a ReLU leave C nearly singular; without a ridge, directions follow what is noise.

        Raises:
            UserError: no keys were seen.
        """
        if not self.count:
            raise UserError("the second moment of the keys is asked for before any key was seen: sample some images.")
        c = self.sum / self.count
        return c + ridge * c.diagonal().mean() * torch.eye(len(c), dtype=c.dtype, device=c.device)


def whitening(c: Tensor) -> Tensor:
    """Z = C^(-1/2) ``[I, I]``, symmetric (ZCA), of a positive semi-definite C; what has no spread stays without."""
    values, vectors = torch.linalg.eigh(c)
    inverse = torch.where(values > FLOOR * values.max(), values.clamp_min(1e-300).rsqrt(), 0)
    return vectors * inverse @ vectors.T


def context_rows(keys: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The keys that masks select ``[m, I]`` and their weights ``[m]``, all in float64.

    Args:
        keys: of each context image, ``[I, h, w]``.
        masks: of each, ``[h, w]`` in 0..1.

    Raises:
        UserError: no mask selects anything.
    """
    chosen, weights = [], []
    for key, mask in zip(keys, masks, strict=True):
        there = mask > 0
        chosen.append(key[:, there].T.double())
        weights.append(mask[there].double())
    rows = torch.cat(chosen)
    if not len(rows):
        raise UserError(
            "the context masks are empty at the layer's resolution: paint larger ones, or choose a finer layer."
        )
    return rows, torch.cat(weights)


def zca_directions(c: Tensor, rows: Tensor, weights: Tensor, rank: int) -> Tensor:
    """Directions D ``[R, I]`` with orthonormal rows: the R main axes of the whitened context, back among the keys.

    For one key and rank 1 it is C^-1 k* / |C^-1 k*|. Signs are such that the context lies on the positive side.

    Args:
        c: second moment ``[I, I]``.
        rows, weights: the context's keys ``[m, I]`` and weights ``[m]``.
        rank: R.

    Raises:
        UserError: a rank above the number of keys or channels.
    """
    most = min(rows.shape)
    if not 1 <= rank <= most:
        raise UserError(
            f"rank={rank} cannot be: {len(rows)} context keys of {rows.shape[1]} channels have ranks from 1 to {most}."
        )
    z = whitening(c)
    whitened = rows @ z * weights.unsqueeze(1)
    axes = torch.linalg.svd(whitened, full_matrices=False).Vh[:rank]
    return _oriented(orthonormal(axes @ z), rows @ z)


def raw_directions(rows: Tensor, weights: Tensor, rank: int) -> Tensor:
    """The same without C: main axes of the context's keys as they are. What the whitening is for shows beside it."""
    axes = torch.linalg.svd(rows * weights.unsqueeze(1), full_matrices=False).Vh[:rank]
    return _oriented(orthonormal(axes), rows)


def orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal rows ``[R, I]`` with the same span."""
    return torch.linalg.qr(rows.T).Q.T


def _oriented(directions: Tensor, rows: Tensor) -> Tensor:
    """Signs by which the sum of the rows lies on the positive side."""
    side = directions @ rows.sum(0)
    return directions * torch.where(side < 0, -1.0, 1.0).to(directions).unsqueeze(1)


def insert(w: Tensor, c: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Store pairs in a linear memory: the least change in tr(dW C dW^T) that gives W k* = v* (paper, equations 5 to 8).

    Args:
        w: ``[O, I]``.
        c: ``[I, I]``, positive definite.
        keys: K* ``[S, I]``.
        values: V* ``[S, O]``.

    Returns:
        Lambda ``[O, S]`` and D ``[S, I]`` = K* C^-1, with W + Lambda D the new memory. Where keys depend on each other,
        the values are met in the least-squares sense.
    """
    directions = torch.linalg.solve(c, keys.T).T
    missing = values - keys @ w.T  # [S, O]
    gram = directions @ keys.T  # [S, S], K* C^-1 K*^T
    return torch.linalg.lstsq(gram, missing, driver="gelsd").solution.T, directions


def change(lam: Tensor, directions: Tensor) -> Tensor:
    """dW ``[O, I, h, w]`` of Lambda ``[O, R, h, w]`` and D ``[R, I]``: rank R along the input channels at every tap."""
    return torch.einsum("orhw,ri->oihw", lam, directions.to(lam))


def project(dw: Tensor, directions: Tensor) -> Tensor:
    """The part of a change ``[O, I, h, w]`` along D ``[R, I]`` (orthonormal rows), at every tap."""
    d = directions.to(dw)
    return change(torch.einsum("oihw,ri->orhw", dw, d), d)


def busiest(rows: Tensor, weights: Tensor, moment: Moment, count: int) -> Tensor:
    """Numbers of the units ``[count]`` that a context makes most active against their usual: mean k^2 over E[k^2].

    The paper's choice of what to switch off when a thing is to go.

    Args:
        rows, weights: the context's keys ``[m, I]`` and weights ``[m]``.
        moment: of all keys.
        count: units.

    Raises:
        UserError: more units than there are channels.
    """
    channels = rows.shape[1]
    if count > channels:
        raise UserError(f"units={count} are more than the layer's {channels} input channels: lower them.")
    usual = moment.matrix().diagonal().clamp_min(1e-12)
    energy = (rows.square() * weights.unsqueeze(1)).sum(0) / weights.sum()
    return (energy / usual.to(energy)).topk(count).indices


def rarest(rows: Tensor, weights: Tensor, usual: Tensor, count: int) -> Tensor:
    """Numbers of the units ``[count]`` whose activation in a context is the rarest: mean of -log(1 - quantile).

    The choice of GAN dissection, of which units to ablate.

    Args:
        rows, weights: the context's keys ``[m, I]`` and weights ``[m]``.
        usual: keys of all places ``[M, I]``, of which the quantiles are taken.
        count: units.

    Raises:
        UserError: more units than there are channels.
    """
    channels = rows.shape[1]
    if count > channels:
        raise UserError(f"units={count} are more than the layer's {channels} input channels: lower them.")
    ordered = usual.double().sort(0).values.T.contiguous()  # [I, M]
    below = torch.searchsorted(ordered, rows.T.contiguous().to(ordered), right=True)  # [I, m]
    surprise = -torch.log1p(-below.double() / (len(usual) + 1))  # a key above all others is rare, not impossible
    return ((surprise * weights.to(surprise)).sum(1) / weights.sum()).topk(count).indices
