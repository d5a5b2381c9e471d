"""Folders of images or of clouds of points, one sub-folder per class: what is in them, and their checksum.

Imports nothing heavy, because the resolver ``${sha256_images:...}`` lists the folders when a config is resolved.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reprise.data.store import did_you_mean, digest, reason, user_file
from reprise.errors import UserError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
CLOUDS = frozenset({".npy", ".npz", ".off"})
UNLABELLED = "image"  # the class of those that lie in no sub-folder
OPTIONS = ("dataset.path", "dataset.test_path", "dataset.validation_path")


@dataclass(frozen=True)
class ImageFolder:
    """What is below ``root``: ``names[i]`` is a path relative to it, ``labels[i]`` its place in ``classes``."""

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]


def list_images(
    path: str | Path, option: str = "dataset.path", suffixes: frozenset[str] = SUFFIXES, what: str = "image"
) -> ImageFolder:
    """List a folder in torchvision's ``ImageFolder`` layout: classes by name, then the images of a class by name.

    A folder without sub-folders is one of unlabelled images: they all get the class ``UNLABELLED``.

    Files without one of the suffixes do not count, nor do sub-folders whose name begins with a full stop (tools leave
    such behind).

    Raises:
        UserError: no such folder, a file, no image, one sub-folder, or one without images; names ``option``.
    """
    root = Path(path).expanduser()
    try:
        if not root.is_dir():
            raise UserError(_no_folder(root, option, what))
        classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        images = {name: _images(root, name, suffixes) for name in classes}
        if not classes and (unlabelled := _images(root, ".", suffixes)):
            return ImageFolder(root, (UNLABELLED,), tuple(unlabelled), (0,) * len(unlabelled))
    except OSError as error:
        raise UserError(f"{root} cannot be read ({reason(error)}): check {option} and its permissions.") from error
    if len(classes) < 2:
        state = f"one sub-folder only ({classes[0]})" if classes else f"neither {what}s nor sub-folders"
        raise UserError(f"{root} has {state}: {option} must hold one sub-folder of {what}s per class, two at least.")
    for name, found in images.items():
        if not found:
            raise UserError(
                f"{root / name} holds no {what} (suffixes {' '.join(sorted(suffixes))}): add {what}s of that class, "
                "or remove the folder."
            )
    return ImageFolder(
        root,
        tuple(classes),
        names=tuple(image for name in classes for image in images[name]),
        labels=tuple(label for label, name in enumerate(classes) for _ in images[name]),
    )


def sha256_of_images(*paths: str | Path | None) -> str | None:
    """Checksum of training, test and validation folder; behind ``${sha256_images:...}`` in configs.

    It covers the relative names and the content of the images, in order, and the part that each folder plays; not
    where the folders are. Nulls are skipped; ``None`` without any path.

    Raises:
        UserError: see :func:`list_images`, or an image cannot be read.
    """
    return _sha256(paths, SUFFIXES, "image")


def sha256_of_clouds(path: str | Path | None) -> str | None:
    """The same of a folder of clouds, or that of a file with all of them; behind ``${sha256_clouds:...}``."""
    return digest(user_file(path)) if is_archive(path) else _sha256([path], CLOUDS, "cloud")


def is_archive(path: str | Path | None) -> bool:
    """Whether a path names one .npz rather than a folder."""
    return path is not None and Path(path).suffix.lower() == ".npz" and not Path(path).expanduser().is_dir()


def _sha256(paths: Sequence[str | Path | None], suffixes: frozenset[str], what: str) -> str | None:
    state, given = hashlib.sha256(), [(place, path) for place, path in enumerate(paths) if path not in (None, "")]
    for place, path in given:
        folder = list_images(path, OPTIONS[place], suffixes, what)  # type: ignore[arg-type]
        for name in folder.names:
            state.update(f"{place} {digest(folder.root / name)} {name}\n".encode())
    return state.hexdigest() if given else None


def _images(root: Path, name: str, suffixes: frozenset[str]) -> list[str]:
    found = []
    for folder, _, files in os.walk(root / name):
        found += [Path(folder, file) for file in files if Path(file).suffix.lower() in suffixes]
    return sorted(path.relative_to(root).as_posix() for path in found)


def _no_folder(root: Path, option: str, what: str) -> str:
    if root.exists():
        return f"{root} is a file, not a folder: {option} must name a folder with one sub-folder of {what}s per class."
    siblings = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
    return f"Folder {root} does not exist{did_you_mean(root.name, siblings)}: correct {option}."
