"""A network per task, each as if it were alone; or one that is trained on and stored after each."""

from __future__ import annotations

from functools import partial

import torch
from baseline_runs import SGD, TASKS, answers, batches, learner, train
from torch.nn import functional as F

SLEEP = partial(torch.optim.SGD, lr=0.0)


def test_every_network_is_trained_as_usual():
    made = learner("upper_bound", optimizer=SGD, parallel=TASKS)
    weights = [w.clone().requires_grad_() for w in made.start(2)]
    sgd = SGD(weights)
    for x, y in batches(made, 2):
        sgd.zero_grad()
        h = x.flatten(1)
        for layer, weight in enumerate(weights):
            h = (F.relu(h) if layer else h) @ weight.T
        F.cross_entropy(h, y).backward()
        sgd.step()
    train(made)
    torch.testing.assert_close(made.own[2], torch.cat([w.detach().flatten() for w in weights]), rtol=1e-4, atol=1e-6)


def test_networks_start_apart():
    made = train(learner("upper_bound", optimizer=SLEEP, parallel=TASKS))
    assert len(made.own.unique(dim=0)) == TASKS


def test_fine_tuning_starts_where_the_last_network_ended():
    made = train(learner("fine_tuning", optimizer=SLEEP))
    assert torch.equal(made.own, made.own[:1].expand(TASKS, -1))
    moving = train(learner("fine_tuning", optimizer=SGD), slice(0, 2))
    assert not torch.equal(moving.own[1], moving.own[0])


def test_fine_tuning_is_scored_right_after_each_task():
    made = train(learner("fine_tuning"))
    labels = [made.stream.test_set(task)[1] for task in range(TASKS)]
    found = [(a.argmax(1) == y).float().mean() for a, y in zip(answers(made), labels, strict=True)]
    assert torch.equal(torch.stack(found), made.accuracy_after)
