"""Breast cancer Wisconsin (diagnostic), bundled with scikit-learn: a small real table that needs no download."""

from __future__ import annotations

import torch

from reprise.data.base import DataSpec, Source, Split
from reprise.data.store import FileStore, sha256_of_arrays


def load(*, name: str, store: FileStore) -> Source:
    """Load 569 rows ``[N, 30]``, raw units, labels malignant (0) and benign (1); there is no official test split.

    Source: Wolberg, Mangasarian, Street, Street, Breast Cancer Wisconsin (Diagnostic), UCI, 1993.
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    x, y = torch.from_numpy(bunch.data).float(), torch.from_numpy(bunch.target).long()
    spec = DataSpec(
        name=name,
        task="classification",
        kind="table",
        shape=(x.shape[1],),
        classes=tuple(str(label) for label in bunch.target_names),
        features=tuple(str(feature) for feature in bunch.feature_names),
        origin="embedded",
        licence="CC BY 4.0 (UCI); bundled with scikit-learn (BSD-3-Clause)",
        source="UCI Breast Cancer Wisconsin (Diagnostic), doi 10.24432/C5DW2B, by way of scikit-learn",
        checksum=sha256_of_arrays(x.numpy(), y.numpy()),
    )
    return Source(spec, train=Split(x, y))
