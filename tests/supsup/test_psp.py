"""PSP: contexts, what is retrieved from a superposition, and training as of a plain network on turned inputs."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from baseline_runs import CONV, FLAT, SGD, SHAPE, answers, batches, learner, train
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from reprise.papers.supsup.networks import FullyConnected
from reprise.papers.supsup.psp import CONTEXTS, Rotation, Signs, contextual

kinds = pytest.mark.parametrize("kind", CONTEXTS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def matrix(kind, context):
    return context if kind == "rotation" else context.diag()


def turned(kind, psp):
    """Weights of the plain network that the first task's contexts make of PSP's."""
    weights = psp._layers(psp.shared, psp.shared_shapes)
    return [CONTEXTS[kind].fold(w, c) for w, c in zip(weights, psp.contexts(0), strict=True)]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(CONTEXTS)), st.integers(1, 40), st.integers(0, 2**31))
def test_contexts_are_orthogonal(kind, width, seed):
    c = matrix(kind, CONTEXTS[kind].draw(width, generator(seed)))
    torch.testing.assert_close(c @ c.T, torch.eye(width), rtol=0, atol=1e-5)


def test_rotations_have_the_moments_of_the_haar_measure():
    drawn = torch.stack([Rotation.draw(3, generator(seed)) for seed in range(2000)])
    assert drawn.mean(0).abs().max() < 0.06  # no direction is preferred; without the signs of QR the diagonal would be
    torch.testing.assert_close(drawn.pow(2).mean(0), torch.full((3, 3), 1 / 3), rtol=0, atol=0.03)
    assert 0.4 < float((torch.linalg.det(drawn) > 0).float().mean()) < 0.6
    traces = drawn.diagonal(dim1=1, dim2=2).sum(1)
    assert float(traces.pow(2).mean()) == pytest.approx(1, abs=0.15)  # of QR alone it is larger


def test_signs_are_as_often_plus_as_minus():
    drawn = Signs.draw(10_000, generator())
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(drawn.mean())) < 0.04


@kinds
def test_to_turn_the_weights_is_to_turn_the_inputs(kind):
    context = CONTEXTS[kind].draw(4, generator(1))
    weight, x = torch.randn(3, 4, generator=generator(2)), torch.randn(5, 4, generator=generator(3))
    turned = F.linear(CONTEXTS[kind].apply(x, context), weight)
    torch.testing.assert_close(F.linear(x, CONTEXTS[kind].fold(weight, context)), turned)
    torch.testing.assert_close(turned, x @ matrix(kind, context).T @ weight.T)


@kinds
def test_a_convolution_is_turned_over_its_channels(kind):
    context = CONTEXTS[kind].draw(4, generator(1))
    weight, x = torch.randn(3, 4, 3, 3, generator=generator(2)), torch.randn(2, 4, 5, 5, generator=generator(3))
    turned = CONTEXTS[kind].apply(x.movedim(1, -1), context).movedim(-1, 1)
    torch.testing.assert_close(F.conv2d(x, CONTEXTS[kind].fold(weight, context)), F.conv2d(turned, weight))


@kinds
def test_what_was_stored_under_a_context_comes_back_and_the_rest_is_noise_as_large_as_it_was(kind):
    """W = W_1 C_1^T + W_2 C_2^T: W C_1 = W_1 + W_2 C_2^T C_1, and a rotation keeps the norm of W_2."""
    draw, fold = CONTEXTS[kind].draw, CONTEXTS[kind].fold
    mine, others = draw(30, generator(1)), draw(30, generator(2))
    first, second = torch.randn(7, 30, generator=generator(3)), torch.randn(7, 30, generator=generator(4))
    store = first @ matrix(kind, mine).T + second @ matrix(kind, others).T
    noise = fold(store, mine) - first
    torch.testing.assert_close(noise.norm(), second.norm())
    assert float((noise * second).sum().abs() / second.pow(2).sum()) < 0.3, "and what is left is another matrix"


@kinds
def test_contexts_follow_from_seed_task_and_layer_and_are_not_stored(kind):
    made, again = learner("psp", context=kind), learner("psp", context=kind)
    of_task = made.contexts(2)
    assert [len(c) for c in of_task] == [16, 5, 6]
    assert all(map(torch.equal, of_task, again.contexts(2)))
    others = [made.contexts(1), learner("psp", context=kind, seed=4).contexts(2)]
    assert not any(torch.equal(mine[0], other[0]) for mine, other in zip([of_task] * 2, others, strict=True))
    assert not torch.equal(of_task[0][:5, :5] if kind == "rotation" else of_task[0][:5], of_task[1])
    assert sum(b.numel() for b in made.state_dict().values()) < made.network.size + 10


@kinds
def test_one_layer_of_one_task_is_a_linear_classifier_of_turned_images(kind):
    optimizer = partial(torch.optim.RMSprop, lr=0.01)
    made = learner("psp", FullyConnected([]), tasks=1, optimizer=optimizer, context=kind)
    weight = made.shared.view(3, 16).clone().requires_grad_()
    c = matrix(kind, made.contexts(0)[0])
    rmsprop = optimizer([weight])
    for x, y in batches(made, 0):
        rmsprop.zero_grad()
        F.cross_entropy(x.flatten(1) @ c.T @ weight.T, y).backward()
        rmsprop.step()
    train(made)
    torch.testing.assert_close(made.shared.view(3, 16), weight.detach(), rtol=1e-4, atol=1e-5)
    x, _ = made.stream.test_set(0)
    torch.testing.assert_close(answers(made)[0], x.flatten(1) @ c.T @ weight.detach().T, rtol=1e-4, atol=1e-5)


@kinds
@pytest.mark.parametrize(("network", "steps"), [(FLAT, 6), (CONV, 1)], ids=["flat", "conv"])
def test_one_task_is_a_plain_network_that_starts_from_turned_weights(kind, network, steps):
    """Gradient descent does not see a rotation: what W C learns is what a plain network learns that starts there."""
    plain = learner("upper_bound", network(), tasks=1, optimizer=SGD, steps=steps)
    psp = learner("psp", network(), tasks=1, optimizer=SGD, steps=steps, context=kind)
    start = turned(kind, psp)
    plain.start = lambda task: start
    train(psp)
    train(plain)
    assert not torch.equal(plain.own[0], torch.cat([w.flatten() for w in start]))
    learned = torch.cat([w.flatten() for w in turned(kind, psp)])
    torch.testing.assert_close(learned, plain.own[0], rtol=1e-3, atol=1e-5)


@kinds
def test_turning_layer_by_layer_is_the_network_of_turned_weights(kind):
    network = FLAT().bind(SHAPE, 3)
    weights = [torch.randn(shape, generator=generator(i)) for i, shape in enumerate(network.shapes)]
    contexts = [CONTEXTS[kind].draw(s[1], generator(9 + i)) for i, s in enumerate(network.shapes)]
    x = torch.randn(1, 5, *SHAPE, generator=generator(20))
    folded = [CONTEXTS[kind].fold(w, c)[None] for w, c in zip(weights, contexts, strict=True)]
    found = contextual(network, CONTEXTS[kind], weights, contexts, x)
    torch.testing.assert_close(found, network(folded, x), rtol=1e-4, atol=1e-4)
