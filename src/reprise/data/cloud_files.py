"""The user's own clouds of points: arrays in .npy and .npz, triangle meshes in .off (ModelNet's format)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from reprise.data.folders import CLOUDS, ImageFolder, list_images
from reprise.data.store import reason
from reprise.errors import UserError


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
        except (OSError, ValueError, IndexError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"Cloud {file} cannot be read ({reason(error)}): replace or remove it.") from error
    return clouds, folder


def _array(path: Path, points: int, rng: np.random.Generator) -> np.ndarray:
    """Points of a file: its array, or in an .npz the one called ``points``, or its only one."""
    content = np.load(path)  # pickles are refused
    if path.suffix.lower() == ".npz":
        with content:
            content = content["points" if "points" in content.files else content.files[0]]
    if content.ndim != 2 or content.shape[1] < 3 or not len(content):
        raise ValueError(f"an array of shape {content.shape}, not [points, 3]")
    cloud = content[:, :3].astype(float)  # further columns are colours or normals
    _check_finite(cloud)
    # without repetition, as long as there are enough
    return cloud[rng.choice(len(cloud), points, replace=len(cloud) < points)]


def _mesh(path: Path, points: int, rng: np.random.Generator) -> np.ndarray:
    """Points drawn evenly from the surface of a mesh."""
    vertices, triangles = read_off(path.read_text(errors="replace"))
    _check_finite(vertices)
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
    count, faces = (int(word) for word in body[0].split()[:2])
    vertices = np.array([[float(word) for word in line.split()[:3]] for line in body[1 : 1 + count]])
    triangles = []
    for line in body[1 + count : 1 + count + faces]:
        corners = [int(word) for word in line.split()]
        corners = corners[1 : 1 + corners[0]]
        triangles += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
    if len(vertices) != count or not triangles:
        raise ValueError(f"{len(vertices)} of {count} vertices and {len(triangles)} triangles")
    found = np.array(triangles)
    if found.min() < 0 or found.max() >= count:
        raise ValueError(f"a face of a vertex that is none of the {count}")
    return vertices, found


def _check_finite(cloud: np.ndarray) -> None:
    if not np.isfinite(cloud).all():
        raise ValueError("coordinates that are not numbers")
