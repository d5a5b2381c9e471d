"""The network against its definition: modulation, demodulation, upsampling, skips, and what a key and a value are."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from reprise.papers.rewriting.stylegan2 import GAIN, SLOPE, Mapping8, StyledLayer, Synthesis, smooth, twice


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = Synthesis((6, 5, 4), 7)
    for layer in made.layers.values():
        torch.nn.init.constant_(layer.noise_strength, 0.3)
        torch.nn.init.normal_(layer.bias)
    return made


@pytest.fixture
def ws():
    return torch.randn(3, 6, 7, generator=torch.Generator().manual_seed(1))


def layer(upsample, inputs=5, outputs=4, size=8):
    torch.manual_seed(2)
    made = StyledLayer(inputs, outputs, 7, size, upsample)
    torch.nn.init.constant_(made.noise_strength, 0.5)
    torch.nn.init.normal_(made.bias)
    return made


def test_a_layer_is_a_convolution_with_each_samples_own_weight():
    """The definition: scale the weight by the style, normalise it per output channel, convolve."""
    made = layer(False)
    x, w = torch.randn(2, 5, 8, 8), torch.randn(2, 7)
    scales = made.affine(w)
    found = made(x, w)
    for i in range(2):
        weight = made.weight * made.scale * scales[i].view(1, -1, 1, 1)
        weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        y = F.conv2d(x[i : i + 1], weight, padding=1) + 0.5 * made.noise + made.bias.view(1, -1, 1, 1)
        assert torch.allclose(found[i : i + 1], F.leaky_relu(y, SLOPE) * GAIN, atol=1e-5)


def test_an_upsampling_layer_is_zeros_a_convolution_and_a_filter():
    made = layer(True)
    x, w = torch.randn(1, 5, 4, 4), torch.randn(1, 7)
    scales = made.affine(w)
    wide = torch.zeros(1, 5, 8, 8)
    wide[:, :, ::2, ::2] = x * scales[:, :, None, None]
    # a transposed convolution is one of the spread input with the flipped weight
    weight = made.weight * made.scale
    y = F.conv2d(F.pad(wide, (2, 1, 2, 1)), weight.flip(2, 3))
    y = smooth(y, 1, 1, 4.0) if y.shape[-1] == 9 else y
    energy = (weight.square().sum((2, 3)) * scales.square()).sum(1)
    y = y * (energy + 1e-8).rsqrt().view(1, -1, 1, 1)
    assert torch.allclose(made.convolve(made.key_of(x, scales), scales), y, atol=1e-5)


def test_demodulated_features_have_unit_variance():
    made = layer(False, inputs=64, outputs=32, size=32)
    x, w = torch.randn(4, 64, 32, 32), 3 * torch.randn(4, 7)
    scales = made.affine(w)
    inner = made.convolve(made.key_of(x, scales), scales)[:, :, 1:-1, 1:-1]
    assert inner.var().item() == pytest.approx(1, abs=0.1)


def test_smoothing_keeps_the_mean_of_what_is_flat():
    flat = torch.ones(1, 2, 8, 8)
    inner = twice(flat)[:, :, 2:-2, 2:-2]
    assert twice(flat).shape == (1, 2, 16, 16)
    assert torch.allclose(inner, torch.ones_like(inner))


def test_smoothing_by_hand():
    impulse = torch.zeros(1, 1, 5, 5)
    impulse[0, 0, 2, 2] = 64
    found = smooth(impulse, 2, 1, 1.0)[0, 0]
    assert found.shape == (5, 5)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    assert torch.allclose(found[1:5, 1:5], torch.outer(taps, taps), atol=1e-5)


def test_images_and_layers(network, ws):
    assert network(ws).shape == (3, 3, 16, 16)
    assert list(network.numbers) == [2, 3, 4, 5, 6]
    assert network.slots == 6
    shapes = {2: (6, 4), 3: (6, 4), 4: (5, 8), 5: (5, 8), 6: (4, 16)}
    for number, (channels, side) in shapes.items():
        key, scales = network.key(number, ws)
        assert key.shape == (3, channels, side, side)
        assert scales.shape == (3, channels)


def test_every_style_counts_and_only_from_its_layer_on(network, ws):
    for slot in range(network.slots):
        other = ws.clone()
        other[:, slot] += 1
        assert not torch.allclose(network(other), network(ws)), slot
        # layer N takes slot N - 2; what comes before it does not know that slot
        before = [network.start(s, min(slot + 2, 7))[0] for s in (ws, other)]
        assert torch.equal(*before)


@pytest.mark.parametrize("number", [2, 3, 4, 5, 6])
def test_a_shared_prefix_gives_the_same_image(network, ws, number):
    assert torch.equal(network.finish(network.start(ws, number), ws), network(ws))


@pytest.mark.parametrize("number", [2, 4, 5])
def test_a_weight_in_the_place_of_a_layers_own(network, ws, number):
    made = network.layers[str(number)]
    weight = made.weight.detach() + 0.1
    replaced = network.finish(network.start(ws, number), ws, {number: weight})
    with torch.no_grad():
        made.weight.copy_(weight)
    assert torch.allclose(replaced, network(ws), atol=1e-6)


def test_a_value_is_what_its_key_gives(network, ws):
    for number in network.numbers:
        key, scales = network.key(number, ws)
        value = network.layers[str(number)].value_of(key, scales)
        expected = network.start(ws, number + 1)[0]
        assert torch.equal(value, expected)


def test_truncation_draws_styles_to_their_mean():
    torch.manual_seed(0)
    mapping = Mapping8(5, 7, layers=2)
    mapping.mean.fill_(0.5)
    z = torch.randn(4, 5)
    assert torch.equal(mapping(z, psi=0.0), torch.full((4, 7), 0.5))
    half = mapping(z, psi=0.5)
    assert torch.allclose(half, 0.5 * (mapping(z) + 0.5), atol=1e-6)
    assert torch.allclose(mapping(3 * z), mapping(z), atol=1e-5), "z is normalised"
    assert mapping(z).std().item() < 10 * math.sqrt(2)
