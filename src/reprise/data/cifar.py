"""CIFAR-10 and CIFAR-100: the official pickles, or the same pixels as lossless WebP sheets."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reprise.checks import checked
from reprise.data.base import DataSpec, Source, Split
from reprise.data.store import FileSet, FileStore, PublicFile, did_you_mean, reason, sha256_of_arrays
from reprise.errors import UserError

_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html (the python version, unpacked)"
_IMAGES_PER_SHEET = 1000


@dataclass(frozen=True)
class _Sheets:
    """Another layout: ``labels.npz`` and images in sheets of 1,000, whose decoded bytes are checked."""

    folder: str
    labels: tuple[str, int]  # sha256 and bytes of labels.npz
    train: int  # sheets
    test: int

    @property
    def names(self) -> list[str]:
        return [f"{part}_{k:02d}.webp" for part in ("train", "test") for k in range(getattr(self, part))]


@dataclass(frozen=True)
class _Collection:
    """``pickles`` are the official files as (name, md5, bytes): training batches, the test batch, further ones."""

    downloader: str  # the class in torchvision.datasets
    folder: str
    pickles: tuple[tuple[str, str, int], ...]
    batches: int  # how many of the pickles are training batches
    sheets: _Sheets | None
    # sha256 of the training and the test images, uint8 [N, 3072]; None where the md5 of the pickles says it all
    pixels: tuple[str, str] | None = None
    test_rows: tuple[int, ...] = ()  # the official test rows that belong to a subset; empty: all
    hint: str = ""


_CIFAR10_FILES = (
    ("data_batch_1", "c99cafc152244af753f735de768cd75f", 31_035_704),
    ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec", 31_035_320),
    ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751", 31_035_999),
    ("data_batch_4", "634d18415352ddfa80567beed471001a", 31_035_696),
    ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb", 31_035_623),
    ("test_batch", "40351d587109b95175f43aff81a1287e", 31_035_526),
)
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Test rows that the subset lacks: they were missing where its images were first collected.
_GAPS = {
    *(1059, 1102, 1200, 1213, 1218, 1259, 1281, 1331, 1369, 1383, 1422, 1556),
    *(1558, 1632, 1721, 1778, 1783, 1809, 1843, 1869, 1874, 1946, 1994, 2021),
}

_COLLECTIONS = {
    "CIFAR10": _Collection(
        downloader="CIFAR10",
        folder="cifar-10-batches-py",
        pickles=_CIFAR10_FILES,
        batches=5,
        sheets=None,
        hint=", or use dataset=cifar10_subset, which is a fifth of it and another data set",
    ),
    "CIFAR10_subset": _Collection(
        downloader="CIFAR10",
        folder="cifar-10-batches-py",
        pickles=(_CIFAR10_FILES[0], _CIFAR10_FILES[-1]),
        batches=1,
        sheets=_Sheets(
            "cifar10_subset", ("4d57c367c1110e6b94876f14ffe07b2463551e41bda709adb693cbf397530fea", 23_971), 10, 2
        ),
        pixels=(
            "a50e8b48728e1667d682a807155c375279d5ae321fb12242c02e3104a6bc8b21",
            "25010cbacda8630ff67f2487956ddf5d22e22d1a853a0bca8cc93780855b75fe",
        ),
        test_rows=tuple(row for row in range(2024) if row not in _GAPS),
    ),
    "CIFAR100": _Collection(
        downloader="CIFAR100",
        folder="cifar-100-python",
        pickles=(
            ("train", "16019d7e3df5f24257cddd939b257f8d", 155_249_918),
            ("test", "f0ef6b0ae62326f3e7ffdfab6717acfc", 0),
            ("meta", "7973b15100ade9c7d40fb424638fde48", 0),
        ),
        batches=1,
        sheets=_Sheets(
            "cifar100", ("3f9295ceda6b2e4de9539b2f213aba0e90539ec75fc6359d1848ec1d47fb3fda", 89_531), 50, 10
        ),
        pixels=(
            "de64658905c6b161606e3649ddafce7cf86c7634a0cf9116d518e64ef46a33c5",
            "83c56492b2c11211ad1bb2dbd4f2eef4170a0441e41a41f3039c3144b1f5a511",
        ),
    ),
}


def files(*, collection: str) -> FileSet:
    """The official pickles, laid out as torchvision lays them out; ``instead`` the sheets, where there are any.

    Raises:
        UserError: ``collection`` is none of ``CIFAR10``, ``CIFAR10_subset``, ``CIFAR100``.
    """
    known = _known(collection)

    def fetch(missing: Sequence[PublicFile], scratch: Path) -> None:
        import torchvision

        getattr(torchvision.datasets, known.downloader)(scratch, download=True)  # checks the archive, and unpacks it

    return FileSet(
        tuple(PublicFile(f"{known.folder}/{name}", f"md5:{md5}", size) for name, md5, size in known.pickles),
        home=_HOME,
        fetch=fetch,
        instead=_sheet_files(known.sheets) if known.sheets else None,
        hint=known.hint,
    )


def _sheet_files(sheets: _Sheets) -> FileSet:
    sha, size = sheets.labels
    labels = PublicFile(f"{sheets.folder}/labels.npz", f"sha256:{sha}", size)
    images = tuple(PublicFile(f"{sheets.folder}/{name}", "", 0) for name in sheets.names)
    return FileSet((labels, *images), home=_HOME)


@checked
def load(*, name: str, store: FileStore, collection: str, coarse: bool = False) -> Source:
    """Load images float32 ``[N, 3, 32, 32]`` in 0..1 and their labels, both in the official order.

    ``CIFAR10`` and ``CIFAR100`` have 50,000 train and 10,000 test images. ``CIFAR10_subset`` has the first 10,000
    train images and 2,000 of the first 2,024 test images. ``coarse`` gives CIFAR-100's 20 superclasses.

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009.

    Raises:
        UserError: a file is damaged, or is absent and cannot be downloaded; ``coarse`` without CIFAR-100.
    """
    known = _known(collection)
    if coarse and collection != "CIFAR100":
        raise UserError(f"dataset.coarse=true cannot be used with dataset={name}: only CIFAR-100 has superclasses.")
    official = files(collection=collection)
    chosen = store.choose(official)
    paths = store.get(chosen)
    read = _read_pickles if chosen is official else _read_sheets
    parts, classes = read(known, paths, coarse)
    _check_pixels(known, parts, paths[0].parent)
    spec = DataSpec(
        name=name,
        task="classification",
        kind="image",
        shape=(3, 32, 32),
        classes=classes,
        origin="public",
        licence="none stated; free for research, citation asked",
        source="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        checksum=sha256_of_arrays(*(array for part in parts for array in part)),  # the same for both layouts
    )
    train, test = (
        Split(torch.from_numpy(pixels).float().div_(255).view(-1, 3, 32, 32), torch.from_numpy(labels))
        for pixels, labels in parts
    )
    return Source(spec, train=train, test=test)


_Part = tuple[np.ndarray, np.ndarray]  # pixels uint8 [N, 3072]: 1024 red, 1024 green, 1024 blue; labels int64 [N]


def _known(collection: str) -> _Collection:
    if collection not in _COLLECTIONS:
        hint = did_you_mean(str(collection), _COLLECTIONS) or f" (one of {', '.join(_COLLECTIONS)})"
        raise UserError(f"dataset.collection={collection} is not known{hint}.")
    return _COLLECTIONS[collection]


def _check_pixels(known: _Collection, parts: list[_Part], folder: Path) -> None:
    for expected, (pixels, _), part in zip(known.pixels or (), parts, ("training", "test"), strict=False):
        if hashlib.sha256(pixels).hexdigest() != expected:
            raise UserError(f"The {part} images in {folder} are altered: replace that folder, or delete it.")


def _read_pickles(known: _Collection, paths: Sequence[Path], coarse: bool) -> tuple[list[_Part], tuple[str, ...]]:
    """Train and test part and the class names from the official files, in the order of ``known.pickles``."""
    key = ("coarse_labels" if coarse else "fine_labels") if known.downloader == "CIFAR100" else "labels"

    def part(batches: Sequence[Path]) -> _Part:
        contents = [unpickle(path) for path in batches]
        labels = np.concatenate([np.array(content[key], dtype=np.int64) for content in contents])
        return np.concatenate([content["data"] for content in contents]), labels

    train, (pixels, labels) = part(paths[: known.batches]), part(paths[known.batches : known.batches + 1])
    rows = list(known.test_rows) or slice(None)
    classes = _CIFAR10_CLASSES
    if key != "labels":
        classes = tuple(unpickle(paths[-1])[f"{key.removesuffix('s')}_names"])
    return [train, (np.ascontiguousarray(pixels[rows]), labels[rows])], classes


def _read_sheets(known: _Collection, paths: Sequence[Path], coarse: bool) -> tuple[list[_Part], tuple[str, ...]]:
    """The same from ``labels.npz`` and the sheets."""
    assert known.sheets is not None
    level = ("_coarse" if coarse else "_fine") if known.downloader == "CIFAR100" else ""
    with np.load(paths[0], allow_pickle=False) as content:
        labels = [content[f"{part}{level}"].astype(np.int64) for part in ("train", "test")]
        classes = tuple(content[f"{level}_names".removeprefix("_")].tolist()) if level else _CIFAR10_CLASSES
    cut = 1 + known.sheets.train
    pixels = [np.concatenate([_sheet(path) for path in group]) for group in (paths[1:cut], paths[cut:])]
    return list(zip(pixels, labels, strict=True)), classes


def _sheet(path: Path) -> np.ndarray:
    """The 1,000 images of a sheet, 25 in a row and row by row, as uint8 ``[1000, 3072]``."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            sheet = np.asarray(image.convert("RGB")).reshape(40, 32, 25, 32, 3)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path} is damaged ({reason(error)}): replace it, or delete it.") from error
    return np.ascontiguousarray(sheet.transpose(0, 2, 4, 1, 3)).reshape(_IMAGES_PER_SHEET, 3 * 32 * 32)


def unpickle(path: Path) -> dict[str, Any]:
    """The dictionary in an official file: text, numbers, lists and NumPy arrays; nothing in it can run.

    Raises:
        UserError: the file asks for anything else.
    """
    try:
        return _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is no official CIFAR file ({reason(error)}): delete it.") from error


class _Unpickler(pickle.Unpickler):
    """Knows the three names that Python 2 wrote an array with, and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.empty(0).__reduce__()[0]  # the same function, wherever this NumPy keeps it
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
