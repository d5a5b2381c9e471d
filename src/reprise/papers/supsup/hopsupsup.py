"""HopSupSup: the masks of all tasks in Hopfield networks of a fixed size, found again by descent (section 3.5)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import Parameter

from reprise.checks import NonNegativeFloat, PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.supsup import recovery
from reprise.papers.supsup.accounting import FLOAT, SEED, bit_bytes
from reprise.papers.supsup.continual import ContinualLearner, Optimizer, Purpose
from reprise.papers.supsup.evaluation import IMAGES_AT_ONCE, Judge
from reprise.papers.supsup.hopfield import WRITE
from reprise.papers.supsup.networks import signed_constants
from reprise.papers.supsup.objectives import entropy
from reprise.papers.supsup.recovery import Recovery
from reprise.papers.supsup.unit_masks import UnitMasked, hard
from reprise.randomness import derived_seed


class HopSupSup(ContinualLearner):
    """Scenario GNu with a store that does not grow, on classes that all have outputs of their own.

    After a task its mask z = 2m - 1 is written into one Hopfield network per hidden layer, and into the mean of all z,
    from which a search starts. To answer, the mask of a task is looked for with all of its test images, unlabelled
    (`recovery.recover`), and these same images are classified under it; no image is judged alone. BatchNorm takes the
    moments of a test batch, all of whose images are of one task.

    ``accuracy/given`` and ``forgetting`` are those of the masks before they were written, and so is
    ``task_id/exhaustive``, the share of tasks whose own mask has the lowest mean entropy: what recovery is held
    against. These masks are kept for that alone, and `cost` leaves them out.

    Args:
        spec, seed, steps, batch_size, optimizer, schedule, evaluation, parallel: see `ContinualLearner`.
        network: with masks over units.
        outputs: s, output neurons; ``None`` = the classes.
        write: ``storkey`` (official code) or ``hebbian`` (paper's main text).
        gamma: weight of the energy in the search.
        recovery_optimizer: called with the scores of the mask that is looked for.
        recovery_batch: test images per step, and per batch in which they are classified.
        recovery_steps: T; ``None`` = one pass over the test images.

    Raises:
        UserError: a combination of arguments that cannot work.
    """

    title = "HopSupSup"

    @checked
    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        network: UnitMasked,
        outputs: PositiveInt | None,
        steps: PositiveInt,
        batch_size: PositiveInt,
        optimizer: Optimizer,
        schedule: Literal["constant", "cosine"],
        evaluation: Judge,
        write: Literal["storkey", "hebbian"],
        gamma: NonNegativeFloat,
        recovery_optimizer: Optimizer,
        recovery_batch: PositiveInt,
        recovery_steps: PositiveInt | None,
        parallel: PositiveInt = 1,
    ) -> None:
        # the judge's matrices mix the tasks in a batch, which BatchNorm would notice: they are made here
        alone = copy.copy(evaluation)
        alone.matrix_tasks = 0
        outputs = outputs or spec.num_classes
        super().__init__(spec, seed, network, outputs, steps, batch_size, optimizer, schedule, alone, parallel)
        self.write, self.gamma = WRITE[write], gamma
        self.recovery_optimizer, self.recovery_batch = recovery_optimizer, recovery_batch
        self.recovery_steps = recovery_steps
        self.widths = list(network.hidden)
        self._try_recovery_optimizer()
        self.weight_seed = derived_seed(seed, Purpose.WEIGHTS)
        self.frozen: list[Tensor] = []
        for layer, width in enumerate(self.widths):
            self.register_buffer(f"psi_{layer}", torch.zeros(width, width))
        self.register_buffer("mean", torch.zeros(sum(self.widths)))
        self.register_buffer("written", torch.zeros(spec.num_tasks, sum(self.widths), dtype=torch.bool))
        self.recoveries: list[Recovery] = []

    def _try_recovery_optimizer(self) -> None:
        """Before training, since it is first used after it."""
        try:
            self.recovery_optimizer([Parameter(torch.zeros(1))])
        except (TypeError, ValueError) as error:
            raise UserError(f"method.module.recovery_optimizer: {' '.join(str(error).split())}.") from error

    @property
    def psi(self) -> list[Tensor]:
        """The Hopfield networks, ``[d, d]`` per hidden layer."""
        return [getattr(self, f"psi_{layer}") for layer in range(len(self.widths))]

    def on_fit_start(self) -> None:
        """Also put the frozen network on the device."""
        super().on_fit_start()
        self.frozen = [w.to(self.device) for w in signed_constants(self.network.shapes, self.weight_seed)]

    def begin(self, tasks: range) -> list[Parameter]:
        """Scores ``[T, d]`` per hidden layer, all 0, so that all units are on."""
        return [Parameter(torch.zeros(len(tasks), width, device=self.device)) for width in self.widths]

    def outputs(self, x: Tensor, training: bool) -> Tensor:
        """The network under the block's masks; the whole of ``x`` is one batch."""
        return self.network.masked(self.frozen, [hard(s) for s in self.learning], x)

    def keep(self, tasks: range) -> None:
        """Write the masks, one after another."""
        for task, units in zip(tasks, torch.cat(self.learning, 1).detach() >= 0, strict=True):
            z = 2 * units.float() - 1
            for psi, part in zip(self.psi, z.split(self.widths), strict=True):
                psi.copy_(self.write(psi, part))
            self.mean += (z - self.mean) / (task + 1)
            self.written[task] = units

    def batches(self, x: Tensor) -> list[Tensor]:
        """Test images in batches of nearly equal size, in their order."""
        parts = x.split(IMAGES_AT_ONCE)  # as the judge does
        return [batch for part in parts for batch in part.tensor_split(-(-len(part) // self.recovery_batch))]

    def logits_under(self, units: Tensor, x: Tensor) -> Tensor:
        """Logits ``[n, s]`` of images ``[n, C, H, W]`` under one mask ``[D]``."""
        masks = [part[None] for part in units.to(x.dtype).split(self.widths)]
        return torch.cat([self.network.masked(self.frozen, masks, batch[None])[0] for batch in self.batches(x)])

    def logits(self, task: int, x: Tensor) -> Tensor:
        """Under the mask as it was before it was written."""
        return self.logits_under(self.written[task], x)

    def _accuracy_as_it_stands(self, tasks: range) -> Tensor:
        """In the batches of the end, since an answer depends on the images beside it."""
        masks = torch.cat(self.learning, 1).detach() >= 0
        sets = [self.stream.test_set(task, self.judge.test_images) for task in tasks]
        right = [self._right(units, x, y) for units, (x, y) in zip(masks, sets, strict=True)]
        return torch.stack([r.float().mean() for r in right])

    def _right(self, units: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.logits_under(units, x).argmax(1) == y

    def recover(self, x: Tensor) -> Recovery:
        """Look for the mask of the task that all images ``[n, C, H, W]`` belong to."""
        batches = self.batches(x)
        return recovery.recover(
            self.network,
            self.frozen,
            self.psi,
            self.mean.split(self.widths),
            batches,
            self.recovery_steps or len(batches),
            self.gamma,
            self.recovery_optimizer,
            self.written[: self.masks],
        )

    @torch.no_grad()
    def final_metrics(self, datamodule: pl.LightningDataModule) -> dict[str, float]:
        """Also look for every task's mask, and compare the masks before they were written."""
        metrics = super().final_metrics(datamodule)
        sets = [self.stream.test_set(task, self.judge.test_images) for task in range(self.masks)]
        self.recoveries = [self.recover(x) for x, _ in sets]
        found = zip(self.recoveries, sets, strict=True)
        accuracy = torch.stack([self._right(one.mask, x, y).float().mean() for one, (x, y) in found])
        nearest = torch.tensor([one.nearest for one in self.recoveries])
        distance = torch.stack([one.distances[-1, task] for task, one in enumerate(self.recoveries)]).float()
        steps = torch.tensor([float(one.steps) for one in self.recoveries])
        hit = nearest == torch.arange(self.masks)
        inferred = {"accuracy/inferred": float(accuracy.mean()), "task_id/accuracy": float(hit.float().mean())}
        for task, line in enumerate(self.evaluation.per_task):
            line |= {
                "accuracy_recovered": float(accuracy[task]),
                "task_id": float(hit[task]),
                "distance": float(distance[task]),
                "steps": float(steps[task]),
            }
        self.evaluation.curve[-1] |= inferred
        self.evaluation.confusion = torch.eye(self.masks)[nearest]
        self.evaluation.metrics |= self._compare(sets) | inferred
        self.evaluation.metrics |= {
            "hopfield/exact": (distance == 0).float().mean(),
            "hopfield/steps": steps.mean(),
            "hopfield/distance": distance.mean(),
        }
        return metrics | self.evaluation.metrics

    def _compare(self, sets: list[tuple[Tensor, Tensor]]) -> dict[str, float | Tensor]:
        """Every task's images under every mask, for the matrices and the control."""
        k, result = self.masks, self.evaluation
        result.matrix, result.entropies = self.mean.new_empty(k, k), self.mean.new_empty(k, k)
        own, others = [], []
        for task, (x, y) in enumerate(sets):
            for mask in range(k):
                logits = self.logits(mask, x)
                values = entropy(logits)
                result.matrix[task, mask] = (logits.argmax(1) == y).float().mean()
                result.entropies[task, mask] = values.mean()
                (own if mask == task else others).append(values)
        result.right, result.wrong = torch.cat(own), torch.cat(others) if others else None
        best = result.entropies.argmin(1)
        exhaustive = (best == torch.arange(k, device=best.device)).float().mean()
        means = {"entropy/wrong": result.wrong.mean()} if others else {}
        return {"task_id/exhaustive": exhaustive, "entropy/right": result.right.mean()} | means

    def cost(self) -> dict[str, float]:
        """Bytes of the Hopfield networks, the mean and the seed, which do not grow; and of the masks as plain bits."""
        k = max(self.masks, 1)
        size = FLOAT * sum(width * width + width for width in self.widths) + SEED
        return {
            "bytes/bank": size,
            "bytes/per_task": size / k,
            "bytes/as_bits": k * bit_bytes(sum(self.widths)) + SEED,
            "masks/allocated": self.masks,
            "masks/density": self.written[:k].float().mean(),
        }

    def artifacts(self, run_dir: Path) -> list[Path]:
        """Also how the masks were looked for."""
        return super().artifacts(run_dir) + recovery.write(run_dir, self.recoveries)

    @property
    def condition(self) -> dict[str, Any]:
        """Also what the scenario is."""
        return super().condition | {"scenario": "gnu"}
