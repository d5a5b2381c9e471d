"""Learning to reweight: the weights against their definition, the steps by hand, and what a whole run gives."""

from __future__ import annotations

import math

import harness
import pytest
import torch
from dvrl_tasks import fit, generator, quick, silent, small_data, source_of
from hypothesis import given
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from reprise import callbacks
from reprise.data.base import DataSpec, Source, Split
from reprise.errors import UserError
from reprise.papers.dvrl import reweighting
from reprise.papers.dvrl.architectures import GroupedLinear, conv, norm
from reprise.papers.dvrl.datamodule import ValuationData
from reprise.papers.dvrl.estimators import Estimator
from reprise.papers.dvrl.networks import Network
from reprise.papers.dvrl.predictors import MLP, Linear, one_hot
from reprise.papers.dvrl.reweighting import (
    LearningToReweight,
    drawn_rows,
    gains,
    normalised,
    row_losses,
    weighted_gradient,
)

IMAGE = (1, 6, 6)


def linear(**changes):
    return Linear(**({"steps": 3, "final_steps": 30, "learning_rate": 1.0, "l2": 1e-3} | changes))


def mlp(**changes):
    return MLP(**({"steps": 3, "final_steps": 30, "learning_rate": 0.01, "l2": 1e-3, "hidden": [5, 4]} | changes))


class Tiny(nn.Module):
    """A convolution with batch normalisation, then a linear layer."""

    def __init__(self, copies, image, outputs):
        super().__init__()
        self.name = "tiny"
        self.conv, self.norm = conv(copies, image[0], 2, stride=2, first=True), norm(copies, 2)
        self.head = GroupedLinear(copies, 2 * (image[1] // 2) * (image[2] // 2), outputs)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().flatten(1))


def network(**changes):
    options = {"steps": 3, "final_steps": 6, "optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 1e-3}
    return Network(architecture=Tiny, **(options | changes))


def images(rows=60, train=24, validation=12):
    """Two classes of tiny images: bright above, or bright below."""
    y = torch.arange(rows) % 2
    x = 0.5 * torch.randn(rows, *IMAGE, generator=generator(3))
    x[y == 0, :, :3] += 1
    x[y == 1, :, 3:] += 1
    spec = DataSpec(name="toy", task="classification", kind="image", shape=IMAGE, classes=("a", "b"))
    source = Source(spec, Split(x, y), None, None)
    return ValuationData(
        source, seed=0, train_size=train, validation_size=validation, noise_rate=0.25, scaling="standard"
    )


def module(data, seed=0, predictor=None, **changes):
    options = {"steps": 4, "batch_size": 8, "validation_batch_size": None, "learning_rate": 0.3}
    return LearningToReweight(spec=data.spec, seed=seed, predictor=predictor or linear(), **(options | changes))


def ready(data, **changes):
    """A module that can be stepped without a trainer."""
    built = silent(module(data, **changes))
    built.prepare(data.task)
    return built


def problem(kind, classes, seed=0):
    """A predictor, random parameters and two batches, in double precision so that differences can be taken."""
    rng = generator(seed)
    width, features = classes or 1, math.prod(IMAGE)
    predictor = {"linear": linear, "mlp": mlp, "cnn": network}[kind]()
    names = tuple("abcde"[:classes])
    task, image = "classification" if classes else "regression", IMAGE if kind == "cnn" else ()
    predictor.bind(DataSpec(name="toy", task=task, kind="image", shape=(features,), classes=names, image=image))
    theta = predictor.initial(features, width, 1, rng)
    parameters = predictor.trainable(theta) if kind == "cnn" else theta
    parameters = [p.double() + 0.3 * torch.randn(p.shape, generator=rng).double() for p in parameters]

    def batch(rows):
        x = torch.randn(rows, features, generator=rng).double()
        y = torch.randint(width, (rows,), generator=rng) if classes else torch.randn(rows, generator=rng)
        return x, one_hot(y, classes).double()

    return predictor, parameters, batch(7), batch(5)


def after_virtual_step(predictor, parameters, batch, validation, eps, alpha):
    """L_val where a step of plain gradient descent on sum_i eps_i l_i leads; differentiable by eps."""
    at = [p.detach().requires_grad_() for p in parameters]
    weighted = (eps * row_losses(predictor, at, batch)).sum()
    slope = torch.autograd.grad(weighted, at, create_graph=True)
    return row_losses(predictor, [p - alpha * g for p, g in zip(at, slope, strict=True)], validation).mean()


KINDS = [("linear", 3), ("linear", 0), ("mlp", 3), ("mlp", 0), ("cnn", 2), ("cnn", 0)]


@pytest.mark.parametrize(("kind", "classes"), KINDS)
def test_gains_are_the_double_backward_through_the_virtual_step(kind, classes):
    predictor, parameters, batch, validation = problem(kind, classes)
    alpha, eps = 0.7, torch.zeros(7, dtype=torch.float64, requires_grad=True)
    loss = after_virtual_step(predictor, parameters, batch, validation, eps, alpha)
    (slope,) = torch.autograd.grad(loss, eps)
    u, losses, valid_loss = gains(predictor, parameters, batch, validation)
    torch.testing.assert_close(alpha * u, -slope)
    torch.testing.assert_close(losses, row_losses(predictor, parameters, batch))
    torch.testing.assert_close(valid_loss, loss.detach())
    assert u.abs().min() > 1e-6
    kept = (-slope).clamp_min(0)
    torch.testing.assert_close(normalised(u), kept / kept.sum())


@pytest.mark.parametrize(("kind", "classes"), KINDS)
def test_gains_are_what_the_validation_loss_falls_by(kind, classes):
    predictor, parameters, batch, validation = problem(kind, classes, seed=1)
    u = gains(predictor, parameters, batch, validation)[0]
    alpha, h = 0.1, 1e-5
    for i in range(7):
        up, down = (
            after_virtual_step(predictor, parameters, batch, validation, eps, alpha)
            for eps in (sign * h * torch.eye(7, dtype=torch.float64)[i] for sign in (1, -1))
        )
        assert -(up - down).item() / (2 * h) == pytest.approx(alpha * u[i].item(), rel=1e-4, abs=1e-8)


@quick
@given(st.integers(0, 10_000), st.sampled_from([0, 2, 4]))
def test_gains_of_a_linear_predictor_in_closed_form(seed, classes):
    predictor, parameters, (x, target), (x_valid, target_valid) = problem("linear", classes, seed)

    def delta(inputs, wanted):
        outputs = predictor.outputs(parameters, inputs)[:, 0]
        return (outputs.softmax(1) if classes else outputs) - wanted

    G = x_valid.T @ delta(x_valid, target_valid) / len(x_valid)
    g = delta(x_valid, target_valid).mean(0)
    expected = (delta(x, target) * (x @ G + g)).sum(1)
    found = gains(predictor, parameters, (x, target), (x_valid, target_valid))[0]
    torch.testing.assert_close(found, expected)


def test_gains_by_hand():
    """One input, from zero: p = 1/2; a right row pulls like the validation row, a wrong one against it."""
    theta = linear().initial(1, 2, 1, generator())
    x = torch.tensor([[1.0], [1.0], [3.0]])
    target = one_hot(torch.tensor([0, 1, 0]), 2)
    u, losses, valid_loss = gains(linear(), theta, (x, target), (x[:1], target[:1]))
    # delta = (-1/2, 1/2) for class 0, so u = 1/2 * (x x_valid + 1), with a minus for class 1
    torch.testing.assert_close(u, torch.tensor([1.0, -1.0, 2.0]))
    torch.testing.assert_close(losses, torch.full((3,), math.log(2)))
    assert valid_loss.item() == pytest.approx(math.log(2))
    torch.testing.assert_close(normalised(u), torch.tensor([1 / 3, 0.0, 2 / 3]))


def test_losses_of_numbers_are_half_the_squared_error():
    theta = linear().initial(1, 1, 1, generator())  # which predicts 0
    losses = row_losses(linear(), theta, (torch.tensor([[1.0], [0.0]]), torch.tensor([[3.0], [-2.0]])))
    assert losses.tolist() == [4.5, 2.0]


@quick
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9))
def test_weights_are_a_distribution_over_helpful_rows(u):
    u = torch.tensor(u, dtype=torch.float64)
    w = normalised(u)
    assert (w[u <= 0] == 0).all()
    assert (w >= 0).all()
    assert w.sum().item() == pytest.approx(float((u > 0).any()))
    torch.testing.assert_close(normalised(5 * u), w)  # so the virtual step's size does not matter


def test_weights_of_a_network_see_batch_statistics_of_their_own_batch():
    predictor, parameters, batch, validation = problem("cnn", 2)
    u = gains(predictor, parameters, batch, validation)[0]
    fewer = gains(predictor, parameters, (batch[0][:4], batch[1][:4]), validation)[0]
    assert not torch.allclose(u[:4], fewer)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("make", [linear, mlp])
def test_the_real_steps_objective_is_that_of_the_predictors_own_fits(make, classes):
    """Where a weighted fit ends, with a penalty that matters, the gradient of the real step vanishes."""
    task = small_data(classes=classes).task
    batch = task.x_train, one_hot(task.y_train, classes)
    f, rng = make(learning_rate=0.02, l2=0.1), generator()
    weights = torch.rand(30, generator=rng)
    theta = f.initial(4, classes or 1, 1, rng)
    fitted = f.fit(*batch, weights.unsqueeze(0), theta, 1500, rng)

    def slope(predictor, parameters, w):
        return max(p.abs().max().item() for p in weighted_gradient(predictor, parameters, batch, w))

    share = weights / weights.sum()
    assert slope(f, fitted, share) < 2e-3
    assert slope(f, theta, share) > 0.05
    assert slope(make(l2=0.0), fitted, share) > 0.02
    assert slope(f, fitted, torch.full((30,), 1 / 30)) > 0.02


def test_the_real_steps_are_adams_with_the_weights_of_each_moment():
    data = small_data()
    f = linear(learning_rate=2.0, l2=0.1)
    built = ready(data, predictor=f, batch_size=None, learning_rate=0.5)
    batch = data.task.x_train, one_hot(data.task.y_train, 3)
    valid = data.task.x_valid, one_hot(data.task.y_valid, 3)
    theta = [p.clone().requires_grad_() for p in built.trained()]
    size = 0.5 * 2.0 / (data.task.x_train.abs().sum(1).mean().item() + 1)
    adam = torch.optim.Adam(theta, lr=size)
    received = torch.zeros(30)
    for step in range(3):
        w = normalised(gains(f, theta, batch, valid)[0])
        adam.param_groups[0]["lr"] = size * (1 + math.cos(math.pi * step / 4)) / 2
        adam.zero_grad()
        ((w * row_losses(f, theta, batch)).sum() + 0.05 * theta[0][..., :-1].square().sum()).backward()
        adam.step()
        received += w * 30
        built.training_step(step)
        for found, expected in zip(built.trained(), theta, strict=True):
            torch.testing.assert_close(found, expected.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(built.ranking().float(), received / 3, atol=1e-3, rtol=1e-3)
    assert (int(built.updates), int(built.fits)) == (9, 1)


def changed_by(built, step):
    """Names of the buffers that a step changes."""
    before = {name: b.clone() for name, b in built.named_buffers()}
    built.training_step(step)
    return {name for name, b in built.named_buffers() if not torch.equal(b, before[name])}


def test_where_every_row_is_wrong_nothing_is_learned():
    x = torch.tensor([-1.0, 1.0]).repeat(20).unsqueeze(1)  # two points
    sizes = {"train_size": 10, "validation_size": 20, "noise_rate": 0.0, "scaling": "none"}
    data = ValuationData(source_of(Split(x, (x[:, 0] > 0).long()), 2), seed=0, **sizes)
    data.task.y_train.copy_(1 - data.task.y_train)
    built = ready(data, batch_size=None)
    logged = {}
    built.log_dict = lambda values, **_: logged.update(values)
    assert changed_by(built, 0) == {"drawn", "updates", "fits"}
    assert logged["train/zero_weight_share"] == 1
    assert logged["train/loss"] == 0
    assert built.ranking().tolist() == [0.0] * 10  # drawn, and found to be of no use


@pytest.mark.parametrize("f", [linear, mlp, network])
def test_a_step_without_weights_leaves_all_of_the_predictor_as_it_was(f, monkeypatch):
    built = ready(images(), predictor=f())
    assert "theta0" in changed_by(built, 0)
    original = reweighting.gains
    monkeypatch.setattr(reweighting, "gains", lambda *args: (-original(*args)[0].abs(), *original(*args)[1:]))
    assert changed_by(built, 1) == {"drawn", "updates"}


def test_a_value_is_the_mean_weight_of_the_steps_that_drew_the_row():
    built = ready(small_data(train=4, noise=0.0))
    assert built.ranking().tolist() == [1.0] * 4
    built.received.copy_(torch.tensor([3.0, 0.0, 0.0, 1.0]))
    built.drawn.copy_(torch.tensor([2, 1, 0, 2]))
    mean = (1.5 + 0.0 + 0.5) / 3
    assert built.ranking().tolist() == pytest.approx([1.5, 0.0, mean, 0.5])
    assert built.weights().tolist() == pytest.approx([1.0, 0.0, mean, 0.5])


def test_batches_are_drawn_afresh_without_replacement():
    built = ready(small_data(), batch_size=8, validation_batch_size=5, steps=6)
    for step in range(6):
        before = built.drawn.clone()
        built.training_step(step)
        assert sorted((built.drawn - before).unique().tolist()) == [0, 1]
        assert (built.drawn - before).sum() == 8
    assert built.drawn.max() < 6
    assert drawn_rows(5, None, generator()).tolist() == drawn_rows(5, 9, generator()).tolist() == [0, 1, 2, 3, 4]
    assert len(drawn_rows(50, 9, generator()).unique()) == 9
    assert not torch.equal(drawn_rows(50, 9, generator(0)), drawn_rows(50, 9, generator(1)))


@pytest.mark.parametrize("augment", [False, True])
def test_a_networks_real_step_is_its_own_with_the_weights_of_the_same_images(augment):
    f = network(augment=augment, momentum=0.5, milestones=[1])
    built = ready(images(), predictor=f, batch_size=10, validation_batch_size=6)
    seen, steps, original, fitting = [], [], f.augmented, f.fit
    f.augmented = lambda x, rng: seen.append(original(x, rng)) or seen[-1]
    f.fit = lambda x, t, w, theta, n, rng: (
        steps.append((x, t, w, [p.clone() for p in theta], n)) or fitting(x, t, w, theta, n, rng)
    )
    for step in range(2):
        built.training_step(step)
        x, target, weights, theta, count = steps[step]
        assert torch.equal(*seen[2 * step : 2 * step + 2])
        assert torch.equal(seen[0], steps[0][0]) != augment
        assert (count, weights.shape, len(x)) == (1, (1, 10), 10)
        assert weights.sum().item() == pytest.approx(1)
        if step == 0:  # plain gradient descent so far: nothing has gained momentum
            parameters = [p.requires_grad_() for p in f.trainable(theta)]
            loss = (weights[0] * row_losses(f, parameters, (seen[0], target))).sum()
            for p, g, new in zip(parameters, torch.autograd.grad(loss, parameters), built.trained(), strict=False):
                torch.testing.assert_close(new, (p - 0.05 * (g + 1e-3 * p)).detach(), atol=1e-6, rtol=1e-4)
                assert not torch.equal(new, p)
    assert built.trained()[-1].tolist() == [2]  # the network's own count, which its schedule follows
    statistics = dict(zip(f.names, built.trained(), strict=False))
    assert not torch.equal(statistics["norm.running_mean"], torch.zeros(1, 2))
    assert built.drawn.sum() == 20


@pytest.mark.parametrize("f", [linear, mlp, network])
def test_the_seed_decides_everything(f):
    data = images() if f is network else small_data()
    runs = [fit(module(data, seed=seed, predictor=f(), validation_batch_size=7), data) for seed in (1, 1, 2)]
    first, again, other = (run.state_dict() for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["received"], other["received"])
    assert runs[0].epochs * runs[0].steps_per_epoch == 4
    assert not any(b.requires_grad for b in runs[0].buffers())


@pytest.mark.parametrize("f", [linear(), mlp(hidden=[20])], ids=["linear", "mlp"])
def test_damaged_rows_weigh_less_and_harm_less(f):
    data = small_data(rows=400, train=120, validation=60, noise=0.4)
    built = fit(module(data, predictor=f, steps=100, batch_size=40, learning_rate=0.5), data)
    metrics = built.final_metrics(data)
    assert metrics["discovery/auroc"] > 0.85
    assert metrics["weighted/test_accuracy"] > metrics["reference/all"] + 0.02
    damaged = data.task.corrupted
    assert built.weights()[damaged].mean() < built.weights()[~damaged].mean() - 0.3
    assert (metrics["cost/predictor_updates"], metrics["cost/predictor_fits"]) == (300, 1)
    right = built.predictor.outputs(built.trained(), data.task.x_test)[:, 0].argmax(1) == data.task.y_test
    assert metrics["weighted/test_accuracy"] == pytest.approx(right.float().mean().item())


def test_damaged_images_weigh_less():
    data = images(200, train=80, validation=40)
    metrics = fit(module(data, predictor=network(learning_rate=0.1), steps=40, batch_size=20), data).final_metrics(data)
    assert metrics["discovery/auroc"] > 0.85
    assert all(math.isfinite(value) for value in metrics.values())


def test_damaged_numbers_harm_less():
    data = small_data(classes=0, rows=200, train=60, noise=0.3)
    f = linear(final_steps=200)
    metrics = fit(module(data, predictor=f, steps=100, batch_size=20), data).final_metrics(data)
    assert metrics["weighted/test_rmse"] < metrics["reference/all"] / 2
    assert all(math.isfinite(value) for value in metrics.values())


class Interrupted(callbacks.LastCheckpoint):
    def on_train_epoch_end(self, trainer, pl_module):
        super().on_train_epoch_end(trainer, pl_module)
        if pl_module.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("predictor", ["linear", "mlp", "cnn"])
def test_an_interrupted_run_ends_like_a_straight_one(tmp_path, monkeypatch, predictor):
    options = ("method.module.steps=51", f"predictor={predictor}", "method.module.validation_batch_size=10")
    straight = harness.run(harness.small("l2rw", tmp_path / "straight", *options))
    cfg = harness.small("l2rw", tmp_path / "stopped", *options)
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "LastCheckpoint", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            harness.run(cfg)
    assert harness.read(harness.folder_of(cfg) / "status.json")["state"] == "interrupted"
    stopped = harness.run(cfg)
    for name in ("data_values.csv", "metrics.csv", "removal_curve.csv"):
        assert (stopped / name).read_bytes() == (straight / name).read_bytes()
    assert harness.numbers(stopped) == harness.numbers(straight)


def test_a_predictor_without_gradient_is_refused():
    with pytest.raises(UserError, match="DecisionTreeClassifier has no gradient: use predictor=linear"):
        module(small_data(), predictor=Estimator(DecisionTreeClassifier()))


def test_a_network_with_smaller_batches_is_refused():
    with pytest.raises(UserError, match=r"method\.module\.batch_size: the 10 rows .*predictor\.batch_size=9"):
        module(images(), predictor=network(batch_size=9), batch_size=10)
    with pytest.raises(UserError, match="the 24 rows"):
        module(images(), predictor=network(batch_size=9), batch_size=None)
    assert ready(images(), predictor=network(batch_size=10), batch_size=10).tensors > 0
