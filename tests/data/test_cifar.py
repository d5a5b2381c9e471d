from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torchvision
from contract import check_contract, no_store, sentence
from PIL import Image

from reprise.data import cifar
from reprise.data.base import Source
from reprise.data.store import FileStore
from reprise.errors import UserError

SUBSET_COUNTS = (
    [1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981],
    [196, 200, 196, 200, 199, 192, 218, 196, 197, 206],
)


@pytest.fixture(scope="module")
def cifar100(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Decoded once for all tests of this file."""
    folder = os.environ.get("REPRISE_DATA", "")
    if not (Path(folder) / "cifar100").is_dir() and not (Path(folder) / "cifar-100-python").is_dir():
        pytest.skip("REPRISE_DATA has no CIFAR-100")
    store = FileStore(Path(folder), cache_dir=tmp_path_factory.mktemp("cache"), download=False)
    return cifar.load(name="cifar100", store=store, collection="CIFAR100")


def test_cifar100(cifar100: Source) -> None:
    check_contract(cifar100)
    assert cifar100.test is not None
    assert cifar100.train.y.bincount().tolist() == [500] * 100
    assert cifar100.test.y.bincount().tolist() == [100] * 100
    assert cifar100.train.y[:10].tolist() == [19, 29, 0, 11, 1, 86, 90, 28, 23, 31]
    assert cifar100.test.y[:10].tolist() == [49, 33, 72, 51, 71, 92, 15, 14, 23, 0]
    assert (cifar100.spec.classes[0], cifar100.spec.classes[99]) == ("apple", "worm")
    std, mean = torch.std_mean(cifar100.train.x.double(), dim=(0, 2, 3))
    assert mean.tolist() == pytest.approx([0.50707516, 0.48654887, 0.44091784], abs=1e-6)
    assert std.tolist() == pytest.approx([0.26733429, 0.25643846, 0.27615047], abs=1e-6)


def test_superclasses(real_store: FileStore, cifar100: Source) -> None:
    coarse = cifar.load(name="cifar100", store=real_store, collection="CIFAR100", coarse=True)
    check_contract(coarse)
    assert coarse.train.y.bincount().tolist() == [2500] * 20
    assert coarse.train.y[:5].tolist() == [11, 15, 4, 14, 1]
    assert coarse.spec.classes[:2] == ("aquatic_mammals", "fish")
    pairs = set(zip(cifar100.train.y.tolist(), coarse.train.y.tolist(), strict=True))
    assert len(pairs) == 100, "a class lies in one superclass"
    assert coarse.spec.checksum != cifar100.spec.checksum


def test_cifar10_subset(real_store: FileStore) -> None:
    source = cifar.load(name="cifar10_subset", store=real_store, collection="CIFAR10_subset")
    check_contract(source)
    assert source.test is not None
    assert (source.train.y.bincount().tolist(), source.test.y.bincount().tolist()) == SUBSET_COUNTS
    assert source.train.y[:5].tolist() == [6, 9, 9, 4, 1]


def test_the_subset_s_rows_are_those_of_its_index(real_store: FileStore) -> None:
    path = real_store.data_dir / "cifar10_subset" / "labels.npz"
    if not path.exists():
        pytest.skip("REPRISE_DATA has no CIFAR-10 sheets")
    with np.load(path, allow_pickle=False) as content:
        assert content["test_index"].tolist() == list(cifar._COLLECTIONS["CIFAR10_subset"].test_rows)
        assert content["train_index"].tolist() == list(range(10_000))


def test_cifar10_never_turns_into_its_subset(real_store: FileStore) -> None:
    if (real_store.data_dir / "cifar-10-batches-py").is_dir():
        pytest.skip("the whole of CIFAR-10 is here")
    with pytest.raises(UserError) as error:
        cifar.load(name="cifar10", store=real_store, collection="CIFAR10")
    sentence(error, "cifar-10-batches-py/data_batch_1", "dataset=cifar10_subset", "cs.toronto.edu")


def test_the_checksums_are_torchvision_s() -> None:
    for collection in ("CIFAR10", "CIFAR100"):
        theirs = getattr(torchvision.datasets, collection)
        listed = dict([*theirs.train_list, *theirs.test_list, (theirs.meta["filename"], theirs.meta["md5"])])
        for file in cifar.files(collection=collection).files:
            assert file.path.startswith(f"{theirs.base_folder}/")
            assert file.checksum == f"md5:{listed[file.name]}"


class Python2(pickle._Pickler):
    """Writes as Python 2 did, by which the official files were made: text and bytes are one type."""

    def save_string(self, value: str | bytes) -> None:
        raw = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch: ClassVar = pickle._Pickler.dispatch | {str: save_string, bytes: save_string}


def write(path: Path, content: dict[str, Any]) -> None:
    stream = io.BytesIO()
    Python2(stream, protocol=2).dump(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def batch(path: Path, label_key: str, labels: list[int], **more: Any) -> np.ndarray:
    """A file such as the official ones, with its pixels."""
    pixels = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    names = [f"{k}.png" for k in range(len(labels))]
    write(path, {"batch_label": "training batch 1 of 5", "data": pixels, label_key: labels, "filenames": names} | more)
    return pixels


def test_official_batches_are_joined_in_order(tmp_path: Path) -> None:
    known = cifar._COLLECTIONS["CIFAR10"]
    paths = [tmp_path / name for name, _, _ in known.pickles]
    pixels = [batch(path, "labels", [k % 10] * (k + 1)) for k, path in enumerate(paths)]
    ((train, y), (test, y_test)), classes = cifar._read_pickles(known, paths, coarse=False)
    assert np.array_equal(train, np.concatenate(pixels[:5]))
    assert np.array_equal(test, pixels[5])
    assert y.tolist() == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4]
    assert y_test.tolist() == [5] * 6
    assert len(classes) == 10


@pytest.mark.parametrize(("coarse", "label", "names"), [(False, 7, ("a", "b")), (True, 1, ("c",))])
def test_official_files_of_cifar100(tmp_path: Path, coarse: bool, label: int, names: tuple[str, ...]) -> None:
    known = cifar._COLLECTIONS["CIFAR100"]
    paths = [tmp_path / name for name, _, _ in known.pickles]
    for path in paths[:2]:
        batch(path, "fine_labels", [7, 7], coarse_labels=[1, 1])
    write(paths[2], {"fine_label_names": ["a", "b"], "coarse_label_names": ["c"]})
    ((_, y), (_, y_test)), classes = cifar._read_pickles(known, paths, coarse)
    assert y.tolist() == y_test.tolist() == [label, label]
    assert classes == names


def test_both_layouts_give_the_same_source(real_store: FileStore, tmp_path: Path, monkeypatch: Any) -> None:
    """The subset's sheets, written as official batches with other rows in the gaps, are the same data set."""
    sheets = cifar.load(name="cifar10_subset", store=real_store, collection="CIFAR10_subset")
    known = cifar._COLLECTIONS["CIFAR10_subset"]
    assert sheets.test is not None
    pixels, labels = np.zeros((10_000, 3072), np.uint8), np.zeros(10_000, int)
    pixels[list(known.test_rows)] = (sheets.test.x.flatten(1) * 255).round().byte().numpy()
    labels[list(known.test_rows)] = sheets.test.y.numpy()
    train = {"data": (sheets.train.x.flatten(1) * 255).round().byte().numpy(), "labels": sheets.train.y.tolist()}
    write(tmp_path / known.folder / "data_batch_1", train)
    write(tmp_path / known.folder / "test_batch", {"data": pixels, "labels": labels.tolist()})
    monkeypatch.setattr("reprise.data.store.verify", lambda *_: None)
    official = cifar.load(name="x", store=FileStore(tmp_path, tmp_path / "c", False), collection="CIFAR10_subset")
    assert official.spec.checksum == sheets.spec.checksum
    assert torch.equal(official.train.x, sheets.train.x)


def test_a_damaged_official_file_is_not_passed_over(real_store: FileStore, tmp_path: Path) -> None:
    shutil.copytree(real_store.data_dir / "cifar10_subset", tmp_path / "cifar10_subset")
    batch(tmp_path / "cifar-10-batches-py" / "data_batch_1", "labels", [1])
    with pytest.raises(UserError, match="data_batch_1 is damaged"):
        cifar.load(name="x", store=FileStore(tmp_path, tmp_path / "c", False), collection="CIFAR10_subset")


def test_altered_sheets_are_refused(real_store: FileStore, tmp_path: Path) -> None:
    shutil.copytree(real_store.data_dir / "cifar10_subset", tmp_path / "cifar10_subset")
    store = FileStore(tmp_path, tmp_path / "c", download=False)
    sheet = tmp_path / "cifar10_subset" / "test_01.webp"
    sheet.chmod(0o644)
    with Image.open(sheet) as image:
        array = np.array(image.convert("RGB"))
    array[0, 0, 0] ^= 1
    Image.fromarray(array).save(sheet, lossless=True)
    with pytest.raises(UserError) as error:
        cifar.load(name="x", store=store, collection="CIFAR10_subset")
    sentence(error, "test images", "altered")
    sheet.write_bytes(sheet.read_bytes()[:100])
    with pytest.raises(UserError) as error:
        cifar.load(name="x", store=store, collection="CIFAR10_subset")
    sentence(error, "test_01.webp is damaged")


def test_one_sheet_is_cut_row_by_row(tmp_path: Path) -> None:
    image = np.zeros((1280, 800, 3), np.uint8)
    image[32:64, 64:96] = (1, 2, 3)  # second row, third column: image 25 + 2
    image[0, 1] = (9, 8, 7)  # first image, pixel (0, 1)
    Image.fromarray(image).save(tmp_path / "s.webp", lossless=True)
    cut = cifar._sheet(tmp_path / "s.webp").reshape(1000, 3, 32, 32)
    assert np.flatnonzero(cut.any(axis=(1, 2, 3))).tolist() == [0, 27]
    assert [channel.mean() for channel in cut[27]] == [1, 2, 3]
    assert cut[0, :, 0, 1].tolist() == [9, 8, 7]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("open('ran', 'w')",))


@pytest.mark.parametrize("content", [pickle.dumps({"data": Evil()}), b"", b"no pickle", pickle.dumps(Path())])
def test_nothing_in_a_pickle_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "test_batch"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        cifar.unpickle(path)
    sentence(error, "no official CIFAR file")
    assert not (tmp_path / "ran").exists()


def test_a_batch_as_python_2_wrote_it(tmp_path: Path) -> None:
    pixels = batch(tmp_path / "b", "labels", [1, 2])
    content = cifar.unpickle(tmp_path / "b")
    assert np.array_equal(content["data"], pixels)
    assert content["filenames"] == ["0.png", "1.png"]


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        cifar.load(name="cifar10", store=no_store(tmp_path), collection="CIFAR10", coarse=True)
    sentence(error, "dataset.coarse=true", "only CIFAR-100")
    with pytest.raises(UserError, match="did you mean 'CIFAR10'"):
        cifar.load(name="cifar10", store=no_store(tmp_path), collection="CIFAR1O")
