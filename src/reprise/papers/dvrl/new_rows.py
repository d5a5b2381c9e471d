"""Rows that a run has never seen, brought into the shape of the data that it was trained on."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from reprise.data.base import DataSpec, Source, Split
from reprise.data.columns import MISSING_LEVEL, Column, encode
from reprise.data.store import did_you_mean
from reprise.data.table import Table
from reprise.data.targets import encode_classes, encode_numbers
from reprise.errors import UserError

log = logging.getLogger("reprise")


def of_table(table: Table, target: str, spec: DataSpec) -> Split:
    """Rows of a user's table ``[N, F]`` by the columns of the run's data set; further columns are ignored.

    A category that the run never saw gets zeros in the whole of its one-hot block.

    Raises:
        UserError: the run's data is no table, a column is missing, or a cell or target is not what it was in training.
    """
    if not spec.features:
        raise UserError(
            f"the run was trained on dataset={spec.name}, whose inputs of shape {spec.image or spec.shape} have no "
            f"column names, so the table {table.path} cannot be valued by it."
        )
    _require(table, target, "its target column, dataset.target")
    columns = _columns(table, spec.features)
    ignored = [name for name in table.columns if name != target and name not in {column.name for column in columns}]
    if ignored:
        log.warning("Columns of %s that the run was not trained on are ignored: %s.", table.path, ", ".join(ignored))
    x = np.concatenate([_block(table, column) for column in columns], axis=1)
    y = encode_classes(table, target, spec.classes) if spec.classes else encode_numbers(table, target)
    return Split(torch.from_numpy(x), torch.from_numpy(y))


def of_source(source: Source, part: str, spec: DataSpec) -> Split:
    """Rows of a data set, with its labels as the run numbers them.

    Raises:
        UserError: there is no such part, or inputs or targets are not of the kind that the run was trained on.
    """
    split: Split | None = getattr(source, part)
    theirs = source.spec
    if split is None:
        raise UserError(f"dataset={theirs.name} has no official {part} rows: choose part=train.")
    if theirs.task != spec.task:
        raise UserError(
            f"dataset={theirs.name} has a {theirs.task} target, the run was trained on a {spec.task} one (dataset="
            f"{spec.name}): choose a data set like that."
        )
    x = split.x
    if spec.features:
        absent = [name for name in spec.features if name not in theirs.features]
        if absent:
            raise UserError(f"dataset={theirs.name} lacks the input {absent[0]!r} that the run was trained on.")
        x = x[:, [theirs.features.index(name) for name in spec.features]]
    elif theirs.features or (spec.image and tuple(x.shape[1:]) != spec.image):
        raise UserError(
            f"dataset={theirs.name} has inputs of shape {tuple(x.shape[1:])}, the run was trained on dataset="
            f"{spec.name} with inputs of shape {spec.image or spec.shape}: choose a data set like that."
        )
    return Split(x, split.y if spec.task == "regression" else _same_classes(split, theirs, spec), split.names)


def labels(y: np.ndarray, spec: DataSpec) -> Any:
    """Targets ``[N]`` as people know them: names of classes, or numbers."""
    return np.array(spec.classes)[y] if spec.classes else y


def _same_classes(split: Split, theirs: DataSpec, spec: DataSpec) -> torch.Tensor:
    used = [theirs.classes[label] for label in split.y.unique()]
    unknown = [name for name in used if name not in spec.classes]
    if unknown:
        raise UserError(
            f"dataset={theirs.name} has the class {unknown[0]!r}, which the run was not trained on (its classes: "
            f"{', '.join(spec.classes[:20])})."
        )
    place = [spec.classes.index(name) if name in spec.classes else -1 for name in theirs.classes]
    return torch.tensor(place)[split.y]


def _columns(table: Table, features: tuple[str, ...]) -> list[Column]:
    """The columns behind features named ``column`` or ``column=level``, in their order.

    Either part of a name may hold an equals sign, so the table's own column names decide where it is cut.
    """
    levels: dict[str, list[str] | None] = {}
    for feature in features:
        if feature in table.columns:
            levels[feature] = None
            continue
        cuts = [k for k, sign in enumerate(feature) if sign == "=" and feature[:k] in table.columns]
        if not cuts:
            _require(table, feature.partition("=")[0], "an input that the run was trained on")
            raise UserError(f"{table.path} has no column {feature!r}, an input that the run was trained on: add it.")
        name = feature[: cuts[-1]]
        levels[name] = [*(levels.get(name) or []), feature[cuts[-1] + 1 :]]
    return [Column(name, None if found is None else tuple(found)) for name, found in levels.items()]


def _require(table: Table, name: str, what: str) -> None:
    if name in table.columns:
        return
    headless = any(column.replace(".", "", 1).isdecimal() for column in table.columns)
    first = " (its first line must hold the column names)" if headless else ""
    raise UserError(
        f"{table.path} has no column {name!r}{did_you_mean(name, table.columns)}, {what}; its columns are "
        f"{', '.join(list(table.columns)[:20])}{first}."
    )


def _block(table: Table, column: Column) -> np.ndarray:
    """Float32 ``[N, 1]`` or ``[N, levels]``."""
    if column.levels is None:
        return encode(table, [column])
    place = {level: k for k, level in enumerate(column.levels)}
    codes = np.array([place.get(cell or MISSING_LEVEL, -1) for cell in table.columns[column.name]])
    unknown = np.flatnonzero(codes < 0)
    if len(unknown):
        log.warning(
            "Column %r holds %d cells that never occur in the run's training file, first %r in %s; they count as none "
            "of its categories.",
            *(column.name, len(unknown), table.columns[column.name][unknown[0]][:40], table.where(int(unknown[0]))),
        )
    return (codes[:, None] == np.arange(len(column.levels))).astype(np.float32)
