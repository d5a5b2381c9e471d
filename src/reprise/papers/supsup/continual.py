"""What all methods share: tasks come one after another, each is trained for a while, all are judged at the end.

Training goes block by block. A block is one task, or several side by side where tasks do not depend on each other. All
that a task sees and draws follows from the seed and its own number, so neither the size of a block nor an interruption
changes what is learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from reprise import randomness
from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.supsup import artifacts
from reprise.papers.supsup.evaluation import Evaluation, Judge
from reprise.papers.supsup.networks import Network, Statistics
from reprise.papers.supsup.streams import Stream
from reprise.schedules import cosine

ROUND = 50  # optimiser steps between two reports
EPOCH = 1000  # at most so many between two checkpoints
IMAGES_AT_ONCE = 1000

Optimizer = Callable[..., torch.optim.Optimizer]


class Purpose(IntEnum):
    """What randomness is for; keeps the streams of one seed apart."""

    WEIGHTS = 1
    START = 2
    ORDER = 3
    AUGMENTATION = 4
    EVALUATION = 5
    CONTEXT = 6


class ContinualLearner(pl.LightningModule):
    """A method that learns a stream of tasks.

    Subclasses say what is learned for a block (`begin`), what the block's networks answer (`outputs`), what is kept of
    it (`keep`), and what is answered from the store (`logits`). Those that can find the task of an image override
    `infer`.

    Args:
        spec: one task's data; ``num_tasks`` of them will come.
        seed: of the frozen weights, the starting points and the order of the images.
        network: the architecture.
        outputs: s, output neurons; more than the classes of a task are superfluous ones.
        steps: optimiser steps per task.
        batch_size: images per step.
        optimizer: called with the parameters of a block.
        schedule: of the learning rate within a task, ``constant`` or ``cosine`` down to 0.
        evaluation: how the end is judged.
        parallel: tasks trained side by side.

    Raises:
        UserError: fewer outputs than classes, or a network that cannot read the images.
    """

    tasks = ("classification",)
    single_device = True
    title = "continual learning"
    progress_metrics: tuple[str, ...] = ("train/tasks", "train/loss", "train/accuracy")
    labels: Literal["shared", "unshared"] = "unshared"

    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        network: Network,
        outputs: int,
        steps: int,
        batch_size: int,
        optimizer: Optimizer,
        schedule: Literal["constant", "cosine"],
        evaluation: Judge,
        parallel: int = 1,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if outputs < spec.num_classes:
            raise UserError(
                f"method.module.outputs={outputs} are fewer than the {spec.num_classes} classes of a task: give at "
                "least as many."
            )
        self.spec, self.seed = spec, seed
        self.network = network.bind(spec.shape, outputs)
        self.steps, self.batch_size, self.schedule = steps, batch_size, schedule
        self.make_optimizer, self.judge = optimizer, evaluation
        self.parallel = min(parallel, spec.num_tasks)
        self.parts = math.ceil(steps / EPOCH)  # epochs per block
        self.chunk = math.ceil(steps / self.parts)  # optimiser steps per epoch
        self.blocks = [
            range(t, min(t + self.parallel, spec.num_tasks)) for t in range(0, spec.num_tasks, self.parallel)
        ]
        self.steps_per_epoch = math.ceil(self.chunk / ROUND)
        self.epochs = len(self.blocks) * self.parts
        self.learning: list[Parameter] = []
        self.optimizer: torch.optim.Optimizer | None = None
        self.statistics: Statistics | None = None  # of the block, if the network has BatchNorm
        self.block: range | None = None
        self.stream: Stream | None = None
        self.evaluation: Evaluation | None = None
        self._interrupted: dict[str, Any] | None = None
        self.register_buffer("learned", torch.zeros((), dtype=torch.int64))
        self.register_buffer("accuracy_after", torch.zeros(spec.num_tasks))  # of each task, right after its training

    def begin(self, tasks: range) -> list[Parameter]:
        """Set up a block; returns what the optimiser changes, each with the block's axis T in front if it has one."""
        raise NotImplementedError

    def outputs(self, x: Tensor, training: bool) -> Tensor:
        """Logits ``[T, B, s]`` of the block's networks as they stand, for images ``[T, B, C, H, W]``."""
        raise NotImplementedError

    def keep(self, tasks: range) -> None:
        """Store what the block has learned."""
        raise NotImplementedError

    def logits(self, task: int, x: Tensor) -> Tensor:
        """Logits ``[n, s]`` of images ``[n, C, H, W]`` known to be of this task, from the store."""
        raise NotImplementedError

    def infer(self, x: Tensor, per_image: bool, among: int) -> Tensor | None:
        """Tasks ``[n]`` (or ``[1]``, all images deciding together) among the first so many; ``None`` = must be told."""
        return None

    @property
    def masks(self) -> int:
        """How many masks (or networks, or heads) the store has."""
        return int(self.learned)

    def mask_of(self, task: int) -> int:
        """The one that belongs to a task."""
        return task

    def logits_of_mask(self, mask: int, x: Tensor) -> Tensor:
        """Logits ``[n, s]`` under a certain one."""
        return self.logits(mask, x)

    def cost(self) -> dict[str, float]:
        """Bytes and masks that the store takes."""
        raise NotImplementedError

    @property
    def condition(self) -> dict[str, Any]:
        """Beside the stream, what must be equal for two runs to be compared."""
        return {"network": self.network.title, "steps": self.steps}

    def generator(self, *purpose: int) -> torch.Generator:
        """Randomness on the processor, the same on every device."""
        return randomness.generator(self.seed, *purpose)

    def configure_optimizers(self) -> None:
        """A block makes its own."""

    def on_fit_start(self) -> None:
        """Put the images on the device."""
        self.stream = self.trainer.datamodule.stream.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also keep the block that is being trained."""
        if self.block is not None:
            checkpoint["block"] = {
                "learning": [p.detach() for p in self.learning],
                "optimizer": self.optimizer.state_dict(),
                "more": self.block_state(),
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the block up again when training goes on."""
        self._interrupted = checkpoint.get("block")

    def block_state(self) -> dict[str, Any]:
        """What a half-trained block has beside its parameters and its optimiser: running BatchNorm statistics."""
        return {} if self.statistics is None else {"mean": self.statistics.mean, "var": self.statistics.var}

    def load_block_state(self, state: dict[str, Any]) -> None:
        """Take up what `block_state` gave."""
        if self.statistics is not None:
            self.statistics.mean, self.statistics.var = state["mean"].to(self.device), state["var"].to(self.device)

    def place(self, epoch: int, round_of_epoch: int) -> tuple[range, int, int]:
        """The tasks that are trained in this round, from which step and up to which one (the same, if none is left)."""
        block, part = divmod(epoch, self.parts)
        end = min((part + 1) * self.chunk, self.steps)
        first = min(part * self.chunk + round_of_epoch * ROUND, end)
        return self.blocks[block], first, min(first + ROUND, end)

    def training_step(self, round_of_epoch: int) -> None:
        """Some steps for every task of the block."""
        tasks, first, last = self.place(self.current_epoch, round_of_epoch)
        if self.block is None:
            self.open_block(tasks)
        if first < last:
            loss, accuracy = self.train_steps(tasks, first, last)
            done = float(self.learned) + len(tasks) * last / self.steps
            self.log_dict({"train/loss": loss, "train/accuracy": accuracy, "train/tasks": done}, batch_size=1)

    def on_train_epoch_end(self) -> None:
        """Checkpoints are written after this."""
        if (self.current_epoch + 1) % self.parts == 0:
            self._close()

    def open_block(self, tasks: range) -> None:
        """Set up the training of these tasks side by side, or take it up where it was interrupted."""
        self.block = tasks
        self.learning = self.begin(tasks)
        try:
            self.optimizer = self.make_optimizer(self.learning)
        except (TypeError, ValueError) as error:
            raise UserError(f"method.module.optimizer: {' '.join(str(error).split())}.") from error
        self.rate = [group["lr"] for group in self.optimizer.param_groups]
        self.order = torch.stack([self._order(task) for task in tasks]).to(self.device)
        if self._interrupted is not None:
            with torch.no_grad():
                for parameter, stored in zip(self.learning, self._interrupted["learning"], strict=True):
                    parameter.copy_(stored)
            self.optimizer.load_state_dict(self._interrupted["optimizer"])
            self.load_block_state(self._interrupted["more"])
            self._interrupted = None

    def _order(self, task: int) -> Tensor:
        """Places of the training images that a task sees ``[steps * B]``: one shuffled pass after another.

        Every batch is full; one that a pass cannot fill goes on with the next.
        """
        size, needed = self.stream.size(task), self.steps * self.batch_size
        generator = self.generator(Purpose.ORDER, task)
        passes = [torch.randperm(size, generator=generator) for _ in range(math.ceil(needed / size))]
        return torch.cat(passes)[:needed]

    def train_steps(self, tasks: range, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Train from one step to another; returns the mean loss on the way and the accuracy on the last batch."""
        total = torch.zeros((), device=self.device)
        generators = (
            [self.generator(Purpose.AUGMENTATION, task, first) for task in tasks] if self.stream.augment else []
        )
        for step in range(first, last):
            self._set_rate(step)
            places = self.order[:, step * self.batch_size : (step + 1) * self.batch_size]
            x, y = self.stream.train_batch(tasks, places, generators)
            logits = self.outputs(x, training=True)
            # the sum over tasks of each one's mean: no task feels how many are beside it
            loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / self.batch_size
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.detach() / len(tasks)
        return total / (last - first), (logits.detach().argmax(2) == y).float().mean()

    def _set_rate(self, step: int) -> None:
        if self.schedule == "cosine":
            for group, rate in zip(self.optimizer.param_groups, self.rate, strict=True):
                group["lr"] = rate * cosine(step, self.steps)

    @torch.no_grad()
    def _close(self) -> None:
        """Judge the block as it stands, keep it, and forget how it was learned."""
        self.accuracy_after[list(self.block)] = self._accuracy_as_it_stands(self.block)
        self.keep(self.block)
        self.learned += len(self.block)
        self.block, self.learning, self.optimizer = None, [], None

    def _accuracy_as_it_stands(self, tasks: Sequence[int]) -> Tensor:
        sets = [self.stream.test_set(task, self.judge.test_images) for task in tasks]
        right = torch.zeros(len(tasks), device=self.device)
        # test sets may differ in size: short ones are padded with a label that nothing can be
        longest = max(len(y) for _, y in sets)
        for at in range(0, longest, IMAGES_AT_ONCE):
            x = torch.stack([_padded(x[at : at + IMAGES_AT_ONCE], min(longest - at, IMAGES_AT_ONCE)) for x, _ in sets])
            y = torch.stack([_padded(y[at : at + IMAGES_AT_ONCE], x.shape[1], -1) for _, y in sets])
            right += (self.outputs(x, training=False).argmax(2) == y).sum(1)
        return right / torch.tensor([len(y) for _, y in sets], device=self.device)

    def on_train_end(self) -> None:
        """A run that was told to stop early keeps what it has."""
        if self.block is not None:
            self._close()

    @torch.no_grad()
    def final_metrics(self, datamodule: pl.LightningDataModule) -> dict[str, float]:
        """Judge every task from what is stored."""
        device = self.trainer.strategy.root_device  # Lightning moves a module to the processor when training ends
        self.to(device)
        self.stream = datamodule.stream.to(device)
        self.evaluation = self.judge(self, self.stream, self.generator)
        return self.evaluation.metrics | self.cost()

    def artifacts(self, run_dir: Path) -> list[Path]:
        """Write the matrices and curves as data, and the figures."""
        return artifacts.write(run_dir, self.evaluation)


def _padded(values: Tensor, length: int, fill: float = 0) -> Tensor:
    missing = length - len(values)
    return values if not missing else torch.cat([values, values.new_full((missing, *values.shape[1:]), fill)])
