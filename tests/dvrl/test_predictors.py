"""Predictors fitted many at once, against one at a time, autograd, torch's Adam and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dvrl_tasks import generator, quick, table
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from reprise.papers.dvrl import predictors
from reprise.papers.dvrl.predictors import MLP, Adam, Linear, Predictor, one_hot, predictions, residual, row_size

SIZES = {"steps": 5, "final_steps": 9}


def linear(**changes):
    return Linear(**(SIZES | {"learning_rate": 1.0, "l2": 1e-2} | changes))


def mlp(**changes):
    return MLP(**(SIZES | {"learning_rate": 0.02, "l2": 1e-2, "hidden": [6, 5]} | changes))


both = pytest.mark.parametrize("make", [linear, mlp])
both_tasks = pytest.mark.parametrize("classes", [0, 3])


def problem(classes, rows=24, features=4):
    """Inputs whose rows all have the same absolute sum, so that Linear's step size is the same for any subset."""
    drawn = table(rows, classes, features)
    x = F.normalize(drawn.x.double(), p=1, dim=1) * 3
    y = drawn.y if classes else (drawn.y - drawn.y.mean()) / drawn.y.std()
    return x, one_hot(y, classes).double()


def start(predictor, x, target, copies):
    """Initial parameters in double precision, off zero, where balanced classes have gradients of rounding only."""
    theta = predictor.initial(x.shape[1], target.shape[1], copies, generator(3))
    rng, axis = generator(4), 1 if isinstance(predictor, Linear) else 0
    moved = []
    for p in theta:
        copy_axis = axis if p.dim() == 3 else 0
        shape = [1 if dim == copy_axis else size for dim, size in enumerate(p.shape)]
        moved.append(p.double() + 0.3 * torch.randn(shape, generator=rng, dtype=torch.float64))
    return moved


def some_weights(rows, rng=None):
    """Three 0/1 selections of different sizes and one of soft weights."""
    rng = rng or generator(7)
    draw = torch.rand(4, rows, generator=rng, dtype=torch.float64)
    return torch.cat([(draw[:3] < torch.tensor([[0.2], [0.5], [0.9]])).double(), draw[3:]])


def weighted_loss(outputs, target, weights, classes):
    """Sum over selections of the weighted mean loss, written the plain way."""
    total = torch.zeros((), dtype=outputs.dtype)
    for g in range(len(weights)):
        out = outputs[:, g]
        loss = -(target * out.log_softmax(-1)).sum(1) if classes else 0.5 * (out - target).square().sum(1)
        total = total + (weights[g] * loss).sum() / weights[g].sum()
    return total


def decayed(predictor, theta):
    """The parameters that L2 applies to: coefficients, not intercepts."""
    return [theta[0][..., :-1]] if isinstance(predictor, Linear) else theta[::2]


@both
@both_tasks
@pytest.mark.parametrize("batch_size", [None, 5])
def test_many_fits_at_once_are_as_many_separate_fits(make, classes, batch_size):
    predictor = make(batch_size=batch_size)
    x, target = problem(classes)
    weights = some_weights(len(x))
    together = predictor.fit(x, target, weights, start(predictor, x, target, 4), 12, generator(1))
    outputs = predictor.outputs(together, x)
    assert outputs.shape == (24, 4, classes or 1)
    for g in range(4):
        alone = predictor.fit(x, target, weights[g : g + 1], start(predictor, x, target, 1), 12, generator(1))
        torch.testing.assert_close(outputs[:, g], predictor.outputs(alone, x)[:, 0], rtol=1e-8, atol=1e-8)
    assert (outputs[:, 0] - outputs[:, 1]).abs().max() > 1e-3


@both
@both_tasks
@pytest.mark.parametrize("steps", [20, 100])
def test_single_precision_agrees_with_double(make, classes, steps):
    predictor = make()
    x, target = problem(classes)
    weights = some_weights(len(x))
    theta = start(predictor, x, target, 4)
    double = predictor.outputs(predictor.fit(x, target, weights, theta, steps, generator()), x)
    singles = [[p.float() for p in theta], x.float(), target.float(), weights.float()]
    fitted = predictor.fit(singles[1], singles[2], singles[3], singles[0], steps, generator())
    torch.testing.assert_close(predictor.outputs(fitted, singles[1]).double(), double, rtol=1e-3, atol=1e-3)


@both
@both_tasks
def test_gradient_is_autograds(make, classes, monkeypatch):
    predictor = make(l2=0.3)
    x, target = problem(classes)
    weights = some_weights(len(x))
    seen = []
    monkeypatch.setattr(predictors.Adam, "step", lambda self, theta, gradients: seen.append(gradients))
    theta = start(predictor, x, target, 4)
    predictor.fit(x, target, weights, theta, 1, generator())
    theta = [p.requires_grad_() for p in theta]
    loss = weighted_loss(predictor.outputs(theta, x), target, weights, classes)
    loss = loss + 0.15 * sum(p.square().sum() for p in decayed(predictor, theta))
    for found, expected in zip(seen[0], torch.autograd.grad(loss, theta), strict=True):
        torch.testing.assert_close(found, expected)


@both_tasks
def test_residual_is_the_derivative_of_the_weighted_loss(classes):
    _, target = problem(classes)
    weights = some_weights(24)
    outputs = torch.randn(24, 4, classes or 1, generator=generator(), dtype=torch.float64).requires_grad_()
    (expected,) = torch.autograd.grad(weighted_loss(outputs, target, weights, classes), outputs)
    found = residual(outputs.detach().permute(2, 1, 0), target.T, predictors.shares(weights), bool(classes))
    torch.testing.assert_close(found.permute(2, 1, 0), expected)


def test_residual_by_hand():
    # p = (3/4, 1/4) and (1/2, 1/2); the second row has three quarters of the first selection's weight
    outputs = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]]).unsqueeze(1).expand(2, 2, 2)
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    share = predictors.shares(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    assert share.tolist() == [[0.25, 0.75], [0.0, 0.0]]
    found = residual(outputs, target, share, True)
    by_hand = [[-0.25 * 0.25, 0.5 * 0.75], [0.25 * 0.25, -0.5 * 0.75]]
    torch.testing.assert_close(found[:, 0], torch.tensor(by_hand))
    assert not found[:, 1].any()
    assert residual(outputs, target, share, False)[:, 0].tolist() == [
        [pytest.approx((math.log(3) - 1) / 4), 0.0],
        [0.0, pytest.approx(-0.75)],
    ]


def plain_fit(x, target, weights, learning_rate, l2, steps):
    """One selection's coefficients ``[d, C]`` and intercepts, as autograd and torch's Adam find them."""
    slope = torch.zeros(x.shape[1], target.shape[1], dtype=x.dtype, requires_grad=True)
    intercept = torch.zeros(target.shape[1], dtype=x.dtype, requires_grad=True)
    adam = torch.optim.Adam([slope, intercept], lr=learning_rate / row_size(x))
    for step in range(1, steps + 1):
        adam.param_groups[0]["eps"] = 1e-8 / math.sqrt(1 - 0.999**step)  # ours is added before the bias correction
        outputs = x @ slope + intercept
        loss = weighted_loss(outputs.unsqueeze(1), target, weights.unsqueeze(0), target.shape[1] > 1)
        adam.zero_grad()
        (loss + l2 / 2 * slope.square().sum()).backward()
        adam.step()
    return slope.detach(), intercept.detach()


@quick
@given(
    rows=st.integers(3, 40),
    features=st.integers(1, 12),
    outputs=st.integers(1, 11),
    selections=st.integers(1, 9),
    steps=st.sampled_from([1, 20, 100]),
    seed=st.integers(0, 1000),
)
def test_linear_is_a_plain_loop_of_autograd_and_torchs_adam(rows, features, outputs, selections, steps, seed):
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.normal(size=(rows, features)))
    drawn = torch.tensor(rng.integers(outputs, size=rows) if outputs > 1 else rng.normal(size=rows))
    target = one_hot(drawn, outputs if outputs > 1 else 0).double()
    weights = torch.tensor(rng.random((selections, rows)))
    weights[::2] = (weights[::2] < 0.5).double()
    weights[:, rng.integers(rows)] = 1  # nobody selects nothing
    predictor = linear(learning_rate=0.7, l2=0.01)
    begin = [p.double() for p in predictor.initial(features, target.shape[1], selections, generator())]

    (found,) = predictor.fit(x, target, weights, begin, steps, generator())
    for g in range(selections):
        slope, intercept = plain_fit(x, target, weights[g], 0.7, 0.01, steps)
        torch.testing.assert_close(found[:, g, :-1].T, slope, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found[:, g, -1], intercept, rtol=1e-6, atol=1e-6)


@both
@both_tasks
def test_zero_weight_is_absence(make, classes):
    predictor = make()
    x, target = problem(classes)
    kept = some_weights(len(x))[1:2] > 0
    weighted = predictor.fit(x, target, kept.double(), start(predictor, x, target, 1), 15, generator())
    rows = kept[0].nonzero()[:, 0]
    ones = torch.ones(1, len(rows), dtype=torch.float64)
    dropped = predictor.fit(x[rows], target[rows], ones, start(predictor, x, target, 1), 15, generator())
    torch.testing.assert_close(predictor.outputs(weighted, x), predictor.outputs(dropped, x))


@both
def test_a_selection_of_nothing_or_of_one_class_stays_finite(make):
    predictor = make(l2=0.0)
    x, target = problem(3)
    weights = torch.stack([torch.zeros(24, dtype=torch.float64), target[:, 1]])
    begin = start(predictor, x, target, 2)
    outputs = predictor.outputs(predictor.fit(x, target, weights, begin, 40, generator()), x)
    assert outputs.isfinite().all()
    assert torch.equal(outputs[:, 0], predictor.outputs(begin, x)[:, 0])
    assert (outputs[target[:, 1] == 1, 1].argmax(-1) == 1).all()


@both
def test_a_fit_takes_its_fixed_number_of_steps_whatever_the_rows(make, monkeypatch):
    predictor = make()
    x, target = problem(3)
    ones = torch.ones(1, 24, dtype=torch.float64)
    begin = start(predictor, x, target, 1)
    once = predictor.fit(x, target, ones, begin, 10, generator())
    twice = predictor.fit(x.repeat(2, 1), target.repeat(2, 1), ones.repeat(1, 2), begin, 10, generator())
    for a, b in zip(once, twice, strict=True):
        torch.testing.assert_close(a, b)

    taken = []
    monkeypatch.setattr(predictors.Adam, "step", lambda self, *args: taken.append(1))
    for batch_size, rows in ((None, 24), (4, 24), (4, 8), (100, 24)):
        taken.clear()
        make(batch_size=batch_size).fit(x[:rows], target[:rows], ones[:, :rows], begin, 7, generator())
        assert len(taken) == 7


def test_batches_are_drawn_afresh_from_all_rows():
    drawn = torch.stack(predictors.batches(10, 4, 300, generator()))
    assert drawn.shape == (300, 4)
    assert not torch.equal(drawn[0], drawn[1])
    assert drawn.unique().tolist() == list(range(10))
    assert predictors.batches(10, 10, 3, generator()) == predictors.batches(10, None, 3, generator()) == [None] * 3


@both
def test_copies_start_alike_but_share_no_storage(make):
    predictor = make()
    theta = predictor.initial(4, 3, 3, generator())
    axis = 1 if isinstance(predictor, Linear) else 0
    for p in theta:
        copies = p.unbind(axis)
        assert torch.equal(copies[0], copies[1])
        assert torch.equal(copies[0], copies[2])
        before = copies[1].clone()
        copies[0].add_(1)
        assert torch.equal(copies[1], before)
    assert len({p.untyped_storage().data_ptr() for p in theta}) == len(theta)


@both
@both_tasks
def test_a_fit_leaves_its_start_alone(make, classes):
    predictor = make()
    x, target = problem(classes)
    begin = start(predictor, x, target, 2)
    before = [p.clone() for p in begin]
    fitted = predictor.fit(x, target, torch.ones(2, 24, dtype=torch.float64), begin, 5, generator())
    for old, kept, new in zip(begin, before, fitted, strict=True):
        assert torch.equal(old, kept)
        assert new.untyped_storage().data_ptr() != old.untyped_storage().data_ptr()
        assert not torch.equal(new, old)
        assert not new.requires_grad


@both
def test_refitting_from_the_same_start_forgets_the_last_fit(make):
    predictor = make()
    x, target = problem(3)
    begin = start(predictor, x, target, 1)
    first, again = (
        predictor.fit(x, target, torch.ones(1, 24, dtype=torch.float64), begin, 5, generator()) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_adam_is_torchs_adam():
    rng = generator()
    ours = [torch.randn(3, 4, generator=rng, dtype=torch.float64), torch.randn(2, generator=rng, dtype=torch.float64)]
    theirs = [p.clone().requires_grad_() for p in ours]
    adam = Adam(0.05)
    adam.start(ours)
    reference = torch.optim.Adam(theirs, lr=0.05)
    for _ in range(20):
        gradients = [torch.randn(p.shape, generator=rng, dtype=torch.float64) for p in ours]
        adam.step(ours, gradients)
        for p, g in zip(theirs, gradients, strict=True):
            p.grad = g
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-6, atol=1e-6)


def test_mlp_starts_glorot_uniform():
    theta = mlp(hidden=[100, 80]).initial(30, 3, 2, generator())
    assert [tuple(p.shape) for p in theta] == [
        *((2, 30, 100), (2, 1, 100), (2, 100, 80), (2, 1, 80)),
        *((2, 80, 3), (2, 1, 3)),
    ]
    for weight, bias in zip(theta[::2], theta[1::2], strict=True):
        bound = math.sqrt(6 / (weight.shape[1] + weight.shape[2]))
        assert 0.95 * bound < weight.abs().max() <= bound
        assert bias.abs().max() == 0


def test_mlp_outputs_are_those_of_torch_modules():
    predictor = mlp()
    x, target = problem(3)
    theta = [torch.randn(p.shape, generator=generator(4), dtype=p.dtype) for p in start(predictor, x, target, 2)]
    hidden = [x, x]
    for layer in range(3):
        w, b = theta[2 * layer], theta[2 * layer + 1]
        hidden = [F.linear(h, w[g].T, b[g, 0]) for g, h in enumerate(hidden)]
        hidden = [h.relu() for h in hidden] if layer < 2 else hidden
    torch.testing.assert_close(predictor.outputs(theta, x), torch.stack(hidden, 1))


def long_fit(classes, l2, x, target, weights=None):
    predictor = linear(learning_rate=0.05, l2=l2)
    weights = torch.ones(1, len(x), dtype=torch.float64) if weights is None else weights
    begin = [p.double() for p in predictor.initial(x.shape[1], target.shape[1], 1, generator())]
    (theta,) = predictor.fit(x, target, weights, begin, 4_000, generator())
    return theta[:, 0, :-1].T, theta[:, 0, -1]


def test_a_long_fit_is_scikit_learns_logistic_regression():
    drawn = table(90, 3, 4, seed=2, spread=1.0)
    x, target, l2 = drawn.x.double() + 2, one_hot(drawn.y, 3).double(), 0.02
    slope, intercept = long_fit(3, l2, x, target)
    # C multiplies the sum of the losses, l2 the penalty of their mean
    reference = LogisticRegression(C=1 / (90 * l2), tol=1e-10, max_iter=5_000).fit(x, drawn.y)
    np.testing.assert_allclose(slope.T, reference.coef_, atol=2e-3)
    theirs = reference.intercept_ - reference.intercept_.mean()
    np.testing.assert_allclose(intercept - intercept.mean(), theirs, atol=5e-3)
    assert np.abs(theirs).max() > 0.5


def test_a_long_weighted_fit_is_scikit_learns_with_sample_weights():
    drawn = table(60, 3, 3, seed=3, spread=1.0)
    x, target, l2 = drawn.x.double(), one_hot(drawn.y, 3).double(), 0.05
    weights = some_weights(60)[3:]
    slope, _ = long_fit(3, l2, x, target, weights)
    reference = LogisticRegression(C=1 / (weights.sum().item() * l2), tol=1e-10, max_iter=5_000)
    reference.fit(x, drawn.y, sample_weight=weights[0])
    np.testing.assert_allclose(slope.T, reference.coef_, atol=2e-3)


def test_a_long_regression_fit_is_ridge_in_closed_form():
    drawn = table(50, 0, 3, seed=4)
    x, y, l2 = drawn.x.double() + 1, drawn.y.double() / 10, 0.1
    slope, intercept = long_fit(0, l2, x, y.unsqueeze(1))
    centred = x - x.mean(0)
    by_hand = torch.linalg.solve(centred.T @ centred / 50 + l2 * torch.eye(3), centred.T @ (y - y.mean()) / 50)
    torch.testing.assert_close(slope[:, 0], by_hand, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(intercept[0], y.mean() - x.mean(0) @ by_hand, rtol=1e-3, atol=1e-3)


def test_linears_first_step_moves_outputs_by_the_learning_rate_at_most():
    # Adam's first step moves every coefficient by its step size, so an output by that times the row's absolute sum + 1
    x, target = problem(3)
    assert row_size(x) == pytest.approx(4)
    for scale in (1, 100):
        predictor = linear(l2=0.0, learning_rate=0.5)
        begin = [p.double() for p in predictor.initial(4, 3, 1, generator())]
        fitted = predictor.fit(x * scale, target, torch.ones(1, 24, dtype=torch.float64), begin, 1, generator())
        size, slope = 0.5 / (3 * scale + 1), fitted[0][..., :-1]
        torch.testing.assert_close(slope.abs(), torch.full_like(slope, size), rtol=1e-3, atol=0)
        assert predictor.outputs(fitted, x * scale).abs().max() <= 0.5 + 1e-9


def test_targets_and_predictions():
    assert one_hot(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert one_hot(torch.tensor([0, 0]), 3).shape == (2, 3)  # the width does not depend on the labels present
    assert one_hot(torch.tensor([1.5, 2.5]), 0).tolist() == [[1.5], [2.5]]
    outputs = torch.tensor([[0.0, math.log(3)]])
    assert predictions(outputs, 2)[0].tolist() == pytest.approx([0.25, 0.75])
    assert predictions(outputs, 0) is outputs


@both
def test_both_are_predictors_and_refuse_impossible_sizes(make):
    assert isinstance(make(), Predictor)
    for wrong in ({"steps": 0}, {"learning_rate": 0.0}, {"l2": -1.0}, {"batch_size": 0}):
        with pytest.raises(ValidationError):
            make(**wrong)
