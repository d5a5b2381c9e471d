"""Networks as functions of their weights, with a task axis T in front of everything.

A network holds no parameters. It says which weight tensors it needs (`shapes`) and computes the outputs of T networks
at once from weights ``[T, *shape]``, so that the same code trains many masks side by side, evaluates one, and
differentiates by the mean of thousands. There are no biases (section 3.1), so a weight tensor is all a layer has.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.checks import PositiveInt, checked
from reprise.errors import UserError

Shape = tuple[int, ...]
ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@dataclass
class Statistics:
    """BatchNorm statistics of T tasks: ``mean`` and ``var`` ``[T, channels]``, all layers of a network in a row.

    ``training`` normalises with the batch's own moments and moves the running ones towards them (a tenth per step).
    """

    mean: Tensor
    var: Tensor
    training: bool = False

    @classmethod
    def fresh(cls, tasks: int, channels: int, device: torch.device | None = None) -> Statistics:
        """Mean 0 and variance 1, ready to train."""
        return cls(torch.zeros(tasks, channels, device=device), torch.ones(tasks, channels, device=device), True)

    def of(self, tasks: slice) -> Statistics:
        """Those of some tasks, as a view: what moves there moves here."""
        return Statistics(self.mean[tasks], self.var[tasks], self.training)


class Network(ABC):
    """The architecture; `bind` tells it the shape of an input and the number of outputs s.

    Attributes:
        name: what a stored bank calls it.
        shapes: of the weight tensors, input side first: ``(out, in)`` or ``(out, in, k, k)``.
        channels: of all BatchNorm layers together; 0 when there are none.
        inputs: shape of one input.
        outputs: s, the number of outputs, superfluous ones included.
    """

    name: str
    shapes: tuple[Shape, ...] = ()
    channels: int = 0
    inputs: Shape = ()
    outputs: int = 0

    def bind(self, inputs: Shape, outputs: int) -> Network:
        """Fix the shapes; returns itself.

        Raises:
            UserError: the network cannot read such inputs.
        """
        self.inputs, self.outputs = tuple(inputs), outputs
        self.shapes = tuple(self._shapes())
        return self

    @property
    def title(self) -> str:
        """What tables call it."""
        return self.name

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for shape in self.shapes)

    @abstractmethod
    def _shapes(self) -> list[Shape]: ...

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values."""

    @abstractmethod
    def __call__(self, weights: Sequence[Tensor], x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Logits ``[T, B, s]`` of inputs ``[T, B, *inputs]`` under weights ``[T, *shape]``."""


def fan_in(shape: Shape) -> int:
    """Inputs of one unit."""
    return math.prod(shape[1:])


def constant(shape: Shape) -> float:
    """c_l = sqrt(2 / fan_in), the one magnitude in a layer; it does not depend on how many weights a mask keeps."""
    return math.sqrt(2 / fan_in(shape))


def signed_constants(shapes: Sequence[Shape], seed: int) -> list[Tensor]:
    """The frozen weights W: +c_l or -c_l with equal probability (signed Kaiming constant, section 3.1).

    The signs are the raw bits of PCG64, whose stream numpy promises to keep, so that a seed is all that is stored. They
    are one stream through all layers, so that networks that differ in the last layer alone share the others.
    """
    total = sum(math.prod(shape) for shape in shapes)
    raw = np.random.PCG64(seed).random_raw(-(-total // 64))
    bits = np.unpackbits(raw.astype("<u8").view(np.uint8), bitorder="little")[:total]
    signs = torch.from_numpy(bits).float() * 2 - 1
    parts = signs.split([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) * constant(shape) for part, shape in zip(parts, shapes, strict=True)]


def fingerprint(weights: Sequence[Tensor]) -> str:
    """Sixteen hexadecimal digits of sha256 over the signs, to notice a seed that gives other weights."""
    signs = torch.cat([w.flatten() for w in weights]).cpu().numpy() > 0
    return hashlib.sha256(np.packbits(signs, bitorder="little").tobytes()).hexdigest()[:16]


class _Products(torch.autograd.Function):
    """x W^T of every task by oneDNN, one task after another.

    It is twice as fast as PyTorch's own single-precision product on processors for which MKL keeps its fast kernels to
    itself, and as fast elsewhere. PyTorch has it as an operation without a public name.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _each(x, weight)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        delta = slopes[0].contiguous()
        by_x = _each(delta, weight.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        by_weight = _each(delta.transpose(1, 2), x.transpose(1, 2)) if ctx.needs_input_grad[1] else None
        return by_x, by_weight


def _each(x: Tensor, weight: Tensor) -> Tensor:
    product = torch.ops.mkldnn._linear_pointwise
    parts = [product(_whole(a), _whole(w), None, "none", [], "") for a, w in zip(x, weight, strict=True)]
    return parts[0][None] if len(parts) == 1 else torch.stack(parts)


def _whole(matrix: Tensor) -> Tensor:
    """A matrix without gaps, transposed or not; for others oneDNN has a plain loop, a thousand times slower."""
    return matrix if matrix.is_contiguous() or matrix.T.is_contiguous() else matrix.contiguous()


def products(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T ``[T, B, out]`` of inputs ``[T, B, in]`` and weights ``[T, out, in]``."""
    by_onednn = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and ONEDNN
    return _Products.apply(x, weight) if by_onednn else torch.bmm(x, weight.transpose(1, 2))


class FullyConnected(Network):
    """Linear layers with ReLU between them: the paper's LeNet is ``hidden=[300, 100]``, its FC ``[1024, 1024]``."""

    name = "fully_connected"

    @checked
    def __init__(self, hidden: list[PositiveInt]) -> None:
        self.hidden = tuple(hidden)

    def describe(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"hidden": list(self.hidden)}

    @property
    def title(self) -> str:
        """The units of its hidden layers."""
        return "-".join(map(str, self.hidden)) or "linear"

    def _shapes(self) -> list[Shape]:
        widths = (math.prod(self.inputs), *self.hidden, self.outputs)
        return [(out, width) for width, out in itertools.pairwise(widths)]

    def __call__(self, weights: Sequence[Tensor], x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Logits ``[T, B, s]``; inputs may have any shape and are flattened."""
        h = x.flatten(2)
        for layer, weight in enumerate(weights):
            h = products(h if layer == 0 else F.relu(h), weight)
        return h

    def traced(self, weights: Sequence[Tensor], x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Logits, and for each layer what goes in ``[T, B, in]`` and what comes out before ReLU ``[T, B, out]``.

        The last of what comes out is the logits themselves.
        """
        inputs: list[Tensor] = []
        sums: list[Tensor] = []
        for weight in weights:
            inputs.append(F.relu(sums[-1]) if sums else x.flatten(2))
            sums.append(products(inputs[-1], weight))
        return sums[-1], inputs, sums


def rebuild(name: str, arguments: dict[str, Any], inputs: Sequence[int], outputs: int) -> Network:
    """The network that a bank was made for.

    Raises:
        UserError: no network has this name.
    """
    from reprise.papers.supsup.residual import GemResNet18, ResNet50  # which builds on this module

    known = {network.name: network for network in (FullyConnected, GemResNet18, ResNet50)}
    if name not in known:
        raise UserError(f"there is no network {name!r}; known networks: {', '.join(sorted(known))}.")
    return known[name](**arguments).bind(tuple(inputs), outputs)
