"""Masks from pictures."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from studio import png, torch_box, url

from reprise.errors import UserError
from reprise.papers.rewriting.masks import PREFIX, painted, to_url


@pytest.mark.parametrize("side", [16, 64, 256])
def test_a_mask_means_the_same_at_any_resolution(side):
    k = side // 16
    found = painted(url((2 * k, 4 * k, 3 * k, 5 * k), side=side), 16, "copy")
    assert torch.equal(found.mask, torch_box(2, 4, 3, 5))
    assert found.warnings == ()


def test_cells_that_are_painted_in_part_have_a_share():
    found = painted(url((0, 0, 2, 4), side=64), 16, "copy")  # half of one cell of 4x4
    assert found.mask[0, 0] == 0.5
    assert found.mask.sum() == 0.5


def test_a_box_is_drawn_around_the_largest_piece_alone():
    found = painted(url((8, 8, 16, 16), (60, 60, 2, 2), (60, 0, 3, 3)), 16, "paste")
    assert torch.equal(found.mask, torch_box(2, 2, 4, 4))
    assert found.warnings == ("The paste mask had 2 stray pieces, left out.",)


def test_pieces_that_touch_at_a_corner_are_one():
    assert painted(url((0, 0, 8, 8), (8, 8, 8, 8)), 16, "copy").mask.sum() == 8


def test_two_pieces_of_one_size_leave_one():
    found = painted(url((0, 0, 8, 8), (32, 32, 8, 8)), 16, "copy")
    assert found.mask.sum() == 4
    assert len(found.warnings) == 1


def test_a_context_may_have_several_pieces_but_no_specks():
    found = painted(url((0, 0, 16, 16), (32, 32, 8, 8), (60, 4, 2, 2)), 16, "context", whole=True)
    assert torch.equal(found.mask, torch.maximum(torch_box(0, 0, 4, 4), torch_box(8, 8, 2, 2)))
    assert found.warnings == ("The context mask had 1 stray piece, left out.",)


def test_black_and_white_pictures_and_greys_are_masks_too():
    grey = np.zeros((32, 32), np.uint8)
    grey[4:8, 4:8] = 255
    assert torch.equal(painted(png(grey), 16, "copy").mask, torch_box(2, 2, 2, 2))
    invisible = np.full((32, 32, 4), 255, np.uint8)
    invisible[..., 3] = 0
    invisible[4:8, 4:8, 3] = 1  # the paper's tool takes the colour of whatever is not transparent
    assert torch.equal(painted(png(invisible), 16, "copy").mask, torch_box(2, 2, 2, 2))


def test_pictures_need_not_be_square():
    assert torch.equal(painted(url((0, 0, 16, 8), sides=(64, 32)), 16, "copy").mask, torch_box(0, 0, 4, 4))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 4), st.integers(1, 4))
def test_masks_come_back_from_their_pictures(top, left, height, width):
    mask = torch_box(top, left, height, width)
    assert torch.equal(painted(to_url(mask), 16, "copy").mask, mask)


def bomb(width, height):
    """A small file that claims to be a large picture."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def encoded(data):
    return PREFIX + base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("", "no PNG data URL"),
        ("https://example.org/mask.png", "no PNG data URL"),
        ("data:image/svg+xml;base64,PHN2Zy8+", "no PNG data URL"),
        (PREFIX + "!!!", "no PNG data URL"),
        (PREFIX + "äöü", "no PNG data URL"),
        (encoded(b"GIF89a" + b"\0" * 50), "no PNG data URL"),
        (encoded(bomb(64, 64)[:60]), "no PNG data URL"),
        (encoded(bomb(64, 64)), "no PNG data URL"),  # too few pixels
        (encoded(bomb(3000, 10)), "3000x10 pixels: 2048 a side at most"),
        (encoded(bomb(60000, 60000)), "no PNG data URL"),
        (url(), "the copy mask is empty"),
    ],
)
def test_what_is_no_mask_is_refused(wrong, why):
    with pytest.raises(UserError, match=why):
        painted(wrong, 16, "copy")
