from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contract import check_contract, sentence
from PIL import Image
from scipy.io import savemat

from reprise.data import omniglot, omniglot_iwae
from reprise.data.store import FileStore
from reprise.errors import UserError


def test_omniglot(real_store: FileStore) -> None:
    if not (real_store.data_dir / "omniglot").is_dir():
        pytest.skip("REPRISE_DATA has no OMNIGLOT")
    source = omniglot.load(name="omniglot", store=real_store)
    check_contract(source)
    assert source.test is not None
    assert (len(source.train), len(source.test), source.spec.num_classes) == (24_345, 8_070, 50)
    assert 0.05 < source.train.x.mean() < 0.12, "strokes are bright and few"
    assert source.train.x.max() == 1
    again = omniglot.load(name="omniglot", store=real_store)
    assert torch.equal(source.test.x, again.test.x), "the split is drawn once for all"


def test_ink_is_averaged_over_areas() -> None:
    ink = np.zeros((1, 105, 105), dtype=bool)
    ink[0, :15, :15] = True  # 15 pixels are exactly four small ones
    small = omniglot.averaged(ink)[0, 0]
    assert torch.allclose(small[:4, :4], torch.ones(4, 4))
    assert torch.allclose(small.sum(), torch.tensor(16.0))
    ink = np.zeros((1, 105, 105), dtype=bool)
    ink[0, 3, 3] = True  # a pixel on the edge of four small ones, three quarters of it in the first of each pair
    share = torch.tensor([0.75, 0.25]) / 3.75
    assert torch.allclose(omniglot.averaged(ink)[0, 0, :2, :2], share[:, None] * share, atol=1e-6)


def drawings(characters: int) -> np.ndarray:
    """Paper is true."""
    return np.random.default_rng(characters).random((characters, 20, 105, 105)) > 0.1


def pack(path: Path, images: np.ndarray, first: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for c, character in enumerate(images):
            for k, drawing in enumerate(character):
                content = io.BytesIO()
                Image.fromarray(drawing).save(content, format="PNG")
                name = f"{path.stem}/Alphabet_{(first + c) % 2}/character{c + 1:02d}/{first + c:04d}_{k + 1:02d}.png"
                archive.writestr(name, content.getvalue())


def test_archives_and_arrays_hold_the_same(tmp_path: Path) -> None:
    """Both layouts, made up, give the same images, labels and names."""
    parts = {"background": drawings(3), "evaluation": drawings(2)}
    rows = ["set,npz_row,character_id,alphabet_folder,character_folder"]
    number = 1
    for part, images in parts.items():
        pack(tmp_path / f"images_{part}.zip", images, number)
        np.savez(tmp_path / f"images_{part}.npz", images=images)
        rows += [f"{part},{i},{number + i},Alphabet_{(number + i) % 2},character{i:02d}" for i in range(len(images))]
        number += len(images)
    (tmp_path / "characters.csv").write_text("\n".join(rows) + "\n")
    zips = omniglot._read_zips([tmp_path / "images_background.zip", tmp_path / "images_evaluation.zip"])
    names = ("images_background.npz", "images_evaluation.npz", "characters.csv")
    arrays = omniglot._read_arrays([tmp_path / name for name in names])
    assert torch.equal(zips[0], arrays[0])
    assert zips[1].tolist() == arrays[1].tolist()
    assert zips[2] == arrays[2] == ("Alphabet_0", "Alphabet_1")
    assert zips[0].shape == (100, 1, 28, 28)
    assert zips[0].mean() == pytest.approx(0.1, abs=0.01), "ink is bright"


def test_omniglot_without_network(tmp_path: Path, offline: None) -> None:
    for module in (omniglot, omniglot_iwae):
        with pytest.raises(UserError) as error:
            module.load(name="omniglot", store=FileStore(tmp_path / "data", cache_dir=tmp_path / "cache"))
        sentence(error, "omniglot/", "github.com", "REPRISE_DATA")


def test_a_damaged_array_is_named(tmp_path: Path) -> None:
    (tmp_path / "omniglot").mkdir()
    for file in omniglot._ARRAYS:
        (tmp_path / file.path).write_bytes(b"nothing")
    with pytest.raises(UserError) as error:
        omniglot.load(name="omniglot", store=FileStore(tmp_path, download=False))
    sentence(error, "images_background.npz", "damaged")


def test_an_archive_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"nothing"
    zips = tuple(replace(f, checksum=f"sha256:{hashlib.sha256(content).hexdigest()}") for f in omniglot._ZIPS)
    monkeypatch.setattr(omniglot, "_ZIPS", zips)
    (tmp_path / "omniglot").mkdir()
    for file in zips:
        (tmp_path / file.path).write_bytes(content)
    with pytest.raises(UserError) as error:
        omniglot.load(name="omniglot", store=FileStore(tmp_path, download=False))
    sentence(error, "cannot be read as OMNIGLOT", "delete")


def mat(path: Path, **changes: np.ndarray) -> FileStore:
    rng = np.random.default_rng(0)
    content = {}
    for part, rows in (("", 24_345), ("test", 8_070)):
        image = np.zeros((28, 28))
        image[3, 20] = 1  # row 3, column 20
        content[f"{part}data"] = np.repeat(image.reshape(784, 1, order="F").astype(np.uint8), rows, 1)
        content[f"{part}target"] = np.eye(50, dtype=np.uint8)[rng.integers(0, 50, rows)].T
    (path / "omniglot").mkdir()
    savemat(path / "omniglot" / "chardata.mat", content | changes)
    return FileStore(path, download=False)


def test_the_iwaes_file_stands_upright(tmp_path: Path) -> None:
    source = omniglot_iwae.load(name="omniglot_iwae", store=mat(tmp_path))
    check_contract(source)
    assert source.train.x[0, 0].nonzero().tolist() == [[3, 20]]
    assert len(source.test) == 8_070


@pytest.mark.parametrize("changes", [{"data": np.zeros((784, 3))}, {"data": np.zeros((5, 24_345))}])
def test_another_mat_file_is_refused(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    store = mat(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        omniglot_iwae.load(name="omniglot_iwae", store=store)
    sentence(error, "chardata.mat", "delete it", "yburda/iwae")


def test_a_file_that_is_no_mat(tmp_path: Path) -> None:
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "omniglot" / "chardata.mat").write_text("nothing")
    with pytest.raises(UserError) as error:
        omniglot_iwae.load(name="omniglot_iwae", store=FileStore(tmp_path, download=False))
    sentence(error, "chardata.mat", "delete it")
