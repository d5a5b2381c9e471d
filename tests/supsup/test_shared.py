"""What the baselines have in common: who trains with whom, what is stored, and going on after an interruption."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from baseline_runs import BASELINES, CONV, FLAT, TASKS, answers, learner, train
from pydantic import ValidationError

from reprise.errors import UserError
from reprise.papers.supsup.shared import initial_weights

NETWORKS = {"flat": FLAT, "conv": CONV}
BLOCKS = {
    "psp": [1, 1, 1, 1],
    "psp_binary": [1, 1, 1, 1],
    "batche": [1, 2, 1],
    "batche_random": [2, 2],
    "separate_heads": [1, 2, 1],
    "separate_heads_random": [2, 2],
    "lower_bound": [1, 1, 1, 1],
    "upper_bound": [2, 2],
    "fine_tuning": [1, 1, 1, 1],
}
INDEPENDENT = [method for method, sizes in BLOCKS.items() if max(sizes) > 1]
both_networks = pytest.mark.parametrize("network", NETWORKS)
all_methods = pytest.mark.parametrize("method", BASELINES)


@all_methods
def test_tasks_that_change_what_others_use_are_trained_alone(method):
    made = learner(method, parallel=2)
    assert [len(tasks) for tasks in made.blocks] == BLOCKS[method]
    assert [t for tasks in made.blocks for t in tasks] == list(range(TASKS))
    assert made.epochs == len(made.blocks)


@both_networks
@all_methods
def test_a_run_that_was_stopped_between_blocks_goes_on_with_the_same_bits(method, network):
    straight = train(learner(method, NETWORKS[network](), parallel=2))
    first = train(learner(method, NETWORKS[network](), parallel=2), slice(0, 1))
    second = learner(method, NETWORKS[network](), parallel=2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(second, slice(1, None))
    assert second.state_dict().keys() == straight.state_dict().keys()
    for name, stored in straight.state_dict().items():
        assert torch.equal(second.state_dict()[name], stored), name
    assert all(map(torch.equal, answers(second), answers(straight)))


@both_networks
@all_methods
def test_a_run_that_was_stopped_within_a_block_goes_on_with_the_same_bits(method, network):
    straight = train(learner(method, NETWORKS[network](), parallel=2), slice(0, 2))
    first = train(learner(method, NETWORKS[network](), parallel=2), slice(0, 1))
    tasks = first.blocks[1]
    first.open_block(tasks)
    first.train_steps(tasks, 0, 2)
    checkpoint: dict[str, object] = {}
    first.on_save_checkpoint(checkpoint)

    second = learner(method, NETWORKS[network](), parallel=2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.on_load_checkpoint(copy.deepcopy(checkpoint))
    second.open_block(tasks)
    second.train_steps(tasks, 2, second.steps)
    second._close()
    assert all(map(torch.equal, answers(second), answers(straight)))


@both_networks
@pytest.mark.parametrize("method", INDEPENDENT)
def test_tasks_side_by_side_learn_what_they_learn_alone(method, network):
    alone = train(learner(method, NETWORKS[network](), parallel=1))
    together = train(learner(method, NETWORKS[network](), parallel=3))
    assert not torch.equal(alone.own[1], alone.own[2])
    torch.testing.assert_close(answers(together), answers(alone), rtol=1e-3, atol=1e-4)


@both_networks
@pytest.mark.parametrize("method", [*INDEPENDENT, "fine_tuning"])
def test_later_tasks_leave_earlier_ones_as_they_were(method, network):
    made = train(learner(method, NETWORKS[network]()), slice(0, 2))
    before = answers(made)
    assert all(map(torch.equal, answers(train(made, slice(2, None))), before))


@both_networks
@pytest.mark.parametrize("method", ["psp", "psp_binary", "lower_bound"])
def test_later_tasks_change_earlier_ones_where_weights_are_trained_on(method, network):
    made = train(learner(method, NETWORKS[network]()), slice(0, 2))
    before = answers(made)
    assert not any(map(torch.equal, answers(train(made, slice(2, None))), before))


@both_networks
@all_methods
def test_the_store_answers_as_the_block_did_when_it_closed(method, network):
    made = learner(method, NETWORKS[network](), parallel=2)
    tasks = made.blocks[0]
    made.open_block(tasks)
    made.train_steps(tasks, 0, made.steps)
    with torch.no_grad():
        x = torch.stack([made.stream.test_set(task)[0] for task in tasks])
        stood = made.outputs(x, training=False)
    made._close()
    torch.testing.assert_close(torch.stack(answers(made)), stood)


@pytest.mark.parametrize("method", ["batche", "separate_heads"])
def test_the_first_task_trains_the_shared_weights_and_no_other_does(method):
    made = learner(method)
    fresh = made.shared.clone()
    train(made, slice(0, 1))
    after = made.shared.clone()
    assert not torch.equal(after, fresh)
    assert torch.equal(train(made, slice(1, None)).shared, after)


@pytest.mark.parametrize("method", ["batche_random", "separate_heads_random"])
def test_shared_weights_that_are_never_trained_follow_from_the_seed(method):
    made, other = train(learner(method)), learner(method, seed=4)
    assert torch.equal(made.shared, learner(method).shared)
    assert not torch.equal(made.shared, other.shared)


@pytest.mark.parametrize("method", ["batche", "separate_heads"])
def test_the_first_task_has_its_own_optimiser(method):
    rates = {"optimizer": partial(torch.optim.SGD, lr=0.5), "first_optimizer": partial(torch.optim.SGD, lr=0.25)}
    made, found = learner(method, parallel=2, **rates), []
    for tasks in made.blocks:
        made.open_block(tasks)
        found.append((made.optimizer.param_groups[0]["lr"], len(made.learning) - len(made.own_shapes)))
        made._close()
    assert found == [(0.25, len(made.shared_shapes)), (0.5, 0), (0.5, 0)]


def test_a_first_optimiser_has_no_say_where_nothing_shared_is_trained():
    made = learner("batche_random", first_optimizer=partial(torch.optim.SGD, lr=0.25))
    made.open_block(made.blocks[0])
    assert made.optimizer.param_groups[0]["lr"] == 0.05


def test_a_first_optimiser_that_cannot_be_made_is_named():
    with pytest.raises(UserError, match=r"method\.module\.first_optimizer: Invalid learning rate"):
        learner("batche", first_optimizer=partial(torch.optim.SGD, lr=-1.0))


def test_outputs_are_the_classes_of_a_task_unless_told():
    assert learner("psp").network.outputs == 3
    assert learner("psp", outputs=7).network.outputs == 7
    with pytest.raises(UserError, match=r"method\.module\.outputs=2 are fewer than the 3 classes"):
        learner("psp", outputs=2)


def test_an_unknown_argument_is_named():
    with pytest.raises(ValidationError, match=r"colour\n.*unexpected_keyword_argument|colour\n  Unexpected keyword"):
        learner("psp", colour="red")


@pytest.mark.parametrize(
    ("init", "deviation"),
    [("default", (1 / 400 / 3) ** 0.5), ("kaiming_normal", (2 / 400) ** 0.5), ("xavier_normal", (2 / 700) ** 0.5)],
)
def test_initial_weights_have_the_spread_of_their_distribution(init, deviation):
    (weight,) = initial_weights([(300, 400)], init, torch.Generator().manual_seed(0))
    assert float(weight.std()) == pytest.approx(deviation, rel=0.02)
    assert abs(float(weight.mean())) < deviation / 50
    assert (float(weight.abs().max()) <= 1 / math.sqrt(400)) == (init == "default")


# bytes of 16-5-6-3, which has 128 weights: shared and per task. The head has 18 weights, s and r together 41 numbers.
COSTS = {
    "psp": (128 * 4 + 8, 0),
    "psp_binary": (128 * 4 + 8, 0),
    "batche": (128 * 4, 41 * 4),
    "batche_random": (8, 41 * 4),
    "separate_heads": (110 * 4, 18 * 4),
    "separate_heads_random": (8, 18 * 4),
    "lower_bound": (110 * 4, 18 * 4),
    "upper_bound": (0, 128 * 4),
    "fine_tuning": (0, 128 * 4),
}


@all_methods
def test_bytes_are_those_of_what_is_stored(method):
    made = train(learner(method), slice(0, 2))
    shared, per_task = COSTS[method]
    cost = made.cost()
    assert cost["bytes/per_task"] == per_task
    assert cost["bytes/bank"] == shared + int(made.learned) * per_task


@pytest.mark.parametrize("method", ["separate_heads", "lower_bound"])
def test_statistics_are_paid_for_once_or_per_task(method):
    made = train(learner(method, CONV()), slice(0, 2))
    size, head, channels = made.network.size, math.prod(made.network.shapes[-1]), made.network.channels
    times = 1 if method == "lower_bound" else 2
    assert made.cost()["bytes/bank"] == 4 * (size - head) + 2 * 4 * head + times * 8 * channels


def test_statistics_of_a_trunk_that_is_trained_on_move_with_every_task():
    made = train(learner("lower_bound", CONV()), slice(0, 1))
    assert made.mean.shape == (1, made.network.channels)
    mean = made.mean.clone()
    train(made, slice(1, 2))
    assert not torch.equal(made.mean, mean)
