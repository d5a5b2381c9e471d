"""Batches and test sets of a stream, against loops over single images."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_sources import images

from reprise.papers.supsup.streams import Images, TaskStream, crop_and_mirror

quick = settings(max_examples=40, deadline=None, derandomize=True)
SHAPE = (2, 3, 4)
BLACK = torch.tensor([-7.0, -8.0])


def part(rows, seed):
    split = images(rows, SHAPE, 6, seed)
    return Images(torch.cat([split.x.flatten(1), BLACK.expand(rows, -1)], 1), split.y)


def permuted(**changes):
    columns = torch.stack([torch.randperm(24), torch.arange(24).roll(1), torch.full((24,), 25)])
    options = {"train": part(12, 0), "test": part(12, 1), "columns": columns}
    return TaskStream("permuted", shape=SHAPE, num_tasks=3, num_classes=6, **options | changes)


def split(**changes):
    rows = torch.tensor([1, 4, 7, 10, 2]), torch.tensor([0, 3, 6])
    labels = torch.tensor([[-1, 0, 1, -1, 0, 1], [0, -1, -1, 1, -1, -1]])
    options = {"train": part(12, 0), "test": part(12, 1), "train_rows": rows, "test_rows": rows, "labels": labels}
    return TaskStream("split", shape=SHAPE, num_tasks=2, num_classes=3, **options | changes)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_a_batch_of_permuted_tasks_pixel_by_pixel():
    stream = permuted()
    places = torch.tensor([[3, 3, 0, 11], [5, 1, 2, 9]])
    x, y = stream.train_batch([1, 0], places, [])
    assert x.shape == (2, 4, *SHAPE)
    assert torch.equal(y, stream.train.y[places])
    for t, task in enumerate((1, 0)):
        for b in range(4):
            row = stream.train.x[places[t, b]]
            assert x[t, b].flatten().tolist() == [row[c] for c in stream.columns[task].tolist()]


def test_what_lies_outside_can_be_a_source():
    x, _ = permuted().train_batch(range(2, 3), torch.tensor([[4, 5]]), [])
    assert torch.equal(x, torch.full((1, 2, *SHAPE), BLACK[1].item()))


def test_a_batch_of_split_tasks_has_their_rows_and_labels():
    stream = split()
    x, y = stream.train_batch([0, 1], torch.tensor([[4, 0], [1, 1]]), [])
    rows = torch.tensor([[2, 1], [3, 3]])
    assert torch.equal(x.flatten(2), stream.train.x[rows][..., :24])
    assert y.tolist() == [[1, 0], [1, 1]]
    assert [stream.size(task) for task in (0, 1)] == [5, 3]


def test_labels_of_the_data_set_are_kept_where_there_is_no_map():
    stream = split(labels=None)
    assert stream.train_batch([1], torch.tensor([[0, 1, 2]]), [])[1].tolist() == [[0, 3, 0]]
    assert stream.test_set(1)[1].tolist() == [0, 3, 0]


@pytest.mark.parametrize("make", [permuted, split])
@pytest.mark.parametrize("limit", [None, 2, 100])
def test_a_test_set_has_the_same_view_of_the_images_as_a_batch(make, limit):
    stream = make(train=part(12, 1))
    for task in range(stream.num_tasks):
        places = torch.arange(stream.size(task))[:limit]
        x, y = stream.train_batch([task], places[None], [])
        test_x, test_y = stream.test_set(task, limit)
        assert torch.equal(test_x, x[0])
        assert torch.equal(test_y, y[0])


def test_moving_keeps_everything():
    stream = split()
    meta = stream.to(torch.device("meta"))
    tensors = [meta.train.x, meta.test.y, *meta.train_rows, *meta.test_rows, meta.labels, permuted().to("meta").columns]
    assert all(t.is_meta for t in tensors)
    assert (meta.shape, meta.kind, meta.num_tasks, meta.augment) == (SHAPE, "split", 2, False)


def one_by_one(x, generator, pad):
    """Padding, cropping and mirroring of ``[B, C, H, W]``, image by image."""
    batch, channels, height, width = x.shape
    shift = torch.randint(2 * pad + 1, (2, batch), generator=generator)
    mirror = torch.rand(batch, generator=generator) < 0.5
    out = torch.empty_like(x)
    for b in range(batch):
        padded = BLACK[:channels, None, None].expand(-1, height + 2 * pad, width + 2 * pad).clone()
        padded[:, pad : pad + height, pad : pad + width] = x[b]
        top, left = shift[:, b].tolist()
        crop = padded[:, top : top + height, left : left + width]
        out[b] = crop.flip(2) if mirror[b] else crop
    return out


@quick
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 2), st.integers(1, 6), st.integers(1, 6), st.integers(0, 5))
def test_cropping_and_mirroring_against_a_loop_over_images(tasks, batch, channels, height, width, pad):
    x = torch.randn(tasks, batch, channels, height, width)
    moved = crop_and_mirror(x, BLACK[:channels], generators(*range(tasks)), pad)
    for task, generator in enumerate(generators(*range(tasks))):
        assert torch.equal(moved[task], one_by_one(x[task], generator, pad))


def test_crops_and_mirrors_are_as_frequent_as_they_should_be():
    x = torch.arange(1.0, 26).view(1, 1, 1, 5, 5).expand(1, 4000, -1, -1, -1)
    moved = crop_and_mirror(x, torch.zeros(1), generators(0), pad=1)[0, :, 0]
    kinds, counts = moved.flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 18, "three places down, three across, mirrored or not"
    assert counts.min() > 4000 / 18 * 0.7
    assert counts.max() < 4000 / 18 * 1.3


def test_augmentation_of_a_task_does_not_depend_on_its_neighbours():
    stream = permuted(augment=True)
    places = torch.randint(12, (2, 6))
    both, _ = stream.train_batch([0, 1], places, generators(5, 6))
    alone, _ = stream.train_batch([1], places[1:], generators(6))
    assert torch.equal(both[1], alone[0])
    plain, _ = permuted(columns=stream.columns).train_batch([1], places[1:], [])
    assert torch.equal(alone[0], one_by_one(plain[0], *generators(6), 4)), "black comes in from outside"


def test_each_task_needs_a_generator():
    with pytest.raises(ValueError, match="2 tasks need as many generators, not 1"):
        permuted(augment=True).train_batch([0, 1], torch.zeros(2, 3, dtype=torch.long), generators(1))
