"""Tasks from files: the same images as from memory, only those of the present task, and random parts of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as TF

from reprise.data import image_files
from reprise.data.base import Source
from reprise.data.store import FileStore
from reprise.errors import UserError
from reprise.papers.supsup import file_stream
from reprise.papers.supsup.datamodule import StreamData
from reprise.papers.supsup.file_stream import crop_resize, random_boxes, resized_crop

SIZE = 28  # images are kept at 32


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 3)):
        for name in "abcd":
            (root / part / name).mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(0, 256, (40 + k, 61, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{k}.png")
    paths = {"path": str(root / "train"), "test_path": str(root / "test")}
    return image_files.load(name="image_files", store=FileStore(root, download=False), size=SIZE, **paths)


def official(files: image_files.ImageFiles, name: str, data: StreamData) -> torch.Tensor:
    """What the official code makes of a test image."""
    image = TF.center_crop(TF.resize(Image.open(files.root / name), 32), SIZE)
    return TF.normalize(TF.to_tensor(image), data.mean, data.std)


def test_tasks_have_the_images_of_their_classes(source: Source) -> None:
    data = StreamData(source, seed=0, kind="split", class_order="given")
    assert (data.spec.shape, data.spec.num_tasks, data.spec.rows) == ((3, SIZE, SIZE), 2, 24)
    assert data.mean == [0.485, 0.456, 0.406]
    x, y = data.stream.train_batch([1, 0], torch.tensor([[11, 0, 0], [7, 6, 1]]), [])
    assert y.tolist() == [[1, 0, 0], [1, 1, 0]]
    for t, names in enumerate((("d/5.png", "c/0.png", "c/0.png"), ("b/1.png", "b/0.png", "a/1.png"))):
        for b, name in enumerate(names):
            assert torch.equal(x[t, b], official(source.train, name, data))


def test_test_images_are_the_official_ones(source: Source) -> None:
    data = StreamData(source, seed=0, kind="split", class_order="given", remap_labels=False)
    x, y = data.stream.test_set(1)
    expected = [official(source.test, f"{name}/{k}.png", data) for name in "cd" for k in range(3)]
    assert sorted(x.flatten(1).tolist()) == sorted(torch.stack(expected).flatten(1).tolist())
    assert y.bincount().tolist() == [0, 0, 3, 3]
    for limit in (2, 6, 4, None):  # from what is kept, or not
        few = data.stream.test_set(1, limit)
        assert torch.equal(few[0], x[:limit])
        assert torch.equal(few[1], y[:limit])


def test_only_the_present_tasks_are_decoded_and_once(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: Path, side: int) -> torch.Tensor:
        read.append(path.parent.name)
        return image_files.decode(path, side)

    monkeypatch.setattr(file_stream, "decode", counted)
    stream = StreamData(source, seed=0, kind="split", class_order="given").stream.to(torch.device("cpu"))
    places = torch.zeros(1, 2, dtype=torch.long)
    for task, expected in ((0, 12), (0, 12), (1, 24), (1, 24), (0, 36)):
        stream.train_batch([task], places, [])
        assert len(read) == expected
    assert set(read[12:24]) == {"c", "d"}
    read.clear()
    stream.test_set(0, 2)
    assert len(read) == 2
    stream.test_set(0)
    stream.test_set(0, 3)
    assert len(read) == 8


def test_a_part_is_held_out_where_there_are_no_test_images(source: Source) -> None:
    data = StreamData(Source(source.spec, source.train), seed=0, kind="split", class_order="given", test_size=12)
    held = data.stream.test_rows[0].tolist() + data.stream.test_rows[1].tolist()
    assert sorted(held) == list(range(12))
    assert not set(data.stream.test.names) & set(data.stream.train.names)
    assert set(data.stream.test.names) | set(data.stream.train.names) == set(source.train.names)


def test_other_kinds_need_all_images(source: Source) -> None:
    with pytest.raises(UserError, match="read task by task, which kind=rotated cannot do"):
        StreamData(source, seed=0, kind="rotated")


def test_augmented_batches_depend_on_the_tasks_generator_alone(source: Source) -> None:
    stream = StreamData(source, seed=0, kind="split", augment="crop_mirror").stream
    places = torch.tensor([[0, 1, 2], [3, 4, 5]])
    both, _ = stream.train_batch([0, 1], places, [torch.Generator().manual_seed(s) for s in (1, 2)])
    alone, _ = stream.train_batch([1], places[1:], [torch.Generator().manual_seed(2)])
    assert torch.equal(both[1], alone[0])
    plain, _ = StreamData(source, seed=0, kind="split").stream.train_batch([1], places[1:], [])
    assert not torch.equal(plain, alone)


def test_parts_are_resized_as_if_cut_out_first() -> None:
    x = torch.rand(5, 3, 16, 12)
    boxes = torch.tensor([[0, 0, 16, 12], [3, 2, 7, 9], [15, 11, 1, 1], [0, 5, 16, 2], [4, 0, 5, 12]])
    mirror = torch.tensor([False, True, False, True, False])
    resized = crop_resize(x, boxes, mirror, 10)
    for image, (top, left, h, w), flip, ours in zip(x, boxes.tolist(), mirror.tolist(), resized, strict=True):
        part = image[None, :, top : top + h, left : left + w]
        expected = F.interpolate(part, (10, 10), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(ours, expected.flip(2) if flip else expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (40, 90), (20, 100)])
def test_parts_follow_torchvisions_law(height: int, width: int) -> None:
    n = 3000
    boxes = random_boxes(n, height, width, torch.Generator().manual_seed(0))
    top, left, h, w = boxes.unbind(1)
    assert (boxes >= 0).all()
    assert (h > 0).all()
    assert ((top + h) <= height).all()
    assert ((left + w) <= width).all()
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)])
    for ours, other in zip(boxes.T.double(), theirs.T.double(), strict=True):
        error = 5 * (ours.var() / n + other.var() / n).sqrt()
        assert abs(ours.mean() - other.mean()) <= error + 1e-9
        assert abs(ours.std() - other.std()) <= error + 1e-9


def test_where_no_try_fits_the_middle_is_taken() -> None:
    boxes = random_boxes(4, 4, 4000, torch.Generator().manual_seed(0))
    assert boxes.tolist() == [[0, (4000 - 5) // 2, 4, 5]] * 4


def test_random_parts_of_an_even_image_are_even() -> None:
    x = torch.full((6, 3, 16, 16), 9.0)
    torch.testing.assert_close(
        resized_crop(x, SIZE, torch.Generator().manual_seed(0)), torch.full((6, 3, SIZE, SIZE), 9.0)
    )
