"""Image networks as predictors: against plain torch networks, torch's optimisers and each other."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch
from dvrl_tasks import fit, generator, small_dvrl
from torch.nn import functional as F

from reprise.data.base import DataSpec, Source, Split
from reprise.errors import UserError
from reprise.papers.dvrl import networks
from reprise.papers.dvrl.architectures import ResNet, SmallCNN, WideResNet
from reprise.papers.dvrl.datamodule import ValuationData
from reprise.papers.dvrl.networks import Network, flip_and_crop, weighted_losses
from reprise.papers.dvrl.predictors import Predictor, one_hot

IMAGE = (1, 6, 6)
TINY = {
    "cnn": functools.partial(SmallCNN, channels=3),
    "resnet": functools.partial(ResNet, depth=8),
    "wide": functools.partial(WideResNet, depth=10, width=1),
}
every = pytest.mark.parametrize("architecture", TINY.values(), ids=TINY)
both_optimizers = pytest.mark.parametrize("optimizer", ["sgd", "adam"])
both_tasks = pytest.mark.parametrize("classes", [0, 3])


def spec_of(classes=3, image=IMAGE):
    return DataSpec(
        "toy", "classification" if classes else "regression", "image", (36,), tuple("abc"[:classes]), image=image
    )


def network(architecture=TINY["cnn"], classes=3, **changes):
    options = {"steps": 3, "final_steps": 5, "optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 0.01}
    predictor = Network(architecture, **(options | changes))
    predictor.bind(spec_of(classes))
    return predictor


def problem(classes=3, rows=12):
    x = torch.randn(rows, 36, generator=generator(1), dtype=torch.float64)
    y = torch.arange(rows) % classes if classes else torch.randn(rows, generator=generator(2))
    return x, one_hot(y, classes).double()


def start(predictor, classes=3, copies=2):
    """Initial state in double precision; the counter stays whole."""
    theta = predictor.initial(36, classes or 1, copies, generator(3))
    return [p.double() if p.is_floating_point() else p for p in theta]


def some_weights(copies=2, rows=12):
    return torch.rand(copies, rows, generator=generator(4), dtype=torch.float64).round(decimals=1) * 2


def close(one, other, **tolerance):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def plain(predictor, theta, classes):
    """A torch module of one copy with the state of the first."""
    module = predictor.architecture(copies=1, image=IMAGE, outputs=classes or 1).double()
    tensors = [*module.parameters(), *module.buffers()]
    for tensor, value in zip(tensors, theta, strict=False):
        tensor.data.copy_(value[0])
    return module


def plain_loss(outputs, target, weights):
    """The weighted mean loss, row by row."""
    total = 0
    for row, (out, aim) in enumerate(zip(outputs, target, strict=True)):
        loss = F.cross_entropy(out, aim.argmax()) if len(aim) > 1 else 0.5 * (out - aim).square().sum()
        total = total + weights[row] * loss
    return total / max(weights.sum().item(), 1)


def test_it_is_a_predictor():
    predictor = network()
    assert isinstance(predictor, Predictor)
    assert predictor.tensors
    assert (predictor.name, network(TINY["resnet"]).name, network(TINY["wide"]).name) == ("cnn", "resnet8", "wrn10_1")


@every
@both_tasks
@both_optimizers
def test_fits_are_those_of_plain_torch(architecture, classes, optimizer):
    """Module, optimiser and rate as one would write them for a single network."""
    predictor = network(architecture, classes, optimizer=optimizer, nesterov=optimizer == "sgd", milestones=[2, 3])
    x, target = problem(classes)
    weights, theta = some_weights(1), start(predictor, classes, 1)
    found = predictor.fit(x, target, weights, theta, 4, generator())

    module = plain(predictor, theta, classes).train()
    if optimizer == "sgd":
        own = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
    else:
        own = torch.optim.Adam(module.parameters(), 0.05, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.MultiStepLR(own, [2, 3], gamma=0.1)
    for _ in range(4):
        own.zero_grad()
        plain_loss(module(x.view(-1, *IMAGE))[:, 0], target, weights[0]).backward()
        own.step()
        schedule.step()
    state = [*module.parameters(), *module.buffers()]
    close([p[0] for p in found[: len(state)]], [p.detach() for p in state], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(predictor.outputs(found, x)[:, 0], module.eval()(x.view(-1, *IMAGE))[:, 0].detach())
    assert found[-1].tolist() == [4]


@every
@pytest.mark.parametrize("augment", [False, True])
def test_many_fits_at_once_are_as_many_separate_fits(architecture, augment):
    predictor = network(architecture, batch_size=5, augment=augment)
    (x, target), weights = problem(), some_weights(3)
    together = predictor.fit(x, target, weights, start(predictor, copies=3), 6, generator(1))
    outputs = predictor.outputs(together, x)
    assert outputs.shape == (12, 3, 3)
    for g in range(3):
        alone = predictor.fit(x, target, weights[g : g + 1], start(predictor, copies=1), 6, generator(1))
        close([p[g] for p in together], [p[0] for p in alone])
        torch.testing.assert_close(outputs[:, g], predictor.outputs(alone, x)[:, 0])
    assert (outputs[:, 0] - outputs[:, 1]).abs().max() > 1e-4


@every
@pytest.mark.parametrize("copies_at_once", [1, 2, 5])
def test_memory_bounds_change_nothing(architecture, copies_at_once, monkeypatch):
    options = {"batch_size": 5, "augment": True}
    whole, parts = network(architecture, **options), network(architecture, copies_at_once=copies_at_once, **options)
    (x, target), weights = problem(), some_weights(5)
    rngs = generator(1), generator(1)
    one = whole.fit(x, target, weights, start(whole, copies=5), 4, rngs[0])
    other = parts.fit(x, target, weights, start(parts, copies=5), 4, rngs[1])
    close(one, other)
    assert torch.equal(rngs[0].get_state(), rngs[1].get_state()), "what is drawn afterwards is the same too"
    expected = whole.outputs(one, x)
    monkeypatch.setattr(networks, "ROWS_AT_ONCE", 7)
    torch.testing.assert_close(parts.outputs(one, x), expected)


@every
@both_optimizers
def test_a_fit_goes_on_where_the_last_one_stopped(architecture, optimizer):
    """Momentum, statistics and the learning rate carry over, so two halves are a whole."""
    predictor = network(architecture, optimizer=optimizer, batch_size=5, milestones=[2, 4], augment=True)
    (x, target), weights, rng = problem(), some_weights(), generator(1)
    half = predictor.fit(x, target, weights, start(predictor), 3, rng)
    found = predictor.fit(x, target, weights, half, 3, rng)
    close(found, predictor.fit(x, target, weights, start(predictor), 6, generator(1)), rtol=0, atol=0)
    assert found[-1].tolist() == [6, 6]
    fresh = [*half[: len(predictor.names)], *start(predictor)[len(predictor.names) :]]
    other = predictor.fit(x, target, weights, fresh, 3, generator(2))
    known = predictor.fit(x, target, weights, half, 3, generator(2))
    assert (other[0] - known[0]).abs().max() > 1e-4, "what carries over matters"


def test_rates_fall_to_a_tenth_after_each_milestone():
    predictor = network(milestones=[2, 5])
    assert [predictor.learning_rate_at(step) for step in (0, 1, 2, 4, 5, 9)] == pytest.approx(
        [0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005]
    )


@every
def test_a_fit_leaves_its_start_alone(architecture):
    predictor = network(architecture)
    x, target = problem()
    begin = start(predictor)
    before = [p.clone() for p in begin]
    found = predictor.fit(x, target, some_weights(), begin, 2, generator())
    for old, kept, new in zip(begin, before, found, strict=True):
        assert torch.equal(old, kept)
        assert not torch.equal(old, new)
        assert new.shape == old.shape
        assert not new.requires_grad


@every
def test_copies_start_alike_but_share_no_storage(architecture):
    predictor = network(architecture)
    theta, state = predictor.initial(36, 3, 3, generator()), torch.get_rng_state()
    close(theta, predictor.initial(36, 3, 3, generator()), rtol=0, atol=0)
    for p in theta:
        assert p.shape[0] == 3
        assert torch.equal(p[0], p[2])
        before = p[1].clone()
        p[0] += 1
        assert torch.equal(p[1], before)
    assert len({p.untyped_storage().data_ptr() for p in theta}) == len(theta)
    assert torch.equal(torch.get_rng_state(), state), "the global stream is left alone"
    assert not torch.equal(theta[0][1], predictor.initial(36, 3, 3, generator(1))[0][1])


def test_zero_weight_is_absence_without_batch_normalisation_and_no_selection_changes_nothing():
    predictor = network(weight_decay=0.0)
    (x, target), kept = problem(), (some_weights(1)[0] > 1)
    begin = start(predictor, copies=1)
    weighted = predictor.fit(x, target, kept.double().unsqueeze(0), begin, 4, generator())
    rows = kept.nonzero()[:, 0]
    ones = torch.ones(1, len(rows), dtype=torch.float64)
    close(weighted, predictor.fit(x[rows], target[rows], ones, begin, 4, generator()))
    nothing = predictor.fit(x, target, torch.zeros(1, 12, dtype=torch.float64), begin, 4, generator())
    close(nothing[:-1], begin[:-1], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet", "wide"])
def test_rows_of_weight_zero_enter_the_statistics_of_batch_normalisation(name):
    predictor = network(TINY[name])
    (x, target), weights = problem(), some_weights(1)
    weights[0, 0] = 0
    other = x.clone()
    other[0] += 3
    begin = start(predictor, copies=1)
    one, two = (predictor.fit(rows, target, weights, begin, 1, generator()) for rows in (x, other))
    assert (one[0] - two[0]).abs().max() > 1e-6


@both_tasks
def test_the_loss_of_a_selection_is_its_weighted_mean(classes):
    _, target = problem(classes)
    outputs = torch.randn(12, 2, classes or 1, generator=generator(), dtype=torch.float64)
    weights = some_weights()
    weights[1] *= 0.01  # sums to less than 1: not scaled up
    expected = torch.stack([plain_loss(outputs[:, g], target, weights[g]) for g in range(2)])
    torch.testing.assert_close(weighted_losses(outputs, target, weights), expected)
    assert weights[1].sum() < 1


@every
def test_training_outputs_are_those_of_a_training_step(architecture):
    predictor = network(architecture)
    (x, target), weights = problem(), some_weights()
    theta = start(predictor)
    before = [p.clone() for p in theta]
    parameters = [p.requires_grad_() for p in predictor.trainable(theta)]
    outputs = predictor.training_outputs(parameters, x)
    close([p.detach() for p in theta], before, rtol=0, atol=0)
    module = plain(predictor, theta, 3).train()
    torch.testing.assert_close(outputs[:, 1], module(x.view(-1, *IMAGE))[:, 0])
    gradients = torch.autograd.grad(weighted_losses(outputs, target, weights).sum(), parameters)
    simple = network(architecture, momentum=0.0, weight_decay=0.0)
    after = simple.fit(x, target, weights, [p.detach() for p in theta], 1, generator())
    close(simple.trainable(after), [p.detach() - 0.05 * g for p, g in zip(parameters, gradients, strict=True)])


@every
def test_outputs_can_be_differentiated_by_the_parameters(architecture):
    """The derivative along a direction: backward, forward, and by differences."""
    predictor = network(architecture)
    x, _ = problem()
    theta = start(predictor, copies=1)
    rng = generator(6)
    direction = [torch.randn(p.shape, generator=rng, dtype=torch.float64) for p in predictor.trainable(theta)]
    aim = torch.randn(12, 1, 3, generator=rng, dtype=torch.float64)
    count = len(direction)
    for outputs in (predictor.outputs, predictor.training_outputs):

        def value(*parameters, outputs=outputs):
            return (outputs([*parameters, *theta[count:]], x) * aim).sum()

        at = [p.clone().requires_grad_() for p in theta[:count]]
        gradients = torch.autograd.grad(value(*at), at)
        backward = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
        _, forward = torch.func.jvp(value, tuple(theta[:count]), tuple(direction))
        size = 1e-6
        up, down = (
            value(*(p + sign * size * d for p, d in zip(theta[:count], direction, strict=True))) for sign in (1, -1)
        )
        torch.testing.assert_close(forward, backward)
        torch.testing.assert_close((up - down) / (2 * size), backward, rtol=1e-3, atol=1e-3)


def test_gradients_of_gradients_pass_through_batch_normalisation():
    predictor = network(TINY["resnet"])
    x, target = problem()
    parameters = [p.requires_grad_() for p in predictor.trainable(start(predictor, copies=1))]
    weights = some_weights(1).requires_grad_()

    def moved_loss(weights):
        losses = weighted_losses(predictor.training_outputs(parameters, x), target, weights)
        slopes = torch.autograd.grad(losses.sum(), parameters, create_graph=True)
        moved = [p - 0.1 * g for p, g in zip(parameters, slopes, strict=True)]
        return weighted_losses(predictor.training_outputs(moved, x), target, torch.ones_like(weights)).sum()

    (found,) = torch.autograd.grad(moved_loss(weights), weights)
    bump = torch.zeros_like(weights)
    bump[0, 4] = 1e-5
    difference = (moved_loss(weights + bump) - moved_loss(weights - bump)) / 2e-5
    torch.testing.assert_close(found[0, 4], difference.detach(), rtol=1e-4, atol=1e-7)


def test_augmented_images_are_mirrored_and_shifted_copies():
    """Every result must be one of the 2 x 81 cuts of its own image, and all of them must come up."""
    image = torch.arange(1.0, 13.0).view(1, 1, 3, 4)
    padded = F.pad(image, (4, 4, 4, 4))
    cuts = [padded[0, 0, top : top + 3, left : left + 4] for top in range(9) for left in range(9)]
    known = {tuple(c.flatten().tolist()) for cut in cuts for c in (cut, cut.flip(1))}
    found = flip_and_crop(image.repeat(4000, 2, 1, 1), generator())
    assert torch.equal(found[:, 0], found[:, 1]), "channels move together"
    assert {tuple(row.tolist()) for row in found[:, 0].flatten(1)} == known
    second = torch.stack([image[0], -image[0]]).repeat(50, 1, 1, 1)
    signs = flip_and_crop(second, generator()).sum((1, 2, 3)).sign()
    assert (signs[::2] >= 0).all()
    assert (signs[1::2] <= 0).all()


def test_a_fit_of_one_step_sees_what_augmented_returns():
    augmenting, plain_one = network(augment=True), network()
    (x, target), weights = problem(), some_weights()
    found = augmenting.fit(x, target, weights, start(augmenting), 1, generator(5))
    images = augmenting.augmented(x, generator(5))
    assert not torch.equal(images, x)
    close(found, plain_one.fit(images, target, weights, start(plain_one), 1, generator()), rtol=0, atol=0)
    assert plain_one.augmented(x, generator(5)) is x


def test_tables_are_refused_in_a_sentence():
    table = DataSpec("adult", "classification", "table", (36,), ("a", "b"))
    with pytest.raises(UserError, match="cnn reads images and dataset=adult is a table"):
        network().bind(table)


def test_a_network_that_cannot_be_built_is_refused_in_a_sentence():
    with pytest.raises(UserError, match=r"predictor\.architecture\.width=0 cannot be used"):
        network(functools.partial(WideResNet, depth=10, width=0))
    with pytest.raises(UserError, match=r"predictor\.architecture\.depth=9 cannot be used"):
        network(functools.partial(ResNet, depth=9))


def test_nesterov_needs_momentum():
    with pytest.raises(UserError, match="nesterov=true needs"):
        network(momentum=0.0, nesterov=True)


def stripes(rows=60, seed=0):
    """Classes are where a bright bar lies, anywhere along the other axis."""
    rng = generator(seed)
    x = 0.3 * torch.randn(rows, 1, 6, 6, generator=rng)
    y = torch.arange(rows) % 3
    for row in range(rows):
        x[row, 0, 2 * y[row] : 2 * y[row] + 2] += 1
    return Split(x, y)


LEARNERS = {
    "cnn": ("adam", 0.01, 30),
    "resnet": ("sgd", 0.05, 30),
    "wide": ("sgd", 0.05, 30),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_separable_problem_is_learned(name):
    optimizer, rate, steps = LEARNERS[name]
    data = stripes()
    predictor = network(TINY[name], optimizer=optimizer, learning_rate=rate, weight_decay=0.0, batch_size=32)
    x = data.x.flatten(1)
    theta = predictor.initial(36, 3, 2, generator())
    weights = torch.stack([torch.ones(60), (data.y != 2).float()])
    theta = predictor.fit(x, one_hot(data.y, 3), weights, theta, steps, generator())
    right = (predictor.outputs(theta, x).argmax(-1) == data.y.unsqueeze(1)).float()
    assert right[:, 0].mean() > 0.9
    assert right[data.y == 2, 1].mean() < 0.2, "a class without weight is not learned"


@pytest.mark.parametrize("init", ["reset", "continue"])
def test_dvrl_trains_with_a_network_and_keeps_its_state(init):
    split = stripes(120)
    source = Source(DataSpec("toy", "classification", "image", IMAGE, tuple("abc")), split)
    sizes = {"train_size": 40, "validation_size": 30, "test_size": 20}
    data = ValuationData(source, seed=0, removal_curves=False, noise_rate=0.2, scaling="none", **sizes)
    predictor = network(TINY["resnet"], batch_size=8, final_steps=4)
    module = fit(small_dvrl(data, predictor=predictor, predictor_init=init), data)
    taken = SimpleNamespace(**{name: buffer for name, buffer in module.named_buffers() if name.startswith("theta")})
    counter = getattr(taken, module.theta_names[-1])
    assert counter.tolist() == [12 if init == "continue" else 0] * 4  # 4 outer steps of 3
    metrics = module.final_metrics(data)
    assert 0 <= metrics["weighted/test_accuracy"] <= 1
    assert "reference/fine_tuned" in metrics
