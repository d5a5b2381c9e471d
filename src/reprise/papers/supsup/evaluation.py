"""How a learned stream is judged, from what is stored after the last task.

``given``: the method is told the task. ``inferred``: it finds the task, image by image, or by the official protocol in
which the first image (or the whole) of a batch of 128 decides for all of it. Where label spaces are not shared (GNu)
an image counts only if task and label are right; where they are (GNs, NNs) the label alone counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from reprise.checks import NonNegativeInt, PositiveInt, checked
from reprise.papers.supsup.streams import Stream

if TYPE_CHECKING:
    from reprise.papers.supsup.continual import ContinualLearner

OFFICIAL_BATCH = 128
IMAGES_AT_ONCE = 2048  # whose task is inferred together


class Purpose(IntEnum):
    """What an evaluation draws."""

    ORDER = 1
    WRONG_TASK = 2


@dataclass
class Evaluation:
    """What `Judge` found.

    Attributes:
        metrics: the run's metrics.
        curve: one row per number of tasks k, for the first k tasks.
        per_task: one row per task.
        matrix: ``[K, K]`` accuracy on the task of the row, with what is stored for the task of the column.
        entropies: ``[K, K]`` mean entropy of the outputs, likewise.
        confusion: ``[K, masks]`` how often the column's mask was found for the row's images; ``None`` if told.
            Mask t is task t's, except in scenario NNs.
        right, wrong: entropies of single images under their own task's mask and under another's.
    """

    metrics: dict[str, float]
    curve: list[dict[str, float]] = field(default_factory=list)
    per_task: list[dict[str, float]] = field(default_factory=list)
    matrix: Tensor | None = None
    entropies: Tensor | None = None
    confusion: Tensor | None = None
    right: Tensor | None = None
    wrong: Tensor | None = None


class Judge:
    """Sizes of the evaluation.

    Args:
        test_images: of each task, for the accuracy with a given task; ``None`` = all.
        decisions: official batches per task in which a task is inferred; ``None`` = all.
        images: of each task whose task is inferred one by one; ``None`` = all. The first of each official batch are
            among them.
        decide_by: images of an official batch that decide together.
        at: numbers of tasks at which the curve has a point; the last one always has.
        matrix_tasks: tasks in the matrices, 0 = no matrices.
        matrix_images: test images per task in the matrices.
    """

    @checked
    def __init__(
        self,
        test_images: PositiveInt | None = None,
        decisions: PositiveInt | None = None,
        images: PositiveInt | None = None,
        decide_by: Annotated[int, Field(gt=0, le=OFFICIAL_BATCH)] = 1,
        at: Sequence[PositiveInt] = (),
        matrix_tasks: NonNegativeInt = 250,
        matrix_images: PositiveInt = 64,
    ) -> None:
        self.test_images, self.decisions, self.images = test_images, decisions, images
        self.decide_by, self.at = decide_by, tuple(at)
        self.matrix_tasks, self.matrix_images = matrix_tasks, matrix_images

    def __call__(
        self, learner: ContinualLearner, stream: Stream, generator: Callable[..., torch.Generator]
    ) -> Evaluation:
        """Judge a learner on a stream; ``generator`` gives randomness for a purpose."""
        learned = int(learner.learned)
        right = [self._given(learner, stream, task) for task in range(learned)]
        given = torch.stack([r.float().mean() for r in right])
        after = learner.accuracy_after[:learned]
        metrics = {
            "accuracy/given": given.mean(),
            "accuracy/after_training": after.mean(),
            "accuracy/chance": 1 / len(learner.spec.classes),
            "forgetting": (after - given).mean(),
            "forgetting/worst": (after - given).abs().max(),
            "tasks/learned": learned,
        }
        result = Evaluation(metrics, per_task=_per_task(after, given))
        points = sorted({k for k in self.at if k < learned} | {learned})
        for k in points:
            row = {"tasks": k, "accuracy/given": float(given[:k].mean())}
            row |= self._inferred(learner, stream, right, k, generator, result if k == learned else None)
            result.curve.append(row)
            metrics |= {f"{name}@{k}": value for name, value in row.items() if name != "tasks"}
        metrics |= {name: value for name, value in result.curve[-1].items() if name != "tasks"}
        if self.matrix_tasks:
            self._matrices(learner, stream, min(learned, self.matrix_tasks), generator, result)
        return result

    def _given(self, learner: ContinualLearner, stream: Stream, task: int) -> Tensor:
        x, y = stream.test_set(task, self.test_images)
        return torch.cat([learner.logits(task, part).argmax(1) for part in x.split(IMAGES_AT_ONCE)]) == y

    def _inferred(
        self,
        learner: ContinualLearner,
        stream: Stream,
        right: list[Tensor],
        k: int,
        generator: Callable[..., torch.Generator],
        result: Evaluation | None,
    ) -> dict[str, float]:
        """Both protocols on the first k tasks, with the first k masks to choose from; nothing if tasks must be told."""
        if not _finds_tasks(learner, stream):
            return {}
        plans = [self._plan(len(right[task]), generator(Purpose.ORDER, task)) for task in range(k)]
        singles = [(task, plan[1]) for task, plan in enumerate(plans)]
        found = _infer_singles(learner, stream, singles, k, self.test_images)
        scores = [self._score(learner, stream, right[t], t, plans[t][1], found[t]) for t in range(k)]
        row = {
            "task_id/accuracy": _mean([(found[t] == learner.mask_of(t)).float().mean() for t in range(k)]),
            "accuracy/inferred": _mean([s.float().mean() for s in scores]),
        }
        tasks, accuracy = [], []
        for t, (batches, _) in enumerate(plans):
            decided = self._decide(learner, stream, t, batches, found[t], k)
            tasks.append((decided == learner.mask_of(t)).float().mean())
            who = torch.cat([d.expand(len(b)) for d, b in zip(decided, batches, strict=True)])
            accuracy.append(self._score(learner, stream, right[t], t, torch.cat(batches), who).float().mean())
        row |= {"task_id/accuracy/official": _mean(tasks), "accuracy/inferred/official": _mean(accuracy)}
        if result is not None:
            for t, line in enumerate(result.per_task):
                line |= {"task_id": float((found[t] == learner.mask_of(t)).float().mean())}
            result.confusion = _confusion(found, min(k, max(self.matrix_tasks, 1)), learner.masks)
        return row

    def _plan(self, size: int, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
        """Official batches of a shuffled test set (places), and the images judged one by one."""
        order = torch.randperm(size, generator=generator)
        batches = list(order.split(OFFICIAL_BATCH))[: self.decisions]
        firsts = torch.stack([b[0] for b in batches])
        wanted = size if self.images is None else max(min(self.images, size), len(firsts))
        others = order[~torch.isin(order, firsts)]
        return batches, torch.cat([firsts, others[: wanted - len(firsts)]])

    def _decide(
        self, learner: ContinualLearner, stream: Stream, task: int, batches: list[Tensor], singles: Tensor, k: int
    ) -> Tensor:
        if self.decide_by == 1:
            return singles[: len(batches)]
        x, _ = stream.test_set(task, self.test_images)
        groups = [x[b[: self.decide_by].to(x.device)] for b in batches]
        return torch.cat([learner.infer(group, per_image=False, among=k) for group in groups])

    def _score(
        self, learner: ContinualLearner, stream: Stream, right: Tensor, task: int, places: Tensor, found: Tensor
    ) -> Tensor:
        """Whether each image counts as right, given the task that was found for it."""
        known = right[places.to(right.device)]
        hit = found == learner.mask_of(task)
        if learner.labels == "unshared" or bool(hit.all()):
            return known & hit
        x, y = stream.test_set(task, self.test_images)
        score = known & hit
        for other in found[~hit].unique():
            at = (found == other).nonzero().squeeze(1)
            rows = places.to(x.device)[at]
            score[at] = learner.logits_of_mask(int(other), x[rows]).argmax(1) == y[rows]
        return score

    def _matrices(
        self,
        learner: ContinualLearner,
        stream: Stream,
        k: int,
        generator: Callable[..., torch.Generator],
        result: Evaluation,
    ) -> None:
        sets = [stream.test_set(task, self.matrix_images) for task in range(k)]
        sizes = [len(y) for _, y in sets]
        x, y = torch.cat([x for x, _ in sets]), torch.cat([y for _, y in sets])
        accuracy, entropy = x.new_empty(k, k), x.new_empty(k, len(y))
        for task in range(k):
            logits = torch.cat([learner.logits(task, part) for part in x.split(IMAGES_AT_ONCE)])
            hits = (logits.argmax(1) == y).float()
            accuracy[:, task] = torch.stack([part.mean() for part in hits.split(sizes)])
            log_p = logits.log_softmax(1)
            entropy[task] = -(log_p.exp() * log_p).sum(1)
        owner = torch.repeat_interleave(torch.arange(k, device=x.device), torch.tensor(sizes, device=x.device))
        result.matrix = accuracy
        result.entropies = torch.stack([part.mean(1) for part in entropy.split(sizes, dim=1)])
        result.right = entropy[owner, torch.arange(len(y), device=x.device)]
        if k > 1:
            step = torch.randint(1, k, (len(y),), generator=generator(Purpose.WRONG_TASK)).to(x.device)
            result.wrong = entropy[(owner + step) % k, torch.arange(len(y), device=x.device)]
            result.metrics |= {"entropy/right": result.right.mean(), "entropy/wrong": result.wrong.mean()}
        if _finds_tasks(learner, stream):
            masks = torch.tensor([learner.mask_of(task) for task in range(k)], device=x.device)  # tasks may share one
            result.metrics["task_id/exhaustive"] = (masks[entropy.argmin(0)] == masks[owner]).float().mean()


def _finds_tasks(learner: ContinualLearner, stream: Stream) -> bool:
    """Whether a learner can do without being told, tried on one image."""
    return learner.infer(stream.test_set(0, 1)[0], per_image=True, among=1) is not None


def _infer_singles(
    learner: ContinualLearner, stream: Stream, wanted: list[tuple[int, Tensor]], k: int, limit: int | None
) -> list[Tensor]:
    """The task found for each image at its place in a test set: the images of many tasks go through together."""
    found: list[Tensor] = []
    waiting: list[Tensor] = []

    def flush() -> None:
        answer = learner.infer(torch.cat(waiting), per_image=True, among=k)
        found.extend(answer.split([len(x) for x in waiting]))
        waiting.clear()

    for task, places in wanted:
        x, _ = stream.test_set(task, limit)
        waiting.append(x[places.to(x.device)])
        if sum(map(len, waiting)) >= IMAGES_AT_ONCE:
            flush()
    if waiting:
        flush()
    return found


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean())


def _per_task(after: Tensor, given: Tensor) -> list[dict[str, Any]]:
    rows = zip(after.tolist(), given.tolist(), strict=True)
    return [{"task": t, "accuracy_after_training": a, "accuracy": g} for t, (a, g) in enumerate(rows)]


def _confusion(found: list[Tensor], tasks: int, masks: int) -> Tensor:
    """Share of each task's images per mask ``[tasks, masks]``."""
    return torch.stack([torch.bincount(f.cpu(), minlength=masks).float() / len(f) for f in found[:tasks]])[:, :masks]
