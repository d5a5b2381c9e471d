"""SupSup with a given task while training: what is learned, kept and found."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.supsup.bank import in_layers, unpack
from reprise.papers.supsup.evaluation import Judge
from reprise.papers.supsup.masks import EdgePopup, Threshold, budget
from reprise.papers.supsup.module import SupSup
from reprise.papers.supsup.networks import FullyConnected, constant, signed_constants
from reprise.papers.supsup.residual import GemResNet18
from reprise.papers.supsup.streams import Images, TaskStream

SHAPE, TASKS = (1, 4, 4), 4
CLASSES = tuple("abc")


def stream(rows: int = 60, shape: tuple[int, int, int] = SHAPE) -> TaskStream:
    generator = torch.Generator().manual_seed(1)
    size = shape[0] * shape[1] * shape[2]
    y = torch.arange(rows) % 3
    patterns = 2 * torch.randn(3, size + shape[0], generator=generator)
    x = torch.randn(rows, size + shape[0], generator=generator) + patterns[y]
    columns = torch.stack([torch.randperm(size, generator=generator) for _ in range(TASKS)])
    return TaskStream("permuted", Images(x, y), Images(x, y), shape, TASKS, 3, columns)


def supsup(shape: tuple[int, int, int] = SHAPE, **options: object) -> SupSup:
    spec = DataSpec("toy", "classification", "image", shape, CLASSES, num_tasks=TASKS)
    given = {
        "network": FullyConnected([8]),
        "outputs": 5,
        "steps": 12,
        "batch_size": 8,
        "optimizer": partial(torch.optim.RMSprop, lr=0.01),
        "schedule": "constant",
        "evaluation": Judge(),
        "parallel": 1,
        "search": Threshold(),
        "scenario": "gnu",
        "inference": "oneshot",
        "objective": "H",
        "transfer": "none",
    } | options
    return SupSup(spec, 5, **given)


def trained(learner: SupSup) -> SupSup:
    learner.stream = stream(shape=learner.spec.shape)
    learner.frozen = signed_constants(learner.network.shapes, learner.weight_seed)
    channels = learner.spec.shape[0]
    learner.trainer = SimpleNamespace(datamodule=SimpleNamespace(mean=[0.0] * channels, std=[1.0] * channels))
    for tasks in learner.blocks:
        learner.open_block(tasks)
        learner.block = tasks
        learner.train_steps(tasks, 0, learner.steps)
        learner._close()
    return learner


@pytest.mark.parametrize("search", [Threshold(), EdgePopup(1.0)])
@pytest.mark.parametrize("parallel", [2, 3, 4])
def test_masks_found_side_by_side_are_those_found_alone(search, parallel):
    alone, together = trained(supsup(search=search)), trained(supsup(search=search, parallel=parallel))
    differing = (unpack(alone.packed, alone.network.size) != unpack(together.packed, together.network.size)).sum(1)
    assert (
        differing.max() == 0
    )  # the order of a sum may move a score by 1e-9, which none of these is from its threshold
    assert not torch.equal(alone.packed[0], alone.packed[1])


def test_convolutional_tasks_side_by_side_keep_their_own_statistics():
    shape, options = (1, 8, 8), {"scenario": "gg", "inference": "given", "steps": 3}
    alone = trained(supsup(shape, network=GemResNet18(width=2), **options))
    together = trained(supsup(shape, network=GemResNet18(width=2), parallel=4, **options))
    torch.testing.assert_close(alone.mean, together.mean, rtol=1e-4, atol=1e-5)
    assert torch.equal(alone.packed, together.packed)
    assert not torch.allclose(alone.mean[0], alone.mean[1])


def test_only_scores_are_trained_and_training_helps():
    learner = trained(supsup(steps=150))
    for w, shape in zip(learner.frozen, learner.network.shapes, strict=True):
        assert torch.equal(w.abs(), torch.full(shape, constant(shape)))
    assert learner.accuracy_after.min() > 0.8
    assert learner.bank.weight_seed == learner.weight_seed


def test_what_is_stored_answers_as_what_was_trained():
    learner = trained(supsup(steps=60, parallel=4))
    x, y = learner.stream.test_set(2)
    assert (learner.logits(2, x).argmax(1) == y).float().mean() == learner.accuracy_after[2]


def test_an_edge_popup_bank_holds_exactly_its_budget():
    learner = trained(supsup(search=EdgePopup(1.0), steps=2))
    layers = in_layers(unpack(learner.packed, learner.network.size), learner.network.shapes)
    for shape, layer in zip(learner.network.shapes, layers, strict=True):
        assert (layer.flatten(1).sum(1) == budget(shape, 1.0)).all()


def start_of(transfer: str, search: object, task: int) -> tuple[list[torch.Tensor], SupSup]:
    """Scores from which a task starts, and the learner that has trained those before it."""
    learner = supsup(transfer=transfer, search=search, parallel=3)
    assert learner.parallel == 1  # a mask that starts from others cannot be trained beside them
    learner.stream = stream()
    learner.frozen = signed_constants(learner.network.shapes, learner.weight_seed)
    learner.seen = []
    for tasks in learner.blocks[:task]:
        learner.open_block(tasks)
        learner.block = tasks
        learner.train_steps(tasks, 0, 5)
        learner.seen.append([p[0].detach().clone() for p in learner.learning])
        learner._close()
    return learner._start(task), learner


def test_transfer_starts_from_the_mean_of_earlier_scores():
    start, learner = start_of("mean_scores", EdgePopup(1.0), 2)
    for found, first, second in zip(start, *learner.seen, strict=True):
        torch.testing.assert_close(found, (first + second) / 2)


def test_transfer_starts_from_the_previous_scores():
    start, learner = start_of("previous", EdgePopup(1.0), 2)
    for found, last in zip(start, learner.seen[1], strict=True):
        assert torch.equal(found, last)


@pytest.mark.parametrize("search", [EdgePopup(1.0), Threshold()])
def test_transfer_starts_from_the_mean_of_earlier_masks(search):
    start, learner = start_of("mean_masks", search, 2)
    for found, first, second, shape in zip(start, *learner.seen, learner.network.shapes, strict=True):
        mean = (search.kept(first[None]).float() + search.kept(second[None]).float())[0] / 2
        if isinstance(search, Threshold):
            mean = 2 * mean - 1
        torch.testing.assert_close(found, mean / shape[1] ** 0.5)


def test_the_first_task_starts_at_random_whatever_the_transfer():
    for transfer in ("none", "mean_scores", "mean_masks", "previous"):
        start, _ = start_of(transfer, Threshold(), 0) if transfer != "none" else (None, None)
        if start:
            assert all(
                0 < s.abs().max() <= 1 / shape[1] ** 0.5 for s, shape in zip(start, [(8, 16), (5, 8)], strict=True)
            )


@pytest.mark.parametrize("transfer", ["none", "mean_scores"])
def test_two_seeds_differ_in_weights_and_scores(transfer):
    first, second = supsup(), supsup()
    second.seed = 6
    assert not torch.equal(first._start(0)[0], second._start(0)[0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scenario": "gg"}, "scenario=gg gives the task at test time"),
        ({"inference": "given"}, "scenario=gnu does not give the task at test time"),
        ({"scenario": "gns", "inference": "given"}, "scenario=gns does not give the task"),
        ({"network": GemResNet18(width=1)}, "keeps BatchNorm statistics per task"),
        ({"objective": "G", "outputs": 3}, "superfluous"),
        ({"outputs": 2}, "fewer than the 3 classes"),
    ],
)
def test_combinations_that_cannot_work_are_refused(options, sentence):
    shape = (1, 8, 8) if "network" in options else SHAPE
    with pytest.raises(UserError, match=sentence):
        supsup(shape, **options)


@pytest.mark.parametrize("inference", ["oneshot", "binary", "exhaustive", "gradient"])
def test_tasks_are_found_by_every_inference(inference):
    learner = trained(supsup(inference=inference, steps=150, outputs=20, network=FullyConnected([32])))
    x = torch.cat([learner.stream.test_set(task)[0] for task in range(TASKS)])
    found = learner.infer(x, per_image=True, among=TASKS)
    assert found.shape == (len(x),)
    assert (found.split(60)[1] == 1).float().mean() > 0.5  # chance is a quarter
    assert set(learner.infer(x, per_image=True, among=2).tolist()) <= {0, 1}
    assert learner.infer(x[:60], per_image=False, among=TASKS).tolist() == [0]
