"""Networks as functions of their weights, and the frozen weights that a seed stands for."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pydantic import ValidationError
from torch.nn import functional as F

from reprise.errors import UserError
from reprise.papers.supsup.networks import (
    FullyConnected,
    Statistics,
    constant,
    fan_in,
    fingerprint,
    products,
    rebuild,
    signed_constants,
)

CONFIGS = Path(__file__).parents[2] / "conf" / "network"
SHAPES = [(30, 20), (8, 5, 3, 3), (4, 30)]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_two_fully_connected_networks_by_hand():
    """Network 1: the hidden units of [1, -2] are 1 + 2 = 3 and -4, so relu gives 3 and 0. Network 2: -1 and 2."""
    network = FullyConnected(hidden=[2]).bind((1, 1, 2), 3)
    first = torch.tensor([[[1.0, -1], [0, 2]], [[-1, 0], [0, -1]]])
    last = torch.tensor([[[1.0, 5], [2, 5], [-1, 5]], [[7, 1], [7, 0], [7, -3]]])
    x = torch.tensor([1.0, -2]).view(1, 1, 1, 1, 2).expand(2, 1, 1, 1, 2)
    assert network([first, last], x).tolist() == [[[3, 6, -3]], [[2, 0, -6]]]


def test_shapes_and_sizes_of_the_papers_networks():
    lenet = FullyConnected(hidden=[300, 100]).bind((1, 28, 28), 500)
    assert lenet.shapes == ((300, 784), (100, 300), (500, 100))
    assert lenet.size == 315_200
    assert (lenet.inputs, lenet.outputs, lenet.channels) == ((1, 28, 28), 500, 0)
    assert FullyConnected(hidden=[1024, 1024]).bind((1, 28, 28), 500).size == 2_363_392
    assert FullyConnected(hidden=[]).bind((3, 4), 2).shapes == ((2, 12),)


def test_networks_at_once_are_as_many_alone_with_their_gradients():
    network = FullyConnected(hidden=[7, 5]).bind((2, 3), 4)
    weights = [
        torch.randn(3, *shape, generator=rng(i), dtype=torch.float64).requires_grad_()
        for i, shape in enumerate(network.shapes)
    ]
    x = torch.randn(3, 6, 2, 3, generator=rng(8), dtype=torch.float64)
    aim = torch.randn(3, 6, 4, generator=rng(9), dtype=torch.float64)
    together = network(weights, x)
    gradients = torch.autograd.grad((together * aim).sum(), weights)
    for t in range(3):
        alone = [w[t].detach().requires_grad_() for w in weights]
        h = x[t].flatten(1)
        for w in alone[:-1]:
            h = F.linear(h, w).relu()
        expected = F.linear(h, alone[-1])
        torch.testing.assert_close(together[t], expected)
        for all_networks, one in zip(
            gradients, torch.autograd.grad((expected * aim[t]).sum(), alone, materialize_grads=True), strict=True
        ):
            torch.testing.assert_close(all_networks[t], one)


def test_fan_in_and_the_one_magnitude_of_a_layer():
    assert fan_in((30, 20)) == 20
    assert fan_in((8, 5, 3, 3)) == 45
    assert constant((30, 8)) == 0.5
    assert constant((1, 2, 2, 2)) == 0.5


def test_frozen_weights_are_plus_or_minus_the_constant():
    for w, shape in zip(signed_constants(SHAPES, 3), SHAPES, strict=True):
        assert w.shape == shape
        assert w.dtype == torch.float32
        assert w.abs().unique().tolist() == [pytest.approx((2 / w[0].numel()) ** 0.5)]


def test_signs_are_the_bits_of_the_generator_lowest_first_through_all_layers():
    """Against integers of any length, without a word about how they lie in memory."""
    words = np.random.PCG64(5).random_raw(64)
    expected = [word >> bit & 1 for word in map(int, words) for bit in range(64)]
    signs = [int(w > 0) for layer in signed_constants(SHAPES, 5) for w in layer.flatten()]
    assert signs == expected[: len(signs)]


def test_both_signs_are_equally_likely_in_every_place():
    weights = signed_constants([(400, 500)], 1)[0].sign()
    assert abs(weights.mean()) < 4 / weights.numel() ** 0.5
    assert weights.mean(0).abs().max() < 5 / 400**0.5  # no input is favoured,
    assert weights.mean(1).abs().max() < 5 / 500**0.5  # and no output
    between = (weights[:, 1:] * weights[:, :-1]).mean()
    assert abs(between) < 4 / weights.numel() ** 0.5


def test_a_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = (signed_constants(SHAPES, seed) for seed in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    agreement = torch.cat([(a == b).flatten().float() for a, b in zip(first, other, strict=True)]).mean()
    assert 0.4 < agreement < 0.6


def test_networks_that_differ_in_the_last_layer_share_the_others():
    small, large = (signed_constants([(9, 11), (s, 9)], 0) for s in (2, 50))
    assert torch.equal(small[0], large[0])
    assert torch.equal(small[1], large[1][:2])


def test_the_fingerprint_sees_every_sign_and_nothing_else():
    weights = signed_constants(SHAPES, 0)
    mark = fingerprint(weights)
    assert re.fullmatch(r"[0-9a-f]{16}", mark)
    assert fingerprint([w * 2 for w in weights]) == mark
    for layer in range(len(SHAPES)):
        changed = [w.clone() for w in weights]
        changed[layer].view(-1)[-1] *= -1
        assert fingerprint(changed) != mark


def test_fresh_statistics_and_the_view_of_some():
    statistics = Statistics.fresh(3, 4)
    assert statistics.training
    some = statistics.of(slice(1, 3))
    assert some.mean.shape == some.var.shape == (2, 4)
    some.mean += 5
    some.var[0] = 9
    assert statistics.mean[:, 0].tolist() == [0, 5, 5]
    assert statistics.var[:, 3].tolist() == [1, 9, 1]
    statistics.training = False
    assert not statistics.of(slice(1)).training


@pytest.mark.parametrize(
    ("config", "name", "inputs", "outputs"),
    [
        ("lenet", "fully_connected", (1, 28, 28), 100),
        ("notebook", "fully_connected", (1, 28, 28), 100),
        ("fc", "fully_connected", (1, 28, 28), 500),
        ("gem_resnet18", "gem_resnet18", (3, 32, 32), 5),
        ("resnet50", "resnet50", (3, 224, 224), 10),
    ],
)
def test_configs_say_how_large_a_network_is_and_a_stored_name_gives_it_back(config, name, inputs, outputs):
    text = (CONFIGS / f"{config}.yaml").read_text()
    assert text.startswith("# @package method.module.network\n")
    network = instantiate(OmegaConf.create(text), _convert_="all").bind(inputs, outputs)
    assert network.name == name
    assert re.search(r"([\d,]+) weights", text)[1] == f"{network.size:,}"
    channels = re.search(r"([\d,]+)\s[#\s]*BatchNorm", text)
    assert (channels[1] if channels else "0") == f"{network.channels:,}"
    again = rebuild(name, network.describe(), inputs, outputs)
    assert type(again) is type(network)
    assert (again.shapes, again.channels) == (network.shapes, network.channels)


def test_every_network_config_is_tried_above():
    ours = {path.stem for path in CONFIGS.glob("*.yaml") if not path.stem.startswith("vae_")}
    assert ours == {"lenet", "notebook", "fc", "gem_resnet18", "resnet50"}


def test_an_unknown_network_is_refused_in_a_sentence():
    with pytest.raises(
        UserError, match=r"no network 'alexnet'; known networks: fully_connected, gem_resnet18, resnet50"
    ):
        rebuild("alexnet", {}, (3, 32, 32), 10)


def test_layers_without_units_are_refused():
    with pytest.raises(ValidationError, match="hidden"):
        FullyConnected(hidden=[300, 0])


@pytest.mark.parametrize("layout", ["whole", "transposed", "with gaps"])
def test_products_do_not_depend_on_how_a_matrix_lies_in_memory(layout):
    x, weight = torch.randn(2, 5, 7, dtype=torch.float32), torch.randn(2, 3, 7)
    if layout == "transposed":
        x, weight = (m.transpose(1, 2).contiguous().transpose(1, 2) for m in (x, weight))
    elif layout == "with gaps":
        x, weight = (F.pad(m, (2, 3))[:, :, 2:-3] for m in (x, weight))
    torch.testing.assert_close(products(x, weight), x @ weight.transpose(1, 2))
