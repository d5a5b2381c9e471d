"""Edit transfer: what was copied is laid over every image where it belongs, and blended in. No network is changed.

The paper finds where it belongs by neural best buddies; here the renderer says so, which is as well as any search for
correspondences could do. OpenCV does the blending, on enlarged images, since its solver leaves out the rim of a mask.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from scipy.ndimage import find_objects, label

from reprise.papers.rewriting.request import Box

Blend = Literal["poisson", "laplacian", "plain"]
SIDE = 128  # pixels at which images are blended, at least
LEVELS = 6  # of the Laplacian pyramid, as in the paper's code


def transferred(
    images: np.ndarray, places: np.ndarray, patch: np.ndarray, mask: np.ndarray, blend: Blend
) -> np.ndarray:
    """Lay a patch over every connected place of every image, stretched to the box around it.

    Args:
        images: ``[n, s, s, 3]`` in 0..1.
        places: where it belongs ``[n, s, s]`` bool.
        patch: ``[h, w, 3]`` in 0..1, and ``mask`` ``[h, w]`` bool of what in it counts.
        blend: how its edge is hidden.

    Returns:
        Images like the given ones.
    """
    done = images.copy()
    for number, place in enumerate(places):
        for found in find_objects(label(place)[0]):
            rows, columns = found
            box = Box(rows.start, columns.start, rows.stop, columns.stop)
            done[number] = laid_over(done[number], patch, mask, box, blend)
    return done


def laid_over(image: np.ndarray, patch: np.ndarray, mask: np.ndarray, box: Box, blend: Blend) -> np.ndarray:
    """One patch over one box of one image ``[s, s, 3]``."""
    side = image.shape[0]
    scale = -(-SIDE // side)
    large = _resized(image, side * scale, side * scale, cv2.INTER_NEAREST)
    height, width = box.height * scale, box.width * scale
    top, left = box.top * scale, box.left * scale
    over, where = large.copy(), np.zeros(large.shape[:2], dtype=bool)
    part = (slice(top, top + height), slice(left, left + width))
    over[part] = _resized(patch, height, width, cv2.INTER_LINEAR)
    where[part] = _resized(mask.astype(np.float32), height, width, cv2.INTER_LINEAR) > 0.5
    if not where.any():
        return image
    over = np.where(where[..., None], over, large)
    if blend == "poisson":
        large = poisson(over, large, where)
    elif blend == "laplacian":
        large = laplacian(over, large, where)
    else:
        large = over
    return _resized(large, side, side, cv2.INTER_AREA)


def poisson(source: np.ndarray, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Gradients of the source within a mask, colours of the image around it (Perez et al. 2003)."""
    rows, columns = np.nonzero(mask)
    centre = (int(columns.min() + columns.max() + 1) // 2, int(rows.min() + rows.max() + 1) // 2)
    bytes_ = [np.ascontiguousarray((part * 255).round().astype(np.uint8)) for part in (source, image)]
    done = cv2.seamlessClone(*bytes_, mask.astype(np.uint8) * 255, centre, cv2.NORMAL_CLONE)
    return done.astype(np.float32) / 255


def laplacian(source: np.ndarray, image: np.ndarray, mask: np.ndarray, levels: int = LEVELS) -> np.ndarray:
    """Each band of frequencies blended over a width of its own (Burt and Adelson 1983)."""
    share = np.repeat(mask.astype(np.float32)[..., None], 3, axis=2)
    bands, shares = [_bands(part, levels) for part in (source, image)], [share]
    for _ in range(levels - 1):
        shares.append(cv2.pyrDown(shares[-1]))
    mixed = [s * a + (1 - s) * b for a, b, s in zip(*bands, shares, strict=True)]
    done = mixed[-1]
    for band in reversed(mixed[:-1]):
        done = cv2.pyrUp(done, dstsize=band.shape[1::-1]) + band
    return done.clip(0, 1)


def _bands(image: np.ndarray, levels: int) -> list[np.ndarray]:
    found, rest = [], image.astype(np.float32)
    for _ in range(levels - 1):
        smaller = cv2.pyrDown(rest)
        found.append(rest - cv2.pyrUp(smaller, dstsize=rest.shape[1::-1]))
        rest = smaller
    return [*found, rest]


def _resized(image: np.ndarray, height: int, width: int, how: int) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(image, dtype=np.float32), (width, height), interpolation=how)
