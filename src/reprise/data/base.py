"""What a data set is to the suite: tensors and a small frozen description of them.

A *source* knows nothing about any paper's protocol (splits, label noise, tasks, views); a paper's datamodule does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class DataSpec:
    """The only channel from a data set to a method.

    Attributes:
        name: the name used on the command line.
        task: what the target is.
        kind: what one input is.
        shape: shape of one input, e.g. ``(1, 28, 28)`` for an image, ``(108,)`` for a table row or ``(256, 3)`` for a
            cloud of points.
        classes: names of the classes (labels are ``0..C-1`` in this order); empty for regression.
        features: column names of a table, one per input; empty for images.
        image: shape of one image where a datamodule hands out flat rows, e.g. ``(1, 28, 28)``; else empty.
        origin: ``embedded`` (ships with a dependency), ``public`` (downloaded), ``user`` (the user's own file). Papers'
            protocols that damage labels leave a user's data alone unless told otherwise.
        licence: licence or terms of use, as published.
        source: where the data comes from (title or address).
        checksum: sha256 over the content that was read.
        rows: number of training rows that a method gets; a datamodule sets it.
        num_tasks: tasks of a stream made from the data; a datamodule sets it, and ``classes`` are then those of a task.
        target_mean, target_scale: of a numeric target that a datamodule standardised; 0 and 1 where it did not.
    """

    name: str
    task: Literal["classification", "regression"]
    kind: Literal["image", "table", "cloud"]
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    image: tuple[int, ...] = ()
    origin: Literal["embedded", "public", "user"] = "public"
    licence: str = ""
    source: str = ""
    checksum: str = ""
    rows: int = 0
    num_tasks: int = 1
    target_mean: float = 0.0
    target_scale: float = 1.0

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.classes)


@dataclass(frozen=True)
class Split:
    """Inputs ``x`` float32 ``[N, *shape]`` (NaN: missing table cell) and targets ``y``: int64 or float32 ``[N]``.

    ``names`` are labels of the rows for people, such as file names: one per row, or none at all.
    """

    x: Tensor
    y: Tensor
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Source:
    """A loaded data set.

    ``train`` always exists. ``test`` and ``validation`` are ``None`` when the data set has no official split, and a
    datamodule then draws its own from ``train``. Row ``i`` of ``train`` is row ``i`` of the file the user knows.
    """

    spec: DataSpec
    train: Split
    test: Split | None = None
    validation: Split | None = None
