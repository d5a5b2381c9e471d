"""CR-VAE's protocol: which inputs there are, what stays the same in all runs, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from image_sources import images, source_of
from pydantic import ValidationError

from reprise.data import breast_cancer, digits
from reprise.data.base import Source
from reprise.data.store import FileStore
from reprise.errors import UserError
from reprise.papers.crvae.datamodule import ViewData
from reprise.papers.crvae.transforms import ImageTransformation

SHIFT = ImageTransformation(translate=0.2)
TOY = source_of(images(40), images(20, seed=1))


def data(source: Source = TOY, **options) -> ViewData:
    return ViewData(source, **({"seed": 0, "transformation": SHIFT} | options))


def rows(part) -> set[tuple[float, ...]]:
    return {tuple(x.flatten().tolist()) for x in part.x}


def test_parts_do_not_overlap_and_leave_nothing_out():
    built = data(digits.load(name="digits", store=FileStore("nowhere")))
    sizes = [len(part) for part in (built.train, built.validation, built.test)]
    assert sizes == [1199, 239, 359]
    assert sum(sizes) == 1797
    names = [rows(part) for part in (built.train, built.validation, built.test)]
    assert not (names[0] & names[1] | names[0] & names[2] | names[1] & names[2])


def test_official_test_inputs_are_the_test_inputs():
    built = data()
    assert rows(built.test) == {tuple(x.flatten().tolist()) for x in data(size=16).test.x}
    assert len(built.test) == 20
    assert len(built.train) + len(built.validation) == 40


def test_nothing_follows_from_the_runs_seed():
    one, other = data(), data(seed=5)
    for name in ("train", "validation", "test"):
        assert torch.equal(getattr(one, name).x, getattr(other, name).x)
    assert torch.equal(one.transformed, other.transformed)
    assert not torch.equal(one.transformed, data(data_seed=1).transformed)


def test_labels_stay_with_their_inputs():
    source = source_of(images(40), images(20, seed=1))
    for y in range(len(source.train.y)):
        source.train.x[y] = y / 40
    marked = replace(source, train=replace(source.train, y=torch.arange(40) % 2))
    built = data(marked)
    for part in (built.train, built.validation):
        assert torch.equal((part.x[:, 0, 0, 0] * 40).round().long() % 2, part.y)


def test_small_images_are_enlarged_and_others_left_alone():
    small = digits.load(name="digits", store=FileStore("nowhere"))
    assert data(small).spec.shape == (1, 16, 16)
    assert data(small, size=8).spec.shape == (1, 8, 8)
    assert data(small, size=32).spec.shape == (1, 32, 32)
    for built in (data(small), data(small, size=5)):
        assert built.train.x.min() >= 0
        assert built.train.x.max() <= 1


def test_every_test_input_has_a_transformation_of_its_own():
    built = data()
    assert built.transformed.shape == built.test.x.shape
    assert not torch.equal(built.transformed, built.test.x)


def test_sizes_are_told():
    built = data(train_size=7, validation_size=5, test_size=4)
    told = {"train_size": 7, "validation_size": 5, "test_size": 4, "transformation": "shift 0.2 (bilinear)"}
    assert told.items() <= built.protocol.items()
    assert built.spec.rows == 7


def test_a_validation_set_of_the_users_is_used():
    source = source_of(images(40), images(20, seed=1))
    own = replace(source, validation=images(9, seed=2))
    built = data(own)
    assert torch.equal(built.validation.y, own.validation.y)
    assert len(built.train) == 40


@pytest.mark.parametrize("size", ["train_size", "validation_size", "test_size"])
def test_more_than_there_is_is_refused(size):
    with pytest.raises(UserError, match=f"method.datamodule.{size}=1000 is more than"):
        data(**{size: 1000})


@pytest.mark.parametrize("size", ["size", "train_size", "validation_size", "test_size"])
def test_sizes_below_one_are_refused(size):
    with pytest.raises(ValidationError, match=size):
        data(**{size: 0})


def test_a_table_is_refused():
    with pytest.raises(UserError, match="has a table"):
        data(breast_cancer.load(name="breast_cancer", store=FileStore("nowhere")))
