"""OMNIGLOT at 28x28, made from the original drawings."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reprise.data.base import DataSpec, Source, Split
from reprise.data.store import FileSet, FileStore, PublicFile, reason, sha256_of
from reprise.errors import UserError

SIDE, SMALL = 105, 28
TRAIN, TEST = 24_345, 8_070  # sizes of the IWAE's split, of 32,460 drawings
_SITE = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
_ZIPS = (
    PublicFile(
        "omniglot/images_background.zip",
        "md5:68d2efa1b9178cc56df9314c21c6e718",
        0,
        url=f"{_SITE}/images_background.zip",
        also=("omniglot-py/images_background.zip",),
    ),
    PublicFile(
        "omniglot/images_evaluation.zip",
        "md5:6b91aef0f799c5bb55b94e3f2daec811",
        0,
        url=f"{_SITE}/images_evaluation.zip",
        also=("omniglot-py/images_evaluation.zip",),
    ),
)
_ARRAYS = (
    PublicFile(
        "omniglot/images_background.npz",
        "sha256:8bf84167413cd00beacdce3fe582f780ab538d8dbef043a6d688f2527bbce199",
        3_340_794,
    ),
    PublicFile(
        "omniglot/images_evaluation.npz",
        "sha256:0b84c7ffd94c4841c0040e529c86a82eaaccb986d8eadad5673f7991b7475276",
        2_415_269,
    ),
    PublicFile(
        "omniglot/characters.csv",
        "sha256:eb39b0892f5ee00fff952a695cfa64e92554935fb29738373c2c1a8c22325e46",
        71_062,
    ),
)
_HOME = "https://github.com/brendenlake/omniglot (python/images_background.zip and images_evaluation.zip)"
_LICENCE = "MIT, copyright 2015 Brenden Lake"
_SOURCE = "Lake, Salakhutdinov, Tenenbaum, Science 350, 2015"


def files() -> FileSet:
    """The official archives; or the same drawings as two NumPy files with a list of characters."""
    return FileSet(_ZIPS, home=_HOME, instead=FileSet(_ARRAYS, home=_HOME))


def load(*, name: str, store: FileStore) -> Source:
    """Load 24,345 train and 8,070 test images ``[N, 1, 28, 28]`` in 0..1, strokes bright; labels are the 50 alphabets.

    Each of the 32,460 drawings of 105x105 pixels is inverted and averaged over the area of each small pixel. Which ones
    are for training is drawn once for all, in the sizes of the split that the literature uses. Pixels and split are
    nevertheless not those of the IWAE's file, so that likelihoods compare with no published ones.

    Raises:
        UserError: a file is damaged, or is absent and cannot be downloaded.
    """
    layout = store.choose(files())
    paths = store.get(layout)
    read = _read_zips if layout.instead else _read_arrays
    try:
        images, labels, names = read(paths)
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{paths[0].parent} cannot be read as OMNIGLOT ({reason(error)}): delete its files.") from error
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    train, test = order[:TRAIN], order[TRAIN : TRAIN + TEST]
    spec = spec_of(name, names, sha256_of(*paths))
    return Source(spec, train=Split(images[train], labels[train]), test=Split(images[test], labels[test]))


def spec_of(name: str, classes: tuple[str, ...], checksum: str) -> DataSpec:
    """What both forms of the data set have in common."""
    return DataSpec(
        name=name,
        task="classification",
        kind="image",
        shape=(1, SMALL, SMALL),
        classes=classes,
        origin="public",
        licence=_LICENCE,
        source=_SOURCE,
        checksum=checksum,
    )


def _read_arrays(paths: Sequence[Path]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Images, labels and alphabets of the NumPy files, in which paper is true."""
    with paths[2].open(newline="") as file:
        rows = list(csv.DictReader(file))
    alphabets = tuple(sorted({row["alphabet_folder"] for row in rows}))
    images, labels = [], []
    for path, part in zip(paths[:2], ("background", "evaluation"), strict=True):
        with np.load(path) as content:
            drawings = content["images"]
        own = [row for row in rows if row["set"] == part]
        own.sort(key=lambda row: int(row["npz_row"]))
        for character, row in zip(drawings, own, strict=True):
            images.append(averaged(~character))
            labels += [alphabets.index(row["alphabet_folder"])] * len(character)
    return torch.cat(images), torch.tensor(labels), alphabets


def _read_zips(paths: Sequence[Path]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Images, labels and alphabets of the archives, in the order of the official numbers of characters."""
    from PIL import Image

    found: list[tuple[str, np.ndarray, str]] = []
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                if entry.endswith(".png"):
                    with Image.open(io.BytesIO(archive.read(entry))) as image:
                        found.append((entry.rsplit("/", 1)[1], np.asarray(image.convert("1")), entry.split("/")[1]))
    found.sort(key=lambda item: item[0])  # 0001_01.png: character, drawer
    alphabets = tuple(sorted({alphabet for _, _, alphabet in found}))
    images = [averaged(~np.stack([pixels for _, pixels, _ in found[i : i + 20]])) for i in range(0, len(found), 20)]
    return torch.cat(images), torch.tensor([alphabets.index(alphabet) for _, _, alphabet in found]), alphabets


def averaged(ink: np.ndarray) -> Tensor:
    """Share of ink in each of 28x28 equal areas ``[n, 1, 28, 28]`` of drawings ``[n, 105, 105]``."""
    weights = _areas()
    return (weights @ torch.from_numpy(ink).float() @ weights.T).clamp(0, 1).unsqueeze(1)


def _areas() -> Tensor:
    """How much of each small pixel every large one covers along one side ``[28, 105]``; rows sum to 1."""
    edges = torch.arange(SMALL + 1, dtype=torch.float64) * SIDE / SMALL
    pixels = torch.arange(SIDE, dtype=torch.float64)
    covered = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (covered.clamp_min(0) * SMALL / SIDE).float()
