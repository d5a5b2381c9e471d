"""A network whose units are switched, against torch's own layers and against itself alone."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from reprise.papers.supsup.networks import signed_constants
from reprise.papers.supsup.unit_masks import UnitMasked, hard, normalise

T, B = 3, 6


def network(hidden=(7, 5)):
    made = UnitMasked(hidden=list(hidden)).bind((1, 2, 4), 3)
    return made, [w.double() for w in signed_constants(made.shapes, 1)]


def inputs(tasks=T, batch=B):
    return torch.randn(tasks, batch, 1, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def masks(hidden=(7, 5), tasks=T):
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(2, (tasks, d), generator=generator).double() for d in hidden]


def by_torch(weights, units, x):
    """One network of torch's layers, with batch statistics always."""
    h = x.flatten(1)
    for weight, mask in zip(weights[:-1], units, strict=True):
        norm = nn.BatchNorm1d(len(weight), affine=False, track_running_stats=False).double()
        h = nn.SiLU()(norm(h @ weight.T) * mask)
    return h @ weights[-1].T


def test_the_paper_network_has_these_sizes():
    made = UnitMasked(hidden=[2048, 2048]).bind((1, 28, 28), 10)
    assert made.shapes == ((2048, 784), (2048, 2048), (10, 2048))
    assert made.size == 2048 * (784 + 2048 + 10)
    assert made.describe() == {"hidden": [2048, 2048]}


def test_networks_side_by_side_are_torchs_layers():
    made, weights = network()
    units, x = masks(), inputs()
    logits = made.masked(weights, units, x)
    for t in range(T):
        torch.testing.assert_close(logits[t], by_torch(weights, [m[t] for m in units], x[t]))
    assert len({tuple(m[0].tolist()) for m in units}) == 2, "masks are not all ones"
    torch.testing.assert_close(made(weights, x), made.masked(weights, [torch.ones_like(m) for m in units], x))


def test_a_unit_that_is_off_passes_nothing_on():
    made, weights = network((7,))
    units, x = [torch.ones(1, 7, dtype=torch.float64)], inputs(1)
    units[0][0, 3] = 0
    other = [weights[0].clone(), weights[1].clone()]
    other[0][3], other[1][:, 3] = 5.0, -9.0
    torch.testing.assert_close(made.masked(weights, units, x), made.masked(other, units, x))


def test_moments_are_those_of_the_batch_and_a_batch_of_one_is_zero():
    h = normalise(torch.tensor([[[1.0, 5], [3, 5]], [[-7, 0], [9, 4]]], dtype=torch.float64))
    one = 1 / math.sqrt(1 + 1e-5)
    torch.testing.assert_close(h[0], torch.tensor([[-one, 0], [one, 0]], dtype=torch.float64))
    torch.testing.assert_close(h[1], torch.tensor([[-1.0, -1], [1, 1]], dtype=torch.float64), atol=1e-5, rtol=0)
    assert normalise(torch.ones(1, 1, 2)).tolist() == [[[0, 0]]]


def test_scores_get_the_gradient_of_their_mask():
    scores = torch.tensor([-0.5, 0.0, 2.0, -1e-9], requires_grad=True)
    mask = hard(scores)
    assert mask.tolist() == [0, 1, 1, 0]
    (mask * torch.tensor([1.0, 2, 3, 4])).sum().backward()
    assert scores.grad.tolist() == [1, 2, 3, 4]


def test_a_network_without_units_to_mask_is_refused():
    with pytest.raises(ValidationError):
        UnitMasked(hidden=[])
