"""UCI BlogFeedback: will a blog post be commented on in the next 24 hours?"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from reprise.checks import checked
from reprise.data.base import DataSpec, Source, Split
from reprise.data.store import FileSet, FileStore, PublicFile, reason, sha256_of
from reprise.errors import UserError

_TRAIN, _TEST = "blogData_train.csv", "blogData_test"
_INPUTS = 280


def files() -> FileSet:
    """The zip archive as UCI serves it; it is read where it lies and never unpacked (74 MB)."""
    archive = PublicFile(
        "blogfeedback/BlogFeedback.zip",
        "sha256:1ba74e5ad920f7cd037502b2968581cc695146a226a73eff52fe8ad875ed4bcf",
        2_583_605,
        url="https://archive.ics.uci.edu/ml/machine-learning-databases/00304/BlogFeedback.zip",
        also=("BlogFeedback.zip",),
    )
    return FileSet((archive,), home="https://archive.ics.uci.edu/dataset/304/blogfeedback")


@checked
def load(*, name: str, store: FileStore, task: Literal["classification", "regression"] = "classification") -> Source:
    """Load 52,397 train and 7,624 test rows ``[N, 280]``; rows with a missing value would be dropped.

    y is 1 where there is any comment (DVRL's task), or the number of comments with ``task="regression"``. The test
    rows are those of the 60 files, one a day in February and March 2012, in the order of their dates; train rows keep
    the file's order. Inputs are raw, for the paper's datamodule to scale.

    Source: K. Buza, Feedback prediction for blogs, Springer, 2014; UCI, doi 10.24432/C58S3F.

    Raises:
        UserError: the archive is damaged, or is absent and cannot be downloaded.
    """
    (path,) = store.get(files())
    try:
        train, test = _read(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as the BlogFeedback archive ({reason(error)}): delete it.") from error
    spec = DataSpec(
        name=name,
        task=task,
        kind="table",
        shape=(_INPUTS,),
        classes=("no comment", "comments") if task == "classification" else (),
        features=tuple(f"attribute_{place}" for place in range(1, _INPUTS + 1)),  # UCI numbers them, too
        origin="public",
        licence="CC BY 4.0",
        source="UCI BlogFeedback, doi 10.24432/C58S3F",
        checksum=sha256_of(path),
    )

    def split(rows: np.ndarray) -> Split:
        x, comments = torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, -1].copy())
        return Split(x, (comments > 0).long() if task == "classification" else comments)

    return Source(spec, train=split(train), test=split(test))


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Train and test rows float32 ``[N, 281]``, the target last."""
    import pandas as pd

    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()

        def rows(name: str) -> np.ndarray:
            with archive.open(name) as stream:
                table = pd.read_csv(stream, header=None, dtype=np.float32, engine="c").to_numpy()
            if table.shape[1] != _INPUTS + 1:
                raise ValueError(f"{name} has {table.shape[1]} columns instead of {_INPUTS + 1}")
            return table[~np.isnan(table).any(axis=1)]

        train = rows(_TRAIN)
        return train, np.concatenate([rows(name) for name in sorted(names) if name.startswith(_TEST)])
