"""CelebA: faces with forty attributes, for users who have it. Its terms allow non-commercial research only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from reprise.checks import PositiveInt, checked
from reprise.data.base import DataSpec, Source, Split
from reprise.data.store import FileSet, FileStore, PublicFile, did_you_mean, reason, sha256_of
from reprise.errors import UserError

FOLDER = "celeba"
PARTS = ("train", "validation", "test")  # 0, 1 and 2 in the list of partitions
_HOME = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (Align&Cropped Images, unpacked, and the two lists)"
_LISTS = ("list_eval_partition.txt", "list_attr_celeba.txt")
_MD5 = ("d32c9cbf5e040fd4025c592c306e6668", "75e246fa4810816ffd6ee81facbd244c")  # as torchvision checks them


def files() -> FileSet:
    """The lists of partitions and attributes, below ``celeba/`` as in torchvision; the images lie beside them."""
    listed = (PublicFile(f"{FOLDER}/{name}", f"md5:{md5}", 0) for name, md5 in zip(_LISTS, _MD5, strict=True))
    return FileSet(tuple(listed), home=_HOME, fetch=_by_hand, hint=f" and {FOLDER}/img_align_celeba/")


def _by_hand(missing: Sequence[PublicFile], scratch: Path) -> None:
    raise OSError("its owners hand it out on a page that no program can follow")


@checked
def load(
    *,
    name: str,
    store: FileStore,
    size: PositiveInt = 64,
    crop: PositiveInt = 148,
    attribute: str = "Smiling",
    limit: PositiveInt | None = None,
) -> Source:
    """Load faces float32 ``[N, 3, size, size]`` in 0..1 in the official parts 162,770, 19,867 and 19,962.

    The middle ``crop`` pixels of the aligned 178x218 images are resized (bilinear, antialiased). Decoded images are
    kept in the cache as bytes, so that only the first run takes minutes.

    Source: Z. Liu, P. Luo, X. Wang, X. Tang, Deep learning face attributes in the wild, ICCV 2015.

    Args:
        size: height and width; 64 takes 10 GB of memory, so give ``limit`` for less.
        crop: side of the square that is kept; 148 and 140 are usual.
        attribute: the one of the forty that is the label (no or yes).
        limit: images of each part, the first ones; ``None`` = all.

    Raises:
        UserError: files are absent, damaged or unreadable, or there is no such attribute.
    """
    partition_file, attribute_file = store.get(files())
    images = partition_file.parent / "img_align_celeba"
    names, parts = _columns(partition_file)
    labels = _attribute(attribute_file, attribute, names)
    if not images.is_dir():
        raise UserError(f"Folder {images} does not exist: unpack the aligned images of {_HOME} there.")
    found = {}
    for number, part in enumerate(PARTS):
        rows = np.flatnonzero(parts == number)[:limit]
        pixels = _decoded(images, [names[row] for row in rows], store.cache / FOLDER, crop, size)
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
        found[part] = Split(x, torch.from_numpy(labels[rows]).long())
    spec = DataSpec(
        name=name,
        task="classification",
        kind="image",
        shape=(3, size, size),
        classes=(f"not {attribute}", attribute),
        origin="public",
        licence="non-commercial research only (CUHK)",
        source="Liu, Luo, Wang, Tang, ICCV 2015",
        checksum=sha256_of(partition_file, attribute_file),
    )
    return Source(spec, **found)


def _columns(path: Path) -> tuple[list[str], np.ndarray]:
    """Names of the images and their parts."""
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    return [row[0] for row in rows], np.array([int(row[1]) for row in rows])


def _attribute(path: Path, attribute: str, names: list[str]) -> np.ndarray:
    """0 or 1 for every image; the file has a count, the names of the attributes, and -1 or 1 for each."""
    _, header, *rows = path.read_text().splitlines()
    known = header.split()
    if attribute not in known:
        raise UserError(
            f"dataset.attribute={attribute} is none of CelebA's forty{did_you_mean(attribute, known)}: choose one of "
            f"{', '.join(known)}."
        )
    column = known.index(attribute) + 1
    values = {row.split()[0]: int(row.split()[column] == "1") for row in rows if row.strip()}
    return np.array([values[name] for name in names])


def _decoded(images: Path, names: list[str], cache: Path, crop: int, size: int) -> np.ndarray:
    """Bytes ``[n, size, size, 3]``, from the cache where an earlier run has left them."""
    from PIL import Image

    first = names[0] if names else "none"
    path = cache / f"{first}-{len(names)}-{crop}-{size}.npy"
    if path.exists():
        return np.load(path)
    pixels = np.empty((len(names), size, size, 3), dtype=np.uint8)
    for row, name in enumerate(names):
        try:
            with Image.open(images / name) as image:
                left, top = (image.width - crop) // 2, (image.height - crop) // 2
                square = image.convert("RGB").crop((left, top, left + crop, top + crop))
                pixels[row] = np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"Image {images / name} cannot be read ({reason(error)}): unpack it again.") from error
    cache.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.npy")
    np.save(beside, pixels)
    os.replace(beside, path)
    return pixels
