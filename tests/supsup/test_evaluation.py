"""Both protocols, the matrices and forgetting, on answers that are known beforehand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reprise.data.base import DataSpec
from reprise.papers.supsup.evaluation import Judge
from reprise.papers.supsup.streams import Images, TaskStream
from reprise.randomness import generator

TASKS, ROWS = 3, 300


class Answers:
    """An image is (its number, its label, its task); mask m is right about images of task m, else about even ones."""

    labels = "unshared"

    def __init__(self, labels: str = "unshared", found: dict[int, int] | None = None, told: bool = False) -> None:
        self.labels, self.found, self.told = labels, found or {}, told
        self.learned = torch.tensor(TASKS)
        self.accuracy_after = torch.tensor([1.0, 1.0, 1.0])
        self.spec = DataSpec("toy", "classification", "image", (1, 1, 3), ("a", "b"), num_tasks=TASKS)
        self.masks = TASKS
        self.groups: list[int] = []

    def mask_of(self, task: int) -> int:
        return task

    def logits(self, task: int, x: Tensor) -> Tensor:
        number, label, own = x.flatten(1).unbind(1)
        right = (own == task) | (number % 2 == 0)
        answer = torch.where(right, label, 1 - label).long()
        # sure of its own images, less sure of others
        return torch.nn.functional.one_hot(answer, 2) * torch.where(own == task, 9.0, 1.0)[:, None]

    logits_of_mask = logits

    def infer(self, x: Tensor, per_image: bool, among: int) -> Tensor | None:
        if self.told:
            return None
        number, _, own = x.flatten(1).unbind(1)
        if not per_image:
            self.groups.append(len(x))
        answer = torch.tensor([self.found.get(int(n), int(o)) for n, o in zip(number, own, strict=True)])
        return (answer if per_image else answer[:1]).clamp(max=among - 1)


class Stream(TaskStream):
    """Task t's image n is (n, n % 2, t) with label n // 2 % 2."""

    def test_set(self, task: int, limit: int | None = None) -> tuple[Tensor, Tensor]:
        number = torch.arange(ROWS).float()
        label = (torch.arange(ROWS) // 2) % 2
        x = torch.stack([number, label.float(), torch.full((ROWS,), float(task))], 1)
        return x.reshape(ROWS, 1, 1, 3)[:limit], label[:limit]


def judged(learner: Answers, **sizes: object):
    empty = Images(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64))
    stream = Stream("permuted", empty, empty, (1, 1, 3), TASKS, 2)
    return Judge(**sizes)(learner, stream, lambda *purpose: generator(0, *purpose))


def first_of_each_batch(task: int) -> list[int]:
    order = torch.randperm(ROWS, generator=generator(0, 1, task))
    return [int(part[0]) for part in order.split(128)]


def test_a_perfect_learner_has_perfect_metrics():
    metrics = judged(Answers(), at=[2]).metrics
    ones = ("accuracy/given", "accuracy/inferred", "accuracy/inferred/official", "task_id/accuracy")
    for name in (*ones, "task_id/accuracy/official", "task_id/exhaustive", "accuracy/inferred@2", "task_id/accuracy@3"):
        assert float(metrics[name]) == 1.0, name
    assert float(metrics["forgetting"]) == float(metrics["forgetting/worst"]) == 0.0
    assert metrics["accuracy/chance"] == 0.5
    assert float(metrics["entropy/right"]) < float(metrics["entropy/wrong"])


def test_unshared_labels_an_image_sent_to_another_task_is_wrong():
    """Image 10 of every task is taken for task 0's: one of 300 in tasks 1 and 2."""
    metrics = judged(Answers(found={10: 0})).metrics
    assert metrics["task_id/accuracy"] == pytest.approx(1 - 2 / 900)
    assert metrics["accuracy/inferred"] == pytest.approx(1 - 2 / 900)
    assert float(metrics["accuracy/given"]) == 1.0


def test_shared_labels_the_other_mask_may_be_right_about_it():
    """Mask 0 is right about even images, and wrong about odd ones."""
    even, odd = judged(Answers("shared", {10: 0})).metrics, judged(Answers("shared", {11: 0})).metrics
    assert even["accuracy/inferred"] == 1.0
    assert odd["accuracy/inferred"] == pytest.approx(1 - 2 / 900)
    assert even["task_id/accuracy"] == odd["task_id/accuracy"] == pytest.approx(1 - 2 / 900)


@pytest.mark.parametrize(("labels", "share"), [("unshared", 0.0), ("shared", 0.5)])
def test_in_the_official_protocol_the_first_image_decides_for_its_batch(labels, share):
    first = first_of_each_batch(2)[0]
    learner = Answers(labels, {first: 0})
    metrics = judged(learner).metrics
    missed = [sum(n == first for n in first_of_each_batch(task)) for task in (1, 2)]
    assert missed == [0, 1]
    assert metrics["task_id/accuracy/official"] == pytest.approx(1 - sum(missed) / 9)
    # 128 images of one task are judged with mask 0: all wrong, or right if even
    order = torch.randperm(ROWS, generator=generator(0, 1, 2))[:128]
    right = (order % 2 == 0).sum().item() if labels == "shared" else 0
    assert metrics["accuracy/inferred/official"] == pytest.approx(1 - (128 - right) / 900)
    assert (right > 0) == (share > 0)


def test_a_whole_batch_may_decide():
    learner = Answers()
    judged(learner, decide_by=128, decisions=2, matrix_tasks=0)
    assert learner.groups == [128, 128] * TASKS


def test_fewer_images_are_a_sample_that_holds_the_deciding_ones():
    batches, singles = Judge(images=5)._plan(ROWS, generator(0, 1, 0))
    assert [len(b) for b in batches] == [128, 128, 44]
    assert singles[:3].tolist() == first_of_each_batch(0)
    assert len(singles) == len(set(singles.tolist())) == 5


def test_early_points_have_fewer_masks_to_choose_from():
    curve = judged(Answers(found={10: 2}), at=[1, 2]).curve
    assert [row["tasks"] for row in curve] == [1, 2, 3]
    # among two masks image 10 is sent to mask 1 (the last): wrong for task 0 alone; among three for tasks 0 and 1
    assert curve[0]["task_id/accuracy"] == 1.0
    assert curve[1]["task_id/accuracy"] == pytest.approx(1 - 1 / 600)
    assert curve[2]["task_id/accuracy"] == pytest.approx(1 - 2 / 900)


def test_matrices_and_confusion():
    result = judged(Answers(found={10: 0}), matrix_images=100)
    assert result.matrix.shape == result.entropies.shape == result.confusion.shape == (TASKS, TASKS)
    torch.testing.assert_close(result.matrix, torch.full((3, 3), 0.5) + 0.5 * torch.eye(3))
    assert result.entropies.diagonal().max() < result.entropies.fill_diagonal_(9).min()
    torch.testing.assert_close(result.confusion.sum(1), torch.ones(3))
    assert result.confusion[2, 0] == pytest.approx(1 / 300)


class Sharing(Answers):
    """Tasks 0 and 1 have one mask, which is sure of the images of both."""

    def mask_of(self, task: int) -> int:
        return max(task - 1, 0)

    def logits(self, task: int, x: Tensor) -> Tensor:
        own = x.flatten(1)[:, 2]
        return torch.where((own > 1) == (task > 1), 9.0, 1.0)[:, None] * torch.tensor([1.0, 0.0])


def test_a_mask_that_tasks_share_is_right_for_each_of_them():
    """The lowest entropy is that of task 0 and of task 1 alike, for images of both."""
    assert float(judged(Sharing("shared", {})).metrics["task_id/exhaustive"]) == 1.0


def test_a_learner_that_must_be_told_has_no_inferred_metrics():
    result = judged(Answers(told=True))
    assert not any("inferred" in name or "task_id" in name for name in result.metrics)
    assert result.confusion is None


def test_forgetting_is_what_was_lost_since_a_task_was_trained():
    learner = Answers()
    learner.accuracy_after = torch.tensor([1.0, 1.0, 0.7])
    metrics = judged(learner).metrics
    assert float(metrics["forgetting"]) == pytest.approx(-0.1)
    assert float(metrics["forgetting/worst"]) == pytest.approx(0.3)
