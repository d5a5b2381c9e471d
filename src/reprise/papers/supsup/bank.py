"""The mask bank: one seed, one row of bits per task, and nothing of what made them.

A bank works on its own. It is made from the masks of each layer, and grows:

>>> import torch
>>> from reprise.papers.supsup.networks import FullyConnected
>>> network = FullyConnected([300, 100]).bind((1, 28, 28), 100)
>>> masks = [torch.rand(5, *shape) < 0.5 for shape in network.shapes]  # of five tasks
>>> bank = MaskBank(network, weight_seed=0, packed=pack(masks), classes=10, mean=[0.1307], std=[0.3081])
>>> bank.append(pack([mask[:1] for mask in masks]))
>>> path = bank.save("masks.safetensors")
>>> images = torch.rand(4, 1, 28, 28)
>>> bank = MaskBank.load(path)
>>> bank.size, bank.predict(images, task=3).shape
(6, torch.Size([4]))
>>> tasks, labels = bank.infer_task(images), bank.predict(images)  # each image finds its own task

A run's bank is ``masks.safetensors`` in its folder. Bits of all layers stand in a row, in the order of the network's
weights, eight to a byte, the first in the lowest bit; what is left of the last byte is 0.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from reprise.checks import NonNegativeInt, PositiveFloat, PositiveInt, checked
from reprise.errors import UserError
from reprise.papers.supsup.bank_file import FORMAT, check_same, read
from reprise.papers.supsup.networks import Network, Shape, Statistics, fingerprint, rebuild, signed_constants
from reprise.papers.supsup.objectives import check_objective
from reprise.records import write_bytes

IMAGES_AT_ONCE = 2048
COUNTED_AT_ONCE = 2**25  # bits


def pack(kept: Sequence[Tensor]) -> Tensor:
    """Masks ``[T, *shape]`` per layer, bool, as bits ``[T, bytes]`` uint8."""
    flat = torch.cat([mask.flatten(1) for mask in kept], 1)
    bits = np.packbits(flat.cpu().numpy(), axis=1, bitorder="little")
    return torch.from_numpy(bits).to(flat.device)


def unpack(packed: Tensor, size: int) -> Tensor:
    """Bits ``[T, bytes]`` as 0 and 1 ``[T, size]`` uint8."""
    if packed.device.type == "cpu":  # over ten times as fast as shifts or a look-up table in torch
        return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=size, bitorder="little"))
    return unpack_by_shifts(packed, size)


def unpack_by_shifts(packed: Tensor, size: int) -> Tensor:
    """The same with tensor operations alone."""
    bits = (packed[:, :, None] >> torch.arange(8, device=packed.device, dtype=torch.uint8)) & 1
    return bits.flatten(1)[:, :size]


def in_layers(rows: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """``[T, size]`` as one tensor ``[T, *shape]`` per layer."""
    parts = rows.split([math.prod(shape) for shape in shapes], dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]


class _Rows:
    """Rows that can become more. Room for as many again is made at once, so that few are copied twice."""

    def __init__(self, rows: Tensor) -> None:
        self.store, self.size = rows, len(rows)

    @property
    def all(self) -> Tensor:
        """As a view."""
        return self.store[: self.size]

    def append(self, more: Tensor) -> None:
        """The first call copies: what was given is never written to."""
        size = self.size + len(more)
        if size > len(self.store):
            store = self.store.new_empty(max(size, 2 * self.size), *self.store.shape[1:])
            store[: self.size] = self.all
            self.store = store
        self.store[self.size : size] = more
        self.size = size


class MaskBank:
    """Masks of one frozen network, on whatever device their bits are.

    Args:
        network: the architecture, bound to its inputs and outputs.
        weight_seed: what the frozen weights are made from.
        packed: the bits ``[k, bytes]`` uint8; not copied, so that a bank can be a view of a store that grows.
        classes: l, the outputs of a task that stand for classes.
        statistics: BatchNorm statistics of each task, for a network that has some.
        mean, std: that images were normalised with, per channel.
        tasks: names of the tasks, if they have any.

    Attributes:
        frozen: W, one tensor per layer.

    Raises:
        UserError: bits, statistics or names that do not fit the network or each other.
    """

    @checked
    def __init__(
        self,
        network: Network,
        weight_seed: NonNegativeInt,
        packed: Tensor,
        classes: PositiveInt,
        statistics: Statistics | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[PositiveFloat] = (1.0,),
        tasks: Sequence[str] = (),
    ) -> None:
        self.network, self.weight_seed, self.classes = network, weight_seed, classes
        self.mean, self.std, self.tasks = list(mean), list(std), list(tasks)
        self._check(packed, statistics, len(self.tasks))
        self._check_images()
        self._packed = _Rows(packed)
        moments = () if statistics is None else (statistics.mean, statistics.var)
        self._moments = tuple(_Rows(rows.to(packed.device)) for rows in moments)
        self.frozen = [w.to(packed.device) for w in signed_constants(network.shapes, weight_seed)]
        self._counts: Tensor | None = None  # by how many masks each weight is kept

    @property
    def size(self) -> int:
        """k, the number of masks."""
        return self._packed.size

    @property
    def packed(self) -> Tensor:
        """All bits ``[k, bytes]``."""
        return self._packed.all

    @property
    def statistics(self) -> Statistics | None:
        """BatchNorm statistics of all tasks; nothing that reads a bank moves them."""
        return Statistics(*(rows.all for rows in self._moments)) if self._moments else None

    def append(self, packed: Tensor, statistics: Statistics | None = None, tasks: Sequence[str] = ()) -> None:
        """Store more masks ``[T, bytes]``, with their statistics and names if the bank has those.

        Raises:
            UserError: bits, statistics or names that do not fit the bank; it is then as it was.
        """
        self._check(packed, statistics, len(tasks), named=bool(self.tasks) if self.size else None)
        rows = packed.to(self.packed.device)
        if self._counts is not None:
            self._counts += _counts(rows, self.network.size)
        self._packed.append(rows)
        for moment, more in zip(self._moments, (statistics.mean, statistics.var) if statistics else (), strict=True):
            moment.append(more)
        self.tasks.extend(tasks)

    def to(self, device: torch.device | str) -> MaskBank:
        """The same bank on another device."""
        packed, statistics = self.packed.to(device), self.statistics
        about = self.mean, self.std, self.tasks
        return MaskBank(self.network, self.weight_seed, packed, self.classes, statistics, *about)

    def weights(self, tasks: Sequence[int] | Tensor | slice) -> list[Tensor]:
        """W * M of some tasks, ``[T, *shape]`` per layer.

        Raises:
            UserError: no such task.
        """
        if not isinstance(tasks, slice | Tensor):
            tasks = [self._place(task) for task in tasks]
        masks = in_layers(unpack(self.packed[tasks], self.network.size).to(self.frozen[0].dtype), self.network.shapes)
        return [mask.mul_(w) for mask, w in zip(masks, self.frozen, strict=True)]

    def chunks(self, size: int, candidates: Tensor | None = None) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Places of up to ``size`` masks and the masks as 0 and 1 in float, ``[m, *shape]`` per layer."""
        places = torch.arange(self.size, device=self.packed.device) if candidates is None else candidates
        for part in places.split(size) if len(places) else ():
            rows = unpack(self.packed[part], self.network.size).to(self.frozen[0].dtype)
            yield part, in_layers(rows, self.network.shapes)
            del rows  # so that only the caller holds on to a chunk

    def mean_weights(self, candidates: Tensor | None = None) -> list[Tensor]:
        """W * (mean mask) per layer ``[1, *shape]``, over all masks or over some; of all, the counts are remembered.

        Raises:
            UserError: there is no mask.
        """
        masks = self.size if candidates is None else len(candidates)
        if not masks:
            raise UserError("there is no mask to take the mean of: append one first.")
        if candidates is not None:
            counts = _counts(self.packed, self.network.size, candidates)
        else:
            if self._counts is None:
                self._counts = _counts(self.packed, self.network.size)
            counts = self._counts
        shares = in_layers((counts.to(self.frozen[0].dtype) / masks)[None], self.network.shapes)
        return [share.mul_(w) for share, w in zip(shares, self.frozen, strict=True)]

    def kept(self) -> Tensor:
        """How many weights each mask keeps in each layer ``[k, layers]``, int64 on the processor."""
        ends = list(itertools.accumulate((math.prod(shape) for shape in self.network.shapes), initial=0))
        counts = torch.zeros(self.size, len(ends) - 1, dtype=torch.int64)
        for task, row in enumerate(self.packed.cpu().numpy()):
            bits = np.unpackbits(row, bitorder="little").view(bool)
            counts[task] = torch.tensor([np.count_nonzero(bits[a:b]) for a, b in itertools.pairwise(ends)])
        return counts

    def logits(self, task: int, x: Tensor) -> Tensor:
        """Logits ``[n, s]`` of normalised images ``[n, *inputs]`` under one task's mask.

        Raises:
            UserError: no such task.
        """
        place, statistics = self._place(task), self.statistics
        only = slice(place, place + 1)
        return self.network(self.weights(only), x[None], None if statistics is None else statistics.of(only))[0]

    def infer_task(self, x: Tensor, objective: str = "H") -> Tensor:
        """Task ``[n]`` of each image ``[n, C, H, W]`` in 0..1, by one gradient through all masks (equation 4).

        Args:
            x: images, flat ones ``[n, D]`` too.
            objective: ``H`` or ``G``.

        Raises:
            UserError: images of another shape or range, an objective that tells nothing, no mask, or a network with
                BatchNorm, whose statistics belong to tasks.
        """
        return self._infer(self._normalised(x), objective)

    @torch.no_grad()
    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        """Label ``[n]`` within its task of each image ``[n, C, H, W]`` in 0..1; without a task each finds its own.

        The label is the largest of all outputs, as where a run is judged: one that is no class, that is ``classes`` or
        more, is a superfluous output, and a sign that the image is of no task or the task is wrong.

        Raises:
            UserError: images of another shape or range, no such task, or a task that cannot be inferred.
        """
        x = self._normalised(x)
        found = self._infer(x, "H") if task is None else torch.full((len(x),), self._place(task), device=x.device)
        labels = torch.empty_like(found)
        for one in found.unique().tolist():
            for rows in (found == one).nonzero().squeeze(1).split(IMAGES_AT_ONCE):
                labels[rows] = self.logits(one, x[rows]).argmax(1)
        return labels

    def _infer(self, x: Tensor, objective: str) -> Tensor:
        from reprise.papers.supsup.inference import one_shot

        if self.network.channels:
            raise UserError("this bank keeps BatchNorm statistics per task, so it cannot find the task: give it.")
        check_objective(objective, self.network.outputs, self.classes)
        if not self.size:
            raise UserError("this bank holds no masks yet.")
        if not len(x):
            return torch.empty(0, dtype=torch.int64, device=x.device)
        return one_shot(self, x, objective)

    def _place(self, task: int) -> int:
        if not self.size:
            raise UserError(f"there is no task {task}: this bank holds no masks yet.")
        if task not in range(self.size):
            raise UserError(f"there is no task {task}: this bank holds tasks 0 to {self.size - 1}.")
        return int(task)

    def _check(self, packed: Tensor, statistics: Statistics | None, names: int, named: bool | None = None) -> None:
        """Whether these rows can be in this bank; ``named``: must they have names, ``None`` = as they like."""
        network, needed = self.network, -(-self.network.size // 8)
        if packed.dtype != torch.uint8 or packed.ndim != 2 or packed.shape[1] != needed:
            raise UserError(
                f"these masks do not fit the network: its {network.size:,} weights need rows of {needed:,} bytes, "
                f"uint8, and they are {list(packed.shape)} of {packed.dtype}."
            )
        if bool(network.channels) != (statistics is not None):
            raise UserError("a network with BatchNorm needs the statistics of each task, and another has none.")
        wanted = (len(packed), network.channels)
        for moment in () if statistics is None else (statistics.mean, statistics.var):
            if tuple(moment.shape) != wanted:
                raise UserError(
                    f"these BatchNorm statistics do not fit the masks: mean and var must be {list(wanted)}, one row "
                    f"per mask, and one is {list(moment.shape)}."
                )
        if names not in ((0, len(packed)) if named is None else (len(packed) * named,)):
            raise UserError(f"tasks={names} names for {len(packed)} masks: give every mask of a bank a name, or none.")

    def _check_images(self) -> None:
        network = self.network
        if self.classes > network.outputs:
            raise UserError(f"classes={self.classes} are more than the {network.outputs} outputs of the network.")
        fitting = {1, network.inputs[0] if len(network.inputs) == 3 else 1}
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in fitting or not all(map(math.isfinite, values)):
                raise UserError(
                    f"{name}={values} does not fit inputs of shape {list(network.inputs)}: give one finite number per "
                    "channel, or one for all."
                )

    def _normalised(self, x: Tensor) -> Tensor:
        shape = self.network.inputs
        if not isinstance(x, Tensor) or tuple(x.shape[1:]) not in (shape, (math.prod(shape),)):
            given = list(x.shape[1:]) if isinstance(x, Tensor) else f"no tensor but {type(x).__name__}"
            raise UserError(f"this bank reads images of shape {list(shape)}, and these are {given}.")
        if not x.is_floating_point() or not bool(((x >= 0) & (x <= 1)).all()):  # which NaN is not
            raise UserError("a bank reads images as floating-point numbers in 0..1; divide 8-bit images by 255.")
        x = x.to(self.packed.device, self.frozen[0].dtype).reshape(len(x), *shape)
        places = (-1, *[1] * (len(shape) - 1))
        mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(places) for v in (self.mean, self.std))
        return (x - mean) / std

    def save(self, path: Path | str) -> Path:
        """Write the bank as safetensors: bits, statistics and a line of JSON; atomically, never a pickle."""
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
        if self.tasks:
            about["tasks"] = self.tasks
        tensors = {"masks": self.packed.contiguous().cpu()}
        tensors |= {n: r.all.contiguous().cpu() for n, r in zip(("mean", "var"), self._moments, strict=False)}
        write_bytes(Path(path), save(tensors, {FORMAT: json.dumps(about)}))  # one key: with more, their order varies
        return Path(path)

    @classmethod
    def load(cls, path: Path | str, network: Network | None = None) -> MaskBank:
        """Read a bank, onto the processor; ``network`` is what it must have been made for, if that matters.

        Raises:
            UserError: no such file, a damaged one, no bank, one for another architecture, or one whose frozen weights
                this version of the suite does not make from its seed.
        """
        tensors, about = read(Path(path))
        try:
            built = rebuild(about["network"], about["arguments"], about["inputs"], about["outputs"])
            check_same(built, network)
            statistics = Statistics(tensors["mean"], tensors["var"]) if len(tensors) > 1 else None
            more = statistics, about["mean"], about["std"], about.get("tasks", ())
            bank = cls(built, about["weight_seed"], tensors["masks"], about["classes"], *more)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{path} is damaged: what it says of its network makes no sense.") from error
        if fingerprint(bank.frozen) != about["weights"]:
            raise UserError(
                f"{path}: seed {bank.weight_seed} does not give the frozen weights that these masks were found for."
            )
        return bank


def _counts(packed: Tensor, size: int, rows: Tensor | None = None) -> Tensor:
    """By how many masks each weight is kept, int32 ``[size]``; ``rows`` chooses some of ``[k, bytes]``."""
    counts = torch.zeros(size, dtype=torch.int32, device=packed.device)
    at_once = max(1, min(255, COUNTED_AT_ONCE // size))  # fewer than 256, so that a sum fits a byte
    for part in (packed if rows is None else rows).split(at_once):
        counts += unpack(part if rows is None else packed[part], size).sum(0, dtype=torch.uint8)
    return counts
