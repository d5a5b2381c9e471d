"""The bank: bits in and out, on disk and back, and what it answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reprise.errors import UserError
from reprise.papers.supsup.bank import MaskBank, in_layers, pack, unpack
from reprise.papers.supsup.bank_file import FORMAT
from reprise.papers.supsup.networks import FullyConnected, Statistics, signed_constants
from reprise.papers.supsup.residual import GemResNet18

SEED = 11


def network(hidden: tuple[int, ...] = (5, 3), outputs: int = 4) -> FullyConnected:
    return FullyConnected(list(hidden)).bind((1, 2, 3), outputs)


def masks(tasks: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(tasks, *shape, generator=generator) < 0.5 for shape in network().shapes]


def bank(tasks: int = 3) -> MaskBank:
    return MaskBank(network(), SEED, pack(masks(tasks)), classes=2, mean=[0.4], std=[0.5])


def images(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 1, 2, 3, generator=torch.Generator().manual_seed(5))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**31))
def test_bits_come_back(tasks, first, second, seed):
    generator = torch.Generator().manual_seed(seed)
    kept = [torch.rand(tasks, size, generator=generator) < 0.5 for size in (first, second)]
    bits = pack(kept)
    assert bits.shape == (tasks, -(-(first + second) // 8))
    assert bits.dtype == torch.uint8
    for layer, back in zip(kept, in_layers(unpack(bits, first + second), [(first,), (second,)]), strict=True):
        assert torch.equal(back.bool(), layer)


def test_the_first_weight_is_the_lowest_bit():
    assert pack([torch.tensor([[True, False, False, True, False, False, False, False, True]])]).tolist() == [[9, 1]]


def test_weights_are_the_frozen_ones_under_the_mask():
    kept, frozen = masks(3), signed_constants(network().shapes, SEED)
    for found, mask, w in zip(bank().weights(slice(1, 3)), kept, frozen, strict=True):
        assert torch.equal(found, w * mask[1:])


@pytest.mark.parametrize("candidates", [None, torch.tensor([0, 2])])
def test_mean_weights_are_the_mean_of_the_weights(candidates):
    held = bank(4)
    chosen = slice(None) if candidates is None else candidates
    for found, each in zip(held.mean_weights(candidates), held.weights(chosen), strict=True):
        torch.testing.assert_close(found, each.mean(0, keepdim=True))


def test_a_mean_over_hundreds_of_masks_does_not_overflow():
    kept = [torch.ones(300, *shape, dtype=torch.bool) for shape in network().shapes]
    held = MaskBank(network(), SEED, pack(kept), classes=2)
    for found, w in zip(held.mean_weights(), held.frozen, strict=True):
        assert torch.equal(found[0], w)


def test_chunks_are_all_masks_in_order():
    held, kept = bank(5), masks(5)
    found = list(held.chunks(2))
    assert torch.cat([places for places, _ in found]).tolist() == [0, 1, 2, 3, 4]
    assert [len(places) for places, _ in found] == [2, 2, 1]
    for layer, mask in enumerate(kept):
        assert torch.equal(torch.cat([part[layer] for _, part in found]), mask.float())


def test_a_saved_bank_comes_back_bit_by_bit_and_answers_alike(tmp_path):
    held = bank()
    loaded = MaskBank.load(held.save(tmp_path / "masks.safetensors"))
    assert torch.equal(loaded.packed, held.packed)
    assert loaded.network.shapes == held.network.shapes
    x = images()
    for task in range(3):
        assert torch.equal(loaded.logits(task, x), held.logits(task, x))
    assert torch.equal(loaded.predict(x), held.predict(x))
    assert torch.equal(loaded.infer_task(x, "G"), held.infer_task(x, "G"))


def test_the_file_holds_the_bits_and_little_else(tmp_path):
    held = bank(40)
    path = held.save(tmp_path / "masks.safetensors")
    assert held.packed.nbytes < path.stat().st_size < held.packed.nbytes + 1024


def test_a_bank_may_be_a_view_of_a_store_that_is_not_full(tmp_path):
    store = torch.zeros(10, bank().packed.shape[1], dtype=torch.uint8)
    store[:3] = bank().packed
    held = MaskBank(network(), SEED, store[:3], classes=2)
    assert MaskBank.load(held.save(tmp_path / "view.safetensors")).size == 3


def test_batchnorm_statistics_travel_with_the_masks(tmp_path):
    conv, generator = GemResNet18(width=4).bind((1, 8, 8), 3), torch.Generator().manual_seed(0)
    kept = [torch.rand(2, *shape, generator=generator) < 0.5 for shape in conv.shapes]
    moments = torch.rand(2, 2, conv.channels, generator=generator)
    statistics = Statistics((moments[0] - 0.5) / 10, moments[1] + 0.5)
    held = MaskBank(conv, SEED, pack(kept), 3, statistics)
    loaded = MaskBank.load(held.save(tmp_path / "masks.safetensors"))
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(loaded.predict(x, task=1), held.predict(x, task=1))
    assert not torch.equal(held.logits(0, x), held.logits(1, x))
    with pytest.raises(UserError, match="BatchNorm statistics per task"):
        loaded.predict(x)


def test_predict_normalises_and_finds_the_task():
    held, x = bank(), images()
    normalised = (x - 0.4) / 0.5
    assert torch.equal(held.predict(x, task=2), held.logits(2, normalised).argmax(1))
    found = held.infer_task(x)
    expected = torch.stack(
        [held.logits(int(t), one[None])[0].argmax() for t, one in zip(found, normalised, strict=True)]
    )
    assert torch.equal(held.predict(x), expected)
    assert torch.equal(held.predict(x.flatten(1)), expected)


@pytest.mark.parametrize(
    ("x", "task", "sentence"),
    [
        (torch.rand(2, 1, 3, 3), None, r"reads images of shape \[1, 2, 3\], and these are \[1, 3, 3\]"),
        (255 * torch.ones(2, 1, 2, 3), None, "in 0..1; divide 8-bit images by 255"),
        (torch.ones(2, 1, 2, 3, dtype=torch.uint8), None, "divide 8-bit images by 255"),
        (torch.rand(2, 1, 2, 3), 3, "no task 3: this bank holds tasks 0 to 2"),
        (torch.rand(2, 1, 2, 3), -1, "no task -1"),
    ],
)
def test_what_a_bank_cannot_read_is_said(x, task, sentence):
    with pytest.raises(UserError, match=sentence):
        bank().predict(x, task)


def test_an_empty_bank_answers_nothing():
    empty = MaskBank(network(), SEED, bank().packed[:0], classes=2)
    with pytest.raises(UserError, match="no masks yet"):
        empty.predict(images())


def test_bits_for_another_network_are_refused():
    with pytest.raises(UserError, match="do not fit the network: its 57 weights need rows of 8 bytes"):
        MaskBank(network(), SEED, torch.zeros(2, 9, dtype=torch.uint8), classes=2)


def test_a_bank_for_another_architecture_is_refused(tmp_path):
    path = bank().save(tmp_path / "masks.safetensors")
    assert MaskBank.load(path, network()).size == 3
    with pytest.raises(UserError, match=r"saved for fully_connected\(hidden=\[5, 3\]\).* and .*hidden=\[6, 3\]"):
        MaskBank.load(path, network((6, 3)))


def test_files_that_are_no_bank_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = bank().save(tmp_path / "masks.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-7])
    other = tmp_path / "other.safetensors"
    save_file({"masks": torch.zeros(1)}, other)
    text = tmp_path / "text.safetensors"
    text.write_text("no bank at all")
    for bad in (cut, text):
        with pytest.raises(UserError, match="is damaged or no safetensors file"):
            MaskBank.load(bad)
    with pytest.raises(UserError, match="is not a mask bank of this version"):
        MaskBank.load(other)
    with pytest.raises(UserError, match="there is no mask bank"):
        MaskBank.load(tmp_path / "absent.safetensors")


def test_a_seed_that_gives_other_weights_is_noticed(tmp_path):
    from safetensors.torch import load_file, save_file

    path = bank().save(tmp_path / "masks.safetensors")
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    about = json.loads(header[FORMAT]) | {"weight_seed": SEED + 1}
    save_file(load_file(path), path, header | {FORMAT: json.dumps(about)})
    with pytest.raises(UserError, match="does not give the frozen weights"):
        MaskBank.load(path)


def test_packing_agrees_with_numpy():
    kept = masks(2)
    flat = np.concatenate([mask.flatten(1).numpy() for mask in kept], axis=1)
    assert np.array_equal(pack(kept).numpy(), np.packbits(flat, axis=1, bitorder="little"))
