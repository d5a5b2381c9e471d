from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract import check_contract, no_store, sentence
from PIL import Image
from pydantic import ValidationError

from reprise.data import image_folder
from reprise.data.base import Source
from reprise.data.folders import list_images, sha256_of_images
from reprise.errors import UserError


def paint(path: Path, colour: tuple[int, int, int] = (255, 0, 0), size: tuple[int, int] = (4, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two cats and three dogs."""
    folder = tmp_path / "animals"
    for name in ("dog/b.png", "dog/a.png", "cat/10.png", "cat/9.png", "dog/deep/c.png"):
        paint(folder / name)
    return folder


def load(path: Path | None, **options: Any) -> Source:
    return image_folder.load(name="image_folder", store=no_store(Path()), path=str(path) if path else None, **options)


def test_rows_are_files_in_order(images: Path) -> None:
    paint(images / "cat" / "9.png", (0, 51, 255))
    source = load(images, size=2)
    check_contract(source)
    assert source.spec.classes == ("cat", "dog")
    assert source.train.names == ("cat/10.png", "cat/9.png", "dog/a.png", "dog/b.png", "dog/deep/c.png")
    assert source.train.y.tolist() == [0, 0, 1, 1, 1]
    assert source.train.x.shape == (5, 3, 2, 2)
    assert source.train.x[1, :, 0, 0].tolist() == pytest.approx([0, 0.2, 1])
    assert (source.spec.origin, source.test, source.validation) == ("user", None, None)
    for row, name in enumerate(source.train.names):
        assert name.startswith(source.spec.classes[source.train.y[row]])


def test_the_order_is_torchvision_s(images: Path) -> None:
    from torchvision.datasets import ImageFolder

    theirs = ImageFolder(str(images))
    assert [Path(path).relative_to(images).as_posix() for path, _ in theirs.samples] == list(list_images(images).names)


def test_grey_and_size(images: Path) -> None:
    picture = np.zeros((4, 4), np.uint8)
    picture[:, 2:] = 200
    Image.fromarray(picture).save(images / "cat" / "10.png")
    x = load(images, size=2, colour=False).train.x
    assert x.shape == (5, 1, 2, 2)
    left, right = x[0, 0].mean(dim=0).tolist()
    assert left + right == pytest.approx(200 / 255, abs=0.01), "the brightness is kept"
    assert left < right


def test_an_image_turned_by_its_camera_is_upright(images: Path) -> None:
    picture = Image.new("RGB", (2, 2))
    picture.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    picture.save(images / "cat" / "10.png", exif=exif)
    bright = load(images, size=2).train.x[0, 0]
    assert bright.argmax() == 1, "the corner at the upper left comes to the upper right"


def test_test_and_validation_folders(images: Path, tmp_path: Path) -> None:
    for part in ("test", "clean"):
        for name in ("cat/1.png", "dog/1.png"):
            paint(tmp_path / part / name)
    source = load(images, test_path=str(tmp_path / "test"), validation_path=str(tmp_path / "clean"))
    check_contract(source)
    assert source.test is not None
    assert source.test.names == ("cat/1.png", "dog/1.png")
    assert source.validation is not None
    assert source.validation.y.tolist() == [0, 1]


def test_other_files_and_hidden_folders_do_not_count(images: Path) -> None:
    before = load(images).spec.checksum
    (images / "cat" / "notes.txt").write_text("miaow")
    (images / "labels.csv").write_text("x")
    (images / ".cache").mkdir()
    source = load(images)
    assert len(source.train) == 5
    assert source.spec.checksum == before


def test_the_checksum_follows_names_content_and_part(images: Path, tmp_path: Path) -> None:
    first = sha256_of_images(images)
    moved = tmp_path / "elsewhere"
    images.rename(moved)
    assert sha256_of_images(moved) == sha256_of_images(str(moved), None, "") == first
    sums = {first, sha256_of_images(moved, moved), sha256_of_images(moved, None, moved)}
    (moved / "cat" / "9.png").rename(moved / "cat" / "8.png")
    sums.add(sha256_of_images(moved))
    paint(moved / "cat" / "8.png", (0, 255, 0))
    sums.add(sha256_of_images(moved))
    assert len(sums) == 5
    assert sha256_of_images(None, "") is None


def test_a_folder_without_classes_is_unlabelled(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        paint(tmp_path / "photos" / name)
    source = load(tmp_path / "photos")
    check_contract(source)
    assert source.spec.classes == ("image",)
    assert source.train.names == ("a.png", "b.png")
    assert source.train.y.tolist() == [0, 0]
    assert sha256_of_images(tmp_path / "photos")


def empty_class(folder: Path) -> None:
    (folder / "bird").mkdir()


def no_classes(folder: Path) -> None:
    (folder / "cat").rename(folder.parent / "cat")
    (folder / "dog").rename(folder.parent / "dog")


def one_class(folder: Path) -> None:
    (folder / "cat").rename(folder.parent / "cat")


def broken(folder: Path) -> None:
    (folder / "dog" / "a.png").write_bytes((folder / "dog" / "a.png").read_bytes()[:-30])


def no_image(folder: Path) -> None:
    (folder / "dog" / "a.png").write_text("woof")


def sixteen_bits(folder: Path) -> None:
    Image.fromarray(np.full((2, 2), 60_000, np.uint16)).save(folder / "dog" / "a.png")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (empty_class, ["bird holds no image"]),
        (no_classes, ["animals has neither images nor sub-folders", "dataset.path"]),
        (one_class, ["one sub-folder only (dog)", "two at least"]),
        (broken, ["dog/a.png cannot be read"]),
        (no_image, ["dog/a.png cannot be read"]),
        (sixteen_bits, ["dog/a.png has more than 8 bits"]),
    ],
)
def test_bad_folders(images: Path, damage: Callable[[Path], None], parts: list[str]) -> None:
    damage(images)
    with pytest.raises(UserError) as error:
        load(images)
    sentence(error, *parts)


def test_folders_that_are_not_there(images: Path) -> None:
    for path, part in (
        (images.parent / "animal", "did you mean 'animals'"),
        (images / "dog" / "a.png", "is a file"),
        (None, "dataset=image_folder dataset.path=FOLDER"),
    ):
        with pytest.raises(UserError) as error:
            load(path)
        sentence(error, part)
    with pytest.raises(UserError, match=r"correct dataset\.test_path"):
        load(images, test_path=str(images / "none"))


def test_classes_must_agree(images: Path, tmp_path: Path) -> None:
    for names, part in (
        (("cat", "dog", "horse"), "has a class folder 'horse'"),
        (("cat", "horse"), "lacks the class folder 'dog'"),
    ):
        other = tmp_path / part
        for name in names:
            paint(other / name / "1.png")
        for option in ("test_path", "validation_path"):
            with pytest.raises(UserError) as error:
                load(images, **{option: str(other)})
            sentence(error, part, f"dataset.{option}")


def test_images_that_changed_since_are_refused(images: Path) -> None:
    checksum = sha256_of_images(images)
    load(images, checksum=checksum)
    paint(images / "dog" / "a.png", (1, 2, 3))
    with pytest.raises(UserError, match="changed since"):
        load(images, checksum=checksum)


def test_a_size_of_nothing(images: Path) -> None:
    with pytest.raises(ValidationError, match="size"):
        load(images, size=0)


def test_ham10000(images: Path, tmp_path: Path) -> None:
    for path, test_path, part in (
        (None, None, "dataset.path is not set"),
        (images, None, "dataset.test_path is not set"),
    ):
        with pytest.raises(UserError) as error:
            image_folder.load_ham10000(name="ham10000", store=no_store(tmp_path), path=path, test_path=test_path)
        sentence(error, part, "DBW86T", "HAM10000_metadata", "akiec bcc bkl df mel nv vasc")
    given = {"path": str(images), "test_path": str(images)}
    source = image_folder.load_ham10000(name="ham10000", store=no_store(tmp_path), size=8, licence="both", **given)
    check_contract(source)
    assert source.test is not None
    assert torch.equal(source.test.x, source.train.x)
    assert (source.spec.name, source.spec.licence, source.spec.shape) == ("ham10000", "both", (3, 8, 8))


def test_listing_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'pandas', 'PIL', 'numpy'}"
    code = f"import sys, reprise.data.folders; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
