"""Edit transfer: the patch lands where it belongs, and blending does what its name says."""

from __future__ import annotations

import numpy as np
import pytest

from reprise.papers.rewriting import blending
from reprise.papers.rewriting.request import Box


def plain(value, side=32):
    return np.full((side, side, 3), value, np.float32)


def square(side, top, left, height, width):
    mask = np.zeros((side, side), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_a_patch_is_stretched_over_every_connected_place():
    images = np.stack([plain(0.5), plain(0.5)])
    places = np.stack([square(32, 4, 4, 6, 8) | square(32, 20, 20, 4, 4), square(32, 0, 0, 1, 1) & False])
    patch = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))], -1)
    done = blending.transferred(images, places, patch, np.ones((3, 3), bool), "plain")
    assert np.allclose(done[0][places[0]], [0, 1, 0], atol=1e-5)
    assert np.allclose(done[0][~places[0]], 0.5, atol=1e-5)
    assert np.array_equal(done[1], images[1])


def test_only_what_the_mask_selects_is_laid_over():
    mask = np.ones((4, 4), bool)
    mask[:, 2:] = False
    done = blending.laid_over(plain(0.2), np.ones((4, 4, 3), np.float32), mask, Box(8, 8, 16, 16), "plain")
    assert np.allclose(done[8:16, 8:12], 1, atol=1e-5)
    assert np.allclose(done[8:16, 12:16], 0.2, atol=1e-5)


def test_poisson_keeps_the_steps_of_the_patch_and_takes_the_colour_around_it():
    """A brighter block on a dark ground, laid on a bright one: 0.2 brighter there, too."""
    source, image = plain(0.2, 128), plain(0.6, 128)
    source[56:72, 56:72] += 0.2
    done = blending.poisson(source, image, square(128, 40, 40, 48, 48))
    assert done[64, 64, 0] == pytest.approx(0.8, abs=0.02)
    assert done[44, 44, 0] == pytest.approx(0.6, abs=0.02)
    assert np.allclose(done[:36], 0.6, atol=0.01)


def test_a_pyramid_gives_its_image_back_and_blends_across_the_edge():
    rng = np.random.default_rng(0)
    image = rng.random((128, 128, 3), dtype=np.float32)
    assert np.allclose(blending.laplacian(image, plain(0.0, 128), np.ones((128, 128), bool)), image, atol=1e-4)
    left = square(128, 0, 0, 128, 64)
    row = blending.laplacian(plain(1.0, 128), plain(0.0, 128), left)[64, :, 0]
    assert row[2] > 0.9
    assert row[-3] < 0.1
    assert (np.diff(row) < 1e-3).all(), "it only falls"
    assert 0.3 < row[64] < 0.7
