"""The user's own images: one folder per class. HAM10000 is read the same way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from reprise.checks import PositiveInt, checked
from reprise.data.base import DataSpec, Source, Split
from reprise.data.folders import ImageFolder, list_images, sha256_of_images
from reprise.data.store import FileStore, check_unchanged, reason
from reprise.errors import UserError

_SKIN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
_SKIN_HOME = "https://doi.org/10.7910/DVN/DBW86T"


@checked
def load(
    *,
    name: str,
    store: FileStore,
    path: str | None = None,
    test_path: str | None = None,
    validation_path: str | None = None,
    size: PositiveInt = 32,
    colour: bool = True,
    checksum: str | None = None,
    licence: str = "the user's own images",
) -> Source:
    """Load images float32 ``[N, 3 or 1, size, size]`` in 0..1; row ``i`` of a part is the file ``names[i]``.

    Args:
        name: name shown in results.
        store: unused; the images are the user's own.
        path: folder with one sub-folder per class, torchvision's ``ImageFolder`` layout.
        test_path: optional official test images, in a folder with the same classes.
        validation_path: optional clean validation images, likewise.
        size: height and width after resizing (bilinear, antialiased); the sides' ratio is not kept.
        colour: red, green and blue, or one channel of grey.
        checksum: expected :func:`reprise.data.folders.sha256_of_images`; refused if the images changed since.
        licence: their terms of use, for the record.

    Raises:
        UserError: any fault of the folders, an image that cannot be read, or classes that differ between folders.
    """
    if not path:
        raise UserError(
            f"dataset.path is not set: give your images with dataset={name} dataset.path=FOLDER, a folder with one "
            "sub-folder per class."
        )
    given = {"dataset.path": path, "dataset.test_path": test_path, "dataset.validation_path": validation_path}
    folders = {option: list_images(place, option) for option, place in given.items() if place}
    train = folders["dataset.path"]
    for option, folder in folders.items():
        _check_same_classes(folder, option, train)
    spec = DataSpec(
        name=name,
        task="classification",
        kind="image",
        shape=(3 if colour else 1, size, size),
        classes=train.classes,
        origin="user",
        licence=licence,
        source=", ".join(str(folder.root) for folder in folders.values()),
        checksum=check_unchanged(sha256_of_images(*given.values()) or "", checksum, path),
    )
    parts = {option: _split(folder, size, colour) for option, folder in folders.items()}
    return Source(spec, parts["dataset.path"], parts.get("dataset.test_path"), parts.get("dataset.validation_path"))


def load_ham10000(
    *, name: str, store: FileStore, path: str | None = None, test_path: str | None = None, **options: object
) -> Source:
    """Load skin images of the source domain as ``train`` and HAM10000, sorted into class folders, as ``test``.

    Both are the user's own to bring; the options are those of :func:`load`.

    Source: P. Tschandl, C. Rosendahl, H. Kittler, The HAM10000 dataset, Scientific Data 5, 2018.

    Raises:
        UserError: a folder is not set, see also :func:`load`.
    """
    if not path or not test_path:
        raise UserError(
            f"{'dataset.test_path' if path else 'dataset.path'} is not set: dataset={name} needs both folders, in "
            f"dataset.test_path the 10,015 images of {_SKIN_HOME} sorted by the column dx of HAM10000_metadata into "
            f"sub-folders {' '.join(_SKIN)}, and in dataset.path source images of yours in the same sub-folders (the "
            "authors never released their Google images)."
        )
    return load(name=name, store=store, path=path, test_path=test_path, **options)  # type: ignore[arg-type]


def _check_same_classes(folder: ImageFolder, option: str, train: ImageFolder) -> None:
    absent, extra = (
        sorted(set(a) - set(b)) for a, b in ((train.classes, folder.classes), (folder.classes, train.classes))
    )
    if absent or extra:
        fault = f"lacks the class folder {absent[0]!r}" if absent else f"has a class folder {extra[0]!r}"
        verb = "has" if absent else "lacks"
        raise UserError(f"{folder.root} {fault} that {train.root} {verb}: {option} needs the classes of dataset.path.")


def _split(folder: ImageFolder, size: int, colour: bool) -> Split:
    x = torch.empty(len(folder.names), 3 if colour else 1, size, size)
    for row, name in enumerate(folder.names):
        x[row] = _image(folder.root / name, size, colour)
    return Split(x, torch.tensor(folder.labels), folder.names)


def _image(path: Path, size: int, colour: bool) -> torch.Tensor:
    """One image ``[C, size, size]`` in 0..1, upright as its camera says."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            deep = image.mode.startswith(("I", "F"))
            upright = ImageOps.exif_transpose(image) if not deep else image
            pixels = upright.convert("RGB" if colour else "L").resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"Image {path} cannot be read ({reason(error)}): replace or remove it.") from error
    if deep:  # Pillow would cut such values off at 255
        raise UserError(f"Image {path} has more than 8 bits per channel: convert it to 8 bits, or remove it.")
    array = np.asarray(pixels, dtype=np.float32).reshape(size, size, -1)
    return torch.from_numpy(array.transpose(2, 0, 1) / 255)
