"""Losses against numbers worked out by hand, the average, and what the discriminator is and sees."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprise.papers.rewriting import game
from reprise.papers.rewriting.discriminator import (
    Augmentation,
    Block,
    Discriminator,
    Equalised,
    moved,
    shifting,
    with_deviation,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


def test_losses_by_hand():
    real, fake = torch.tensor([1.0, -1.0]), torch.tensor([2.0])
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2 + math.log(1 + math.exp(2))
    assert game.discriminator_loss(real, fake).item() == pytest.approx(expected)
    assert game.generator_loss(fake).item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert game.discriminator_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(2 * math.log(2))


def test_a_generator_that_fools_nobody_still_learns():
    """The slope of -log sigmoid(s) is -sigmoid(-s): 1 where the discriminator is sure, not 0."""
    scores = torch.tensor([-20.0, 0.0, 20.0], requires_grad=True)
    game.generator_loss(scores).backward()
    assert torch.allclose(3 * scores.grad, torch.tensor([-1.0, -0.5, 0.0]), atol=1e-6)


def test_the_penalty_of_a_linear_discriminator_is_its_squared_norm():
    a, images = draw(3, 4, 4, seed=1).requires_grad_(), draw(5, 3, 4, 4).requires_grad_()
    penalty = game.gradient_penalty((images * a).sum((1, 2, 3)) + 7, images)
    assert penalty.item() == pytest.approx(a.square().sum().item(), rel=1e-5)
    penalty.backward()
    assert torch.allclose(a.grad, 2 * a, atol=1e-5), "and it can be differentiated once more"


def test_the_penalty_of_a_quadratic_discriminator_is_the_images_mean_square():
    images = draw(5, 3, 4, 4).requires_grad_()
    penalty = game.gradient_penalty(images.square().sum((1, 2, 3)) / 2, images)
    assert penalty.item() == pytest.approx(images.square().sum().item() / 5, rel=1e-5)


def linear_generator(ws, maps):
    """Images ``[n, 3, 4, 4]`` of styles ``[n, 2, 5]`` by one matrix ``[48, 5]`` per slot."""
    return torch.einsum("nsw,spw->np", ws, maps).view(-1, 3, 4, 4)


def test_the_path_length_of_a_linear_generator():
    """J is its matrices, whatever the style: |J^T y| = sqrt(mean over slots of |A^T y|^2), y of variance 1/16."""
    ws, maps = draw(6, 2, 5).requires_grad_(), draw(2, 48, 5, seed=1)
    lengths = game.path_lengths(linear_generator(ws, maps), ws, seeded(3))
    y = draw(6, 3, 4, 4, seed=3).flatten(1) / 4
    along = torch.einsum("spw,np->nsw", maps, y)
    assert torch.allclose(lengths, along.square().sum(2).mean(1).sqrt(), atol=1e-5)


def test_the_expected_squared_path_length_is_the_squared_norm_per_pixel():
    ws, maps = draw(4000, 2, 5).requires_grad_(), draw(2, 48, 5, seed=1)
    lengths = game.path_lengths(linear_generator(ws, maps), ws, seeded(3))
    expected = maps.square().sum((1, 2)).mean() / 16
    assert lengths.square().mean().item() == pytest.approx(expected.item(), rel=0.05)


def test_the_path_penalty_by_hand():
    usual, lengths = torch.tensor(1.0), torch.tensor([2.0, 4.0])
    penalty = game.path_penalty(lengths, usual)
    assert usual.item() == pytest.approx(1.02), "a hundredth of the way to the mean of 3"
    assert penalty.item() == pytest.approx((0.98**2 + 2.98**2) / 2)


def test_the_path_penalty_evens_out_the_generator():
    """Images c A w have lengths c L: the slope in c is 2 mean((c L - usual) L)."""
    ws, maps, c = draw(6, 2, 5).requires_grad_(), draw(2, 48, 5, seed=1), torch.tensor(1.5, requires_grad=True)
    plain = game.path_lengths(linear_generator(ws, maps), ws, seeded(3)).detach()
    usual = torch.tensor(2.0)
    game.path_penalty(game.path_lengths(c * linear_generator(ws, maps), ws, seeded(3)), usual).backward()
    assert c.grad.item() == pytest.approx((2 * (1.5 * plain - usual) * plain).mean().item(), rel=1e-4)


def test_half_of_the_average_is_gone_after_its_half_life():
    assert game.decay(100, 10**6, 1000) ** 10 == pytest.approx(0.5)
    assert game.decay(100, 2000, 1000) == pytest.approx(0.5), "at first a twentieth of what was seen"
    assert game.decay(100, 0, 1000) == 0, "what it starts with is no part of it"


def test_the_average_by_hand():
    average, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(average.weight, 1.0)
    for number in (2.0, 5.0):
        nn.init.constant_(model.weight, number)
        model.running_mean.fill_(number)
        game.follow(average, model, 0.75)
    assert average.weight.tolist() == [0.75 * (0.75 + 0.25 * 2) + 0.25 * 5] * 2
    assert average.running_mean.tolist() == [5.0, 5.0], "buffers are copied"
    assert model.weight.tolist() == [5.0, 5.0]


def test_a_convolution_of_noise_has_unit_variance():
    made = Equalised(64, 32, 3, active=False)
    assert made(draw(4, 64, 16, 16))[:, :, 1:-1, 1:-1].var().item() == pytest.approx(1, abs=0.15)


def test_a_block_keeps_the_shortcut_and_halves_the_image():
    block, x = Block(4, 6), draw(2, 4, 8, 8)
    nn.init.zeros_(block.second.weight)
    alone = torch.einsum("ncij,oc->noij", F.avg_pool2d(x, 2), block.shortcut.weight[:, :, 0, 0]) / 2
    assert torch.allclose(block(x), alone / math.sqrt(2), atol=1e-5)


def test_the_deviation_within_a_group_is_one_more_channel():
    """Of eight images every other one belongs together: -1 and 1 deviate by 1, equal ones not at all."""
    x = torch.ones(8, 3, 4, 4)
    x[[0, 4]] = -1
    found = with_deviation(x)
    assert found.shape == (8, 4, 4, 4)
    assert torch.equal(found[:, :3], x)
    expected = torch.tensor([1.0, 0.0] * 4).view(8, 1, 1).expand(-1, 4, 4)
    assert torch.allclose(found[:, 3], expected, atol=1e-3)
    alone = with_deviation(draw(5, 3, 4, 4))[:, 3]
    assert alone.max() < 1e-3, "five images have no groups of four or two"


def test_discriminators_see_every_pixel_and_the_whole_batch():
    torch.manual_seed(0)
    made, images = Discriminator((8, 6, 4)), draw(4, 3, 16, 16).requires_grad_()
    scores = made(images)
    assert scores.shape == (4,)
    (slope,) = torch.autograd.grad(scores[0], images)
    assert (slope[0] != 0).all()
    assert (slope[1:] != 0).any(), "by the deviation"


def test_whole_pixels_are_shifted_and_mirrored_at_the_edges():
    x = draw(3, 2, 8, 8)
    shift = torch.tensor([[3.0, 0.0], [0.0, -2.0], [-1.0, 5.0]])
    found = moved(x, shift, torch.zeros(3, dtype=torch.bool))
    wide = F.pad(x, (7, 7, 7, 7), mode="reflect")
    for i, (right, down) in enumerate(shift.int().tolist()):
        expected = wide[i, :, 7 - down : 15 - down, 7 - right : 15 - right]
        assert torch.allclose(found[i], expected, atol=1e-5)


def test_between_pixels_both_are_mixed():
    row = torch.tensor([0.0, 4.0, 8.0, 0.0])
    assert (shifting(4, torch.tensor([0.25]))[0] @ row).tolist() == pytest.approx([1.0, 3.0, 7.0, 2.0])
    assert torch.allclose(shifting(9, draw(5)).sum(2), torch.ones(5, 9)), "what is flat stays"
    assert torch.equal(shifting(4, torch.tensor([6.0]))[0], torch.eye(4)), "two mirrors are the image again"


def test_images_are_flipped_first():
    x = draw(2, 1, 6, 6)
    flip, shift = torch.tensor([True, False]), torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    assert torch.equal(moved(x, torch.zeros(2, 2), flip)[0], x[0].flip(-1))
    expected = moved(torch.stack([x[0].flip(-1), x[1]]), shift, torch.zeros(2, dtype=torch.bool))
    assert torch.allclose(moved(x, shift, flip), expected, atol=1e-6)


def augmentation(p, target=0.6, images=100):
    made = Augmentation(target, images)
    made.p.fill_(p)
    return made


def test_without_probability_nothing_is_changed():
    x = draw(8, 3, 8, 8)
    assert torch.allclose(augmentation(0.0)(x, seeded()), x, atol=1e-6)


def test_brightness_and_contrast_come_as_often_as_they_should():
    """A flat image shows them alone: with p for each of the two, (1 - p)^2 of the images stay as they are."""
    flat = torch.full((4000, 3, 2, 2), 0.5)
    found = augmentation(0.3)(flat, seeded())
    kept = ((found - flat).abs().flatten(1).amax(1) < 1e-6).float().mean().item()
    assert kept == pytest.approx(0.7**2, abs=0.03)
    every = augmentation(1.0)(flat, seeded(1))[:, 0, 0, 0]
    assert every.log2().nanmedian().item() == pytest.approx(-1, abs=0.1), "as often brighter as darker"
    assert not torch.equal(every[0], every[1])


def test_flips_come_half_as_often():
    x = torch.zeros(4000, 1, 9, 9)
    x[:, :, :, :4] = 1  # the left is bright
    found = augmentation(0.6)(x, seeded())
    turned = (found[:, 0, 4, 0] < found[:, 0, 4, 8]).float().mean().item()
    assert turned == pytest.approx(0.3, abs=0.03)


def test_a_penalty_reaches_through_what_is_augmented():
    """Twice differentiable: the second derivative of D(T(x)) is that of finite differences."""
    x, flip = draw(2, 1, 5, 5).double().requires_grad_(), torch.tensor([True, False])
    shift = torch.tensor([[0.3, -1.2], [2.5, 0.4]]).double()
    assert torch.autograd.gradgradcheck(lambda x: moved(x, shift, flip).pow(3).sum(), x)


def test_reals_that_are_known_by_heart_are_augmented_more():
    made = augmentation(0.5)
    made.observe(torch.tensor([3.0, 1.0, 2.0, 5.0]))  # all right: 1 > 0.6
    made.observe(torch.tensor([3.0, 1.0]))
    made.adapt()
    assert made.p.item() == pytest.approx(0.5 + 6 / 100)
    assert made.seen.tolist() == [0.0, 0.0]
    made.observe(torch.tensor([3.0, 1.0, 2.0, -5.0]))  # a mean of 0.5
    made.adapt()
    assert made.p.item() == pytest.approx(0.56 - 4 / 100)


def test_the_probability_stays_where_it_does_no_harm():
    made = augmentation(0.79)
    made.observe(torch.ones(50))
    made.adapt()
    assert made.p.item() == pytest.approx(0.8)
    made = augmentation(0.01)
    made.observe(-torch.ones(50))
    made.adapt()
    assert made.p.item() == 0
