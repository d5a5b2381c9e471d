"""Bytes, against the figures that follow from the paper's networks."""

from __future__ import annotations

import json
import math
import struct

import pytest
import torch
from banks import random_bank, residual_bank
from hypothesis import given
from hypothesis import strategies as st

from reprise.papers.supsup.accounting import (
    SEED,
    account,
    bit_bytes,
    entropy_bytes,
    float_bytes,
    pointer_bytes,
    statistics_bytes,
)
from reprise.papers.supsup.bank import MaskBank, pack
from reprise.papers.supsup.bank_file import FORMAT
from reprise.papers.supsup.masks import budget
from reprise.papers.supsup.networks import FullyConnected, Statistics
from reprise.papers.supsup.residual import GemResNet18, ResNet50


def test_bits_of_the_papers_networks():
    lenet = FullyConnected([300, 100]).bind((1, 28, 28), 500)
    fc = FullyConnected([1024, 1024]).bind((1, 28, 28), 500)
    assert lenet.size == 315_200
    assert 2500 * bit_bytes(lenet.size) == pytest.approx(98.5e6)
    assert 250 * bit_bytes(fc.size) == pytest.approx(73.9e6, rel=1e-3)


def test_indices_of_kept_weights_are_two_thirds_of_what_the_paper_prints():
    resnet = ResNet50().bind((3, 224, 224), 10)
    megabytes = {e: 100 * 2 * sum(budget(s, e) for s in resnet.shapes) / 1e6 for e in (4, 8, 16)}
    assert megabytes == pytest.approx({4: 40.92, 8: 80.59, 16: 159.14}, abs=0.005)
    assert 100 * statistics_bytes(resnet.channels) / 1e6 == pytest.approx(21.2, abs=0.05)


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_no_mask_needs_more_than_its_bits(weights, share):
    kept = int(share * weights)
    bound = entropy_bytes(weights, kept)
    assert 0 <= bound <= weights / 8 + 1e-9
    assert bound == pytest.approx(entropy_bytes(weights, weights - kept))


def test_half_of_the_weights_need_all_the_bits():
    assert entropy_bytes(800, 400) == pytest.approx(100)
    assert entropy_bytes(800, 0) == entropy_bytes(800, 800) == 0
    assert entropy_bytes(800, 200) == pytest.approx(100 * (0.25 * 2 + 0.75 * math.log2(4 / 3)))


def test_a_small_bank_counted_by_hand():
    network = FullyConnected([2]).bind((1, 1, 4), 3)  # 8 + 6 weights
    first, second = torch.zeros(2, 2, 4, dtype=torch.bool), torch.zeros(2, 3, 2, dtype=torch.bool)
    first[0, 0] = True  # 4 of 8 in task 0, none in task 1
    second[:] = True
    counted = account(MaskBank(network, 0, pack([first, second]), classes=2))
    assert counted["bytes/bank"] == 8 + 2 * 2
    assert counted["bytes/per_task"] == 2
    assert counted["bytes/index_code"] == 2 * (2 + 6)
    assert counted["bytes/float_scores"] == 4 * 14
    assert counted["masks/density"] == pytest.approx(8 / 14)
    assert counted["bytes/entropy_bound"] == pytest.approx(entropy_bytes(8, 2))


def test_batchnorm_statistics_are_counted():
    network = GemResNet18(width=1).bind((1, 8, 8), 3)
    kept = [torch.ones(2, *shape, dtype=torch.bool) for shape in network.shapes]
    statistics = Statistics(torch.zeros(2, network.channels), torch.ones(2, network.channels))
    counted = account(MaskBank(network, 0, pack(kept), 3, statistics))
    assert counted["bytes/per_task"] == bit_bytes(network.size) + 8 * network.channels


def test_floats_of_the_papers_networks():
    """Scores of 2,500 masks of LeNet and of 250 of FC, 500 outputs each; nearest megabyte."""
    assert round(2500 * float_bytes(315_200) / 1e6) == 3152
    assert round(250 * float_bytes(2_363_392) / 1e6) == 2363


def test_a_hundred_dense_resnets_of_a_thousand_classes():
    assert round(100 * float_bytes(25_557_032) / 1e6, 2) == 10_222.81


def test_columns_have_pointers():
    """Layers of 4 and 2 x 3 x 3 inputs: five pointers and nineteen."""
    assert pointer_bytes([(7, 4), (5, 2, 3, 3)]) == 4 * (5 + 19)


@given(st.integers(1, 400), st.data())
def test_the_bound_is_between_the_number_of_masks_and_the_bits(weights, data):
    """log2 (N over K) bits tell which of all masks with K ones it is."""
    kept = data.draw(st.integers(0, weights))
    bound = entropy_bytes(weights, kept)
    assert math.log2(math.comb(weights, kept)) / 8 <= bound + 1e-9
    assert bound <= weights / 8 <= bit_bytes(weights)
    assert bound == pytest.approx(entropy_bytes(weights, weights - kept))


def test_no_masks_cost_a_seed():
    found = account(random_bank(0))
    assert found["bytes/bank"] == SEED
    assert found["masks/density"] == found["bytes/entropy_bound"] == 0


@pytest.mark.parametrize("make", [residual_bank, random_bank])
@pytest.mark.parametrize("tasks", [1, 6])
def test_the_file_has_what_was_counted_and_a_header(tmp_path, make, tasks):
    bank = make(tasks)
    content = bank.save(tmp_path / "bank").read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    told = json.loads(content[8 : 8 + header])
    assert len(content) - 8 - header == account(bank)["bytes/bank"] - SEED
    assert (
        json.loads(told["__metadata__"][FORMAT])["weight_seed"] == bank.weight_seed
    )  # which the count has eight bytes for
