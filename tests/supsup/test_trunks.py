"""Heads on a trunk: a frozen one makes every later task a linear classifier, one that is trained on forgets."""

from __future__ import annotations

import pytest
import torch
from baseline_runs import SGD, batches, learner, train
from torch.nn import functional as F


def features(made, x):
    first, second = made._layers(made.shared, made.shared_shapes)
    return F.relu(F.relu(x.flatten(1) @ first.T) @ second.T)


def test_a_later_head_is_softmax_regression_on_the_trunk():
    """One step of gradient descent: the gradient is the mean of (p - one-hot) times the features."""
    made = train(learner("separate_heads", optimizer=SGD, steps=1), slice(0, 1))
    (head,) = made.start(1)
    ((x, y),) = batches(made, 1)
    h = features(made, x)
    slope = ((h @ head.T).softmax(1) - F.one_hot(y, 3)).T @ h / len(y)
    train(made, slice(1, 2))
    torch.testing.assert_close(made.own[1].view(3, 6), head - 0.1 * slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["separate_heads", "lower_bound"])
def test_the_first_task_is_a_plain_network_trained_as_usual(method):
    made = learner(method, optimizer=SGD)
    weights = [w.clone().requires_grad_() for w in (*made._layers(made.shared, made.shared_shapes), *made.start(0))]
    sgd = SGD(weights)
    for x, y in batches(made, 0):
        sgd.zero_grad()
        h = x.flatten(1)
        for layer, weight in enumerate(weights):
            h = (F.relu(h) if layer else h) @ weight.T
        F.cross_entropy(h, y).backward()
        sgd.step()
    train(made, slice(0, 1))
    torch.testing.assert_close(made.own[0].view(3, 6), weights[-1].detach(), rtol=1e-4, atol=1e-6)
    flat = torch.cat([w.detach().flatten() for w in weights[:-1]])
    torch.testing.assert_close(made.shared, flat, rtol=1e-4, atol=1e-6)


def test_a_trunk_that_is_trained_on_goes_on_from_the_last_task_and_leaves_old_heads():
    made = train(learner("lower_bound", optimizer=SGD), slice(0, 1))
    trunk, head = made.shared.clone(), made.own[0].clone()
    made.open_block(made.blocks[1])
    assert torch.equal(torch.cat([w.detach().flatten() for w in made.block_shared]), trunk)
    made.train_steps(made.blocks[1], 0, made.steps)
    made._close()
    assert not torch.equal(made.shared, trunk)
    assert torch.equal(made.own[0], head)
    assert not torch.equal(made.own[1], head)


def test_heads_of_tasks_start_apart():
    made = learner("separate_heads_random")
    assert not torch.equal(made.start(0)[0], made.start(1)[0])
