"""Masks that a batch chooses among: their bits and counts follow the scores, their gradients are those of the book."""

from __future__ import annotations

import pytest
import torch

from reprise.papers.supsup.candidates import Candidates
from reprise.papers.supsup.masks import Threshold, initial_scores
from reprise.papers.supsup.networks import FullyConnected, signed_constants


def candidates(count, seed=0):
    network = FullyConnected(hidden=[7]).bind((1, 4, 5), 6)
    frozen = [w.double() for w in signed_constants(network.shapes, 5)]
    store = torch.zeros(count + 2, -(-network.size // 8), dtype=torch.uint8)
    made = Candidates(network, frozen, Threshold(), store, classes=4)
    for mask in range(count):
        made.add(initial_scores(network.shapes, torch.Generator().manual_seed(seed + mask)))
    return made


@pytest.mark.parametrize("objective", ["H", "G"])
def test_gradients_are_those_of_the_superposition(objective):
    made, x = candidates(3), torch.randn(9, 1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    alpha = torch.full((3,), 1 / 3, dtype=torch.float64, requires_grad=True)
    bits = [[(s >= 0).double() for s in made.layers(mask)] for mask in range(3)]
    mixed = [sum(a * m for a, m in zip(alpha, layer, strict=True)) for layer in zip(*bits, strict=True)]
    weights = [w * m for w, m in zip(made.frozen, mixed, strict=True)]
    logits = made.network(weights, x[None])[0]
    if objective == "H":
        value = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    else:  # no gradient through the four real outputs
        value = torch.cat([logits[:, :4].detach(), logits[:, 4:]], 1).logsumexp(1).mean()
    (expected,) = torch.autograd.grad(value, alpha)
    torch.testing.assert_close(made.gradients(x, objective), expected)


def test_counts_follow_the_scores():
    made = candidates(3)

    def counted():
        return sum(torch.cat([(s >= 0).flatten() for s in made.layers(mask)]).int() for mask in range(3))

    assert torch.equal(made.counts, counted())
    made.layers(1)[0].neg_()  # a view: the mask itself changes
    assert not torch.equal(made.counts, counted())
    made.refresh(1)
    assert torch.equal(made.counts, counted())
    before = [row.clone() for row in made.packed[:3]]
    made.swap(0, 2)
    assert torch.equal(made.packed[0], before[2])
    assert torch.equal(made.packed[2], before[0])
    assert torch.equal(made.counts, counted())
    made.refresh(0)
    assert torch.equal(made.packed[0], before[2])
