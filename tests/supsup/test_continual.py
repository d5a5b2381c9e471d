"""What every learner of a stream does, on a linear classifier per task."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.supsup.continual import EPOCH, ContinualLearner
from reprise.papers.supsup.evaluation import Judge
from reprise.papers.supsup.networks import FullyConnected
from reprise.papers.supsup.streams import Images, TaskStream

SHAPE, TASKS = (1, 2, 3), 5


class OnePerTask(ContinualLearner):
    """A linear classifier per task, kept as it is."""

    def __init__(self, parallel: int = 1, steps: int = 7, outputs: int = 3, **options: object) -> None:
        spec = DataSpec("toy", "classification", "image", SHAPE, ("a", "b", "c"), num_tasks=TASKS)
        settings = {"optimizer": partial(torch.optim.SGD, lr=0.1), "schedule": "constant", "evaluation": Judge()}
        super().__init__(spec, 3, FullyConnected([]), outputs, steps, 4, **(settings | options), parallel=parallel)
        self.register_buffer("kept", torch.zeros(TASKS, outputs, 6))

    def begin(self, tasks: range) -> list[Parameter]:
        return [Parameter(torch.zeros(len(tasks), *self.network.shapes[0]))]

    def outputs(self, x: Tensor, training: bool) -> Tensor:
        return self.network(self.learning, x)

    def keep(self, tasks: range) -> None:
        self.kept[tasks.start : tasks.stop] = self.learning[0]

    def logits(self, task: int, x: Tensor) -> Tensor:
        return self.network([self.kept[task : task + 1]], x[None])[0]


def toy_stream(rows: int = 10) -> TaskStream:
    generator = torch.Generator().manual_seed(1)
    images = Images(torch.randn(rows, 7, generator=generator), torch.arange(rows) % 3)
    columns = torch.stack([torch.randperm(6, generator=generator) for _ in range(TASKS)])
    return TaskStream("permuted", images, images, SHAPE, TASKS, 3, columns)


def trained(learner: ContinualLearner) -> ContinualLearner:
    """Train on the toy stream without Lightning."""
    learner.stream = toy_stream()
    for tasks in learner.blocks:
        learner.open_block(tasks)
        learner.block = tasks
        learner.train_steps(tasks, 0, learner.steps)
        learner._close()
    return learner


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3 * EPOCH), st.integers(1, TASKS))
def test_every_task_gets_every_step_once_and_in_order(steps, parallel):
    learner = OnePerTask(parallel, steps)
    taken: dict[range, list[int]] = {}
    for epoch in range(learner.epochs):
        for turn in range(learner.steps_per_epoch):
            tasks, first, last = learner.place(epoch, turn)
            taken.setdefault(tasks, []).extend(range(first, last))
    assert [t for tasks in taken for t in tasks] == list(range(TASKS))
    assert all(found == list(range(steps)) for found in taken.values())


@pytest.mark.parametrize("parallel", [2, 3, 5])
def test_tasks_side_by_side_learn_what_they_learn_alone(parallel):
    alone, together = trained(OnePerTask(1)), trained(OnePerTask(parallel))
    assert alone.kept.abs().amax(dim=(1, 2)).min() > 0.01
    torch.testing.assert_close(together.kept, alone.kept, rtol=1e-5, atol=1e-6)
    assert torch.equal(together.accuracy_after, alone.accuracy_after)


def test_one_step_is_the_gradient_of_the_mean_cross_entropy():
    learner = OnePerTask(2, steps=1)
    trained(learner)
    x, y = learner.stream.train_batch(range(1, 2), learner._order(1)[None, :4], [])
    weight = torch.zeros(3, 6, requires_grad=True)
    torch.nn.functional.cross_entropy(x[0].flatten(1) @ weight.T, y[0]).backward()
    torch.testing.assert_close(learner.kept[1], -0.1 * weight.grad)


def test_images_come_in_shuffled_passes_that_differ_between_tasks():
    learner = OnePerTask(steps=7)
    learner.stream = toy_stream(rows=10)
    order = learner._order(0)
    assert len(order) == 28  # 7 full batches of 4
    for start in (0, 10):
        assert sorted(order[start : start + 10].tolist()) == list(range(10))
    assert not torch.equal(order[:10], order[10:20])
    assert not torch.equal(order, learner._order(1))
    assert torch.equal(order, learner._order(0))


def test_cosine_goes_to_zero_within_each_task():
    learner = OnePerTask(steps=4, schedule="cosine")
    learner.stream = toy_stream()
    learner.open_block(range(1))
    rates = []
    for step in range(4):
        learner._set_rate(step)
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.1 * (1 + 0.5**0.5) / 2, 0.05, 0.1 * (1 - 0.5**0.5) / 2])


def test_a_block_that_was_interrupted_ends_as_an_undisturbed_one():
    momentum = {"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9), "schedule": "cosine"}
    straight = trained(OnePerTask(2, **momentum))
    first = OnePerTask(2, **momentum)
    first.stream = toy_stream()
    first.open_block(first.blocks[0])
    first.train_steps(first.blocks[0], 0, 3)
    checkpoint: dict[str, object] = {}
    first.on_save_checkpoint(checkpoint)

    second = OnePerTask(2, **momentum)
    second.stream = toy_stream()
    second.on_load_checkpoint(checkpoint)
    second.open_block(second.blocks[0])
    second.train_steps(second.blocks[0], 3, 7)
    second._close()
    assert torch.equal(second.kept[:2], straight.kept[:2])


def test_more_tasks_side_by_side_than_there_are_is_all_of_them():
    assert OnePerTask(100).blocks == [range(TASKS)]


def test_fewer_outputs_than_classes_are_refused():
    with pytest.raises(UserError, match=r"method\.module\.outputs=2 are fewer than the 3 classes"):
        OnePerTask(outputs=2)


def test_an_optimiser_that_cannot_be_made_is_named():
    learner = OnePerTask(optimizer=partial(torch.optim.SGD, lr=-1.0))
    learner.stream = toy_stream()
    with pytest.raises(UserError, match=r"method\.module\.optimizer: Invalid learning rate"):
        learner.open_block(range(1))
