"""Images that are listed and not read, and decoded as torchvision would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from contract import no_store, sentence
from PIL import Image
from torchvision.transforms import functional as TF

from reprise.data.image_files import decode, load
from reprise.errors import UserError


def folder(root: Path, classes: str = "abcd", images: int = 3, side: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for k in range(images):
            pixels = rng.integers(0, 256, (side + k, side + 3, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{k}.png")
    return root


def test_files_are_listed(tmp_path: Path) -> None:
    root = folder(tmp_path / "train")
    source = load(
        name="mine", store=no_store(tmp_path), path=str(root), test_path=str(folder(tmp_path / "test", images=1))
    )
    assert (len(source.train), len(source.test)) == (12, 4)
    assert source.train.names[3] == "b/0.png"
    assert source.train.y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert (source.spec.shape, source.spec.classes) == ((3, 224, 224), tuple("abcd"))
    assert source.spec.origin == "user"


def test_the_checksum_follows_names_and_sizes(tmp_path: Path) -> None:
    root = folder(tmp_path / "train")
    before = load(name="mine", store=no_store(tmp_path), path=str(root)).spec.checksum
    moved = root.rename(tmp_path / "elsewhere")
    assert load(name="mine", store=no_store(tmp_path), path=str(moved)).spec.checksum == before
    (moved / "a" / "0.png").rename(moved / "a" / "9.png")
    renamed = load(name="mine", store=no_store(tmp_path), path=str(moved)).spec.checksum
    (moved / "a" / "9.png").write_bytes(b"short")
    assert len({before, renamed, load(name="mine", store=no_store(tmp_path), path=str(moved)).spec.checksum}) == 3


def test_a_method_that_wants_all_pixels_is_told_so(tmp_path: Path) -> None:
    source = load(name="mine", store=no_store(tmp_path), path=str(folder(tmp_path / "train")))
    with pytest.raises(UserError) as error:
        source.train.x.flatten(1)
    sentence(error, "dataset=image_folder", "stream=split_imagenet")


@pytest.mark.parametrize(("width", "height"), [(300, 201), (201, 300), (224, 224), (31, 40), (257, 500)])
@pytest.mark.parametrize(("side", "size"), [(64, 56), (32, 28)])
def test_the_middle_has_torchvisions_bits(tmp_path: Path, width: int, height: int, side: int, size: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    image.save(tmp_path / "image.png")
    stored = decode(tmp_path / "image.png", side)
    assert stored.dtype == torch.uint8
    expected = TF.pil_to_tensor(TF.center_crop(TF.resize(image, side), size))
    assert torch.equal(TF.center_crop(stored, size), expected)


def test_grey_images_get_three_channels(tmp_path: Path) -> None:
    Image.new("L", (20, 10), 77).save(tmp_path / "image.png")
    assert torch.equal(decode(tmp_path / "image.png", 8), torch.full((3, 8, 8), 77, dtype=torch.uint8))


def test_faults_are_one_sentence(tmp_path: Path) -> None:
    root = folder(tmp_path / "train")
    with pytest.raises(UserError) as error:
        load(name="mine", store=no_store(tmp_path))
    sentence(error, "dataset.path is not set", "dataset=mine")
    with pytest.raises(UserError) as error:
        load(name="mine", store=no_store(tmp_path), path=str(root), test_path=str(folder(tmp_path / "test", "abcx")))
    sentence(error, "class folder 'd'", "dataset.test_path")
    (root / "a" / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError) as error:
        decode(root / "a" / "0.png", 8)
    sentence(error, "0.png cannot be read", "remove it")
