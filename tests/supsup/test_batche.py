"""BatchE: the rank-one matrices, what trains when, and the search for the least entropy."""

from __future__ import annotations

import pytest
import torch
from baseline_runs import SGD, TASKS, batches, learner, train
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from reprise.papers.supsup.batche import rank_one
from reprise.papers.supsup.networks import FullyConnected
from reprise.papers.supsup.objectives import entropy
from reprise.papers.supsup.residual import ResNet50


def test_rank_one_by_hand():
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    s, r = torch.tensor([[1.0, -2.0]]), torch.tensor([[1.0, 0.0, -1.0]])
    assert rank_one(weight, s, r).tolist() == [[[1.0, 0.0, -3.0], [-8.0, 0.0, 12.0]]]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_a_layer_multiplies_its_inputs_by_r_and_its_outputs_by_s(tasks, outputs, inputs, seed):
    generator = torch.Generator().manual_seed(seed)
    weight, x = torch.randn(outputs, inputs, generator=generator), torch.randn(tasks, 4, inputs, generator=generator)
    s, r = torch.randn(tasks, outputs, generator=generator), torch.randn(tasks, inputs, generator=generator)
    found = torch.bmm(x, rank_one(weight, s, r).transpose(1, 2))
    torch.testing.assert_close(found, ((x * r[:, None]) @ weight.T) * s[:, None], rtol=1e-4, atol=1e-5)


def test_a_convolution_multiplies_its_channels():
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(3, 4, 3, 3, generator=generator), torch.randn(2, 4, 5, 5, generator=generator)
    s, r = torch.randn(1, 3, generator=generator), torch.randn(1, 4, generator=generator)
    by_hand = F.conv2d(x * r[0, :, None, None], weight) * s[0, :, None, None]
    torch.testing.assert_close(F.conv2d(x, rank_one(weight, s, r)[0]), by_hand)


def test_tasks_start_from_signs_of_their_own():
    made = learner("batche")
    first, second = torch.cat(made.start(0)), torch.cat(made.start(1))
    assert set(first.tolist()) == {-1.0, 1.0}
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.cat(made.start(0)))


@pytest.mark.parametrize("task", [0, 1], ids=["first", "later"])
def test_a_step_is_the_gradient_by_s_and_r_and_on_the_first_task_by_w(task):
    made = learner("batche", FullyConnected([]), optimizer=SGD, steps=1)
    train(made, slice(0, task))
    weight = made.shared.view(3, 16).clone().requires_grad_()
    s, r = (part.requires_grad_() for part in made.start(task))
    ((x, y),) = batches(made, task)
    F.cross_entropy(((x.flatten(1) * r) @ weight.T) * s, y).backward()
    train(made, slice(task, task + 1))
    moved = torch.cat([s - 0.1 * s.grad, r - 0.1 * r.grad]).detach()
    torch.testing.assert_close(made.own[task], moved)
    learned = weight - 0.1 * weight.grad if task == 0 else weight
    torch.testing.assert_close(made.shared.view(3, 16), learned.detach())


def test_the_numbers_of_a_task_of_resnet50_are_those_of_the_paper():
    """52,139 floats with 1,000 outputs: 20.86 megabytes for a hundred tasks."""
    network = ResNet50().bind((3, 224, 224), 1000)
    assert sum(shape[0] + shape[1] for shape in network.shapes) == 52_139


@pytest.fixture
def searching():
    return train(learner("batche", inference="exhaustive", parallel=2))


def test_the_task_found_is_the_one_of_least_entropy(searching):
    x, _ = searching.stream.test_set(1)
    with torch.no_grad():
        brute = torch.stack([entropy(searching.logits(task, x)) for task in range(TASKS)])
        torch.testing.assert_close(searching.entropies(x, TASKS), brute)
        assert torch.equal(searching.infer(x, per_image=True, among=TASKS), brute.argmin(0))
        assert torch.equal(searching.infer(x, per_image=False, among=TASKS), brute.mean(1).argmin(0, keepdim=True))
        assert torch.equal(searching.infer(x, per_image=True, among=3), brute[:3].argmin(0))
    assert len(brute.argmin(0).unique()) > 1, "or the order of tasks would not matter"


def test_a_task_that_is_certain_is_found():
    made = train(learner("batche", inference="exhaustive"))
    made.own[2] = made.own[2] * 20
    assert made.infer(made.stream.test_set(0)[0], per_image=True, among=TASKS).tolist() == [2] * 12


def test_a_task_that_is_given_is_not_looked_for():
    made = train(learner("batche"))
    assert made.infer(made.stream.test_set(0)[0], per_image=True, among=TASKS) is None
