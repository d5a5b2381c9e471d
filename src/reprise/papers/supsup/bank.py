"""The mask bank: one seed, one row of bits per task, and nothing of what made them.

A bank works on its own::

    bank = MaskBank.load("outputs/runs/supsup/mnist/s0-.../masks.safetensors")
    bank.predict(images)           # images [n, 1, 28, 28] in 0..1, the task is inferred
    bank.predict(images, task=3)
    bank.infer_task(images)

Bits of all layers stand in a row, in the order of the network's weights, eight to a byte, the first in the lowest bit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprise.errors import UserError
from reprise.papers.supsup.networks import Network, Shape, Statistics, fingerprint, rebuild, signed_constants
from reprise.records import write_bytes

FORMAT = "reprise-mask-bank-1"


def pack(kept: Sequence[Tensor]) -> Tensor:
    """Masks ``[T, *shape]`` per layer, bool, as bits ``[T, bytes]`` uint8."""
    flat = torch.cat([mask.flatten(1) for mask in kept], 1)
    bits = np.packbits(flat.cpu().numpy(), axis=1, bitorder="little")
    return torch.from_numpy(bits).to(flat.device)


def unpack(packed: Tensor, size: int) -> Tensor:
    """Bits ``[T, bytes]`` as 0 and 1 ``[T, size]`` uint8."""
    if packed.device.type == "cpu":
        return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=size, bitorder="little"))
    bits = (packed[:, :, None] >> torch.arange(8, device=packed.device, dtype=torch.uint8)) & 1
    return bits.flatten(1)[:, :size]


def in_layers(rows: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """``[T, size]`` as one tensor ``[T, *shape]`` per layer."""
    parts = rows.split([math.prod(shape) for shape in shapes], dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]


class MaskBank:
    """Masks of one frozen network.

    Args:
        network: the architecture, bound to its inputs and outputs.
        weight_seed: what the frozen weights are made from.
        packed: the bits ``[k, bytes]`` uint8; not copied, so that a bank can be a view of a store that grows.
        classes: l, the outputs of a task that stand for classes.
        statistics: BatchNorm statistics of each task, for a network that has some.
        mean, std: that images were normalised with, per channel.

    Raises:
        UserError: bits that do not fit the network.
    """

    def __init__(
        self,
        network: Network,
        weight_seed: int,
        packed: Tensor,
        classes: int,
        statistics: Statistics | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        self.network, self.weight_seed, self.packed, self.classes = network, weight_seed, packed, classes
        self.statistics, self.mean, self.std = statistics, list(mean), list(std)
        needed = -(-network.size // 8)
        if packed.dtype != torch.uint8 or packed.ndim != 2 or packed.shape[1] != needed:
            raise UserError(
                f"these masks do not fit the network: its {network.size:,} weights need rows of {needed:,} bytes, "
                f"uint8, and they are {list(packed.shape)} of {packed.dtype}."
            )
        if bool(network.channels) != (statistics is not None):
            raise UserError("a network with BatchNorm needs the statistics of each task, and another has none.")
        self.frozen = [w.to(packed.device) for w in signed_constants(network.shapes, weight_seed)]
        self._counts: Tensor | None = None  # by how many masks each weight is kept

    @property
    def size(self) -> int:
        """k, the number of masks."""
        return len(self.packed)

    def weights(self, tasks: Tensor | slice) -> list[Tensor]:
        """W * M of some tasks, ``[T, *shape]`` per layer."""
        masks = in_layers(unpack(self.packed[tasks], self.network.size).to(self.frozen[0].dtype), self.network.shapes)
        return [mask.mul_(w) for mask, w in zip(masks, self.frozen, strict=True)]

    def chunks(self, size: int, candidates: Tensor | None = None) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Places of up to ``size`` masks and the masks as 0 and 1 in float, ``[m, *shape]`` per layer."""
        places = torch.arange(self.size, device=self.packed.device) if candidates is None else candidates
        for part in places.split(size):
            rows = unpack(self.packed[part], self.network.size).to(self.frozen[0].dtype)
            yield part, in_layers(rows, self.network.shapes)

    def mean_weights(self, candidates: Tensor | None = None) -> list[Tensor]:
        """W * (mean mask) per layer ``[1, *shape]``, over all masks or over some."""
        counts = self._count(candidates)
        masks = self.size if candidates is None else len(candidates)
        shares = in_layers((counts.to(self.frozen[0].dtype) / masks)[None], self.network.shapes)
        return [share.mul_(w) for share, w in zip(shares, self.frozen, strict=True)]

    def _count(self, candidates: Tensor | None) -> Tensor:
        if candidates is None and self._counts is not None:
            return self._counts
        rows = self.packed if candidates is None else self.packed[candidates]
        counts = torch.zeros(self.network.size, dtype=torch.int32, device=self.packed.device)
        for part in rows.split(128):  # fewer than 256, so that a sum fits a byte
            counts += unpack(part, self.network.size).sum(0, dtype=torch.uint8)
        if candidates is None:
            self._counts = counts
        return counts

    def logits(self, task: int, x: Tensor) -> Tensor:
        """Logits ``[n, s]`` of normalised images ``[n, *inputs]`` under one task's mask."""
        of_task = None if self.statistics is None else self.statistics.of(slice(task, task + 1))
        return self.network(self.weights(slice(task, task + 1)), x[None], of_task)[0]

    def infer_task(self, x: Tensor, objective: str = "H") -> Tensor:
        """Task ``[n]`` of each image ``[n, C, H, W]`` in 0..1, by one gradient through all masks (equation 4).

        Raises:
            UserError: images of another shape or range, or a network with BatchNorm, whose statistics belong to tasks.
        """
        from reprise.papers.supsup.inference import one_shot

        if self.network.channels:
            raise UserError("this bank keeps BatchNorm statistics per task, so it cannot find the task: give it.")
        self._check_not_empty()
        return one_shot(self, self._normalised(x), objective)

    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        """Label ``[n]`` within its task of each image ``[n, C, H, W]`` in 0..1; without a task each finds its own.

        Raises:
            UserError: images of another shape or range, or no such task.
        """
        self._check_not_empty()
        if task is not None:
            if not 0 <= task < self.size:
                raise UserError(f"there is no task {task}: this bank holds tasks 0 to {self.size - 1}.")
            return self.logits(task, self._normalised(x)).argmax(1)
        found, inputs = self.infer_task(x), self._normalised(x)
        labels = torch.empty_like(found)
        for one in found.unique():
            labels[found == one] = self.logits(int(one), inputs[found == one]).argmax(1)
        return labels

    def _check_not_empty(self) -> None:
        if not self.size:
            raise UserError("this bank holds no masks yet.")

    def _normalised(self, x: Tensor) -> Tensor:
        shape = self.network.inputs
        if tuple(x.shape[1:]) not in (shape, (math.prod(shape),)):
            raise UserError(f"this bank reads images of shape {list(shape)}, and these are {list(x.shape[1:])}.")
        if x.dtype == torch.uint8 or not x.is_floating_point() or bool((x < 0).any() | (x > 1).any()):
            raise UserError("a bank reads images as floating-point numbers in 0..1; divide 8-bit images by 255.")
        mean, std = (torch.tensor(v, device=self.packed.device).view(-1, 1, 1) for v in (self.mean, self.std))
        return (x.to(self.packed.device, self.frozen[0].dtype).reshape(len(x), *shape) - mean) / std

    def save(self, path: Path) -> Path:
        """Write the bank as safetensors: bits, statistics and a line of JSON; atomically, never a pickle."""
        from safetensors.torch import save

        about = {
            "network": self.network.name,
            "arguments": self.network.describe(),
            "inputs": list(self.network.inputs),
            "outputs": self.network.outputs,
            "weight_seed": self.weight_seed,
            "weights": fingerprint(self.frozen),
            "classes": self.classes,
            "mean": self.mean,
            "std": self.std,
        }
        tensors = {"masks": self.packed.contiguous().cpu()}
        if self.statistics is not None:
            of_all = self.statistics
            tensors |= {"mean": of_all.mean.contiguous().cpu(), "var": of_all.var.contiguous().cpu()}
        write_bytes(path, save(tensors, {"format": FORMAT, "bank": json.dumps(about)}))
        return path

    @classmethod
    def load(cls, path: Path | str, network: Network | None = None) -> MaskBank:
        """Read a bank; ``network`` is what it must have been made for, if that matters.

        Raises:
            UserError: no such file, a damaged one, no bank, one for another architecture, or one whose frozen weights
                this version of the suite does not make from its seed.
        """
        tensors, about = _read(Path(path))
        built = rebuild(about["network"], about["arguments"], about["inputs"], about["outputs"])
        if network is not None and (network.name, network.shapes) != (built.name, built.shapes):
            raise UserError(
                f"{path} was saved for {_named(built)}, and {_named(network)} is asked for: the masks of one do not "
                "fit the other."
            )
        statistics = Statistics(tensors["mean"], tensors["var"]) if "mean" in tensors else None
        seed, classes = about["weight_seed"], about["classes"]
        bank = cls(built, seed, tensors["masks"], classes, statistics, about["mean"], about["std"])
        if fingerprint(bank.frozen) != about["weights"]:
            raise UserError(f"{path}: seed {seed} does not give the frozen weights that these masks were found for.")
        return bank


def _named(network: Network) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in network.describe().items())
    return f"{network.name}({arguments}) with inputs {list(network.inputs)} and {network.outputs} outputs"


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a bank's file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"there is no mask bank {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or no safetensors file: {error}.") from error
    try:
        about = json.loads(metadata["bank"]) if metadata.get("format") == FORMAT else None
    except (KeyError, ValueError):
        about = None
    wanted = {"network", "arguments", "inputs", "outputs", "weight_seed", "weights", "classes", "mean", "std"}
    if not isinstance(about, dict) or set(about) != wanted or "masks" not in tensors:
        raise UserError(f"{path} is not a mask bank of this version ({FORMAT}).")
    return tensors, about
