"""The baselines' common ground: weights that all tasks share, beside some that each task has of its own.

A baseline says which weights are shared and when those are trained, and how a task's network is made of both. Tasks
during which the shared weights stay as they are do not depend on each other, and are trained side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from reprise.checks import PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.supsup import accounting
from reprise.papers.supsup.continual import ContinualLearner, Optimizer, Purpose
from reprise.papers.supsup.evaluation import Judge
from reprise.papers.supsup.networks import Network, Shape, Statistics

Init = Literal["default", "kaiming_normal", "xavier_normal"]
Trained = Literal["always", "first_task", "never"]
Schedule = Literal["constant", "cosine"]

INITS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    # torch's own for linear and convolutional layers: uniform within 1 / sqrt(fan_in)
    "default": lambda w, generator: nn.init.kaiming_uniform_(w, a=math.sqrt(5), generator=generator),
    "kaiming_normal": lambda w, generator: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=generator),
    "xavier_normal": lambda w, generator: nn.init.xavier_normal_(w, generator=generator),
}


def initial_weights(shapes: Sequence[Shape], init: Init, generator: torch.Generator) -> list[Tensor]:
    """Real-valued random weights, one tensor per layer."""
    return [INITS[init](torch.empty(shape), generator) for shape in shapes]


class SharedWeights(ContinualLearner):
    """A learner whose tasks share weights; subclasses say which ones.

    Args:
        spec, seed, network, steps, batch_size, optimizer, schedule, evaluation, parallel: see `ContinualLearner`.
        outputs: output neurons; ``None`` = the classes of a task.
        init: distribution of the weights before training.
        trained: when the shared weights are trained: ``always``, on the ``first_task`` alone, or ``never``.
        first_optimizer: of the first task, where that trains the shared weights; ``None`` = as of later tasks.
        own_statistics: whether each task has BatchNorm statistics of its own, else all move the same.

    Attributes:
        shared: ``[N]`` all shared weights in a row.
        own: ``[K, M]`` each task's own ones in a row.
        mean, var: BatchNorm statistics ``[K, channels]``, of one row if they are shared.

    Raises:
        UserError: fewer outputs than classes, a network that cannot read the images, or an optimiser that cannot be
            made.
    """

    @checked
    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        network: Network,
        steps: PositiveInt,
        batch_size: PositiveInt,
        optimizer: Optimizer,
        schedule: Schedule,
        evaluation: Judge,
        parallel: PositiveInt = 1,
        outputs: PositiveInt | None = None,
        init: Init = "default",
        trained: Trained = "never",
        first_optimizer: Optimizer | None = None,
        own_statistics: bool = True,
    ) -> None:
        outputs = outputs or spec.num_classes
        super().__init__(spec, seed, network, outputs, steps, batch_size, optimizer, schedule, evaluation, parallel)
        if first_optimizer is not None:
            _check_optimizer(first_optimizer)
        self.init, self.trained, self.own_statistics = init, trained, own_statistics
        self.first_optimizer, self.later_optimizer = first_optimizer or optimizer, optimizer
        self.blocks = self._cut_into_blocks()
        self.epochs = len(self.blocks) * self.parts
        shared = initial_weights(self.shared_shapes, init, self.generator(Purpose.WEIGHTS))
        self.register_buffer("shared", torch.cat([torch.zeros(0), *(w.flatten() for w in shared)]))
        self.register_buffer("own", torch.zeros(spec.num_tasks, sum(map(math.prod, self.own_shapes))))
        rows, channels = spec.num_tasks if own_statistics else 1, self.network.channels
        self.register_buffer("mean", torch.zeros(rows, channels))
        self.register_buffer("var", torch.ones(rows, channels))
        self.block_shared: list[Tensor] = []
        self.block_own: list[Tensor] = []

    @property
    def shared_shapes(self) -> Sequence[Shape]:
        """Of the shared weights."""
        return self.network.shapes

    @property
    def own_shapes(self) -> Sequence[Shape]:
        """Of the weights that each task has of its own."""
        return ()

    def start(self, task: int) -> list[Tensor]:
        """A task's own weights before its training."""
        return []

    def networks(self, shared: Sequence[Tensor], own: Sequence[Tensor]) -> list[Tensor]:
        """Weights ``[T, *shape]`` per layer from shared ones ``[*shape]`` and those of T tasks ``[T, *shape]``."""
        raise NotImplementedError

    def answers(
        self,
        tasks: range,
        shared: Sequence[Tensor],
        own: Sequence[Tensor],
        x: Tensor,
        statistics: Statistics | None,
    ) -> Tensor:
        """Logits ``[T, B, s]`` of these tasks' networks for images ``[T, B, C, H, W]``."""
        return self.network(self.networks(shared, own), x, statistics)

    def trains_shared(self, task: int) -> bool:
        """Whether the shared weights are trained during this task."""
        return self.trained == "always" or (self.trained == "first_task" and task == 0)

    def _cut_into_blocks(self) -> list[range]:
        blocks: list[range] = []
        while not blocks or blocks[-1].stop < self.spec.num_tasks:
            task = blocks[-1].stop if blocks else 0
            together = 1 if self.trains_shared(task) else self.parallel
            blocks.append(range(task, min(task + together, self.spec.num_tasks)))
        return blocks

    def begin(self, tasks: range) -> list[Parameter]:
        """The tasks' own weights ``[T, *shape]``, and the shared ones ``[*shape]`` if they are trained."""
        starts = [self.start(task) for task in tasks]
        own = [Parameter(torch.stack(part).to(self.device)) for part in zip(*starts, strict=True)]
        shared = self._layers(self.shared, self.shared_shapes)
        if self.network.channels:
            self.statistics = Statistics.fresh(len(tasks), self.network.channels, self.device)
            if not self.own_statistics:
                self.statistics = Statistics(self.mean.clone(), self.var.clone(), training=True)
        trained = self.trains_shared(tasks.start)
        self.make_optimizer = self.first_optimizer if trained and not tasks.start else self.later_optimizer
        self.block_own = own
        self.block_shared = [Parameter(w.clone()) for w in shared] if trained else shared
        return [*own, *self.block_shared] if trained else own

    def outputs(self, x: Tensor, training: bool) -> Tensor:
        """The block's networks as they stand."""
        if self.statistics is not None:
            self.statistics.training = training
        return self.answers(self.block, self.block_shared, self.block_own, x, self.statistics)

    def keep(self, tasks: range) -> None:
        """Store the tasks' own weights, and what the shared ones have become."""
        rows = slice(tasks.start, tasks.stop)
        if self.block_own:
            self.own[rows] = torch.cat([w.detach().flatten(1) for w in self.block_own], 1)
        if self.trains_shared(tasks.start):
            self.shared.copy_(torch.cat([w.detach().flatten() for w in self.block_shared]))
        if self.statistics is not None:
            at = rows if self.own_statistics else slice(None)
            self.mean[at], self.var[at] = self.statistics.mean, self.statistics.var
        self.block_own, self.block_shared, self.statistics = [], [], None

    def logits(self, task: int, x: Tensor) -> Tensor:
        """From the stored weights."""
        return self.stored_answers(range(task, task + 1), x[None])[0]

    def stored_answers(self, tasks: range, x: Tensor) -> Tensor:
        """Logits ``[T, B, s]`` of several stored networks for images ``[T, B, C, H, W]``."""
        rows = slice(tasks.start, tasks.stop)
        statistics = None
        if self.network.channels:
            at = rows if self.own_statistics else slice(None)
            statistics = Statistics(self.mean[at], self.var[at])
        shared = self._layers(self.shared, self.shared_shapes)
        return self.answers(tasks, shared, self.own_layers(rows), x, statistics)

    def own_layers(self, rows: slice) -> list[Tensor]:
        """Stored weights of some tasks, ``[T, *shape]`` each."""
        own = self.own[rows]
        parts = own.split([math.prod(shape) for shape in self.own_shapes], dim=1) if self.own_shapes else ()
        return [part.reshape(len(own), *shape) for part, shape in zip(parts, self.own_shapes, strict=True)]

    @staticmethod
    def _layers(row: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        parts = row.split([math.prod(shape) for shape in shapes]) if shapes else ()
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def cost(self) -> dict[str, float]:
        """Bytes of what is stored: float32 numbers, and a seed for weights that were never trained."""
        statistics = accounting.statistics_bytes(self.network.channels)
        seeded = self.trained == "never" and len(self.shared)
        shared = accounting.SEED if seeded else accounting.FLOAT * len(self.shared)
        per_task = accounting.FLOAT * self.own.shape[1]
        if self.own_statistics:
            per_task += statistics
        else:
            shared += statistics
        return {"bytes/bank": shared + int(self.learned) * per_task, "bytes/per_task": per_task}


def _check_optimizer(make: Optimizer) -> None:
    try:
        make([Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as error:
        raise UserError(f"method.module.first_optimizer: {' '.join(str(error).split())}.") from error
