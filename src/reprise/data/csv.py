"""The user's own table: a delimited text file with a header line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from reprise.data.base import DataSpec, Source, Split
from reprise.data.columns import Column, encode, feature_names, plan_columns
from reprise.data.store import FileStore, check_unchanged, did_you_mean, sha256_of, user_file
from reprise.data.table import Table, read_table
from reprise.data.targets import class_names, decide_task, encode_classes, encode_numbers
from reprise.errors import UserError


def load(
    *,
    name: str,
    store: FileStore,
    path: str | None = None,
    target: str | None = None,
    task: str = "auto",
    drop: Sequence[str] | str = (),
    test_path: str | None = None,
    validation_path: str | None = None,
    separator: str | None = None,
    checksum: str | None = None,
) -> Source:
    """Load a user's table: inputs float32 ``[N, F]``, target int64 or float32 ``[N]``; data row ``i`` is row ``i``.

    Args:
        name: name shown in results.
        store: unused; the file is the user's own.
        path: the file.
        target: its target column.
        task: ``auto``, ``classification`` or ``regression``; see :func:`reprise.data.targets.decide_task`.
        drop: columns to ignore, e.g. ids.
        test_path: optional official test file with the same columns.
        validation_path: optional clean validation file with the same columns.
        separator: one character or its name, see :func:`reprise.data.table.read_table`; ``None`` finds out.
        checksum: expected :func:`reprise.data.store.sha256_of` the three files; refused if they changed since.

    Raises:
        UserError: any fault of the files or options, with the place and the remedy.
    """
    file = user_file(_given(path, "dataset.path"))
    found = check_unchanged(sha256_of(file, test_path, validation_path), checksum, file)  # refuses what is no file
    for option, other in (("dataset.test_path", test_path), ("dataset.validation_path", validation_path)):
        if other and sha256_of(other) == sha256_of(file):
            raise UserError(
                f"{option} holds the same rows as dataset.path ({file}): give rows that are not trained on."
            )
    table = read_table(file, separator)
    layout = _layout(table, _given(target, "dataset.target"), task, [drop] if isinstance(drop, str) else list(drop))
    features = feature_names(layout.columns)
    spec = DataSpec(
        name=name,
        task="classification" if layout.classes else "regression",
        kind="table",
        shape=(len(features),),
        classes=layout.classes,
        features=features,
        origin="user",
        licence="the user's own data",
        source=str(file),
        checksum=found,
    )
    return Source(spec, _split(table, layout), *(_other(p, separator, layout) for p in (test_path, validation_path)))


@dataclass(frozen=True)
class _Layout:
    """How the training table is read, for its test and validation files to follow; no classes means regression."""

    table: Table
    target: str
    columns: list[Column]
    classes: tuple[str, ...]


def _layout(table: Table, target: str, task: str, drop: list[str]) -> _Layout:
    columns = plan_columns(table, _input_names(table, target, drop))
    classes = class_names(table, target) if decide_task(table, target, task) == "classification" else ()
    return _Layout(table, target, columns, classes)


def _split(part: Table, layout: _Layout) -> Split:
    x = encode(part, layout.columns)
    y = encode_classes(part, layout.target, layout.classes) if layout.classes else encode_numbers(part, layout.target)
    return Split(torch.from_numpy(x), torch.from_numpy(y))


def _other(path: str | None, separator: str | None, layout: _Layout) -> Split | None:
    return _split(_same_columns(read_table(user_file(path), separator), layout), layout) if path else None


def _given(value: str | None, option: str) -> str:
    if value is None or str(value) in ("", "???"):
        what = "COLUMN" if option.endswith("target") else "FILE"
        raise UserError(f"{option} is not set: give your table with dataset=csv and {option}={what}.")
    return str(value)


def _input_names(table: Table, target: str, drop: list[str]) -> list[str]:
    """The input columns: all but the target and the dropped ones."""
    known = list(table.columns)
    for option, column in (("dataset.target", target), *(("dataset.drop", column) for column in drop)):
        if str(column) not in table.columns:
            shown = ", ".join(known[:20]) + (f", ... {len(known)} in all" if len(known) > 20 else "")
            hint = did_you_mean(str(column), known)
            first = " (its first line must hold the column names)" if any(map(_is_number, known)) else ""
            raise UserError(
                f"{option}: {table.path} has no column {str(column)!r}{hint}; its columns are {shown}{first}."
            )
    ignored = {str(column) for column in drop}
    if target in ignored:
        raise UserError(f"dataset.drop names the target column {target!r}: remove it from dataset.drop.")
    names = [column for column in known if column != target and column not in ignored]
    if not names:
        raise UserError(f"{table.path} has no input column left beside the target {target!r}: shorten dataset.drop.")
    for place, column in enumerate(known, start=1):
        if column == f"unnamed_{place}" and column in names:
            raise UserError(
                f"Column {place} of {table.path} has no name (often a saved row index): name it in the file or use "
                f"dataset.drop=[{column}]."
            )
    return names


def _is_number(name: str) -> bool:
    return name.replace(".", "", 1).isdecimal()


def _same_columns(part: Table, layout: _Layout) -> Table:
    """Check that ``part`` has the training file's columns; order does not matter, dropped columns may be absent."""
    train = layout.table
    absent = [c for c in (*(column.name for column in layout.columns), layout.target) if c not in part.columns]
    if absent:
        raise UserError(f"{part.path} lacks the column {absent[0]!r} that {train.path} has: add it to the file.")
    extra = [column for column in part.columns if column not in train.columns]
    if extra:
        raise UserError(f"{part.path} has a column {extra[0]!r} that {train.path} lacks: remove it from the file.")
    return part
