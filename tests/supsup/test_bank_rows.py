"""What a bank holds: bits on every device, means and counts, chunks, growth, and parts that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from banks import CLASSES, DEVICES, equal, images, network, random_bank, random_masks, residual_bank
from hypothesis import given, settings
from hypothesis import strategies as st

from reprise.errors import UserError
from reprise.papers.supsup import bank as bank_module
from reprise.papers.supsup.bank import MaskBank, in_layers, pack, unpack, unpack_by_shifts
from reprise.papers.supsup.networks import Statistics


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 4), st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=3))
def test_packing_and_unpacking_give_the_same_masks(tasks, shapes):
    masks = random_masks(tasks, [tuple(shape) for shape in shapes])
    packed, size = pack(masks), sum(int(np.prod(shape)) for shape in shapes)
    assert packed.shape == (tasks, -(-size // 8))
    assert packed.dtype == torch.uint8
    rows = unpack(packed, size)
    assert equal([m.bool() for m in in_layers(rows, shapes)], masks)
    assert torch.equal(unpack_by_shifts(packed, size), rows)


@pytest.mark.parametrize("device", DEVICES)
def test_bits_are_the_same_on_every_device(device):
    masks = [m.to(device) for m in random_masks(3, network().shapes)]
    packed = pack(masks)
    assert packed.device.type == device
    assert torch.equal(packed.cpu(), pack([m.cpu() for m in masks]))
    assert torch.equal(unpack(packed, 147).cpu(), unpack(packed.cpu(), 147))


@pytest.mark.parametrize("tasks", [[2], [4, 0, 4], slice(1, 3), torch.tensor([3, 1])])
def test_weights_are_the_frozen_ones_where_a_mask_keeps_them(tasks):
    bank, masks = random_bank(), random_masks(5, network().shapes)
    expected = [w * m[tasks] for w, m in zip(bank.frozen, masks, strict=True)]
    assert equal(bank.weights(tasks), expected)
    assert all(float(w.abs().min()) > 0 for w in bank.frozen)  # not written to


@pytest.mark.parametrize("candidates", [None, [1, 4], [0]])
def test_mean_weights_are_the_mean_of_the_weights(candidates):
    bank = random_bank()
    chosen = slice(None) if candidates is None else candidates
    expected = [w.double().mean(0, keepdim=True).float() for w in bank.weights(chosen)]
    given = None if candidates is None else torch.tensor(candidates)
    for mean, value in zip(bank.mean_weights(given), expected, strict=True):
        torch.testing.assert_close(mean, value)


@pytest.mark.parametrize("at_once", [1, 147, 147 * 300])
def test_counts_do_not_depend_on_how_many_masks_are_counted_together(monkeypatch, at_once):
    """300 masks that keep everything: a sum that would not fit a byte."""
    monkeypatch.setattr(bank_module, "COUNTED_AT_ONCE", at_once)
    net = network()
    bank = MaskBank(net, 3, pack([torch.ones(300, *shape, dtype=torch.bool) for shape in net.shapes]), CLASSES)
    assert equal(bank.mean_weights(), [w[None] for w in bank.frozen])
    assert equal(bank.mean_weights(torch.arange(290)), [w[None] for w in bank.frozen])


@pytest.mark.parametrize("size", [1, 2, 5, 9])
@pytest.mark.parametrize("candidates", [None, [3, 0, 2]])
def test_chunks_cover_the_candidates_once_whatever_their_size(size, candidates):
    bank, masks = random_bank(), random_masks(5, network().shapes)
    places = []
    for part, layers in bank.chunks(size, None if candidates is None else torch.tensor(candidates)):
        assert 1 <= len(part) <= size
        assert equal(layers, [m[part].float() for m in masks])
        places += part.tolist()
    assert places == (candidates or list(range(5)))


def test_kept_weights_are_counted_mask_by_mask_and_layer_by_layer():
    masks = random_masks(4, network().shapes)
    kept = MaskBank(network(), 3, pack(masks), CLASSES).kept()
    assert torch.equal(kept, torch.stack([m.flatten(1).sum(1) for m in masks], 1))


def test_logits_are_those_of_the_masked_network():
    bank, x = random_bank(), images()
    first, second = (m[2].float() for m in random_masks(5, network().shapes))
    hidden = (x.flatten(1) @ (bank.frozen[0] * first).T).relu()
    torch.testing.assert_close(bank.logits(2, x), hidden @ (bank.frozen[1] * second).T)


def test_a_bank_that_grew_is_one_that_was_made_whole():
    whole, bank = random_bank(60), random_bank(60)
    bank = MaskBank(whole.network, 3, whole.packed[:1], CLASSES)
    stores = set()
    for task in range(1, 60):
        bank.append(whole.packed[task : task + 1])
        stores.add(bank.packed.data_ptr())
        if task == 20:
            bank.mean_weights()  # counts are kept from here on
    assert torch.equal(bank.packed, whole.packed)
    assert equal(bank.mean_weights(), whole.mean_weights())
    assert len(stores) <= 7  # room doubles


def test_growing_leaves_alone_what_the_bank_was_made_from():
    store = torch.zeros(4, 19, dtype=torch.uint8)
    bank = MaskBank(network(), 3, store[:2], CLASSES)
    bank.append(torch.full((1, 19), 7, dtype=torch.uint8))
    assert bank.packed[:, 0].tolist() == [0, 0, 7]
    assert not store.any()


def test_statistics_and_names_grow_too():
    whole = residual_bank()
    mean, var = whole.statistics.mean, whole.statistics.var
    start = Statistics(mean[:1], var[:1])
    bank = MaskBank(whole.network, 1, whole.packed[:1], 5, start, tasks=["a"])
    bank.append(whole.packed[1:], Statistics(mean[1:], var[1:]), ["b", "c"])
    assert torch.equal(bank.statistics.mean, mean)
    assert torch.equal(bank.statistics.var, var)
    assert bank.tasks == ["a", "b", "c"]
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(bank.logits(2, x), whole.logits(2, x))


def test_a_refused_row_changes_nothing():
    bank = random_bank(2)
    before = bank.packed.clone()
    for rows, more in [
        (torch.zeros(1, 18, dtype=torch.uint8), {}),
        (before[:1], {"tasks": ["a"]}),
        (before[:1], {"statistics": Statistics.fresh(1, 4)}),
    ]:
        with pytest.raises(UserError):
            bank.append(rows, **more)
    assert torch.equal(bank.packed, before)
    assert bank.tasks == []


def test_an_empty_bank_can_grow_and_says_that_it_is_empty():
    net = network()
    bank = MaskBank(net, 3, torch.zeros(0, 19, dtype=torch.uint8), CLASSES)
    assert list(bank.chunks(3)) == []
    with pytest.raises(UserError, match="no mask to take the mean of"):
        bank.mean_weights()
    with pytest.raises(UserError, match="holds no masks yet"):
        bank.predict(images(), task=0)
    with pytest.raises(UserError, match="no mask"):
        bank.predict(images())
    bank.append(random_bank(2).packed, tasks=["a", "b"])
    assert torch.equal(bank.predict(images(), task=1), random_bank(2).predict(images(), task=1))


@pytest.mark.parametrize("device", DEVICES)
def test_a_bank_moves_between_devices(device):
    bank = residual_bank()
    moved = bank.to(device)
    assert moved.packed.device.type == moved.frozen[0].device.type == moved.statistics.mean.device.type == device
    assert torch.equal(moved.packed.cpu(), bank.packed)
    x = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(moved.logits(1, x.to(device)).cpu(), bank.logits(1, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"classes": 7}, "classes=7 are more than the 6 outputs"),
        ({"mean": [0.1, 0.2, 0.3]}, r"mean=\[0\.1, 0\.2, 0\.3\] does not fit inputs"),
        ({"std": [float("inf")]}, "std=.* one finite number per channel"),
        ({"packed": torch.zeros(2, 20, dtype=torch.uint8)}, "147 weights need rows of 19 bytes"),
        ({"packed": torch.zeros(2, 19)}, "uint8"),
        ({"packed": torch.zeros(19, dtype=torch.uint8)}, r"they are \[19\]"),
        ({"statistics": Statistics.fresh(2, 3)}, "another has none"),
        ({"tasks": ["a"]}, "1 names for 2 masks"),
    ],
)
def test_a_bank_whose_parts_do_not_fit_is_refused(options, sentence):
    fitting = {"network": network(), "weight_seed": 3, "packed": random_bank(2).packed, "classes": CLASSES}
    with pytest.raises(UserError, match=sentence):
        MaskBank(**(fitting | options))


def test_statistics_that_do_not_fit_are_refused():
    bank = residual_bank()
    with pytest.raises(UserError, match="needs the statistics of each task"):
        MaskBank(bank.network, 1, bank.packed, 5)
    with pytest.raises(UserError, match="one row per mask"):
        MaskBank(bank.network, 1, bank.packed, 5, Statistics.fresh(2, bank.network.channels))
