"""Rossmann Store Sales: predict a day's sales of one type of store, from stores of the same or other types."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from reprise.checks import checked
from reprise.data.base import DataSpec, Source, Split
from reprise.data.store import FileStore, check_unchanged, reason, sha256_of, user_file
from reprise.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SPLIT_SEED = 0  # of the random 79/1/20 % division, the same in every run
_ASSORTMENTS = ("a", "b", "c")
# In the order of the inputs: columns of train.csv, the assortment's one-hot inputs, columns of store.csv.
_DAY = ("Store", "DayOfWeek", "Customers", "Open", "Promo", "StateHoliday", "SchoolHoliday")
_PLACE = ("CompetitionDistance", "CompetitionOpenSinceMonth", "Promo2", "Promo2SinceWeek")
FEATURES = (*_DAY, *(f"Assortment={level}" for level in _ASSORTMENTS), *_PLACE)

Setting = Literal["all", "rest", "specific"]


@checked
def load(
    *,
    name: str,
    store: FileStore,
    path: str | None = None,
    store_path: str | None = None,
    task: Literal["regression"] = "regression",
    store_type: Annotated[str, Field(pattern="^[A-Da-d]$")] = "B",
    setting: Setting = "rest",
    checksum: str | None = None,
) -> Source:
    """Load days of stores ``[N, 14]`` with the sales of that day as float32 targets; days without sales are dropped.

    The days are divided at random (not by time), with a fixed seed, into 79 % source rows, 1 % validation and 20 %
    test; after that the validation and test rows are cut down to the target's store type, and the source rows by
    ``setting``. A row is named by its store and date. ``StateHoliday`` is 1 on any of the holidays a, b, c; missing
    values are 0, as in DVRL's official release. ``Customers`` is an input there, though nobody knows it beforehand.

    Args:
        name: name shown in results.
        store: unused; the competition's rules do not allow anybody to pass the files on.
        path: Kaggle's ``train.csv``.
        store_path: Kaggle's ``store.csv``.
        task: always regression; here because methods look for it in the config.
        store_type: the target domain, ``A`` to ``D``.
        setting: source rows of ``all`` types, of the ``rest`` (all but the target's), or of the ``specific`` one.
        checksum: expected sha256 of the two files; refused if they changed since.

    Raises:
        UserError: a file is not set, is bad, or lacks a column; stores that do not match; a part without rows.
    """
    if not path or not store_path:
        raise UserError(
            f"{'dataset.store_path' if path else 'dataset.path'} is not set: dataset=rossmann needs "
            "dataset.path=train.csv and dataset.store_path=store.csv, which you get with a Kaggle account from "
            "https://www.kaggle.com/c/rossmann-store-sales (not to be passed on)."
        )
    days_file, stores_file = user_file(path), user_file(store_path, "dataset.store_path")
    found = check_unchanged(sha256_of(days_file, None, None, stores_file), checksum, days_file)
    x, sales, types, names = _rows(days_file, stores_file)
    target = types == store_type.lower()
    kept = {"all": np.ones_like(target), "rest": ~target, "specific": target}[setting]
    parts = [rows[allowed[rows]] for rows, allowed in zip(_divide(len(x)), (kept, target, target), strict=True)]
    for rows, part in zip(parts, ("source", "validation", "test"), strict=True):
        if not len(rows):
            raise UserError(
                f"{days_file} leaves no {part} rows for dataset.store_type={store_type} dataset.setting={setting}: "
                "choose others, or give the complete file."
            )
    spec = DataSpec(
        name=name,
        task=task,
        kind="table",
        shape=(len(FEATURES),),
        features=FEATURES,
        origin="user",
        licence="Kaggle competition rules, not redistributable",
        source="Rossmann Store Sales, https://www.kaggle.com/c/rossmann-store-sales",
        checksum=found,
    )
    train, validation, test = (
        Split(torch.from_numpy(x[rows]), torch.from_numpy(sales[rows]), tuple(names[rows].tolist())) for rows in parts
    )
    return Source(spec, train=train, test=test, validation=validation)


def _divide(n: int) -> list[np.ndarray]:
    """Row numbers of source, validation and test, each in the order of the file."""
    rows = np.random.default_rng(SPLIT_SEED).permutation(n)
    cuts = (n * 79 // 100, n * 79 // 100 + n // 100)
    return [np.sort(part) for part in np.split(rows, cuts)]


def _rows(days_file: Path, stores_file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Inputs float32 ``[N, 14]``, sales float32 ``[N]``, store types and row names as text ``[N]``."""
    import pandas as pd

    days = _read(days_file, "dataset.path", (*_DAY, "Sales", "Date"), text=("StateHoliday", "Date"))
    stores = _read(
        stores_file,
        "dataset.store_path",
        ("Store", "StoreType", "Assortment", *_PLACE),
        text=("StoreType", "Assortment"),
    )
    _check_keys(days, days_file, ("Store", "Sales"))
    _check_keys(stores, stores_file, ("Store",))
    _check_levels(stores, stores_file, "Assortment", _ASSORTMENTS)
    _check_levels(stores, stores_file, "StoreType", ("a", "b", "c", "d"))
    days = days[days["Sales"] != 0]
    twice = stores["Store"][stores["Store"].duplicated()]
    if len(twice):
        raise UserError(f"{stores_file} has store {twice.iloc[0]:.0f} more than once: keep one of its lines.")
    unknown = days["Store"][~days["Store"].isin(stores["Store"])]
    if len(unknown):
        raise UserError(f"{stores_file} lacks store {unknown.iloc[0]:.0f} of {days_file}: give the matching two files.")
    rows = days.merge(stores, on="Store", how="left", validate="many_to_one")
    # the files hold the number 0 and the text "0"; read as text, both are the same
    rows["StateHoliday"] = rows["StateHoliday"].isin(["a", "b", "c"])
    for level in _ASSORTMENTS:
        rows[f"Assortment={level}"] = rows["Assortment"] == level
    x = rows[list(FEATURES)].astype(np.float32).fillna(0).to_numpy(np.float32)
    names = "store " + rows["Store"].astype(int).astype(str) + " " + rows["Date"]
    types = rows["StoreType"].to_numpy(str)
    return x, rows["Sales"].to_numpy(np.float32), types, pd.Series(names).to_numpy(object)


def _read(file: Path, option: str, columns: tuple[str, ...], text: tuple[str, ...]) -> pd.DataFrame:
    """The named columns: some as text, the others as float64 with NaN where a cell is missing."""
    import pandas as pd

    try:
        header = pd.read_csv(file, nrows=0).columns
        absent = [column for column in columns if column not in header]
        if absent:
            raise UserError(f"{option}: {file} has no column {absent[0]!r}: give Kaggle's file as it is.")
        table = pd.read_csv(file, usecols=list(columns), dtype=dict.fromkeys(text, str), low_memory=False)
    except (OSError, ValueError) as error:  # pandas' parser errors, bytes that are not UTF-8, an empty file
        raise UserError(f"{option}: {file} cannot be read as a CSV file ({reason(error)}): correct it.") from error
    for column in set(columns) - set(text):
        numbers = pd.to_numeric(table[column], errors="coerce")
        wrong = np.flatnonzero(numbers.isna() & table[column].notna() | np.isinf(numbers))
        if len(wrong):
            cell = str(table[column].iloc[wrong[0]])[:40]
            raise UserError(f"Column {column!r} of {file} holds {cell!r} in data row {wrong[0]}: correct that cell.")
        table[column] = numbers.astype(np.float64)
    return table


def _check_keys(table: pd.DataFrame, file: Path, columns: tuple[str, ...]) -> None:
    for column in columns:
        missing = np.flatnonzero(table[column].isna())
        if len(missing):
            raise UserError(f"Column {column!r} of {file} is empty in data row {missing[0]}: fill or remove that row.")


def _check_levels(table: pd.DataFrame, file: Path, column: str, levels: tuple[str, ...]) -> None:
    wrong = np.flatnonzero(~table[column].isin(levels))
    if len(wrong):
        raise UserError(
            f"Column {column!r} of {file} holds {table[column].iloc[wrong[0]]!r} in data row {wrong[0]}: it must be "
            f"one of {', '.join(levels)}."
        )
