"""Three-dimensional shapes as clouds of points: made up, or the user's own files."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from reprise.checks import NonNegativeFloat, NonNegativeInt, PositiveInt, checked
from reprise.data.base import DataSpec, Source, Split
from reprise.data.cloud_files import read
from reprise.data.folders import sha256_of_clouds
from reprise.data.store import FileStore, check_unchanged, sha256_of_arrays

Surface = Callable[[np.random.Generator, int], np.ndarray]
STRETCH = 0.3  # of each axis, at most, so that no two shapes of a class are alike


@checked
def load(
    *,
    name: str,
    store: FileStore,
    path: str | None = None,
    points: PositiveInt = 256,
    train: PositiveInt = 2000,
    test: PositiveInt = 500,
    noise: NonNegativeFloat = 0.01,
    seed: NonNegativeInt = 0,
    checksum: str | None = None,
) -> Source:
    """Load clouds ``[N, points, 3]`` within the unit ball around their mean, labelled by their shape.

    Without a ``path``, surfaces of ten kinds are sampled: stretched along each axis, with points moved by ``noise``.
    With one, the user's own are read: a folder with a sub-folder per class of .off meshes (sampled by area), .npy or
    .npz clouds; or one .npz of all, with ``points`` ``[N, P, 3]`` and ``labels`` ``[N]``.

    Args:
        path: the user's folder or .npz; ``None`` = made-up shapes.
        points: points of each cloud; others are drawn from the user's, with repetition where there are fewer.
        train, test: made-up clouds.
        noise: standard deviation of the points, in units of the shape's radius.
        seed: of all that is drawn.
        checksum: of the user's files when the run was configured.

    Raises:
        UserError: the folder, one of its files or the .npz cannot be used.
    """
    if path is not None:
        x, folder = read(path, points, seed)
        found = check_unchanged(sha256_of_clouds(path) or "", checksum, path)
        spec = _spec(name, folder.classes, points, "user", "the user's own clouds", str(folder.root), found)
        y = torch.tensor(folder.labels)
        return Source(spec, train=Split(torch.from_numpy(normalised(x)).float(), y, folder.names))
    x, y = sampled(train + test, points, noise, seed)
    clouds, labels = torch.from_numpy(x).float(), torch.from_numpy(y).long()
    classes, origin = tuple(SHAPES), "made up by this suite: surfaces of ten kinds"
    spec = _spec(name, classes, points, "embedded", "Apache-2.0, as this suite", origin, sha256_of_arrays(x, y))
    return Source(spec, train=Split(clouds[:train], labels[:train]), test=Split(clouds[train:], labels[train:]))


def _spec(
    name: str, classes: tuple[str, ...], points: int, origin: str, licence: str, source: str, checksum: str
) -> DataSpec:
    return DataSpec(
        name=name,
        task="classification",
        kind="cloud",
        shape=(points, 3),
        classes=classes,
        origin=origin,
        licence=licence,
        source=source,
        checksum=checksum,
    )


def sampled(count: int, points: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Made-up clouds ``[count, points, 3]`` and labels ``[count]``, the classes in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(SHAPES)
    surfaces = list(SHAPES.values())
    clouds = np.empty((count, points, 3))
    for row, label in enumerate(labels):
        cloud = surfaces[label](rng, points) * rng.uniform(1 - STRETCH, 1 + STRETCH, 3)
        clouds[row] = normalised(cloud) + noise * rng.standard_normal((points, 3))
    return normalised(clouds), labels


def normalised(clouds: np.ndarray) -> np.ndarray:
    """Clouds ``[..., points, 3]`` moved to their mean and shrunk into the unit ball."""
    centred = clouds - clouds.mean(-2, keepdims=True)
    radius = np.linalg.norm(centred, axis=-1).max(-1)[..., None, None]
    return centred / np.maximum(radius, 1e-12)


def _sphere(rng: np.random.Generator, n: int) -> np.ndarray:
    directions = rng.standard_normal((n, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _box(rng: np.random.Generator, n: int) -> np.ndarray:
    points = rng.uniform(-1, 1, (n, 3))
    points[np.arange(n), rng.integers(0, 3, n)] = rng.choice([-1.0, 1.0], n)
    return points


def _circle(rng: np.random.Generator, n: int) -> np.ndarray:
    angle = rng.uniform(0, math.tau, n)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def _disc(rng: np.random.Generator, n: int) -> np.ndarray:
    return _circle(rng, n) * np.sqrt(rng.uniform(0, 1, (n, 1)))


def _cylinder(rng: np.random.Generator, n: int) -> np.ndarray:
    side = rng.uniform(size=n) < 2 / 3  # area 4 pi of the side, 2 pi of both lids
    flat = np.where(side[:, None], _circle(rng, n), _disc(rng, n))
    height = np.where(side, rng.uniform(-1, 1, n), rng.choice([-1.0, 1.0], n))
    return np.column_stack([flat, height])


def _cone(rng: np.random.Generator, n: int) -> np.ndarray:
    side = rng.uniform(size=n) < 0.69  # of a cone twice as high as its radius
    share = np.sqrt(rng.uniform(0, 1, (n, 1)))
    flat = np.where(side[:, None], _circle(rng, n) * share, _disc(rng, n))
    return np.column_stack([flat, np.where(side, 1 - 2 * share[:, 0], -1.0)])


def _torus(rng: np.random.Generator, n: int) -> np.ndarray:
    around, tube = rng.uniform(0, math.tau, (2, n))
    radius = 1 + 0.35 * np.cos(tube)
    return np.stack([radius * np.cos(around), radius * np.sin(around), 0.35 * np.sin(tube)], 1)


def _pyramid(rng: np.random.Generator, n: int) -> np.ndarray:
    base = rng.uniform(size=n) < 0.31
    share = np.sqrt(rng.uniform(0, 1, n))  # from the tip down
    edge, along = rng.integers(0, 4, n), rng.uniform(-1, 1, n)
    rim = np.where(edge % 2 == 0, 1.0, along), np.where(edge % 2 == 0, along, 1.0)
    sign = np.where(edge < 2, 1.0, -1.0)
    sides = np.stack([share * sign * rim[0], share * sign * rim[1], 1 - 2 * share], 1)
    floor = np.column_stack([rng.uniform(-1, 1, (n, 2)), np.full(n, -1.0)])
    return np.where(base[:, None], floor, sides)


def _helix(rng: np.random.Generator, n: int) -> np.ndarray:
    turn = rng.uniform(0, 3 * math.tau, n)
    line = np.stack([np.cos(turn), np.sin(turn), turn / (1.5 * math.tau) - 1], 1)
    return line + 0.12 * _sphere(rng, n)


def _cross(rng: np.random.Generator, n: int) -> np.ndarray:
    points = _box(rng, n) * 0.22
    points[np.arange(n), rng.integers(0, 3, n)] = rng.uniform(-1, 1, n)
    return points


def _table(rng: np.random.Generator, n: int) -> np.ndarray:
    plate = rng.uniform(size=n) < 0.6
    top = np.column_stack([rng.uniform(-1, 1, (n, 2)), 0.9 + 0.1 * rng.uniform(size=n)])
    legs = np.column_stack([rng.choice([-0.85, 0.85], (n, 2)) + 0.08 * _circle(rng, n), rng.uniform(-1, 0.9, n)])
    return np.where(plate[:, None], top, legs)


def _half_sphere(rng: np.random.Generator, n: int) -> np.ndarray:
    points = _sphere(rng, n)
    points[:, 2] = np.abs(points[:, 2])
    return points


SHAPES: dict[str, Surface] = {
    "sphere": _sphere,
    "box": _box,
    "cylinder": _cylinder,
    "cone": _cone,
    "torus": _torus,
    "pyramid": _pyramid,
    "helix": _helix,
    "cross": _cross,
    "table": _table,
    "half sphere": _half_sphere,
}
