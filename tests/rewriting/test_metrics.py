from __future__ import annotations

import math

import pytest
import torch

from reprise.papers.rewriting.metrics import Labelled, collateral, grown, psnr, recall, success


def labelled(rows, shift=0.0):
    labels = torch.tensor(rows)
    return Labelled(torch.zeros(len(labels), 3, *labels.shape[1:]) + shift, labels)


BEFORE = labelled([[[1, 1], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]])
THERE = BEFORE.labels == 1


def test_success_is_pooled_over_pixels_and_counted_over_images():
    after = labelled([[[2, 2], [0, 0]], [[1, 2], [0, 0]], [[2, 0], [0, 0]]])
    assert success(THERE, after.labels == 2) == {"edit/success": pytest.approx(2 / 3), "edit/image_success": 0.5}
    assert success(THERE & False, after.labels == 2) == {}


def test_what_is_wanted_can_differ_from_pixel_to_pixel():
    wanted = torch.where(THERE, 2, 1)
    after = labelled([[[2, 2], [1, 0]], [[1, 0], [1, 0]], [[0, 0], [0, 0]]])
    assert success(BEFORE.labels >= 0, after.labels == wanted)["edit/success"] == pytest.approx((2 + 1 + 0 + 1) / 12)


def test_a_removal_is_whatever_is_gone():
    after = labelled([[[2, 1], [0, 0]], [[5, 0], [0, 0]], [[0, 0], [0, 0]]])
    assert success(THERE, after.labels != 1)["edit/success"] == pytest.approx(2 / 3)


def test_half_an_image_is_not_enough():
    after = labelled([[[2, 1], [0, 0]], [[2, 0], [0, 0]], [[0, 0], [0, 0]]])
    assert success(THERE, after.labels == 2)["edit/image_success"] == 0.5


def test_collateral_is_what_changed_elsewhere():
    after = labelled([[[2, 2], [0, 5]], [[2, 0], [0, 0]], [[0, 0], [0, 5]]])
    after.images[0, :, 0, 0] = 9  # the source itself
    after.images[0, :, 1, 1] = 0.9
    after.images[2, 0, 1, 1] = 0.6
    found = collateral(BEFORE, after, THERE, margin=0)
    assert found["collateral/l1_outside"] == pytest.approx((0.9 + 0.2) / 9)
    assert found["collateral/label_flips"] == pytest.approx(2 / 9)
    assert found["collateral/unaffected_l1"] == pytest.approx(0.2 / 4)
    assert collateral(BEFORE, after, THERE, margin=1)["collateral/l1_outside"] == pytest.approx(0.2 / 4)


def test_a_mask_grows_in_all_directions():
    mask = torch.zeros(1, 5, 5, dtype=torch.bool)
    mask[0, 2, 1] = True
    assert grown(mask, 1).sum() == 9
    assert grown(mask, 0) is mask
    assert grown(mask, 2).sum() == 5 * 4


def test_psnr_by_hand():
    truth = torch.zeros(2, 3, 4, 4)
    assert psnr(truth + 0.2, truth) == pytest.approx(10 * math.log10(4 / 0.04))


def test_recall_by_hand():
    found = recall(torch.tensor([[0, 1, 1, 2]]), torch.tensor([[0, 0, 1, 1]]), 4)
    assert found[:2].tolist() == [0.5, 0.5]
    assert found[2:].isnan().all()
