"""Handwritten digits, 8x8, bundled with scikit-learn: the default that needs no download."""

from __future__ import annotations

import torch

from reprise.data.base import DataSpec, Source, Split
from reprise.data.store import FileStore, sha256_of_arrays


def load(*, name: str, store: FileStore) -> Source:
    """Load 1,797 images ``[N, 1, 8, 8]`` in 0..1 (ink is bright) with labels 0-9; there is no official test split.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test part).
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(pixels / 16).float().view(-1, 1, 8, 8)
    y = torch.from_numpy(labels).long()
    spec = DataSpec(
        name=name,
        task="classification",
        kind="image",
        shape=(1, 8, 8),
        classes=tuple(str(digit) for digit in range(10)),
        origin="embedded",
        licence="CC BY 4.0 (UCI); bundled with scikit-learn (BSD-3-Clause)",
        source="UCI Optical Recognition of Handwritten Digits, doi 10.24432/C50P49, by way of scikit-learn",
        checksum=sha256_of_arrays(x.numpy(), y.numpy()),
    )
    return Source(spec, train=Split(x, y))
