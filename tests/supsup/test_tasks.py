"""What makes tasks differ: pinned to NumPy and to torchvision, of which they must give the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as TF

from reprise.errors import UserError
from reprise.papers.supsup.tasks import class_groups, fair_order, labels_within, permutations, rotations, rows_of


def test_official_permutations_are_numpys_and_shared_between_seeds():
    columns = permutations(3, (1, 28, 28), 5, "official")
    np.random.seed(5)
    assert columns[0].tolist() == np.random.permutation(784).tolist()
    assert columns[2].tolist() == np.random.RandomState(7).permutation(784).tolist()
    assert torch.equal(columns[1:], permutations(2, (1, 28, 28), 6, "official")), "the trap that is kept on purpose"


def test_a_large_seed_has_official_permutations_too():
    columns = permutations(2, (1, 3, 3), 2**32 - 1, "official")
    assert columns[1].tolist() == np.random.RandomState(0).permutation(9).tolist()


def test_independent_permutations_share_no_task():
    columns = torch.cat([permutations(6, (1, 7, 7), seed, "independent") for seed in (0, 1, 2)])
    assert len(columns.unique(dim=0)) == 18
    assert torch.equal(columns.sort(1).values, torch.arange(49).expand(18, -1))
    assert torch.equal(columns[:6], permutations(6, (1, 7, 7), 0, "independent"))


@pytest.mark.parametrize("seeds", ["official", "independent"])
def test_channels_are_permuted_alike(seeds):
    grey, colour = permutations(2, (1, 4, 5), 3, seeds), permutations(2, (3, 4, 5), 3, seeds)
    assert torch.equal(colour, torch.cat([grey, grey + 20, grey + 40], 1))


@pytest.mark.parametrize(
    ("shape", "angle"),
    [((1, 28, 28), 10), ((1, 8, 8), 45), ((3, 32, 32), 7.5), ((1, 5, 9), 30), ((3, 6, 7), 90), ((1, 1, 1), 120)],
)
def test_rotations_have_torchvisions_bits(shape, angle):
    k = int(360 / angle)
    columns, (channels, height, width) = rotations(k, shape, angle), shape
    pixels = np.random.default_rng(0).integers(1, 256, (height, width, channels), dtype=np.uint8)
    image = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])
    flat = torch.from_numpy(np.append(pixels.transpose(2, 0, 1), np.zeros(channels, dtype=np.uint8)))
    for task in range(k):
        expected = TF.pil_to_tensor(TF.rotate(image, task * angle))
        assert torch.equal(flat[columns[task]].view(shape), expected), task


def test_black_that_comes_in_belongs_to_its_channel():
    column = rotations(2, (3, 4, 4), 45)[1].view(3, 16)
    assert column[:, 0].tolist() == [48, 49, 50], "corners come from outside"
    assert (column[1] < 48).any()
    assert column[1][column[1] < 48].min() >= 16


NAMES = tuple("abcdef")


def test_class_groups_are_numpys_permutation_or_the_given_order():
    order = np.random.RandomState(4).permutation(6)
    assert class_groups(NAMES, 3, "shuffled", 4, "toy").tolist() == [order[:3].tolist(), order[3:].tolist()]
    assert class_groups(NAMES, 2, "given", 4, "toy").tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("per_task", [1, 4, 5, 7, 12])
def test_classes_that_do_not_divide(per_task):
    with pytest.raises(UserError, match=f"classes_per_task={per_task} .* one of 2, 3, 6") as error:
        class_groups(NAMES, per_task, "given", 0, "toy")
    assert "\n" not in str(error.value)


def test_rows_and_labels_of_groups_by_hand():
    groups = np.array([[3, 0], [1, 2]])
    rows = rows_of(groups, np.array([0, 1, 2, 3, 0]))
    assert [r.tolist() for r in rows] == [[0, 3, 4], [1, 2]]
    assert labels_within(groups, 4).tolist() == [[1, -1, -1, 0], [-1, 0, 1, -1]]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 9))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_first_rows_of_a_fair_order_have_every_class_in_its_proportion(labels, seed):
    y = np.array(labels)
    order = fair_order(y, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(y)))
    for n in range(len(y) + 1):
        part = np.bincount(y, minlength=4) / len(y)
        # half an image of its own, and its part of the halves of the four classes
        assert (abs(np.bincount(y[order[:n]], minlength=4) - part * n) <= 0.5 + 2 * part + 1e-9).all()


def test_a_fair_order_is_random_within_a_class():
    firsts = {int(fair_order(np.zeros(5), np.random.default_rng(seed))[0]) for seed in range(40)}
    assert firsts == set(range(5))
