"""LPIPS where its network is at hand, with random weights in the place of AlexNet's."""

from __future__ import annotations

import math

import harness
import pytest
import torch
from torchvision.models import alexnet

from reprise.papers.rewriting.perceptual import lpips_outside, weights

SHAPE = (3, 3, 32, 32)


@pytest.fixture
def none_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setenv("TORCH_HOME", str(folder))
        torch.manual_seed(0)
        weights().parent.mkdir(parents=True)
        torch.save(alexnet().state_dict(), weights())
        yield
        weights().unlink()  # 240 MB


def images(seed: int) -> torch.Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def marked() -> torch.Tensor:
    there = torch.zeros(SHAPE[0], *SHAPE[2:], dtype=torch.bool)
    there[:, 10:20, 10:20] = True
    return there


def test_nothing_is_told_without_the_network(none_at_hand):
    assert lpips_outside(images(0), images(1), marked(), 2) == {}


def test_only_what_changes_outside_counts(network):
    before, there = images(0), marked()
    inside, near, far = (before.clone() for _ in range(3))
    inside[:, :, 10:20, 10:20] *= -1
    near[:, :, 8, 8] *= -1  # within the margin
    far[:, :, :6] *= -1
    assert lpips_outside(before, inside, there, 2) == {"collateral/lpips": 0.0}
    assert lpips_outside(before, near, there, 2) == {"collateral/lpips": 0.0}
    assert lpips_outside(before, near, there, 1)["collateral/lpips"] > 0
    assert lpips_outside(before, far, there, 2)["collateral/lpips"] > 1e-3


def test_it_is_a_mean_over_images_however_many_are_taken_at_once(network, monkeypatch):
    before, after, there = images(0), images(1), marked()
    each = [lpips_outside(before[i : i + 1], after[i : i + 1], there[i : i + 1], 0) for i in range(SHAPE[0])]
    mean = sum(found["collateral/lpips"] for found in each) / SHAPE[0]
    assert lpips_outside(before, after, there, 0)["collateral/lpips"] == pytest.approx(mean, rel=1e-4)
    monkeypatch.setattr("reprise.papers.rewriting.perceptual.PIXELS", 2 * 32**2)
    assert lpips_outside(before, after, there, 0)["collateral/lpips"] == pytest.approx(mean, rel=1e-4)


def test_images_out_of_range_are_cut_and_broken_ones_are_told(network):
    before, there = images(0), marked()
    far = 2 + before.abs()
    assert lpips_outside(far, far + 1, there, 0) == {"collateral/lpips": 0.0}
    assert lpips_outside(-far, -far - 1, there, 0) == {"collateral/lpips": 0.0}
    broken = before.clone()
    broken[0, 0, 0, 0] = math.nan
    for pair in ((before, broken), (broken, before)):
        assert math.isnan(lpips_outside(*pair, there, 0)["collateral/lpips"])


def test_nothing_is_told_of_images_that_are_too_small(network):
    before, there = images(0), marked()
    assert lpips_outside(before[..., :31, :31], -before[..., :31, :31], there[..., :31, :31], 0) == {}
    assert lpips_outside(before, -before, there, 0) != {}


def test_random_numbers_are_drawn_as_without_it(network):
    state = torch.get_rng_state()
    lpips_outside(images(0), images(1), marked(), 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_damaged_file_is_left_out_with_a_warning(none_at_hand, caplog):
    weights().parent.mkdir(parents=True)
    weights().write_bytes(b"no weights")
    assert lpips_outside(images(0), images(1), marked(), 0) == {}
    assert "cannot be read, and LPIPS is left out" in caplog.text


def test_a_run_tells_it(network, tmp_path):
    assert harness.numbers(harness.run(harness.small("rewriting", tmp_path)))["collateral/lpips"] > 0
