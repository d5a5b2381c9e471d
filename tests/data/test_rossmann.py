from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import check_contract, no_store, sentence
from pydantic import ValidationError

from reprise.data import rossmann
from reprise.data.base import Source
from reprise.errors import UserError

DAYS = "Store,DayOfWeek,Date,Sales,Customers,Open,Promo,StateHoliday,SchoolHoliday"
STORES = (
    "Store,StoreType,Assortment,CompetitionDistance,CompetitionOpenSinceMonth,CompetitionOpenSinceYear,Promo2,"
    "Promo2SinceWeek,Promo2SinceYear,PromoInterval"
)
TYPES = "abcd"  # of stores 1, 2, 3, 4
N = 2000  # days with sales


def day(k: int) -> str:
    holiday = ("0", '"0"', "a", "c")[k // 4 % 4]
    return f"{1 + k % 4},{1 + k % 7},2015-01-{1 + k % 28:02d},{1000 + k},{k % 50},1,{k % 2},{holiday},0"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Two small files with the competition's columns; each tenth line is a closed day."""
    days, stores = tmp_path / "train.csv", tmp_path / "store.csv"
    closed = "1,7,2015-02-01,0,0,0,0,0,1"
    lines = [line for k in range(N) for line in ([closed, day(k)] if k % 9 == 0 else [day(k)])]
    days.write_text("\n".join([DAYS, *lines]) + "\n")
    rows = ["1,a,a,100,9,2008,0,,,", "2,b,b,,,,1,13,2010,'Jan'", "3,c,c,300,4,2009,0,,,", "4,d,a,400,,,1,5,2011,x"]
    stores.write_text("\n".join([STORES, *rows]) + "\n")
    return {"path": str(days), "store_path": str(stores)}


def load(files: dict[str, str], **options: Any) -> Source:
    return rossmann.load(name="rossmann", store=no_store(Path()), **(files | options))


def parts(source: Source) -> list[set[int]]:
    """Numbers k of the days in source, validation and test."""
    assert source.test is not None
    assert source.validation is not None
    return [set((split.y - 1000).int().tolist()) for split in (source.train, source.validation, source.test)]


def test_inputs_and_target(files: dict[str, str]) -> None:
    source = load(files, store_type="b", setting="specific")
    check_contract(source)
    assert (source.spec.task, source.spec.classes, source.spec.origin) == ("regression", (), "user")
    x = dict(zip(source.spec.features, source.train.x.T, strict=True))
    k = (source.train.y - 1000).int()
    assert (x["Store"] == 2).all()
    assert (x["Customers"] == k % 50).all()
    assert (x["StateHoliday"] == (k // 4 % 4 >= 2)).all()
    assert [x[f"Assortment={level}"].mean() for level in "abc"] == [0, 1, 0]
    assert (x["CompetitionDistance"] == 0).all(), "missing values are 0"
    assert (x["Promo2SinceWeek"] == 13).all()
    assert not {"StoreType", "Date", "Sales"} & set(x)
    assert source.train.names[0] == f"store 2 2015-01-{1 + int(k[0]) % 28:02d}"


def test_the_division_comes_before_the_types(files: dict[str, str]) -> None:
    whole = [load(files, store_type=letter, setting="all") for letter in "ABCD"]
    train, _, _ = parts(whole[0])
    assert len(train) == N * 79 // 100
    assert all(parts(source)[0] == train for source in whole), "source rows of all types do not depend on the target"
    valid = set.union(*(parts(source)[1] for source in whole))
    test = set.union(*(parts(source)[2] for source in whole))
    assert (len(valid), len(test)) == (N // 100, N - N * 79 // 100 - N // 100)
    assert train | valid | test == set(range(N))


def test_settings(files: dict[str, str]) -> None:
    everything, rest, specific = (parts(load(files, store_type="C", setting=s)) for s in ("all", "rest", "specific"))
    assert rest[0] | specific[0] == everything[0]
    assert all(k % 4 != 2 for k in rest[0])
    assert all(k % 4 == 2 for part in (*specific, *rest[1:], *everything[1:]) for k in part)
    assert rest[1:] == specific[1:] == everything[1:]


def test_rows_keep_the_file_s_order_and_each_run_divides_alike(files: dict[str, str]) -> None:
    one, two = (load(files) for _ in range(2))
    assert (one.train.y.diff() > 0).all()
    assert one.train.y.tolist() == two.train.y.tolist()
    expected = np.random.default_rng(rossmann.SPLIT_SEED).permutation(N)[: N * 79 // 100]
    assert parts(one)[0] == {k for k in expected.tolist() if k % 4 != 1}


def test_the_official_sizes() -> None:
    assert [len(rows) for rows in rossmann._divide(844_338)][:2] == [667_027, 8_443]


def edit(files: dict[str, str], which: str, old: str, new: str) -> None:
    path = Path(files[which])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("which", "old", "new", "parts"),
    [
        ("path", "Sales", "sales", ["dataset.path", "no column 'Sales'"]),
        ("store_path", "Promo2Since", "Promo3Since", ["dataset.store_path", "'Promo2SinceWeek'"]),
        ("path", ",1005,", ",many,", ["'Sales'", "'many'", "data row"]),
        ("path", ",1005,", ",,", ["'Sales'", "is empty in data row"]),
        ("path", ",1005,", ",inf,", ["'Sales'", "'inf'"]),
        ("store_path", "\n4,d", "\n1,d", ["store 1 more than once"]),
        ("store_path", "\n4,d", "\n5,d", ["lacks store 4"]),
        ("store_path", "\n4,d,a", "\n4,e,a", ["'StoreType'", "'e'", "one of a, b, c, d"]),
        ("store_path", "\n4,d,a", "\n4,d,", ["'Assortment'", "nan"]),
        ("store_path", "\n2,b", "\n2,a", ["no validation rows", "dataset.store_type=B"]),
    ],
)
def test_bad_files(files: dict[str, str], which: str, old: str, new: str, parts: list[str]) -> None:
    edit(files, which, old, new)
    with pytest.raises(UserError) as error:
        load(files)
    sentence(error, *parts)


def test_files_that_are_no_tables(files: dict[str, str]) -> None:
    for content in (b"", b"\xff\xfe\x00", (DAYS + "\n1,2\n" + "1," * 40 + "\n").encode()):
        Path(files["path"]).write_bytes(content)
        with pytest.raises(UserError) as error:
            load(files)
        sentence(error, "train.csv")


def test_what_is_not_set(files: dict[str, str], tmp_path: Path) -> None:
    for given, part in (({"path": None}, "dataset.path is not set"), ({"store_path": None}, "dataset.store_path is")):
        with pytest.raises(UserError) as error:
            load(files, **given)
        sentence(error, part, "kaggle.com/c/rossmann-store-sales")
    with pytest.raises(UserError, match=r"did you mean 'store.csv'.*correct dataset\.store_path"):
        load(files, store_path=str(tmp_path / "stores.csv"))
    with pytest.raises(UserError, match="changed"):
        load(files, checksum="0" * 64)


@pytest.mark.parametrize("options", [{"store_type": "E"}, {"setting": "none"}, {"task": "classification"}])
def test_options_that_do_not_exist(files: dict[str, str], options: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        load(files, **options)
