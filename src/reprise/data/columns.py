"""Turning text columns into numbers: numeric columns stay one input, categorical ones become a one-hot block."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from reprise.data.table import Table
from reprise.errors import UserError

log = logging.getLogger(__name__)

MAX_LEVELS = 100
MISSING_LEVEL = "missing"


@dataclass(frozen=True)
class Column:
    """An input column; ``levels`` are the sorted categories, or ``None`` when the column is numeric."""

    name: str
    levels: tuple[str, ...] | None = None


def numbers(cells: Sequence[str]) -> np.ndarray | None:
    """The cells as float64 ``[N]`` with NaN where missing, or ``None`` if a cell is not a number."""
    values = numbers_or_nan(cells)
    text = np.isnan(values) & np.array([cell != "" for cell in cells], dtype=bool)
    return None if text.any() else values


def plan_columns(table: Table, names: Iterable[str]) -> list[Column]:
    """Decide for each input column whether it is numeric or categorical.

    Numeric: every cell that is present is a number. Anything else (text, ``true``/``false``) is categorical, and its
    missing cells are the level ``missing``.

    Raises:
        UserError: a column without any value, or text with too many levels to be a category (ids, dates, free text).
    """
    columns = []
    for name in names:
        cells = table.columns[name]
        present = {cell for cell in cells if cell}
        if not present:
            raise UserError(f"Column {name!r} of {table.path} has no value in any row: use dataset.drop=[{name}].")
        if numbers(cells) is not None:
            columns.append(Column(name))
            continue
        _check_levels(table, name, present)
        columns.append(Column(name, tuple(sorted({cell or MISSING_LEVEL for cell in cells}))))
    return columns


def feature_names(columns: Iterable[Column]) -> tuple[str, ...]:
    """One name per input: the column's own, or ``column=level``."""
    return tuple(
        feature
        for column in columns
        for feature in ([column.name] if column.levels is None else [f"{column.name}={v}" for v in column.levels])
    )


def encode(table: Table, columns: Sequence[Column]) -> np.ndarray:
    """Inputs as float32 ``[N, F]``, columns in the given order; a missing number is NaN, a category a one-hot block.

    Raises:
        UserError: text in a numeric column, a level that ``columns`` does not have, an infinite number.
    """
    blocks = [_one_hot(table, c.name, c.levels) if c.levels is not None else _numeric(table, c.name) for c in columns]
    return np.concatenate(blocks, axis=1)


def finite_float32(table: Table, name: str, values: np.ndarray) -> np.ndarray:
    """Cast to float32, keeping NaN.

    Raises:
        UserError: a value is infinite, or becomes so in float32.
    """
    with np.errstate(over="ignore"):
        cast = values.astype(np.float32)
    if np.isinf(cast).any():
        row = int(np.flatnonzero(np.isinf(cast))[0])
        raise UserError(
            f"Column {name!r} is infinite or beyond float32 ({table.columns[name][row]!r}) in {table.where(row)}: "
            "correct that value or leave the cell empty."
        )
    return cast


def first_text(cells: Sequence[str]) -> int:
    """Row of the first cell that is present but no number."""
    values = numbers_or_nan(cells)
    return next(row for row, cell in enumerate(cells) if cell and np.isnan(values[row]))


def numbers_or_nan(cells: Sequence[str]) -> np.ndarray:
    """The cells as float64 ``[N]``; NaN where a cell is missing or no number."""
    import pandas as pd  # its parser is strict where float() is not: "1_000" and other scripts' digits are text

    return pd.to_numeric(np.array(cells, dtype=object), errors="coerce").astype(np.float64)


def _check_levels(table: Table, name: str, present: set[str]) -> None:
    cells = table.columns[name]
    row = first_text(cells)
    if len(present) > MAX_LEVELS or (len(present) == len(table) and len(table) > 2):
        raise UserError(
            f"Column {name!r} holds text with {len(present)} different values in {len(table)} rows, such as "
            f"{cells[row][:40]!r} in {table.where(row)}, too many for a category (an id, a date, free text, a misspelt "
            f"number?): use dataset.drop=[{name}] or correct the column."
        )
    numeric = np.isfinite(numbers_or_nan(sorted(present))).mean()
    if numeric >= 0.8 and len(present) > 10:
        log.warning(
            "Column %r is treated as categorical although most of its values are numbers, because of %r in %s.",
            *(name, cells[row][:40], table.where(row)),
        )


def _numeric(table: Table, name: str) -> np.ndarray:
    cells = table.columns[name]
    values = numbers(cells)
    if values is None:
        row = first_text(cells)
        raise UserError(
            f"Column {name!r} is numeric in the training file but holds {cells[row][:40]!r} in {table.where(row)}: "
            f"correct that cell or use dataset.drop=[{name}]."
        )
    return finite_float32(table, name, values)[:, None]


def _one_hot(table: Table, name: str, levels: Sequence[str]) -> np.ndarray:
    place = {level: k for k, level in enumerate(levels)}
    codes = np.array([place.get(cell or MISSING_LEVEL, -1) for cell in table.columns[name]])
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        value = table.columns[name][row] or "a missing cell"
        raise UserError(
            f"Column {name!r} holds {value!r} in {table.where(row)}, which never occurs in the training file: correct "
            f"that cell or use dataset.drop=[{name}]."
        )
    return np.eye(len(levels), dtype=np.float32)[codes]
