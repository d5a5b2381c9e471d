"""SupSup's protocol: which images a task has, how they are normalised, what is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import hydra
import numpy as np
import pytest
import torch
from harness import CONF, options
from hydra.core.global_hydra import GlobalHydra
from image_sources import images, source_of
from omegaconf import OmegaConf
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import functional as TF

from reprise import building
from reprise.config import Scale, register
from reprise.data import breast_cancer, cifar, digits, image_folder, mnist
from reprise.data.base import Source, Split
from reprise.data.store import FileStore
from reprise.errors import UserError
from reprise.papers.supsup.datamodule import StreamData

TRAIN, TEST = images(40), images(20, seed=1)
TOY = source_of(TRAIN, TEST)


def real_store() -> FileStore:
    folder = os.environ.get("REPRISE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("REPRISE_DATA names no folder with real data")
    return FileStore(Path(folder), download=False)


@pytest.fixture(scope="module")
def real_mnist() -> Source:
    if not (Path(os.environ.get("REPRISE_DATA", "")) / "MNIST").is_dir():
        pytest.skip("REPRISE_DATA has no MNIST")
    return mnist.load(name="mnist", store=real_store(), collection="MNIST")


@pytest.fixture(scope="module")
def real_cifar100() -> Source:
    folder = Path(os.environ.get("REPRISE_DATA", ""))
    if not (folder / "cifar100").is_dir() and not (folder / "cifar-100-python").is_dir():
        pytest.skip("REPRISE_DATA has no CIFAR-100")
    return cifar.load(name="cifar100", store=real_store(), collection="CIFAR100")


def refused(*parts: str, source: Source = TOY, **options: object) -> None:
    with pytest.raises(UserError) as error:
        StreamData(source, seed=0, **options)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    for part in parts:
        assert part in text, text


def unordered(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(sorted(x.flatten(1).tolist()))


def test_permuted_tasks_of_a_data_set():
    data = StreamData(TOY, seed=3, kind="permuted", num_tasks=6)
    assert (data.spec.num_tasks, data.spec.shape, data.spec.rows) == (6, (1, 4, 5), 40)
    assert data.spec.classes == tuple("abcd")
    assert data.task_classes == (tuple("abcd"),) * 6
    assert data.protocol == {
        "kind": "permuted",
        "num_tasks": 6,
        "classes": 4,
        "train_size": 40,
        "test_size": 20,
        "augment": "none",
        "seeds": "official",
    }
    x, y = data.stream.train_batch([2], torch.arange(40)[None], [])
    order = np.random.RandomState(3 + 2).permutation(20)
    normalised = (TRAIN.x - data.mean[0]) / data.std[0]
    assert torch.equal(x[0].flatten(1), normalised.flatten(1)[:, order])
    assert torch.equal(y[0], TRAIN.y)


def test_the_loader_counts_rounds():
    data = StreamData(TOY, seed=0, kind="rotated", num_tasks=1)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(steps_per_epoch=3))
    assert list(data.train_dataloader()) == [0, 1, 2]


def test_seeds_can_be_independent():
    official, other = (
        StreamData(TOY, seed=3, kind="permuted", num_tasks=2, seeds=s) for s in ("official", "independent")
    )
    assert not torch.equal(official.stream.columns, other.stream.columns)
    assert official.protocol != other.protocol


def test_test_images_are_those_of_the_source_in_an_order_of_the_seed():
    sets = [StreamData(TOY, seed=seed, kind="permuted", num_tasks=1).stream.test for seed in (0, 1)]
    assert not torch.equal(sets[0].x, sets[1].x)
    assert torch.equal(unordered(sets[0].x), unordered(sets[1].x))
    few = StreamData(TOY, seed=0, kind="permuted", num_tasks=1, test_size=7).stream.test
    assert torch.equal(few.x, sets[0].x[:7])
    assert torch.equal(few.y, sets[0].y[:7])


def test_a_limit_draws_training_images_at_random():
    chosen = [StreamData(TOY, seed=seed, kind="permuted", num_tasks=1, train_size=9) for seed in (0, 0, 1)]
    known = {tuple(row.tolist()) for row in (TRAIN.x.flatten(1) * 255).round().int()}
    for data in chosen:
        pixels = (data.stream.train.x[:, :20] * data.std[0] + data.mean[0]) * 255
        assert len({tuple(row.tolist()) for row in pixels.round().int()} & known) == 9
    assert torch.equal(chosen[0].stream.train.x, chosen[1].stream.train.x)
    assert not torch.equal(chosen[0].stream.train.y, chosen[2].stream.train.y)


def test_other_data_sets_are_normalised_by_their_training_pixels():
    colour = source_of(images(30, (3, 4, 4)), images(10, (3, 4, 4), seed=5))
    data = StreamData(colour, seed=0, kind="permuted", num_tasks=1)
    x = data.stream.train.x[:, :48].view(30, 3, 16)
    assert x.mean((0, 2)).tolist() == pytest.approx([0, 0, 0], abs=1e-4)
    assert x.std((0, 2), correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-4)
    black = -torch.tensor(data.mean) / torch.tensor(data.std)
    torch.testing.assert_close(data.stream.train.x[:, 48:], black.expand(30, 3))


def test_a_channel_without_contrast_stays_finite():
    flat = Split(torch.full((10, 1, 4, 4), 0.25), torch.arange(10) % 4)
    data = StreamData(source_of(flat), seed=0, kind="rotated", num_tasks=1)
    assert (data.mean, data.std) == ([0.25], [1.0])
    assert data.stream.train.x[:, :16].abs().max() == 0


def test_known_constants_go_by_name():
    colour = images(10, (3, 4, 4))
    data = StreamData(source_of(colour, name="cifar100"), seed=0, kind="permuted", num_tasks=1)
    assert (data.mean, data.std) == ([0.491, 0.482, 0.447], [0.247, 0.243, 0.262])
    grey = StreamData(source_of(images(10), name="mnist"), seed=0, kind="permuted", num_tasks=1)
    assert (grey.mean, grey.std) == ([0.1307], [0.3081])
    small = StreamData(source_of(images(10), name="cifar100"), seed=0, kind="permuted", num_tasks=1)
    assert len(small.mean) == 1, "constants of three channels do not fit grey images"


def test_a_fifth_is_held_out_where_there_are_no_test_images():
    data = StreamData(digits.load(name="digits", store=None), seed=0, kind="permuted", num_tasks=2)
    assert (data.train_size, data.test_size) == (1797 - 359, 359)
    together = torch.cat([data.stream.train.x, data.stream.test.x])
    whole = (data.source.train.x.flatten(1) - data.mean[0]) / data.std[0]
    assert torch.equal(unordered(together[:, :64]), unordered(whole))
    other = StreamData(data.source, seed=1, kind="permuted", num_tasks=2, test_size=100, train_size=500)
    assert (other.train_size, other.test_size) == (500, 100)


def test_split_tasks_share_no_class_and_count_their_labels_from_zero():
    data = StreamData(TOY, seed=7, kind="split", classes_per_task=2)
    order = np.random.RandomState(7).permutation(4)
    assert data.task_classes == tuple(tuple("abcd"[c] for c in order[k : k + 2]) for k in (0, 2))
    assert (data.spec.num_tasks, data.spec.classes, data.spec.rows) == (2, ("0", "1"), 40)
    for task in (0, 1):
        x, y = data.stream.train_batch([task], torch.arange(20)[None], [])
        rows = torch.isin(TRAIN.y, torch.from_numpy(order[2 * task : 2 * task + 2]))
        assert torch.equal(x[0], (TRAIN.x[rows] - data.mean[0]) / data.std[0])
        assert torch.equal(torch.from_numpy(order[2 * task :])[y[0]], TRAIN.y[rows])
        assert len(data.stream.test_set(task)[1]) == 10
    assert StreamData(TOY, seed=7, kind="split", num_tasks=1).spec.rows == 20


def test_labels_and_classes_of_the_data_set_can_be_kept():
    data = StreamData(TOY, seed=7, kind="split", class_order="given", remap_labels=False)
    assert data.spec.classes == tuple("abcd")
    assert data.stream.num_classes == 4
    assert data.task_classes == (("a", "b"), ("c", "d"))
    assert set(data.stream.test_set(1)[1].tolist()) == {2, 3}


def test_a_class_seed_of_its_own():
    fixed = [StreamData(TOY, seed=seed, kind="split", class_seed=1).task_classes for seed in (3, 4)]
    assert fixed[0] == fixed[1] == StreamData(TOY, seed=1, kind="split").task_classes
    assert len({StreamData(TOY, seed=seed, kind="split").task_classes for seed in range(9)}) > 1


def test_all_classes_in_one_task_keep_their_names():
    data = StreamData(TOY, seed=0, kind="split", classes_per_task=4, class_order="given")
    assert data.spec.classes == tuple("abcd")


def test_a_full_turn_is_the_default():
    data = StreamData(digits.load(name="digits", store=None), seed=0, kind="rotated")
    assert data.spec.num_tasks == 36
    assert data.protocol["angle"] == 10.0
    assert StreamData(TOY, seed=0, kind="rotated", angle=100).spec.num_tasks == 4


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 6)])
def test_rotated_images_have_torchvisions_bits(shape):
    train = images(12, shape)
    data = StreamData(source_of(train), seed=0, kind="rotated", angle=30)
    whole = StreamData(source_of(train, train), seed=0, kind="rotated", angle=30)
    for task in range(12):
        x, _ = whole.stream.train_batch([task], torch.arange(12)[None], [])
        for row in range(12):
            turned = TF.to_tensor(TF.rotate(TF.to_pil_image(train.x[row]), 30.0 * task))
            assert torch.equal(x[0, row], TF.normalize(turned, whole.mean, whole.std))
    assert data.test_size == 2


def test_augmented_training_images_have_black_around_and_test_images_do_not():
    white = Split(torch.ones(400, 1, 6, 6) - torch.eye(6) / 2, torch.arange(400) % 4)
    data = StreamData(source_of(white, white), seed=0, kind="split", augment="crop_mirror")
    black = -data.mean[0] / data.std[0]
    x, _ = data.stream.train_batch([0], torch.arange(200)[None], [torch.Generator().manual_seed(0)])
    assert torch.isclose(x, torch.tensor(black)).flatten(2).any(2).float().mean() > 0.9
    assert not torch.isclose(data.stream.test_set(0)[0], torch.tensor(black)).any()
    assert data.protocol["augment"] == "crop_mirror"


def test_own_images(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "eel", "fox"):
        (tmp_path / name).mkdir()
        for k in range(10):
            Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(tmp_path / name / f"{k}.png")
    source = image_folder.load(
        name="image_folder", store=FileStore(tmp_path, download=False), path=str(tmp_path), size=8
    )
    data = StreamData(source, seed=0, kind="split", class_order="given")
    assert data.task_classes == (("cat", "dog"), ("eel", "fox"))
    assert sum(data.stream.size(task) for task in (0, 1)) == data.spec.rows == 32
    with_validation = replace(source, validation=source.train)
    refused("dataset.validation_path", source=with_validation, kind="split")


def test_wrong_data_is_refused():
    table = breast_cancer.load(name="breast_cancer", store=None)
    refused("dataset=breast_cancer has table data", "digits", source=table, kind="permuted", num_tasks=2)
    numbers = source_of(TRAIN, TEST, task="regression", name="ages")
    refused("dataset=ages has numbers to predict", source=numbers, kind="permuted", num_tasks=2)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"kind": "permuted"}, ("num_tasks has no value", "give one")),
        ({"kind": "permuted", "num_tasks": 2, "augment": "crop_mirror"}, ("augment=crop_mirror", "none")),
        ({"kind": "permuted", "num_tasks": 2, "train_size": 41}, ("train_size=41", "40 images", "dataset=toy")),
        ({"kind": "permuted", "num_tasks": 2, "test_size": 21}, ("test_size=21", "20 images")),
        ({"kind": "rotated", "num_tasks": 40}, ("num_tasks=40", "10 degrees", "at most 36", "angle")),
        ({"kind": "rotated", "num_tasks": 2, "angle": 360}, ("num_tasks=2", "at most 1")),
        ({"kind": "rotated", "angle": 1}, ("angle=1", "4x5 pixels", "larger angle")),
        ({"kind": "split", "classes_per_task": 3}, ("classes_per_task=3", "4 classes", "one of 2, 4")),
        ({"kind": "split", "num_tasks": 3}, ("num_tasks=3", "2 tasks", "null for all")),
        ({"kind": "split", "test_size": 2}, ("has no test image", "test_size")),
        ({"kind": "split", "train_size": 3}, ("has no training image", "train_size")),
    ],
)
def test_wrong_options_are_one_sentence(options, parts):
    refused(*parts, **options)


def test_a_held_out_part_leaves_something_to_train_on():
    refused("test_size=40", "39 images", source=source_of(TRAIN), kind="permuted", num_tasks=1, test_size=40)
    refused(
        "train_size=31", "30 images", source=source_of(TRAIN), kind="permuted", num_tasks=1, test_size=10, train_size=31
    )


@pytest.mark.parametrize(
    "options",
    [
        {"num_tasks": 0},
        {"angle": -10},
        {"augment": "blur"},
        {"seeds": "both"},
        {"class_seed": 2**32},
        {"train_size": 0},
    ],
)
def test_values_out_of_range_name_their_key(options):
    with pytest.raises(ValidationError) as error:
        StreamData(TOY, seed=0, kind="rotated", **options)
    assert error.value.errors()[0]["loc"] == tuple(options)


TASKS = {  # at smoke, cpu and paper scale
    "permuted": (5, 20, 250),
    "rotated": (4, 8, 36),
    "split": (50, 50, 50),
    "split_mnist": (5, 5, 5),
    "split_cifar100": (2, 4, 20),
    "split_imagenet": (2, 4, 100),
}


@pytest.mark.parametrize("choice", options("stream"))
def test_every_stream_of_the_suite_is_built_from_its_config(choice):
    classes = {"split_mnist": 10, "split_imagenet": 1000}.get(choice, 100)
    pixels = Split(torch.rand(2 * classes, 1, 9, 9), torch.arange(2 * classes) % classes)
    spec = replace(source_of(pixels).spec, classes=tuple(str(c) for c in range(classes)))
    register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose(f"stream/{choice}")
    for scale, num_tasks in zip(Scale, TASKS[choice], strict=True):
        root = OmegaConf.merge({"scale": scale}, cfg)
        node = OmegaConf.to_container(root, resolve=True)["method"]["datamodule"]
        data = building.instantiate(node, "method.datamodule", source=Source(spec, pixels, pixels), seed=0)
        assert data.spec.num_tasks == num_tasks
        assert data.protocol.keys() >= node.keys() - {"_target_"}


def test_permuted_mnist(real_mnist: Source) -> None:
    data = StreamData(real_mnist, seed=1, kind="permuted", num_tasks=3)
    assert (data.train_size, data.test_size) == (60_000, 10_000)
    order = np.random.RandomState(1 + 2).permutation(784)
    x, y = data.stream.train_batch([2], torch.tensor([[59_999]]), [])
    expected = TF.normalize(real_mnist.train.x[-1], (0.1307,), (0.3081,)).flatten()[order]
    assert torch.equal(x.flatten(), expected)
    assert y.item() == real_mnist.train.y[-1]


def test_rotated_mnist(real_mnist: Source) -> None:
    data = StreamData(real_mnist, seed=0, kind="rotated", train_size=20)
    pixels = (data.stream.train.x[:, :784] * 0.3081 + 0.1307).mul(255).round().byte().view(-1, 28, 28)
    for task in range(36):
        x, _ = data.stream.train_batch([task], torch.arange(20)[None], [])
        for row in range(20):
            turned = TF.to_tensor(TF.rotate(Image.fromarray(pixels[row].numpy()), 10.0 * task))
            assert torch.equal(x[0, row], TF.normalize(turned, (0.1307,), (0.3081,)))


def test_split_mnist_keeps_ten_labels(real_mnist: Source) -> None:
    data = StreamData(real_mnist, seed=0, kind="split", class_order="given", remap_labels=False)
    assert [data.stream.size(task) for task in range(5)] == [12665, 12089, 11263, 12183, 11800]
    assert data.spec.num_classes == 10
    assert set(data.stream.test_set(4)[1].tolist()) == {8, 9}


def test_split_cifar100(real_cifar100: Source) -> None:
    data = StreamData(real_cifar100, seed=2, kind="split", classes_per_task=5, augment="crop_mirror")
    order = np.random.RandomState(2).permutation(100)
    assert (data.spec.num_tasks, data.spec.num_classes) == (20, 5)
    assert data.task_classes[3] == tuple(real_cifar100.spec.classes[c] for c in order[15:20])
    for task in range(20):
        assert data.stream.size(task) == 2500
        assert data.stream.test_set(task)[1].bincount().tolist() == [100] * 5
