from __future__ import annotations

import csv as text_csv
import io
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprise.data.base import Source
from reprise.data.csv import load
from reprise.data.store import FileStore, sha256_of
from reprise.errors import UserError

GOOD = "id,size,colour,y\n1,1.5,red,no\n2,,blue,yes\n3,3.5,red,no\n4,4,,yes\n"


def write(folder: Path, text: str | bytes, name: str = "my.csv") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def read(folder: Path, text: str | bytes, target: str = "y", **options: Any) -> Source:
    return load(name="csv", store=FileStore(folder), path=write(folder, text), target=target, **options)


def fault(folder: Path, text: str | bytes, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        read(folder, text, **options)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def columns(source: Source) -> dict[str, list[float]]:
    return {name: source.train.x[:, k].tolist() for k, name in enumerate(source.spec.features)}


def test_mixed_types(tmp_path: Path) -> None:
    source = read(tmp_path, GOOD, drop=["id"])
    spec = source.spec
    assert spec.features == ("size", "colour=blue", "colour=missing", "colour=red")
    assert spec.shape == (4,)
    assert (spec.task, spec.kind, spec.origin, spec.classes) == ("classification", "table", "user", ("no", "yes"))
    assert spec.checksum == sha256_of(tmp_path / "my.csv")
    assert source.train.y.tolist() == [0, 1, 0, 1]
    assert source.train.y.dtype == torch.int64
    found = columns(source)
    assert found["colour=missing"] == [0, 0, 0, 1]
    assert found["colour=red"] == [1, 0, 1, 0]
    assert torch.equal(source.train.x[:, 0].isnan(), torch.tensor([False, True, False, False]))
    assert (source.test, source.validation) == (None, None)


def test_drop_accepts_one_bare_name(tmp_path: Path) -> None:
    assert "id" not in read(tmp_path, GOOD, drop="id").spec.features


def test_booleans_are_categories(tmp_path: Path) -> None:
    source = read(tmp_path, "b,y\ntrue,False\nfalse,True\ntrue,False\n")
    assert source.spec.features == ("b=false", "b=true")
    assert source.spec.classes == ("False", "True")


@pytest.mark.parametrize(
    ("targets", "task", "expected", "classes"),
    [
        (["0", "1", "0"], "auto", "classification", ("0", "1")),
        (["10", "9", "10.0"], "auto", "classification", ("9", "10")),
        (["-1", "1", "1"], "auto", "classification", ("-1", "1")),
        (["0.5", "1", "1"], "auto", "regression", ()),
        (["0", "1", "0"], "regression", "regression", ()),
        (["0.5", "1.5", "0.5"], "classification", "classification", ("0.5", "1.5")),
        ([str(k) for k in range(21)], "auto", "regression", ()),
        ([str(k % 20) for k in range(21)], "auto", "classification", tuple(str(k) for k in range(20))),
        (["b", "a", "1"] * 2, "auto", "classification", ("1", "a", "b")),
        (["None", "mild", "None"], "auto", "classification", ("None", "mild")),
    ],
)
def test_the_task_follows_from_the_target(
    tmp_path: Path, targets: list[str], task: str, expected: str, classes: tuple[str, ...]
) -> None:
    text = "a,y\n" + "".join(f"{k},{target}\n" for k, target in enumerate(targets))
    source = read(tmp_path, text, task=task)
    assert (source.spec.task, source.spec.classes) == (expected, classes)
    if expected == "regression":
        assert source.train.y.dtype == torch.float32
        assert source.train.y.tolist() == [float(target) for target in targets]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends_are_found_out(tmp_path: Path, separator: str, end: str) -> None:
    text = "\ufeff" + GOOD.replace(",", separator).replace("\n", end) + end * 2
    source = read(tmp_path, text, drop=["id"])
    assert len(source.train) == 4
    assert source.spec.features[0] == "size"


@pytest.mark.parametrize(
    ("given_", "used"), [("tab", "\t"), ("\\t", "\t"), ("semicolon", ";"), (":", ":"), ("space", " ")]
)
def test_a_separator_can_be_given(tmp_path: Path, given_: str, used: str) -> None:
    assert len(read(tmp_path, GOOD.replace(",", used), separator=given_).train) == 4


def test_quotes_and_line_breaks_inside_cells(tmp_path: Path) -> None:
    source = read(tmp_path, 'a, "b,1",y\n1, "u\nv", 0\n2, "say ""w""",1\n3,"u\nv",0\n')
    assert source.spec.features == ("a", 'b,1=say "w"', "b,1=u\nv")
    message = fault(tmp_path, 'a,b,y\n1,"u\nv",0\n2,w\n')
    assert "Line 4" in message


def test_missing_markers(tmp_path: Path) -> None:
    cells = ["?", "NA", "n/a", "NaN", "null", "", " ", "1"]
    source = read(tmp_path, "a,b,y\n" + "".join(f"{c},{k},{k % 2}\n" for k, c in enumerate(cells)))
    assert source.train.x[:, 0].isnan().tolist() == [True] * 7 + [False]


def test_the_other_files_align_by_name(tmp_path: Path) -> None:
    test = write(tmp_path, "y,colour,size\nyes,red,7\nno,,\n", "test.csv")
    clean = write(tmp_path, "size,colour,y\n1,blue,yes\n", "clean.csv")
    source = read(tmp_path, GOOD, drop=["id"], test_path=test, validation_path=clean)
    assert source.test is not None
    assert source.validation is not None
    assert source.test.x[0].tolist() == [7, 0, 0, 1]
    assert source.test.x[1, 1:].tolist() == [0, 1, 0]
    assert source.test.y.tolist() == [1, 0]
    assert source.validation.x.tolist() == [[1, 1, 0, 0]]
    assert source.spec.checksum == sha256_of(tmp_path / "my.csv", test, clean)


def test_equal_numbers_are_one_class_across_files(tmp_path: Path) -> None:
    test = write(tmp_path, "a,y\n1,1.0\n2,0\n", "test.csv")
    source = read(tmp_path, "a,y\n1,0\n2,1\n3,1\n", test_path=test)
    assert source.test is not None
    assert source.test.y.tolist() == [1, 0]


def test_a_regression_test_file(tmp_path: Path) -> None:
    test = write(tmp_path, "a,y\n1,3\n", "test.csv")
    source = read(tmp_path, "a,y\n1,0.5\n2,1.5\n3,1.5\n", test_path=test)
    assert source.test is not None
    assert source.test.y.tolist() == [3.0]


def test_mostly_numeric_text_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ages = [str(20 + k % 12) for k in range(40)] + ["unknown"]
    with caplog.at_level(logging.WARNING):
        read(tmp_path, "age,y\n" + "".join(f"{age},{k % 2}\n" for k, age in enumerate(ages)))
    assert "'age'" in caplog.text
    assert "unknown" in caplog.text


WORDS = "".join(f"w{k},{k % 2}\n" for k in range(150))
FAULTS: list[tuple[str, str | bytes, dict[str, Any], list[str]]] = [
    ("empty", "", {}, ["my.csv", "is empty"]),
    ("blank", "\n \n", {}, ["my.csv", "is empty"]),
    ("header only", "a,y\n", {}, ["my.csv", "no data rows"]),
    ("one column", "y\n1\n", {}, ["my.csv", "dataset.separator"]),
    ("wrong separator", GOOD, {"separator": ";"}, ["my.csv", "one column only", "';'"]),
    ("long separator", GOOD, {"separator": ", "}, ["dataset.separator", "', '", "semicolon"]),
    ("target unset", GOOD, {"target": None}, ["dataset.target"]),
    ("target mandatory", GOOD, {"target": "???"}, ["dataset.target"]),
    ("target misspelt", GOOD, {"target": "color"}, ["'color'", "did you mean 'colour'", "id, size, colour, y"]),
    ("target in another case", GOOD, {"target": "Y"}, ["'Y'", "did you mean 'y'"]),
    ("no header", "5.1,a\n4.9,b\n", {}, ["'y'", "first line must hold the column names"]),
    ("drop misspelt", GOOD, {"drop": ["sizes"]}, ["dataset.drop", "'sizes'", "did you mean 'size'"]),
    ("drop the target", GOOD, {"drop": ["y"]}, ["dataset.drop", "'y'"]),
    ("drop everything", GOOD, {"drop": ["id", "size", "colour"]}, ["my.csv", "no input column"]),
    ("task misspelt", GOOD, {"task": "regresion"}, ["dataset.task", "did you mean 'regression'"]),
    ("task unsuited", GOOD, {"task": "regression"}, ["'y'", "'no'", "data row 0 (line 2"]),
    ("duplicate names", "a,b,a,y\n1,2,3,0\n", {}, ["more than one column named 'a'"]),
    ("nameless column", ",a,y\n0,1,0\n1,2,1\n", {}, ["Column 1", "dataset.drop=[unnamed_1]"]),
    ("short row", "a,b,y\n1,2,0\n1,2\n", {}, ["Line 3", "2 cells", "3 columns"]),
    ("long row", "a,y\n1,0\n1,2,1\n", {}, ["Line 3", "3 cells"]),
    ("blank row", "a,y\n1,0\n\n2,1\n", {}, ["Line 3", "blank"]),
    ("open quote", 'a,y\n1,0\n"2,1\n', {}, ["my.csv", "line 3", "quotes"]),
    ("text after quote", 'a,y\n1,0\n"2"x,1\n', {}, ["my.csv", "line 3", "quotes"]),
    ("huge cell", "a,y\n" + "1" * 200_000 + ",0\n", {}, ["my.csv", "line 2", "limit"]),
    ("NUL", b"a,y\n1,0\n\0\0,1\n", {}, ["my.csv", "NUL"]),
    ("UTF-16", GOOD.encode("utf-16"), {}, ["my.csv", "UTF-16"]),
    ("Latin-1", "a,y\n1,0\ncafé,1\n".encode("latin-1"), {}, ["my.csv", "UTF-8", "0xe9", "line 3"]),
    ("junk", bytes(range(128, 256)) * 4, {}, ["my.csv", "UTF-8"]),
    ("missing target", "a,y\n1,0\n2,\n3,NA\n", {}, ["'y'", "2 of 3", "data row 1 (line 3"]),
    ("infinite target", "a,y\n1,0.5\n2,inf\n", {}, ["'y'", "'inf'", "data row 1 (line 3"]),
    ("one class", "a,y\n1,0\n2,0\n", {}, ["'y'", "'0'", "every row"]),
    ("one class per row", "a,y\n1,u\n2,v\n3,w\n", {}, ["'y'", "different value"]),
    ("infinite input", "a,y\n1,0\n1e400,1\n", {}, ["'a'", "'1e400'", "data row 1 (line 3"]),
    ("beyond float32", "a,y\n1,0\n-1e39,1\n", {}, ["'a'", "'-1e39'", "data row 1 (line 3"]),
    ("empty column", "a,b,y\n1,,0\n2,NA,1\n", {}, ["'b'", "dataset.drop=[b]"]),
    ("free text", "t,y\n" + WORDS + WORDS, {}, ["'t'", "150 different", "'w0'", "dataset.drop=[t]"]),
    ("dates", "d,y\n2020-01-01,0\n2020-01-02,1\n2020-01-03,0\n", {}, ["'d'", "'2020-01-01'", "dataset.drop=[d]"]),
    ("decimal commas", "a;y\n1,5;0\n2,5;1\n3,5;0\n", {}, ["'a'", "'1,5'"]),
    ("changed file", GOOD, {"checksum": "0" * 64}, ["my.csv", "0" * 64]),
]


@pytest.mark.parametrize(("text", "options", "parts"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_fault_is_one_sentence_that_names_the_culprit(
    tmp_path: Path, text: str | bytes, options: dict[str, Any], parts: list[str]
) -> None:
    message = fault(tmp_path, text, **options)
    assert [part for part in parts if part not in message] == [], message


OTHER_FAULTS: list[tuple[str, str, list[str]]] = [
    ("lacks a column", "size,y\n1,no\n", ["other.csv", "'colour'"]),
    ("lacks the target", "size,colour\n1,red\n", ["other.csv", "'y'"]),
    ("extra column", "size,colour,y,z\n1,red,no,1\n", ["other.csv", "'z'"]),
    ("unseen category", "size,colour,y\n1,green,no\n", ["'colour'", "'green'", "data row 0 (line 2", "other.csv"]),
    ("unseen class", "size,colour,y\n1,red,perhaps\n", ["'y'", "'perhaps'", "other.csv", "no, yes"]),
    ("text among numbers", "size,colour,y\nbig,red,no\n", ["'size'", "'big'", "other.csv"]),
    ("missing target", "size,colour,y\n1,red,\n", ["'y'", "1 of 1", "other.csv"]),
    ("empty", "", ["other.csv", "is empty"]),
]


@pytest.mark.parametrize("option", ["test_path", "validation_path"])
@pytest.mark.parametrize(("text", "parts"), [f[1:] for f in OTHER_FAULTS], ids=[f[0] for f in OTHER_FAULTS])
def test_a_fault_of_another_file_names_that_file(tmp_path: Path, option: str, text: str, parts: list[str]) -> None:
    message = fault(tmp_path, GOOD, drop=["id"], **{option: write(tmp_path, text, "other.csv")})
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("option", ["path", "test_path", "validation_path"])
def test_a_path_that_is_no_file(tmp_path: Path, option: str) -> None:
    options: dict[str, Any] = {
        "path": write(tmp_path, GOOD),
        "target": "y",
        "name": "csv",
        "store": FileStore(tmp_path),
    }
    for wrong, part in ((tmp_path / "my.cvs", "did you mean 'my.csv'"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=part) as error:
            load(**options | {option: str(wrong)})
        assert str(wrong) in str(error.value)
        assert f"dataset.{option}" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", [None, "", "???"])
def test_the_path_must_be_set(tmp_path: Path, path: str | None) -> None:
    with pytest.raises(UserError, match=r"dataset\.path is not set"):
        load(name="csv", store=FileStore(tmp_path), path=path, target="y")


levels = st.sampled_from(["red", "green", "a,b", 'say "x"', "two\nlines", "ünï", "None", ""])
rows = st.lists(
    st.tuples(levels, st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)), levels), min_size=1, max_size=30
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows, separator=st.sampled_from(",;\t|"))
def test_what_was_written_is_read_back(tmp_path: Path, rows: list[Any], separator: str) -> None:
    """Every categorical block is one-hot at the written level, numbers and row order survive."""
    # One anchor level repeated keeps a short table from looking like a column of ids.
    rows = [*rows, ("red", 0.0, "red"), ("red", 1.0, "red"), ("red", 0.5, "red")]
    buffer = io.StringIO(newline="")
    writer = text_csv.writer(buffer, delimiter=separator)
    writer.writerow(["first", "number", "second", "y"])
    for k, (first, number, second) in enumerate(rows):
        writer.writerow([first, "" if number is None else repr(number), second, k % 2])
    source = read(tmp_path, buffer.getvalue(), separator=separator)
    assert source.train.y.tolist() == [k % 2 for k in range(len(rows))]
    found = columns(source)
    for place, name in ((0, "first"), (2, "second")):
        block = [feature for feature in found if feature.startswith(f"{name}=")]
        assert block == sorted(block)
        for k, row in enumerate(rows):
            hot = [feature for feature in block if found[feature][k] == 1]
            assert hot == [f"{name}={row[place] or 'missing'}"]
            assert sum(found[feature][k] for feature in block) == 1
    expected = torch.tensor([float("nan") if row[1] is None else row[1] for row in rows])
    assert torch.allclose(torch.tensor(found["number"]), expected, equal_nan=True)


@pytest.mark.parametrize("option", ["test_path", "validation_path"])
def test_the_training_rows_are_no_test_rows(tmp_path, option):
    path, copy = tmp_path / "my.csv", tmp_path / "copy.csv"
    for file in (path, copy):
        file.write_text("a,y\n1,p\n2,q\n3,p\n")
    with pytest.raises(UserError, match=rf"dataset\.{option} holds the same rows as dataset\.path"):
        load(name="csv", store=None, path=str(path), target="y", **{option: str(copy)})
