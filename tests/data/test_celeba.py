from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from contract import check_contract, sentence
from PIL import Image

from reprise.data import celeba
from reprise.data.store import FileStore
from reprise.errors import UserError

PARTS = [0, 0, 0, 1, 2, 2]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileStore:
    """Six faces that are plain squares in a frame."""
    folder = tmp_path / "data" / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06d}.jpg" for i in range(6)]
    for i, name in enumerate(names):
        pixels = np.zeros((218, 178, 3), dtype=np.uint8)
        pixels[35:183, 15:163] = 40 * i
        Image.fromarray(pixels).save(folder / "img_align_celeba" / name, quality=95)
    texts = [
        "".join(f"{name} {part}\n" for name, part in zip(names, PARTS, strict=True)),
        "6\nMale Smiling \n" + "".join(f"{name} -1 {1 if i % 2 else -1}\n" for i, name in enumerate(names)),
    ]
    for name, text in zip(celeba._LISTS, texts, strict=True):
        (folder / name).write_text(text)
    monkeypatch.setattr(celeba, "_MD5", tuple(hashlib.md5(text.encode()).hexdigest() for text in texts))
    return FileStore(tmp_path / "data", cache_dir=tmp_path / "cache", download=False)


def test_faces_in_their_parts(store: FileStore) -> None:
    source = celeba.load(name="celeba", store=store, size=16)
    check_contract(source)
    assert [len(part) for part in (source.train, source.validation, source.test)] == [3, 1, 2]
    assert source.train.y.tolist() == [0, 1, 0]
    assert source.test.y.tolist() == [0, 1]
    brightness = torch.tensor([0.0, 40.0, 80.0]) / 255
    assert torch.allclose(source.train.x.mean((1, 2, 3)), brightness, atol=0.02), "only the middle is kept"


def test_decoded_faces_are_kept(store: FileStore) -> None:
    once = celeba.load(name="celeba", store=store, size=16)
    for file in (store.data_dir / "celeba" / "img_align_celeba").iterdir():
        file.unlink()
    assert torch.equal(once.train.x, celeba.load(name="celeba", store=store, size=16).train.x)


def test_a_limit_and_another_attribute(store: FileStore) -> None:
    source = celeba.load(name="celeba", store=store, size=8, limit=1, attribute="Male")
    assert [len(part) for part in (source.train, source.validation, source.test)] == [1, 1, 1]
    assert source.spec.classes == ("not Male", "Male")


def test_an_attribute_that_is_none(store: FileStore) -> None:
    with pytest.raises(UserError) as error:
        celeba.load(name="celeba", store=store, attribute="smiling")
    sentence(error, "dataset.attribute=smiling", "did you mean 'Smiling'?", "Male")


def test_an_image_that_is_none(store: FileStore) -> None:
    (store.data_dir / "celeba" / "img_align_celeba" / "000002.jpg").write_text("nothing")
    with pytest.raises(UserError) as error:
        celeba.load(name="celeba", store=store)
    sentence(error, "000002.jpg", "unpack it again")


def test_without_images(store: FileStore) -> None:
    (store.data_dir / "celeba" / "img_align_celeba").rename(store.data_dir / "elsewhere")
    with pytest.raises(UserError) as error:
        celeba.load(name="celeba", store=store)
    sentence(error, "img_align_celeba does not exist")


def test_without_celeba(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        celeba.load(name="celeba", store=FileStore(tmp_path, cache_dir=tmp_path / "cache"))
    sentence(error, "celeba/list_eval_partition.txt", "mmlab.ie.cuhk.edu.hk", "img_align_celeba")
