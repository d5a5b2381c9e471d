from __future__ import annotations

import pytest
import torch

from reprise.errors import UserError
from reprise.papers.rewriting.request import Box, Marked, Request, at_size, bounding_box, check_mask, pasted


def mask(*places, size=8):
    made = torch.zeros(size, size)
    for row, column in places:
        made[row, column] = 1
    return made


def test_a_mask_on_a_coarser_grid_has_shares():
    assert at_size(mask((0, 0), (0, 1), (7, 7)), 4)[0, 0] == 0.5
    assert at_size(mask((0, 0), (0, 1), (7, 7)), 4)[3, 3] == 0.25
    assert at_size(mask((0, 0)), 4).sum() == 0.25


def test_boxes():
    assert bounding_box(mask((2, 3), (4, 1)) > 0, "copy") == Box(2, 1, 5, 4)
    with pytest.raises(UserError, match="paste mask is empty at the layer's resolution of 8x8"):
        bounding_box(mask() > 0, "paste")


def test_what_is_copied_is_centred_on_the_paste():
    copied, into = torch.arange(64.0).view(1, 8, 8), torch.zeros(1, 8, 8)
    target, box = pasted(copied, mask((0, 0), (1, 1)), into, mask((4, 4), (5, 5)))
    assert box == Box(4, 4, 6, 6)
    assert target[0, 4, 4] == copied[0, 0, 0]
    assert target[0, 5, 5] == copied[0, 1, 1]
    assert target.count_nonzero() == 1, "what the mask leaves out keeps its value, and one copied value is 0"


def test_a_soft_mask_blends():
    copied, into = torch.full((1, 8, 8), 2.0), torch.full((1, 8, 8), 4.0)
    soft = mask((2, 2)) * 0.25
    target, _ = pasted(copied, soft, into, mask((3, 3)))
    assert target[0, 3, 3] == 0.75 * 4 + 0.25 * 2


@pytest.mark.parametrize(("place", "corner"), [((0, 0), (0, 0)), ((7, 7), (4, 5)), ((0, 7), (0, 5))])
def test_what_would_reach_over_the_edge_is_moved_inwards(place, corner):
    copied = torch.ones(1, 8, 8)
    whole = torch.zeros(8, 8)
    whole[:4, :3] = 1
    target, box = pasted(copied, whole, torch.zeros(1, 8, 8), mask(place))
    assert (box.top, box.left) == corner
    assert target.sum() == 12


def test_without_contexts_the_paste_is_the_context():
    one, two, three = (Marked(torch.zeros(2, 3), mask((i, i))) for i in range(3))
    assert Request(one, two).contexts == (two,)
    assert Request(one, two, (three,)).contexts == (three,)


@pytest.mark.parametrize(
    ("made", "words"),
    [(torch.zeros(8, 8), "is empty"), (torch.ones(4, 4), "8x8 pixels"), (2 * torch.ones(8, 8), "outside 0..1")],
)
def test_masks_that_are_none_are_refused(made, words):
    with pytest.raises(UserError, match=words):
        check_mask(made, 8, "copy")
