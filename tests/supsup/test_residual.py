"""Residual networks with a task axis, against torchvision's, against themselves alone, and against counts by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18, resnet50

from reprise.errors import UserError
from reprise.papers.supsup.networks import Statistics
from reprise.papers.supsup.residual import GemResNet18, ResNet50

T, IMAGE = 3, (2, 9, 6)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def tiny(image=IMAGE, outputs=4):
    return GemResNet18(width=2).bind(image, outputs)


def weights_of(network, tasks=T):
    return [(randn(tasks, *shape, seed=i) / shape[1] ** 0.5).requires_grad_() for i, shape in enumerate(network.shapes)]


def statistics_of(network, training, tasks=T):
    """Off their start."""
    return Statistics(
        0.3 * randn(tasks, network.channels, seed=5), 0.5 + randn(tasks, network.channels, seed=6) ** 2, training
    )


def test_gem_resnet_18_has_the_number_of_weights_that_counting_gives():
    """Stem, then per stage four 3x3 convolutions, and a 1x1 one where the width doubles."""
    network = GemResNet18().bind((3, 32, 32), 5)
    expected, channels = 27 * 20 + 4 * 9 * 20 * 20 + 160 * 5, 20 + 4 * 20
    for fan_in, width in ((20, 40), (40, 80), (80, 160)):
        expected += 9 * fan_in * width + 3 * 9 * width * width + fan_in * width
        channels += 5 * width
    assert network.size == expected == 1_090_940
    assert network.channels == channels == 1_500
    assert len(network.shapes) == 21
    assert network.shapes[0] == (20, 3, 3, 3)
    assert network.shapes[-1] == (5, 160)


def test_resnet_50_has_the_published_number_of_weights():
    network = ResNet50().bind((3, 224, 224), 10)
    assert network.size == 23_475_392
    assert network.channels == 26_560
    assert len(network.shapes) == 54
    imagenet = ResNet50().bind((3, 224, 224), 1000)
    assert (
        imagenet.size + 1000 + 2 * imagenet.channels == 25_557_032
    )  # with bias, scale and shift as torchvision has it


def torchvision_resnet_50():
    return resnet50(num_classes=7), ResNet50().bind((3, 64, 64), 7)


def torchvision_resnet_18_for_small_images():
    """GEM's network with 64 channels is the usual ResNet-18 with another stem."""
    model = resnet18(num_classes=7)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model, GemResNet18(width=64).bind((3, 16, 16), 7)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("pair", [torchvision_resnet_50, torchvision_resnet_18_for_small_images])
def test_outputs_gradients_and_statistics_are_those_of_torchvision(pair, training):
    torch.manual_seed(0)
    model, network = pair()
    model = model.double().train(training)
    nn.init.zeros_(model.fc.bias)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
    statistics = Statistics(
        torch.cat([n.running_mean for n in norms])[None], torch.cat([n.running_var for n in norms])[None], training
    )
    parameters = [p for p in model.parameters() if p.dim() > 1]
    weights = [p.detach().clone()[None].requires_grad_() for p in parameters]
    assert [w.shape[1:] for w in weights] == list(network.shapes)
    x = randn(1, 4, *network.inputs)
    expected, found = model(x[0]), network(weights, x, statistics)
    torch.testing.assert_close(found[0], expected)
    aim = randn(4, 7, seed=1)
    for one, other in zip(
        torch.autograd.grad((found[0] * aim).sum(), weights),
        torch.autograd.grad((expected * aim).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one[0], other)
    torch.testing.assert_close(statistics.mean[0], torch.cat([n.running_mean for n in norms]))
    torch.testing.assert_close(statistics.var[0], torch.cat([n.running_var for n in norms]))


@pytest.mark.parametrize("mode", ["training", "evaluation", "own moments"])
@pytest.mark.parametrize("way", ["__call__", "together"])
def test_tasks_side_by_side_are_as_many_separate_calls(way, mode):
    network = tiny()
    weights, x, aim = weights_of(network), randn(T, 5, *IMAGE, seed=30), randn(T, 5, 4, seed=31)
    statistics = None if mode == "own moments" else statistics_of(network, mode == "training")
    apart = None if statistics is None else Statistics(*(v.clone() for v in (statistics.mean, statistics.var)))
    found = getattr(network, way)(weights, x, statistics)
    assert found.shape == (T, 5, 4)
    gradients = torch.autograd.grad((found * aim).sum(), weights)
    for t in range(T):
        own = [w[t : t + 1].detach().requires_grad_() for w in weights]
        mine = apart and Statistics(apart.mean[t : t + 1], apart.var[t : t + 1], mode == "training")
        expected = network.together(own, x[t : t + 1], mine)
        torch.testing.assert_close(found[t], expected[0])
        for all_tasks, one in zip(gradients, torch.autograd.grad((expected[0] * aim[t]).sum(), own), strict=True):
            torch.testing.assert_close(all_tasks[t], one[0])
    if statistics is not None:
        torch.testing.assert_close(statistics.mean, apart.mean)
        torch.testing.assert_close(statistics.var, apart.var)
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_resnet_50_side_by_side_too():
    network = ResNet50().bind((1, 32, 32), 3)
    weights = [(torch.randn(2, *s, generator=rng(i)) / s[1] ** 0.5) for i, s in enumerate(network.shapes)]
    x = torch.randn(2, 4, 1, 32, 32, generator=rng(1))
    statistics = Statistics.fresh(2, network.channels)
    statistics.training = False
    with torch.no_grad():
        found, expected = network.together(weights, x, statistics), network(weights, x, statistics)
    torch.testing.assert_close(found / expected.std(), expected / expected.std(), rtol=1e-3, atol=1e-4)


def test_on_a_processor_a_task_has_the_same_bits_in_any_company():
    network = GemResNet18(width=3).bind((3, 12, 12), 4)
    weights = [torch.randn(T, *s, generator=rng(i)) for i, s in enumerate(network.shapes)]
    x, together = torch.randn(T, 6, 3, 12, 12, generator=rng(9)), Statistics.fresh(T, network.channels)
    found = network(weights, x, together)
    for t in range(T):
        alone = Statistics.fresh(1, network.channels)
        assert torch.equal(found[t], network([w[t : t + 1] for w in weights], x[t : t + 1], alone)[0])
        assert torch.equal(together.mean[t], alone.mean[0])
        assert torch.equal(together.var[t], alone.var[0])


def test_the_first_layers_statistics_by_hand():
    """A tenth of the way to the mean and the unbiased variance of the stem's outputs."""
    network = tiny()
    weights, x, statistics = weights_of(network), randn(T, 5, *IMAGE), statistics_of(network, training=True)
    mean, var = statistics.mean.clone(), statistics.var.clone()
    network(weights, x, statistics)
    for t in range(T):
        stem = F.conv2d(x[t], weights[0][t], padding=1).transpose(0, 1).flatten(1)
        torch.testing.assert_close(statistics.mean[t, :2], 0.9 * mean[t, :2] + 0.1 * stem.mean(1))
        torch.testing.assert_close(statistics.var[t, :2], 0.9 * var[t, :2] + 0.1 * stem.var(1, unbiased=True))
    assert (statistics.mean != mean).all()
    assert (statistics.var != var).all()


@pytest.mark.parametrize("way", ["__call__", "together"])
def test_evaluation_reads_the_statistics_and_an_image_is_judged_alone(way):
    network = tiny()
    run = getattr(network, way)
    weights, x, statistics = weights_of(network), randn(T, 5, *IMAGE), statistics_of(network, training=False)
    before = statistics.mean.clone(), statistics.var.clone()
    found = run(weights, x, statistics)
    torch.testing.assert_close(run(weights, x[:, 2:3], statistics), found[:, 2:3])
    assert torch.equal(statistics.mean, before[0])
    assert torch.equal(statistics.var, before[1])
    moved = Statistics(statistics.mean + 0.1, statistics.var)
    assert (run(weights, x, moved) - found).abs().max() > 1e-3


def test_without_statistics_a_batch_is_normalised_as_in_training():
    network = tiny()
    weights, x = weights_of(network), randn(T, 5, *IMAGE)
    torch.testing.assert_close(network(weights, x), network(weights, x, statistics_of(network, training=True)))


@pytest.mark.parametrize("way", ["__call__", "together"])
def test_no_task_feels_another(way):
    network = tiny()
    weights, x = weights_of(network), randn(T, 5, *IMAGE).requires_grad_()
    outputs = getattr(network, way)(weights, x, statistics_of(network, training=True))
    for gradient in torch.autograd.grad(outputs[1].square().sum(), [x, *weights]):
        assert gradient[1].any()
        assert not gradient[[0, 2]].any()


def test_a_second_batch_may_come_before_the_first_ones_gradients():
    """Statistics that move meanwhile do not spoil them."""
    network = tiny()
    weights, x, statistics = weights_of(network, 1), randn(1, 5, *IMAGE), statistics_of(network, True, 1)
    first = network(weights, x, statistics)
    network(weights, 2 * x, statistics)
    expected = torch.autograd.grad(network(weights, x).square().sum(), weights)
    for one, other in zip(torch.autograd.grad(first.square().sum(), weights), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_block_whose_body_is_silent_hands_its_input_on():
    """With zero convolutions in its second block a stage is its first block alone."""
    network = tiny()
    weights, x = [w.detach() for w in weights_of(network)], randn(T, 5, *IMAGE)
    place = 3  # stem, two convolutions of the first block, then the silent ones
    silent = [torch.zeros_like(w) if i in (place, place + 1) else w for i, w in enumerate(weights)]
    shorter = tiny()
    shorter.blocks = (shorter.blocks[0], *shorter.blocks[2:])
    shorter.widths = [w for i, w in enumerate(shorter.widths) if i not in (place, place + 1)]
    short = [w for i, w in enumerate(weights) if i not in (place, place + 1)]
    torch.testing.assert_close(network(silent, x), shorter(short, x))


@pytest.mark.parametrize("image", [(1, 28, 28), (3, 8, 8), (4, 5, 17), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("make", [GemResNet18, ResNet50])
def test_images_may_have_any_size_and_number_of_colours(make, image):
    network = make().bind(image, 3)
    with torch.device("meta"):
        weights = [torch.empty(2, *shape) for shape in network.shapes]
        assert network(weights, torch.empty(2, 6, *image)).shape == (2, 6, 3)
    assert network.shapes[0][1] == image[0]


@pytest.mark.parametrize("shape", [(64,), (28, 28), (1, 3, 32, 32), (3, 0, 32)], ids=str)
@pytest.mark.parametrize("make", [GemResNet18, ResNet50])
def test_inputs_that_are_no_images_are_refused_in_a_sentence(make, shape):
    with pytest.raises(UserError, match=rf"^network={make.name} reads images .*network=lenet or fc\.$") as error:
        make().bind(shape, 5)
    assert str(list(shape)) in str(error.value)


def test_a_network_can_be_bound_again():
    network = tiny((3, 8, 8), 2)
    assert network.bind((1, 8, 8), 6).shapes[0] == (2, 1, 3, 3)
    assert network.shapes[-1] == (6, 16)
    assert network.channels == sum(shape[0] for shape in network.shapes[:-1])


def test_strides_are_those_of_the_paper():
    """A place of the last stage of GEM's network stands for 8x8 pixels, one of ResNet-50's for 32x32."""
    for network, factor in ((GemResNet18(), 8), (ResNet50(), 32)):
        network.bind((3, 64, 64), 2)
        steps = [conv.stride for conv in (network.stem, *itertools.chain(*(b.body for b in network.blocks)))]
        product = 2 if network.pool else 1
        for step in steps:
            product *= step
        assert product == factor
        assert all(b.shortcut is None or b.shortcut.size == 1 for b in network.blocks)


def test_width_is_checked():
    with pytest.raises(ValidationError, match="width"):
        GemResNet18(width=0)
