"""The file of a bank: everything comes back, and everything that can be wrong is said in a sentence."""

from __future__ import annotations

import doctest
import itertools
import json

import pytest
import torch
from banks import CLASSES, SHAPE, equal, images, network, random_bank, residual_bank
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from reprise.errors import UserError
from reprise.papers.supsup import bank as bank_module
from reprise.papers.supsup.bank import MaskBank, unpack
from reprise.papers.supsup.bank_file import FORMAT, read
from reprise.papers.supsup.networks import FullyConnected
from reprise.papers.supsup.residual import GemResNet18


def test_a_saved_bank_predicts_as_before(tmp_path):
    bank = random_bank(40, mean=[0.1307], std=[0.3081], names=[f"task {t}" for t in range(40)])
    path = bank.save(tmp_path / "deep" / "masks.safetensors")
    loaded = MaskBank.load(str(path), network=FullyConnected([7]))
    assert torch.equal(loaded.packed, bank.packed)
    assert equal(loaded.frozen, bank.frozen)
    assert (loaded.mean, loaded.std, loaded.tasks) == (bank.mean, bank.std, bank.tasks)
    x = images(30)
    for task in (0, 39):
        assert torch.equal(loaded.predict(x, task), bank.predict(x, task))
        assert torch.equal(loaded.logits(task, x), bank.logits(task, x))
    assert torch.equal(loaded.predict(x), bank.predict(x))
    (tensors, about), (again, told) = read(path), read(loaded.save(tmp_path / "again"))
    assert about == told  # the order of what a header says is not fixed
    assert torch.equal(tensors["masks"], again["masks"])
    assert [p.name for p in path.parent.iterdir()] == ["masks.safetensors"]  # no scratch file is left


def test_statistics_come_back_bit_by_bit(tmp_path):
    bank = residual_bank()
    loaded = MaskBank.load(bank.save(tmp_path / "bank"), network=bank.network)
    assert torch.equal(loaded.statistics.mean, bank.statistics.mean)
    assert torch.equal(loaded.statistics.var, bank.statistics.var)
    x = torch.rand(3, 3, 8, 8)
    assert torch.equal(loaded.predict(x, task=2), bank.predict(x, task=2))


def test_a_bank_with_room_to_grow_saves_what_it_holds(tmp_path):
    bank = random_bank(3)
    bank.append(bank.packed[:1])
    assert len(bank._packed.store) > bank.size
    loaded = MaskBank.load(bank.save(tmp_path / "bank"))
    assert torch.equal(loaded.packed, bank.packed)
    loaded.append(bank.packed[:1])
    assert loaded.size == 5


def test_an_empty_bank_comes_back_empty(tmp_path):
    bank = MaskBank(network(), 3, torch.zeros(0, 19, dtype=torch.uint8), CLASSES)
    assert MaskBank.load(bank.save(tmp_path / "bank")).size == 0


def test_a_loaded_bank_does_not_hang_on_its_file(tmp_path):
    bank = random_bank()
    loaded = MaskBank.load(bank.save(tmp_path / "bank"))
    with (tmp_path / "bank").open("r+b") as file:
        file.write(bytes((tmp_path / "bank").stat().st_size))  # in place
    assert torch.equal(loaded.packed, bank.packed)


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = random_bank(2).save(tmp_path / "bank")
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        random_bank(3).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_truncated_file_is_named(tmp_path, length):
    path = random_bank().save(tmp_path / "bank")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"bank is damaged or no safetensors file: .*\.$"):
        MaskBank.load(path)


def test_no_file_and_a_folder_are_no_bank(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(UserError, match="there is no mask bank"):
            MaskBank.load(path)


@pytest.mark.parametrize(
    "other",
    [FullyConnected([8]), FullyConnected([7, 7]), network().bind(SHAPE, 7), network().bind((15,), 6), GemResNet18()],
)
def test_a_bank_of_another_architecture_is_refused(tmp_path, other):
    path = random_bank().save(tmp_path / "bank")
    sentence = r"bank: it was saved for fully_connected\(hidden=\[7\]\) with inputs \[1, 3, 5\] and 6 outputs, and "
    with pytest.raises(UserError, match=sentence):
        MaskBank.load(path, network=other)
    MaskBank.load(path, network=network())


def rewritten(path, tensors=None, **about):
    """The same file with something else in it."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    told = json.loads(metadata[FORMAT]) | about
    metadata[FORMAT] = json.dumps({name: value for name, value in told.items() if value is not None})
    save_file(load_file(path) | (tensors or {}), path, metadata)
    return path


@pytest.mark.parametrize(
    ("tensors", "about", "sentence"),
    [
        ({}, {"network": "transformer"}, "there is no network 'transformer'; known networks: fully_connected"),
        ({}, {"network": ["x"]}, "is damaged"),
        ({}, {"arguments": {"hidden": [9]}}, "do not fit the network: its 189 weights"),
        ({}, {"arguments": {"hidden": [10**9]}}, "do not fit the network"),  # without making a gigabyte of weights
        ({}, {"arguments": {"width": 9}}, "is damaged"),
        ({}, {"arguments": {"hidden": "x"}}, "is damaged"),
        ({}, {"inputs": ["x"]}, "is damaged"),
        ({}, {"inputs": 5}, "is damaged"),
        ({}, {"outputs": "6"}, "is damaged"),
        ({}, {"classes": 0}, "is damaged"),
        ({}, {"classes": 7}, "classes=7 are more than the 6 outputs"),
        ({}, {"std": [0.0]}, "is damaged"),
        ({}, {"mean": [0.1, 0.2]}, "does not fit inputs"),
        ({}, {"tasks": ["a"]}, "1 names for 5 masks"),
        ({}, {"weight_seed": 4}, "seed 4 does not give the frozen weights"),
        ({}, {"weights": "0" * 16}, "seed 3 does not give the frozen weights"),
        ({}, {"classes": None}, "is not a mask bank of this version"),
        ({}, {"extra": 1}, "is not a mask bank of this version"),
        ({"other": torch.zeros(1)}, {}, "is not a mask bank of this version"),
        ({"mean": torch.zeros(5, 1)}, {}, "is not a mask bank of this version"),
        ({"mean": torch.zeros(5, 1), "var": torch.ones(5, 1)}, {}, "another has none"),
        ({"masks": torch.zeros(5, 20, dtype=torch.uint8)}, {}, "do not fit the network"),
        ({"masks": torch.zeros(5, 19)}, {}, "do not fit the network"),
    ],
)
def test_a_file_with_something_else_in_it_is_named(tmp_path, tensors, about, sentence):
    path = rewritten(random_bank().save(tmp_path / "masks"), tensors, **about)
    with pytest.raises(UserError, match=rf"masks: (.*[ =])?{sentence}|masks {sentence}") as caught:
        MaskBank.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {FORMAT: "{"}])
def test_tensors_of_somebody_else_are_no_bank(tmp_path, metadata):
    save_file({"masks": random_bank().packed.contiguous()}, tmp_path / "theirs", metadata)
    with pytest.raises(UserError, match="is not a mask bank of this version"):
        MaskBank.load(tmp_path / "theirs")


def test_every_flipped_bit_of_a_mask_comes_back_flipped(tmp_path):
    """Nothing between the bits and the file, so that what is stored is what is counted."""
    bank = random_bank(1)
    for place in itertools.chain(range(3), [146]):
        packed = bank.packed.clone()
        packed[0, place // 8] ^= 1 << place % 8
        changed = MaskBank.load(MaskBank(network(), 3, packed, CLASSES).save(tmp_path / "bank"))
        differ = (unpack(changed.packed, 147) != unpack(bank.packed, 147))[0].nonzero().flatten().tolist()
        assert differ == [place]


def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(bank_module)
    assert result.attempted > 5
    assert result.failed == 0


def test_the_same_bank_gives_the_same_bytes(tmp_path):
    contents = {random_bank().save(tmp_path / f"bank{n}").read_bytes() for n in range(8)}
    assert len(contents) == 1
