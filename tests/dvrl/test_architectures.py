"""Networks of G copies, against G networks of one copy and against parameter counts derived by hand."""

from __future__ import annotations

import pytest
import torch
from dvrl_tasks import generator
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from reprise.errors import UserError
from reprise.papers.dvrl.architectures import GroupedLinear, ResNet, SmallCNN, WideResNet, initialise

G = 3
TINY = {
    "cnn": lambda **sizes: SmallCNN(channels=3, **sizes),
    "resnet": lambda **sizes: ResNet(depth=8, **sizes),
    "wide": lambda **sizes: WideResNet(depth=10, width=1, **sizes),
}
every = pytest.mark.parametrize("make", TINY.values(), ids=TINY)


def singles(make, image):
    """Three different networks of one copy, their statistics and scales off their start."""
    networks = []
    for seed in range(G):
        network, rng = make(copies=1, image=image, outputs=4).double(), generator(seed)
        initialise(network, rng)
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            noise = torch.rand(tensor.shape, generator=rng, dtype=torch.float64)
            tensor.data += 0.3 * (noise if name.endswith("var") else noise - 0.5)
        networks.append(network)
    return networks


def side_by_side(make, networks, image):
    """One network that holds them all."""
    network = make(copies=G, image=image, outputs=4).double()
    own = [one.state_dict() for one in networks]
    for name, tensor in network.state_dict().items():
        tensor.copy_(torch.cat([state[name] for state in own]))
    return network


@every
@pytest.mark.parametrize("image", [(1, 8, 8), (3, 9, 6)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_copies_side_by_side_are_as_many_separate_networks(make, image, training):
    networks = singles(make, image)
    together = side_by_side(make, networks, image).train(training)
    x = torch.randn(5, *image, generator=generator(9), dtype=torch.float64)
    aim = torch.randn(5, G, 4, generator=generator(8), dtype=torch.float64)
    outputs = together(x)
    assert outputs.shape == (5, G, 4)
    gradients = torch.autograd.grad((outputs * aim).sum(), list(together.parameters()))
    for g, network in enumerate(networks):
        alone = network.train(training)(x)[:, 0]
        torch.testing.assert_close(outputs[:, g], alone)
        expected = torch.autograd.grad((alone * aim[:, g]).sum(), list(network.parameters()))
        for all_copies, one in zip(gradients, expected, strict=True):
            torch.testing.assert_close(all_copies.chunk(G)[g], one)
        for all_copies, one in zip(together.buffers(), network.buffers(), strict=True):
            torch.testing.assert_close(all_copies.chunk(G)[g], one)
    assert (outputs[:, 0] - outputs[:, 1]).abs().max() > 1e-3


@every
def test_training_moves_the_running_statistics_and_evaluation_reads_them(make):
    network, x = singles(make, (1, 8, 8))[0], torch.randn(5, 1, 8, 8, generator=generator(), dtype=torch.float64)
    before = [b.clone() for b in network.buffers()]
    network.eval()(x)
    assert all(torch.equal(old, new) for old, new in zip(before, network.buffers(), strict=True))
    network.train()(x)
    assert not any(torch.equal(old, new) for old, new in zip(before, network.buffers(), strict=True))
    assert bool(before) == (not isinstance(network, SmallCNN))


def count(network):
    return sum(p.numel() for p in network.parameters())


def meta(architecture, **options):
    with torch.device("meta"):
        return architecture(copies=1, image=(3, 32, 32), outputs=10, **options)


def test_resnet_32_has_the_published_number_of_parameters():
    """First convolution and norm, then ten convolutions with their norms in each stage, and the last layer."""
    expected = 3 * 9 * 16 + 2 * 16
    for fan_in, width in ((16, 16), (16, 32), (32, 64)):
        expected += 9 * fan_in * width + 9 * (9 * width * width) + 10 * 2 * width
    expected += 64 * 10 + 10
    assert count(meta(ResNet)) == expected == 464_154  # 0.46 M in table 6 of the paper
    assert count(meta(ResNet, depth=110)) == pytest.approx(1.7e6, rel=0.02)


def test_wide_resnet_28_10_has_the_published_number_of_parameters():
    """Four blocks of two convolutions in each stage, a 1x1 shortcut in each stage's first."""
    expected, fan_in = 3 * 9 * 16, 16
    for width in (160, 320, 640):
        expected += 9 * fan_in * width + 7 * (9 * width * width) + fan_in * width
        expected += 2 * fan_in + 7 * 2 * width
        fan_in = width
    expected += 2 * 640 + 640 * 10 + 10
    assert count(meta(WideResNet)) == expected == 36_479_194  # 36.5 M in table 4 of the paper
    assert count(meta(WideResNet, depth=40, width=4)) == pytest.approx(8.9e6, rel=0.01)


def test_depth_counts_the_layers_with_weights():
    layers = [m for m in meta(ResNet).modules() if isinstance(m, (nn.Conv2d, GroupedLinear))]
    assert len(layers) == 32
    main = [m for m in meta(WideResNet).modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(main) == 25  # the paper's 28 counts the three shortcuts too


def test_names_say_the_size():
    networks = [
        meta(SmallCNN),
        meta(ResNet),
        meta(ResNet, depth=20),
        meta(WideResNet),
        meta(WideResNet, depth=16, width=4),
    ]
    assert [n.name for n in networks] == ["cnn", "resnet32", "resnet20", "wrn28_10", "wrn16_4"]


@pytest.mark.parametrize(("architecture", "depth"), [(ResNet, 33), (ResNet, 2), (WideResNet, 27), (WideResNet, 4)])
def test_a_depth_that_cannot_be_is_refused_in_a_sentence(architecture, depth):
    with pytest.raises(UserError, match=rf"architecture.depth={depth} cannot be used"):
        meta(architecture, depth=depth)


def test_sizes_are_checked():
    with pytest.raises(ValidationError, match="width"):
        meta(WideResNet, width=0)


def test_stages_halve_the_image_and_the_cnn_quarters_it():
    for make, shapes in ((ResNet, {32, 16, 8}), (WideResNet, {32, 16, 8}), (SmallCNN, {16, 8})):
        network, seen = meta(make), set()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(lambda _m, _i, out, seen=seen: seen.add(out.shape[-1]))
        network(torch.empty(2, 3, 32, 32, device="meta"))
        assert seen == shapes


def test_a_shortcut_without_parameters_takes_every_second_pixel_and_pads_channels_with_zeros():
    network = ResNet(copies=2, image=(1, 4, 4), outputs=2, depth=8)
    x = torch.randn(3, 2 * 16, 4, 4, generator=generator())
    short = network.blocks[1]._shortcut(x).unflatten(1, (2, 32))
    assert torch.equal(short[:, :, :16], x.unflatten(1, (2, 16))[..., ::2, ::2])
    assert not short[:, :, 16:].any()


def test_the_first_wide_block_by_hand():
    """Activation before the split, and the shortcut of the activated input where the channels change."""
    block = WideResNet(copies=1, image=(1, 4, 4), outputs=2, depth=10, width=2).blocks[0].double().eval()
    x = torch.randn(2, 16, 4, 4, generator=generator(), dtype=torch.float64)
    active = (x / (1 + 1e-5) ** 0.5).relu()
    inner = (F.conv2d(active, block.conv1.weight, padding=1) / (1 + 1e-5) ** 0.5).relu()
    expected = F.conv2d(inner, block.conv2.weight, padding=1) + F.conv2d(active, block.shortcut.weight)
    torch.testing.assert_close(block(x), expected)


def test_the_start_is_that_of_the_papers():
    network = WideResNet(copies=1, image=(3, 8, 8), outputs=10, depth=10, width=4)
    initialise(network, generator(5))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * layer.kernel_size[0] ** 2
            assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
            assert not layer.bias.any()
            assert (layer.running_var == 1).all()
            assert not layer.running_mean.any()
    bound = 256**-0.5
    assert not network.head.bias.any()
    assert network.head.weight.abs().max() <= bound
    assert network.head.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@every
def test_the_start_depends_on_the_generator_alone(make):
    def start(seed):
        network = make(copies=1, image=(1, 8, 8), outputs=4)
        initialise(network, generator(seed))
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    before = torch.get_rng_state()
    first = start(1)
    torch.rand(3)
    assert torch.equal(first, start(1))
    assert not torch.equal(first, start(2))
    torch.set_rng_state(before)
