from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from contract import check_contract, sentence

from reprise.data import usps
from reprise.data.store import FileStore
from reprise.errors import UserError

COUNTS = (
    [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644],
    [359, 264, 198, 166, 200, 160, 170, 147, 166, 177],
)


def test_usps(real_store: FileStore) -> None:
    source = usps.load(name="usps", store=real_store)
    check_contract(source)
    assert source.test is not None
    assert source.train.x.shape == (7291, 1, 16, 16)
    assert (source.train.y.bincount().tolist(), source.test.y.bincount().tolist()) == COUNTS
    assert (source.train.x.min(), source.train.x.max()) == (0, 1)
    assert source.train.x[0, 0, 0].argmax() == 8, "rows run from left to right: the first image's stroke begins there"


def test_another_place(real_store: FileStore, tmp_path: Path) -> None:
    shutil.copy(real_store.data_dir / "USPS" / "usps.h5", tmp_path / "usps.h5")
    store = FileStore(tmp_path, cache_dir=tmp_path / "cache", download=False)
    assert len(usps.load(name="usps", store=store).train) == 7291


def test_usps_without_network(tmp_path: Path, offline: None) -> None:
    with pytest.raises(UserError) as error:
        usps.load(name="usps", store=FileStore(tmp_path / "data", cache_dir=tmp_path / "cache"))
    sentence(error, "USPS/usps.h5", "github.com")


def test_a_file_that_is_no_hdf5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "usps.h5"
    path.write_text("nothing")
    monkeypatch.setattr(FileStore, "get", lambda *_: (path,))
    with pytest.raises(UserError) as error:
        usps.load(name="usps", store=FileStore(tmp_path))
    sentence(error, str(path), "delete it")
