"""The user's own clouds of points: arrays in .npy and .npz, triangle meshes in .off (ModelNet's format)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reprise.data.folders import CLOUDS, ImageFolder, is_archive, list_images
from reprise.data.store import reason, user_file
from reprise.errors import UserError


def read(path: str | Path, points: int, seed: int) -> tuple[np.ndarray, ImageFolder]:
    """Clouds ``[N, points, 3]`` of a folder with one sub-folder per class, or of one .npz; and what is in it.

    Raises:
        UserError: see `read_folder` and `read_archive`.
    """
    return read_archive(path, points, seed) if is_archive(path) else read_folder(path, points, seed)


def read_folder(path: str | Path, points: int, seed: int) -> tuple[np.ndarray, ImageFolder]:
    """Clouds ``[N, points, 3]`` of a folder with one sub-folder per class, and what is in it.

    Raises:
        UserError: the folder, or a file that cannot be read as a cloud or a mesh; names the file.
    """
    folder = list_images(path, suffixes=CLOUDS, what="cloud")
    clouds = np.empty((len(folder.names), points, 3))
    for row, name in enumerate(folder.names):
        rng = np.random.default_rng((seed, row))
        file = folder.root / name
        try:
            clouds[row] = _mesh(file, points, rng) if file.suffix.lower() == ".off" else _array(file, points, rng)
        except (OSError, ValueError, IndexError, OverflowError) as error:
            raise _unreadable(file, error) from error
    return clouds, folder


def read_archive(path: str | Path, points: int, seed: int) -> tuple[np.ndarray, ImageFolder]:
    """Clouds ``[N, points, 3]`` of one .npz, and their classes: the different labels in order.

    It holds ``points`` ``[N, P, 3]`` and ``labels`` ``[N]``, whole numbers or words.

    Raises:
        UserError: no such file, or content that cannot be used; names the file.
    """
    file = user_file(path)
    held = _load(file)
    if not {"points", "labels"} <= set(held):
        names = ", ".join(held) or "nothing"
        raise UserError(f"{file} holds {names}: it must hold the arrays points [n, P, 3] and labels [n].")
    found, labels = held["points"], held["labels"]
    if found.ndim != 3 or found.shape[2] < 3 or not found.size or labels.shape != found.shape[:1]:
        raise UserError(
            f"{file} holds points of shape {found.shape} and labels of shape {labels.shape}: they must be [n, P, 3] "
            "and [n]."
        )
    if labels.dtype.kind not in "biuSU":
        raise UserError(f"{file} holds labels of type {labels.dtype}: they must be whole numbers or words.")
    classes, numbers = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"{file} holds one class only ({classes[0]}): labels must be of two classes at least.")
    clouds = np.empty((len(found), points, 3))
    for row, cloud in enumerate(found):
        try:
            clouds[row] = _drawn(cloud, points, np.random.default_rng((seed, row)))
        except ValueError as error:
            raise UserError(f"Cloud {row} of {file} cannot be used ({error}): repair or remove it.") from error
    return clouds, ImageFolder(file, tuple(classes.astype(str).tolist()), (), tuple(numbers.tolist()))


def _load(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a .npz by name; that of a .npy is called ``points``. Pickles are refused.

    Raises:
        UserError: the file cannot be read; names it.
    """
    try:
        content = np.load(path)
        if isinstance(content, np.ndarray):
            return {"points": content}
        with content:
            held = {name: content[name] for name in content.files}
    except Exception as error:  # a damaged file can end in any parser: zip, zlib, the header's tokens, its types
        raise _unreadable(path, error) from error
    return {name: array for name, array in held.items() if isinstance(array, np.ndarray)}


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"Cloud {path} cannot be read ({reason(error)}): replace or remove it.")


def _array(path: Path, points: int, rng: np.random.Generator) -> np.ndarray:
    """Points of a file: its array, or in an .npz the one called ``points``, or its only one."""
    held = _load(path)
    if "points" not in held and len(held) != 1:
        raise ValueError(f"{len(held)} arrays, none of them called points")
    return _drawn(held.get("points", next(iter(held.values()))), points, rng)


def _drawn(cloud: np.ndarray, points: int, rng: np.random.Generator) -> np.ndarray:
    """``[points, 3]`` of a cloud ``[P, 3]``, without repetition as long as there are enough."""
    if cloud.ndim != 2 or cloud.shape[1] < 3 or not len(cloud):
        raise ValueError(f"an array of shape {cloud.shape}, not [points, 3]")
    if cloud.dtype.kind not in "fiu":
        raise ValueError(f"an array of type {cloud.dtype}, not of numbers")
    places = cloud[:, :3].astype(float)  # further columns are colours or normals
    _check(places)
    return places[rng.choice(len(places), points, replace=len(places) < points)]


def _mesh(path: Path, points: int, rng: np.random.Generator) -> np.ndarray:
    """Points drawn evenly from the surface of a mesh."""
    vertices, triangles = read_off(path.read_text(errors="replace"))
    _check(vertices)
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not areas.sum() > 0:
        raise ValueError("a mesh without any area")
    chosen = rng.choice(len(areas), points, p=areas / areas.sum())
    u, v = rng.uniform(size=(2, points, 1))
    outside = u + v > 1
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    return a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]


def read_off(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ``[V, 3]`` and triangles ``[T, 3]`` of an OFF file; polygons become fans of triangles.

    Many files of ModelNet have their counts in the first line, right behind the word: ``OFF8 12 0``.

    Raises:
        ValueError, IndexError: it is no OFF file, or not whole.
    """
    lines = [line for raw in text.splitlines() if (line := raw.split("#")[0].strip())]
    if not lines or not lines[0].upper().startswith("OFF"):
        raise ValueError("no OFF file: its first word is not OFF")
    rest = lines[0][3:].strip()
    body = ([rest] if rest else []) + lines[1:]
    if not body:
        raise ValueError("nothing but the word OFF")
    count, faces = (int(word) for word in body[0].split()[:2])
    body = body[1:]
    if count < 3 or faces < 1 or len(body) < count + faces:
        raise ValueError(f"{len(body)} lines for {count} vertices and {faces} faces")
    vertices = np.array([line.split(maxsplit=3)[:3] for line in body[:count]], dtype=float)
    if vertices.shape != (count, 3):
        raise ValueError("vertices without three coordinates")
    triangles = _triangles(body[count : count + faces])
    if triangles.min() < 0 or triangles.max() >= count:
        raise ValueError(f"a face of a vertex that is none of the {count}")
    return vertices, triangles


def _triangles(lines: list[str]) -> np.ndarray:
    """Triangles ``[T, 3]`` of lines with a number of corners, the corners and perhaps a colour."""
    found = []
    for line in lines:
        words = line.split()
        corners = words[1 : 1 + int(words[0])]
        if len(corners) != int(words[0]):
            raise ValueError(f"a face with {len(corners)} of {words[0]} corners")
        found += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
    if not found:
        raise ValueError("no face with three corners")
    return np.array(found).astype(int)


def _check(cloud: np.ndarray) -> None:
    if not np.isfinite(cloud).all():
        raise ValueError("coordinates that are not numbers")
    if not np.ptp(cloud, axis=0).any():
        raise ValueError("all points in one place")
