"""Text as a table row: word counts hashed into a fixed number of inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reprise.data.base import DataSpec

CLASSES = ("ham", "spam")


def hashed(texts: Sequence[str], features: int) -> Tensor:
    """Words and their counts as unit vectors float32 ``[N, features]``; a text without words is a row of zeros.

    scikit-learn's ``HashingVectorizer``: which input a word counts for follows from the word alone. Nothing is fitted,
    so no test text can leak into the inputs and every collection gets the same ones; words may share an input, with
    random signs so that they do not add up.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    counts = HashingVectorizer(n_features=features, dtype=np.float32).transform(texts)
    return torch.from_numpy(counts.toarray())


def message_spec(*, name: str, features: int, origin: str, licence: str, source: str, checksum: str) -> DataSpec:
    """What hashed messages with the labels ham (0) and spam (1) are to the suite."""
    return DataSpec(
        name=name,
        task="classification",
        kind="table",
        shape=(features,),
        classes=CLASSES,
        features=tuple(f"hash_{place}" for place in range(features)),
        origin=origin,  # type: ignore[arg-type]
        licence=licence,
        source=source,
        checksum=checksum,
    )
