"""Small banks with random masks, for the tests of what a bank does."""

from __future__ import annotations

import pytest
import torch

from reprise.papers.supsup.bank import MaskBank, pack
from reprise.papers.supsup.networks import FullyConnected, Statistics
from reprise.papers.supsup.residual import GemResNet18

SHAPE, OUTPUTS, CLASSES = (1, 3, 5), 6, 4
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def network():
    return FullyConnected([7]).bind(SHAPE, OUTPUTS)  # 15*7 + 7*6 = 147 weights, five unused bits in the last byte


def random_masks(tasks, shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(tasks, *shape, generator=generator) < 0.5 for shape in shapes]


def random_bank(tasks=5, seed=0, names=(), **options):
    net = network()
    return MaskBank(net, 3, pack(random_masks(tasks, net.shapes, seed)), CLASSES, tasks=names, **options)


def images(n=9, seed=1):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def residual_bank(tasks=3):
    net = GemResNet18(width=2).bind((3, 8, 8), 5)
    generator = torch.Generator().manual_seed(4)
    mean, var = torch.randn(2, tasks, net.channels, generator=generator)
    return MaskBank(net, 1, pack(random_masks(tasks, net.shapes)), 5, Statistics(mean, var.exp()))


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
