"""Tiny made-up images for tests of streams."""

from __future__ import annotations

import numpy as np
import torch

from reprise.data.base import DataSpec, Source, Split


def images(rows, shape=(1, 4, 5), classes=4, seed=0):
    """Random pixels of 8 bits in 0..1; classes in turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, *shape))
    return Split(torch.tensor(pixels).float() / 255, torch.arange(rows) % classes)


def source_of(train, test=None, classes=4, name="toy", **changes):
    """A source by hand."""
    spec = DataSpec(
        name=name,
        task="classification",
        kind="image",
        shape=tuple(train.x.shape[1:]),
        classes=tuple("abcdefghijklmnopqrstuvwxyz"[:classes]),
    )
    return Source(DataSpec(**{**vars(spec), **changes}), train=train, test=test)
