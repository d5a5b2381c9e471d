"""The user's own images, too many to be held in memory: listed here, decoded by the methods that can."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reprise.checks import PositiveInt, checked
from reprise.data.base import DataSpec, Source
from reprise.data.folders import ImageFolder, list_images
from reprise.data.store import FileStore, reason
from reprise.errors import UserError


@dataclass(frozen=True)
class ImageFiles:
    """A part of a data set that stands in files, in place of a `reprise.data.base.Split`.

    Attributes:
        root: the folder.
        names: of the files, relative to it.
        y: labels ``[N]``.
    """

    root: Path
    names: tuple[str, ...]
    y: Tensor

    def __len__(self) -> int:
        return len(self.names)

    @property
    def x(self) -> Tensor:
        """Refused: no method gets all images at once."""
        raise UserError(
            "dataset=image_files is never in memory as a whole, which this method needs: use "
            f"dataset=image_folder dataset.path={self.root}, or method=supsup stream=split_imagenet."
        )


@checked
def load(
    *,
    name: str,
    store: FileStore,
    path: str | None = None,
    test_path: str | None = None,
    size: PositiveInt = 224,
    licence: str = "the user's own images",
) -> Source:
    """List colour images that become ``[3, size, size]``; ``train`` and ``test`` are `ImageFiles`.

    The checksum covers names and sizes in bytes, since reading more than a hundred gigabytes would take an hour.

    Args:
        name: name shown in results.
        store: unused; the images are the user's own.
        path: folder with one sub-folder per class, torchvision's ``ImageFolder`` layout.
        test_path: optional official test images, in a folder with the same classes.
        size: height and width of an image as a method gets it.
        licence: their terms of use, for the record.

    Raises:
        UserError: any fault of the folders, or classes that differ between them.
    """
    if not path:
        raise UserError(
            f"dataset.path is not set: give your images with dataset={name} dataset.path=FOLDER, a folder with one "
            "sub-folder per class."
        )
    given = {"dataset.path": path, "dataset.test_path": test_path}
    folders = [list_images(place, option) for option, place in given.items() if place]
    for folder in folders[1:]:
        differing = sorted(set(folder.classes) ^ set(folders[0].classes))
        if differing:
            raise UserError(
                f"only one of {folders[0].root} and {folder.root} has a class folder {differing[0]!r}: "
                "dataset.test_path needs the classes of dataset.path."
            )
    spec = DataSpec(
        name=name,
        task="classification",
        kind="image",
        shape=(3, size, size),
        classes=folders[0].classes,
        origin="user",
        licence=licence,
        source=", ".join(str(folder.root) for folder in folders),
        checksum=_checksum(folders),
    )
    parts = [ImageFiles(folder.root, folder.names, torch.tensor(folder.labels)) for folder in folders]
    return Source(spec, parts[0], parts[1] if len(parts) > 1 else None)  # type: ignore[arg-type]


def decode(path: Path, side: int) -> Tensor:
    """The middle of an image, uint8 ``[3, side, side]``, its shorter side scaled to ``side`` (bilinear, antialiased).

    Raises:
        UserError: the image cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
            width, height = image.size
            short = min(width, height)
            width, height = (int(side * length / short) for length in (width, height))
            image = image.resize((width, height), Image.Resampling.BILINEAR)
            left, top = round((width - side) / 2), round((height - side) / 2)
            pixels = np.array(image.crop((left, top, left + side, top + side)))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"Image {path} cannot be read ({reason(error)}): replace or remove it.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _checksum(folders: Sequence[ImageFolder]) -> str:
    state = hashlib.sha256()
    for place, folder in enumerate(folders):
        for name in folder.names:
            state.update(f"{place} {(folder.root / name).stat().st_size} {name}\n".encode())
    return state.hexdigest()
