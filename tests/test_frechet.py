"""A distance of normal distributions, and of images in a classifier's features."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reprise.data.base import DataSpec, Split
from reprise.frechet import Frechet, frechet_distance
from reprise.randomness import generator

SPEC = DataSpec(name="toy", task="classification", kind="image", shape=(1, 8, 8), classes=("a", "b"), checksum="c")


def moments(seed, d=4):
    root = torch.randn(d, d, generator=generator(seed), dtype=torch.float64)
    return torch.randn(d, generator=generator(seed + 1), dtype=torch.float64), root @ root.T


@given(st.floats(-3, 3), st.floats(0.1, 3), st.floats(-3, 3), st.floats(0.1, 3))
def test_in_one_dimension(m, s, n, t):
    found = frechet_distance(*(torch.tensor(v) for v in ([m], [[s**2]], [n], [[t**2]])))
    assert found == pytest.approx((m - n) ** 2 + (s - t) ** 2, abs=1e-4)


def test_commuting_covariances():
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 4.0, 1.0]).double()
    zero = torch.zeros(3).double()
    assert frechet_distance(zero, a.diag(), zero, b.diag()) == pytest.approx(1 + 0 + 4)


@given(st.integers(0, 1000))
def test_nothing_between_equals_and_the_same_both_ways(seed):
    a, b = moments(seed), moments(seed + 2)
    assert frechet_distance(*a, *a) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(*a, *b) == pytest.approx(frechet_distance(*b, *a))


def test_a_covariance_of_less_than_full_rank():
    flat = torch.diag(torch.tensor([1.0, 0.0])).double()
    assert frechet_distance(torch.zeros(2).double(), flat, torch.zeros(2).double(), 4 * flat) == pytest.approx(1)


@pytest.fixture
def images():
    y = torch.arange(400) % 2
    x = 0.2 * torch.rand(400, 1, 8, 8, generator=generator(0))
    x[y == 1, :, 2:6, 2:6] += 0.7
    return Split(x, y)


def test_like_images_are_nearer_than_others(images, tmp_path):
    frechet = Frechet(epochs=2, features=8)
    real, like = images.x[:200], images.x[200:]
    near = frechet.distance(SPEC, images, real, like, tmp_path)
    assert near < frechet.distance(SPEC, images, real, 1 - like, tmp_path)
    assert near < frechet.distance(SPEC, images, real, like[::2], tmp_path), "half of the classes is missing"


def test_an_image_that_is_not_finite_is_no_error_of_linear_algebra(images, tmp_path):
    broken = images.x[:50].clone()
    broken[3, 0, 0, 0] = torch.nan
    assert math.isnan(Frechet(epochs=1, features=8).distance(SPEC, images, images.x, broken, tmp_path))


def test_the_classifier_is_trained_once(images, tmp_path, monkeypatch):
    frechet = Frechet(epochs=1, features=8)
    once = frechet.distance(SPEC, images, images.x, images.x[:50], tmp_path)
    monkeypatch.setattr(frechet, "_fit", lambda *args: pytest.fail("trained again"))
    assert frechet.distance(SPEC, images, images.x, images.x[:50], tmp_path) == once
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_classifier_is_made_anew(tmp_path, images, caplog):
    frechet = Frechet(epochs=1, features=8)
    once = frechet.distance(SPEC, images, images.x, images.x[:50], tmp_path)
    (path,) = tmp_path.iterdir()
    for content in (path.read_bytes()[:-10], b"", b"nothing"):
        path.write_bytes(content)
        assert frechet.distance(SPEC, images, images.x, images.x[:50], tmp_path) == once
    assert caplog.text.count("is damaged and is made anew") == 3


def test_another_choice_of_training_images_has_a_classifier_of_its_own(tmp_path, images):
    frechet = Frechet(epochs=1, features=8)
    half = len(images) // 2
    for rows in (slice(half), slice(half, 2 * half)):
        frechet.distance(SPEC, Split(images.x[rows], images.y[rows]), images.x, images.x[:50], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
