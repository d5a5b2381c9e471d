"""New rows in the shape of a run's data: columns by name, categories never seen, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from dvrl_tasks import source_of, table

from reprise.data.base import DataSpec, Split
from reprise.data.table import read_table
from reprise.errors import UserError
from reprise.papers.dvrl import new_rows

SPEC = DataSpec(
    name="csv",
    task="classification",
    kind="table",
    shape=(5,),
    classes=("no", "yes"),
    features=("size", "colour=blue", "colour=missing", "colour=red", "a=b"),
)


def written(tmp_path, *lines):
    path = tmp_path / "new.csv"
    path.write_text("\n".join(lines) + "\n")
    return read_table(path)


def test_columns_are_found_by_name_whatever_their_order(tmp_path, caplog):
    found = new_rows.of_table(
        written(tmp_path, "label,colour,a=b,size", "yes,red,1,2.5", "no,,2,", "yes,blue,3,4"), "label", SPEC
    )
    np.testing.assert_array_equal(found.x, [[2.5, 0, 0, 1, 1], [np.nan, 0, 1, 0, 2], [4, 1, 0, 0, 3]])
    assert found.x.dtype == torch.float32
    assert found.y.tolist() == [1, 0, 1]
    assert not caplog.messages


def test_unknown_categories_are_none_of_the_known_and_said_once(tmp_path, caplog):
    lines = ["size,colour,a=b,label", "1,green,0,no", "1,pink,0,no", "1,red,0,no"]
    found = new_rows.of_table(written(tmp_path, *lines), "label", SPEC)
    np.testing.assert_array_equal(found.x[:, 1:4], [[0, 0, 0], [0, 0, 0], [0, 0, 1]])
    (said,) = caplog.messages
    assert "Column 'colour' holds 2 cells that never occur" in said
    assert "'green' in data row 0" in said


def test_further_columns_are_ignored_in_one_line(tmp_path, caplog):
    found = new_rows.of_table(written(tmp_path, "id,size,colour,a=b,label,note", "7,1,red,0,no,x"), "label", SPEC)
    assert found.x.shape == (1, 5)
    (said,) = caplog.messages
    assert said.endswith("are ignored: id, note.")


def test_equals_signs_in_levels_and_names(tmp_path):
    spec = replace(SPEC, features=("k=v=1", "k=w", "m=n=x"))
    found = new_rows.of_table(written(tmp_path, "k,m=n,label", "v=1,x,no", "w,y,yes"), "label", spec)
    np.testing.assert_array_equal(found.x, [[1, 0, 1], [0, 1, 0]])


def test_numbers_as_targets(tmp_path):
    spec = replace(SPEC, task="regression", classes=(), features=("size",))
    found = new_rows.of_table(written(tmp_path, "size,y", "1,2.5", "2,-1"), "y", spec)
    assert found.y.tolist() == [2.5, -1]
    assert found.y.dtype == torch.float32


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["size,colour,a=b,Label", "1,red,0,no"], r"no column 'label' \(did you mean 'Label'\?\), its target column"),
        (["size,a=b,label", "1,0,no"], "no column 'colour', an input that the run was trained on"),
        (["colour,a=b,label", "red,0,no"], "no column 'size', an input"),
        (["1,red,0,no", "2,red,0,no"], r"no column 'label'.*\(its first line must hold the column names\)"),
        (["size,colour,a=b,label", "big,red,0,no"], "'size' is numeric in the training file but holds 'big'"),
        (["size,colour,a=b,label", "1e99,red,0,no"], "'size' is infinite or beyond float32"),
        (["size,colour,a=b,label", "1,red,0,maybe"], "holds class 'maybe' in data row 0 .* never occurs"),
        (["size,colour,a=b,label", "1,red,0,"], "Target 'label' is missing in 1 of 1 rows"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, lines, told):
    with pytest.raises(UserError, match=told):
        new_rows.of_table(written(tmp_path, *lines), "label", SPEC)


def test_a_table_for_a_run_on_images_is_refused(tmp_path):
    spec = replace(SPEC, name="digits", features=(), image=(1, 8, 8))
    with pytest.raises(UserError, match=r"dataset=digits, whose inputs of shape \(1, 8, 8\) have no column names"):
        new_rows.of_table(written(tmp_path, "a,b", "1,2"), "b", spec)


def source(features=("f", "g", "h", "i"), classes=3):
    made = source_of(table(30, classes), classes)
    return replace(made, spec=replace(made.spec, features=features))


def trained_on(features=("f", "g", "h", "i"), classes=3):
    return source(features, classes).spec


def test_rows_of_a_data_set_by_feature_and_class_name():
    theirs = source(classes=3)
    found = new_rows.of_source(theirs, "train", trained_on(("h", "f"), classes=3))
    assert torch.equal(found.x, theirs.train.x[:, [2, 0]])
    assert torch.equal(found.y, theirs.train.y)
    turned = new_rows.of_source(theirs, "train", replace(trained_on(), classes=("c", "x", "b", "a")))
    assert turned.y.tolist() == [{0: 3, 1: 2, 2: 0}[label] for label in theirs.train.y.tolist()]


def test_images_must_have_the_runs_shape():
    flat = table(30, 3)
    images = source_of(Split(flat.x.view(30, 1, 2, 2), flat.y))
    spec = replace(images.spec, shape=(4,), image=(1, 2, 2))
    assert torch.equal(new_rows.of_source(images, "train", spec).x, images.train.x)
    with pytest.raises(UserError, match=r"inputs of shape \(1, 2, 2\), the run .* inputs of shape \(1, 4, 1\)"):
        new_rows.of_source(images, "train", replace(spec, image=(1, 4, 1)))
    with pytest.raises(UserError, match="choose a data set like that"):
        new_rows.of_source(source(), "train", spec)


def test_data_sets_that_do_not_fit():
    for theirs, part, spec, told in (
        (source(), "test", trained_on(), "has no official test rows: choose part=train"),
        (source(classes=0), "train", trained_on(), "has a regression target, the run was trained on a classification"),
        (source(), "train", trained_on(("f", "other")), "lacks the input 'other'"),
        (source(), "train", trained_on(classes=2), "has the class 'c', which the run was not trained on"),
    ):
        with pytest.raises(UserError, match=told):
            new_rows.of_source(theirs, part, spec)


def test_labels_as_people_know_them():
    assert new_rows.labels(np.array([1, 0]), SPEC).tolist() == ["yes", "no"]
    assert new_rows.labels(np.array([1.5]), replace(SPEC, classes=())).tolist() == [1.5]
