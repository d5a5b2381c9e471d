"""The target column of a user's table: which task it poses, and its values as tensors."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from reprise.data.columns import finite_float32, first_text, numbers, numbers_or_nan
from reprise.data.store import did_you_mean
from reprise.data.table import Table
from reprise.errors import UserError

Task = Literal["classification", "regression"]

MAX_INTEGER_CLASSES = 20


def decide_task(table: Table, target: str, task: str = "auto") -> Task:
    """The task of a target column.

    ``auto``: text (``true``/``false`` too) is classification; so are whole numbers with at most 20 different values;
    every other numeric column is regression.

    Raises:
        UserError: ``task`` is not known, or the target has missing or infinite values or does not suit it.
    """
    choices = ("auto", "classification", "regression")
    if task not in choices:
        hint = did_you_mean(str(task), choices) or f" (one of {', '.join(choices)})"
        raise UserError(f"dataset.task={task} is not known{hint}.")
    _check_present(table, target)
    values = numbers(table.columns[target])
    if values is None:
        if task == "regression":
            row = first_text(table.columns[target])
            raise UserError(
                f"Target {target!r} holds {table.columns[target][row][:40]!r} in {table.where(row)}, so it cannot be a "
                "regression target: correct that cell or set dataset.task=classification."
            )
        return "classification"
    finite_float32(table, target, values)
    if task == "auto":
        different = np.unique(values)
        few = len(different) <= MAX_INTEGER_CLASSES and np.array_equal(different, np.round(different))
        return "classification" if few else "regression"
    return "classification" if task == "classification" else "regression"


def class_names(table: Table, target: str) -> tuple[str, ...]:
    """Classes of a checked target column: in numeric order if all are numbers, else sorted as text.

    Raises:
        UserError: there is one class only, or every row has a class of its own.
    """
    names = tuple(sorted(set(spellings(table.columns[target]))))
    if len(names) == 1:
        raise UserError(f"Target {target!r} of {table.path} has the same value {names[0]!r} in every row.")
    if len(names) == len(table) > 2:
        raise UserError(
            f"Target {target!r} of {table.path} has a different value in each of the {len(table)} rows, so it has no "
            "classes: choose another dataset.target, or dataset.task=regression if it is a number."
        )
    numeric = numbers(names)
    return names if numeric is None else tuple(names[k] for k in np.argsort(numeric))


def encode_classes(table: Table, target: str, classes: tuple[str, ...]) -> np.ndarray:
    """Labels int64 ``[N]`` as positions in ``classes``.

    Raises:
        UserError: a missing value, or a class that ``classes`` does not have.
    """
    _check_present(table, target)
    place = {name: label for label, name in enumerate(classes)}
    labels = []
    for row, name in enumerate(spellings(table.columns[target])):
        if name not in place:
            raise UserError(
                f"Target {target!r} holds class {name[:40]!r} in {table.where(row)}, which never occurs in the "
                f"training file (classes {', '.join(classes[:20])}): correct that cell."
            )
        labels.append(place[name])
    return np.array(labels, dtype=np.int64)


def encode_numbers(table: Table, target: str) -> np.ndarray:
    """Regression targets float32 ``[N]``.

    Raises:
        UserError: a missing, infinite or non-numeric value.
    """
    decide_task(table, target, "regression")
    values = numbers(table.columns[target])
    assert values is not None  # decide_task refuses text
    return finite_float32(table, target, values)


def spellings(cells: list[str]) -> list[str]:
    """Class names of the cells; equal numbers get one spelling: ``1`` and ``1.0`` are one class across files."""
    parsed = zip(cells, numbers_or_nan(cells).tolist(), strict=True)
    return [
        cell if not math.isfinite(number) else str(int(number)) if number.is_integer() else str(number)
        for cell, number in parsed
    ]


def _check_present(table: Table, target: str) -> None:
    missing = [row for row, cell in enumerate(table.columns[target]) if not cell]
    if missing:
        raise UserError(
            f"Target {target!r} is missing in {len(missing)} of {len(table)} rows, first in {table.where(missing[0])}: "
            "fill or remove these rows."
        )
