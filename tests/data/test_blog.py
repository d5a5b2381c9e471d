from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from contract import check_contract, no_store, sentence

from reprise.data import blog
from reprise.data.store import FileStore
from reprise.errors import UserError


def test_blog(real_store: FileStore) -> None:
    source = blog.load(name="blog", store=real_store)
    check_contract(source)
    assert source.test is not None
    assert source.train.y.bincount().tolist() == [52_397 - 18_838, 18_838]
    assert source.test.y.bincount().tolist() == [7_624 - 2_273, 2_273]
    assert source.train.x.shape[1] == 280
    assert source.train.x[0, :3].tolist() == pytest.approx([40.30467, 53.845657, 0.0])


def test_the_number_of_comments(real_store: FileStore) -> None:
    source = blog.load(name="blog", store=real_store, task="regression")
    check_contract(source)
    assert source.spec.classes == ()
    assert source.train.y.sum().item() == 354_451


def row(first: float, comments: float) -> str:
    return ",".join([str(first)] + ["0"] * 279 + [str(comments)])


def archive(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name, text in members.items():
            out.writestr(f"{name}.csv", text)
    return path


def test_rows_with_a_gap_are_dropped_and_test_files_sorted(tmp_path: Path) -> None:
    gap = "," + row(0, 1).split(",", 1)[1]
    path = archive(
        tmp_path / "a.zip",
        **{"blogData_test-2012.02.02": row(3, 0), "blogData_train": "\n".join([row(1, 5), gap, row(2, 0)])},
        **{"blogData_test-2012.02.01": row(4, 1)},
    )
    train, test = blog._read(path)
    assert train[:, [0, -1]].tolist() == [[1, 5], [2, 0]]
    assert test[:, [0, -1]].tolist() == [[4, 1], [3, 0]]
    assert train.dtype == np.float32


def test_a_wrong_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = archive(tmp_path / "narrow.zip", blogData_train="1,2\n")
    plain = tmp_path / "plain.zip"
    plain.write_text("no zip")
    for path in (narrow, plain, archive(tmp_path / "empty.zip")):
        monkeypatch.setattr(FileStore, "get", lambda *_, path=path: (path,))
        with pytest.raises(UserError) as error:
            blog.load(name="blog", store=no_store(tmp_path))
        sentence(error, str(path), "delete it")


def test_blog_without_network(tmp_path: Path, offline: None) -> None:
    with pytest.raises(UserError) as error:
        blog.load(name="blog", store=FileStore(tmp_path / "data", cache_dir=tmp_path / "cache"))
    sentence(error, "blogfeedback/BlogFeedback.zip", "dataset/304")
