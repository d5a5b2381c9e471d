"""Scenario NNs: nobody says which task a batch belongs to, neither in training nor at test time (section 3.4).

Every so many batches the learner asks its masks, superposed, which of them would make the batch's outputs more certain.
If none stands out (uniformity test) the batch comes from a new task, and a new mask is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from reprise.checks import PositiveFloat, PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.supsup import allocation
from reprise.papers.supsup.accounting import FLOAT
from reprise.papers.supsup.allocation import Decision
from reprise.papers.supsup.candidates import Candidates
from reprise.papers.supsup.continual import ROUND, Optimizer, Purpose
from reprise.papers.supsup.evaluation import Judge
from reprise.papers.supsup.inference import uniformity
from reprise.papers.supsup.masks import MaskSearch, initial_scores
from reprise.papers.supsup.module import SupSup
from reprise.papers.supsup.networks import Network

CHECKPOINTS = 25  # per run; each holds the scores of all masks, more than a gigabyte for a thousand of LeNet's


class NewTasks(SupSup):
    """SupSup that is never told the task.

    The first ``min_candidates`` masks take part in every decision, trained or not, as in the official code: masks never
    trained are distractors, all alike to any batch. Without them (``min_candidates=1``) the rule is as printed, and a
    single mask cannot stand out from itself: k max nu = 1 for k = 1, so that the first task always gets a second mask.
    A distractor that stands out is trained from then on, and changes places with the first that is not.

    The stream is cut into tasks to find its images and to judge at the end; the learner is not told. So the optimiser
    belongs to the mask that is trained, and is made anew when another one is taken up. (The official code makes a new
    one at each boundary between tasks, which lets it know that there is one.) Decisions fall on every
    ``decide_every``-th batch of the whole stream; where that does not divide the batches of a task, up to
    ``decide_every - 1`` of the next task's go to the mask of the last.

    Args:
        spec, seed, network, outputs, batch_size, optimizer, evaluation: see `ContinualLearner`.
        steps: batches of each task.
        schedule: ``constant``; anything else would need to know where a task ends.
        parallel: without effect, since every batch depends on what came before.
        search: how a mask is found.
        scenario: ``nns``; labels are shared, and an image counts if its label is right.
        inference, objective: how a mask is found for a test image, see `SupSup`; decisions use the same objective.
        epsilon: a new mask is allocated when n max nu < 1 + epsilon, with nu = softmax(-dO/dalpha) over n candidates.
        min_candidates: masks that take part from the start.
        decide_every: batches from one decision to the next.
        max_masks: batches that would need one more are skipped; ``None`` = as many as tasks.

    Raises:
        UserError: a combination of arguments that cannot work.
    """

    title = "SupSup, tasks unknown"
    progress_metrics = ("train/tasks", "train/masks", "train/loss", "train/accuracy")

    @checked
    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        network: Network,
        outputs: PositiveInt,
        steps: PositiveInt,
        batch_size: PositiveInt,
        optimizer: Optimizer,
        schedule: Literal["constant", "cosine"],
        evaluation: Judge,
        search: MaskSearch,
        scenario: Literal["nns"],
        inference: Literal["oneshot", "binary", "exhaustive", "gradient"],
        objective: Literal["H", "G"],
        epsilon: PositiveFloat,
        min_candidates: PositiveInt,
        decide_every: PositiveInt,
        max_masks: PositiveInt | None = None,
        parallel: PositiveInt = 1,
    ) -> None:
        if schedule != "constant":
            raise UserError(
                f"method.module.schedule={schedule} needs to know where a task ends, which scenario=nns does not tell: "
                "set it to constant."
            )
        super().__init__(
            spec=spec,
            seed=seed,
            network=network,
            outputs=outputs,
            steps=steps,
            batch_size=batch_size,
            optimizer=optimizer,
            schedule=schedule,
            evaluation=evaluation,
            parallel=1,
            search=search,
            scenario=scenario,
            inference=inference,
            objective=objective,
            transfer="none",
        )
        self.epsilon, self.min_candidates, self.decide_every = epsilon, min_candidates, decide_every
        self.max_masks = min(max_masks or spec.num_tasks, self.most_masks)
        self.packed = torch.zeros(max(self.max_masks, min_candidates), self.packed.shape[1], dtype=torch.uint8)
        tasks_per_epoch = math.ceil(spec.num_tasks / CHECKPOINTS)
        self.steps_per_epoch = tasks_per_epoch * math.ceil(steps / ROUND)
        self.epochs = math.ceil(spec.num_tasks / tasks_per_epoch)
        self.done = 0  # batches of the task at hand
        self.candidates: Candidates | None = None
        self.decisions: list[Decision] = []
        self.mask: int | None = None  # that is being trained, or was when batches began to be skipped
        self.idle = False  # whether batches are skipped
        self.nearest = 0  # the trained mask that stood out most at the last decision
        self.register_buffer("allocated", torch.zeros((), dtype=torch.int64))
        for name in ("owner", "masks_after", "skipped"):  # the mask of each task, and what its training left
            self.register_buffer(name, torch.zeros(spec.num_tasks, dtype=torch.int64))

    @property
    def most_masks(self) -> int:
        """Masks that all decisions together could allocate."""
        return math.ceil(self.spec.num_tasks * self.steps / self.decide_every)

    @property
    def masks(self) -> int:
        """Masks that were ever trained."""
        return int(self.allocated)

    def mask_of(self, task: int) -> int:
        """The mask that was being trained when the task ended; of skipped batches the one that suited them best."""
        return int(self.owner[task])

    def logits(self, task: int, x: Tensor) -> Tensor:
        """From the stored bits of the task's mask."""
        return self.bank.logits(self.mask_of(task), x)

    def logits_of_mask(self, mask: int, x: Tensor) -> Tensor:
        """From the stored bits."""
        return self.bank.logits(mask, x)

    def infer(self, x: Tensor, per_image: bool, among: int) -> Tensor | None:
        """Which mask an image belongs to, of those that there were after so many tasks."""
        return super().infer(x, per_image, int(self.masks_after[among - 1]))

    def on_fit_start(self) -> None:
        """Make the candidates, or take them up where training was interrupted."""
        super().on_fit_start()
        self.candidates = Candidates(self.network, self.frozen, self.search, self.packed, self.spec.num_classes)
        state, self._interrupted = self._interrupted, None
        if state is None:
            for mask in range(self.min_candidates):
                self.candidates.add(self._random_scores(mask))
            return
        for row in state["scores"]:
            self.candidates.add([row])
        self.decisions = [Decision(*row) for row in state["decisions"]]
        self.idle, self.nearest = state["idle"], state["nearest"]
        if state["mask"] is not None:
            self._take_up(state["mask"])
            self.optimizer.load_state_dict(state["optimizer"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the scores of all candidates, the optimiser of the mask in training and the past decisions."""
        if self.candidates is None:
            return
        checkpoint["block"] = {
            "scores": self.candidates.scores,
            "decisions": [list(astuple(decision)) for decision in self.decisions],
            "mask": self.mask,
            "idle": self.idle,
            "nearest": self.nearest,
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
        }

    def on_train_end(self) -> None:
        """Scores are not needed any more."""
        super().on_train_end()
        self.candidates = self.optimizer = None

    def training_step(self, round_of_epoch: int) -> None:
        """Some batches of the task that is at hand."""
        task = int(self.learned)
        if task == self.spec.num_tasks:  # tasks do not fill the last epoch
            return
        if self.block is None:
            self.open_block(range(task, task + 1))
        first, self.done = self.done, min(self.done + ROUND, self.steps)
        loss, accuracy = self.train_steps(self.block, first, self.done)
        self.log_dict(
            {
                "train/loss": loss,
                "train/accuracy": accuracy,
                "train/tasks": task + self.done / self.steps,
                "train/masks": float(self.allocated),
                "train/skipped": float(self.skipped.sum()),
            },
            batch_size=1,
        )
        if self.done == self.steps:
            self._close()

    def on_train_epoch_end(self) -> None:
        """A task that was cut short is over."""
        if self.block is not None:
            self._close()

    def open_block(self, tasks: range) -> None:
        """Only the order of the images is new: masks and optimiser are not told."""
        self.block, self.done = tasks, 0
        self.order = torch.stack([self._order(task) for task in tasks]).to(self.device)

    def train_steps(self, tasks: range, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Train, and decide now and then; a skipped batch is only looked at."""
        (task,) = tasks
        total = torch.zeros((), device=self.device)
        generators = [self.generator(Purpose.AUGMENTATION, task, first)] if self.stream.augment else []
        for step in range(first, last):
            places = self.order[:, step * self.batch_size : (step + 1) * self.batch_size]
            x, y = self.stream.train_batch(tasks, places, generators)
            if (task * self.steps + step) % self.decide_every == 0:
                self._decide(task, x[0])
            with torch.set_grad_enabled(not self.idle):
                logits = self.outputs(x, training=True)
                loss = F.cross_entropy(logits[0], y[0])
            if self.idle:
                self.skipped[task] += 1
            else:
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
            total += loss.detach()
        return total / (last - first), (logits.detach().argmax(2) == y).float().mean()

    def outputs(self, x: Tensor, training: bool) -> Tensor:
        """The network under the mask in training; while batches are skipped, under the one that suits them best."""
        scores = self.candidates.layers(self.nearest) if self.idle else self.learning
        return self.network(self.search.weights(scores, self.frozen), x)

    def _decide(self, task: int, x: Tensor) -> None:
        """Which mask goes on, given the images of one batch ``[B, C, H, W]``."""
        if self.mask is not None:
            self.candidates.refresh(self.mask)
        gradients = self.candidates.gradients(x, self.objective)
        ratio, best = uniformity(gradients), int(gradients.argmin())
        known = any(d.mask >= 0 for d in allocation.of_task(self.decisions, task))
        k = self.masks
        wanted = k if ratio < 1 + self.epsilon else best
        self.idle = wanted >= k == self.max_masks
        if self.idle:
            self.nearest = int(gradients[:k].argmin())
        elif wanted < k:
            self._take_up(wanted)
        else:
            if wanted > k:
                self.candidates.swap(wanted, k)  # a distractor
            elif k == self.candidates.size:
                self.candidates.add(self._random_scores(k))
            self.allocated += 1
            self._take_up(k)
        self.decisions.append(Decision(task, ratio, known, -1 if self.idle else self.mask, self.masks))

    def _take_up(self, mask: int) -> None:
        """Go on with this mask; another one than the last gets an optimiser without memory."""
        if mask == self.mask:
            return
        self.mask = mask
        self.learning = [Parameter(scores) for scores in self.candidates.layers(mask)]
        try:
            self.optimizer = self.make_optimizer(self.learning)
        except (TypeError, ValueError) as error:
            raise UserError(f"method.module.optimizer: {' '.join(str(error).split())}.") from error

    def _random_scores(self, mask: int) -> list[Tensor]:
        return initial_scores(self.network.shapes, self.generator(Purpose.START, mask))

    def keep(self, tasks: range) -> None:
        """Bring the bits up to date and note which mask the task ended with."""
        (task,) = tasks
        self.candidates.refresh(self.mask)
        self.owner[task] = self.nearest if self.idle else self.mask
        self.masks_after[task] = self.masks
        self._bank = None

    def _close(self) -> None:
        """Nothing is forgotten between tasks."""
        learning, optimizer = self.learning, self.optimizer
        super()._close()
        self.learning, self.optimizer = learning, optimizer

    def cost(self) -> dict[str, float]:
        """Also the scores of all masks, which a learner needs beside the bits as long as it may go on with any."""
        return super().cost() | {"bytes/scores_kept": FLOAT * self.network.size * self.masks}

    def final_metrics(self, datamodule: pl.LightningDataModule) -> dict[str, float]:
        """Also how many masks the tasks took, and how far decisions were from the threshold."""
        learned = int(self.learned)
        return (
            super().final_metrics(datamodule)
            | {"masks/per_task": self.masks / learned, "train/skipped": int(self.skipped.sum())}
            | allocation.ratios(self.decisions)
        )

    def artifacts(self, run_dir: Path) -> list[Path]:
        """Also what each task's decisions were."""
        learned = int(self.learned)
        numbers: dict[str, Sequence[int]] = {
            "mask": self.owner[:learned].tolist(),
            "masks_after": self.masks_after[:learned].tolist(),
            "skipped": self.skipped[:learned].tolist(),
        }
        return super().artifacts(run_dir) + allocation.write(run_dir, self.decisions, numbers, self.epsilon)
