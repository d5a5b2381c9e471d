"""The data value estimator: the official network's layers, and ours that start at nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from reprise.papers.dvrl.estimator import DataValueEstimator


def estimator(seed=0, features=7, outputs=3, activation="relu", marginal=True, **options):
    torch.manual_seed(seed)
    size = {"hidden": 100, "combined": 10, "layers": 5} | options
    return DataValueEstimator(features, outputs, activation=activation, marginal=marginal, **size)


def inputs(rows=20, features=7, outputs=3):
    rng = torch.Generator().manual_seed(1)
    y = nn.functional.one_hot(torch.arange(rows) % outputs, outputs).float()
    return torch.randn(rows, features, generator=rng), y, torch.rand(rows, outputs, generator=rng)


def linears(net):
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear)]


def test_layers_of_the_official_network():
    net = estimator()
    shapes = [(layer.in_features, layer.out_features) for layer in linears(net)]
    assert shapes == [(10, 100), (100, 100), (100, 100), (100, 10), (13, 10), (10, 1)]
    by_hand = 1_100 + 10_100 + 10_100 + 1_010 + 140 + 11
    assert sum(p.numel() for p in net.parameters()) == by_hand
    assert sum(isinstance(layer, nn.ReLU) for layer in net.modules()) == 5
    assert net(*inputs()).shape == (20,)


def test_without_m_the_layer_where_it_joins_is_narrower():
    shapes = [(layer.in_features, layer.out_features) for layer in linears(estimator(marginal=False, layers=3))]
    assert shapes == [(10, 100), (100, 10), (10, 10), (10, 1)]


@pytest.mark.parametrize(("activation", "kind"), [("relu", nn.ReLU), ("tanh", nn.Tanh)])
def test_activation(activation, kind):
    found = [type(layer) for layer in estimator(activation=activation).modules() if not list(layer.children())]
    assert [f for f in found if f is not nn.Linear] == [kind] * 5


def test_forward_is_the_documented_function():
    net = estimator(activation="tanh", layers=3, shortcut=True, label_branch=0.5)
    nn.init.normal_(net.shortcut.weight)
    nn.init.normal_(net.label_branch.weight)
    x, y, m = inputs()
    first, narrow, joined, last = linears(net)[:4]
    z = torch.tanh(narrow(torch.tanh(first(torch.cat([x, y], 1)))))
    logit = last(torch.tanh(joined(torch.cat([z, m], 1))))[:, 0]
    bilinear = torch.einsum("bc,cd,bd->b", y, net.label_branch.weight, x)
    linear = torch.cat([y, m], 1) @ net.shortcut.weight[0]
    torch.testing.assert_close(net(x, y, m), logit + 0.5 * bilinear + linear)


@pytest.mark.parametrize("extra", [{}, {"shortcut": True, "label_branch": 0.5}])
def test_without_marginal_information_m_is_ignored(extra):
    x, y, m = inputs()
    for marginal in (False, True):
        net = estimator(marginal=marginal, **extra)
        for branch in (net.shortcut, net.label_branch):
            if branch is not None:
                nn.init.ones_(branch.weight)
        assert torch.equal(net(x, y, m), net(x, y, 1 - m)) is not marginal


@pytest.mark.parametrize("marginal", [True, False])
@pytest.mark.parametrize("extra", [{"shortcut": True}, {"label_branch": 0.5}, {"shortcut": True, "label_branch": 2.0}])
def test_our_branches_start_at_nothing_and_can_learn(extra, marginal):
    official = estimator(marginal=marginal)
    ours = estimator(seed=5, marginal=marginal, **extra)
    missing, unexpected = ours.load_state_dict(official.state_dict(), strict=False)
    assert unexpected == []
    assert len(missing) == len(extra)
    out = ours(*inputs())
    assert torch.equal(out, official(*inputs()))
    out.square().sum().backward()
    assert all(dict(ours.named_parameters())[name].grad.abs().sum() > 0 for name in missing)


def test_weights_start_glorot_uniform_and_biases_at_zero():
    for layer in linears(estimator()):
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert layer.weight.abs().max() <= bound
        assert layer.bias.abs().max() == 0
        if layer.weight.numel() >= 1_000:
            assert layer.weight.abs().max() > 0.99 * bound
            assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_start_follows_the_seed():
    first, again, other = (estimator(seed)(*inputs()) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_dead_units_are_counted():
    x, y, _ = inputs()
    net = estimator(activation="tanh")
    assert net.dead_fraction(x, y).item() == 0
    narrow = linears(net)[3]
    with torch.no_grad():
        narrow.weight[:4] = 0
    assert net.dead_fraction(x, y).item() == pytest.approx(0.4)
