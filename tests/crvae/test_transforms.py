import pytest
import torch
import torchvision.transforms.functional as reference
from hypothesis import given
from hypothesis import strategies as st
from linear_gaussian import generator
from torchvision.transforms import InterpolationMode

from reprise.errors import UserError
from reprise.papers.crvae.transforms import ImageTransformation, adjust_brightness, adjust_contrast, adjust_hue, affine

MODES = {"nearest": InterpolationMode.NEAREST, "bilinear": InterpolationMode.BILINEAR}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 24), (1, 9, 9), (3, 32, 32)])
def test_affine_is_torchvisions_image_by_image(mode, shape):
    n, g = 12, generator()
    x = torch.rand(n, *shape, generator=g)
    degrees, scale = torch.rand(n, generator=g) * 80 - 40, torch.rand(n, generator=g) * 0.6 + 0.7
    shift = torch.randint(-3, 4, (n, 2), generator=g).float()
    ours = affine(x, degrees, shift, scale, mode)
    for i in range(n):
        own = float(degrees[i]), shift[i].int().tolist(), float(scale[i]), [0.0, 0.0]
        theirs = reference.affine(x[i], *own, MODES[mode])
        assert torch.allclose(ours[i], theirs, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_torchvisions(channels):
    x, factors = torch.rand(5, channels, 7, 6, generator=generator()), torch.tensor([0.0, 0.4, 1.0, 1.3, 2.0])
    pairs = (adjust_brightness, reference.adjust_brightness), (adjust_contrast, reference.adjust_contrast)
    for ours, theirs in pairs:
        expected = torch.stack([theirs(image, float(f)) for image, f in zip(x, factors, strict=True)])
        assert torch.allclose(ours(x, factors), expected, atol=1e-5)


def test_hues_are_torchvisions():
    g = generator()
    x = torch.rand(6, 3, 7, 6, generator=g)
    x[0, :, 0, 0] = 0.4  # grey
    x[1, :, 0, 0] = torch.tensor([0.7, 0.7, 0.1])  # two are largest
    turns = torch.tensor([0.0, 0.1, -0.2, 0.5, -0.5, 0.33])
    expected = torch.stack([reference.adjust_hue(image, float(t)) for image, t in zip(x, turns, strict=True)])
    assert torch.allclose(adjust_hue(x, turns), expected, atol=1e-5)
    grey = torch.rand(2, 1, 4, 4, generator=g)
    assert torch.equal(adjust_hue(grey, turns[:2]), grey)


@given(st.integers(-4, 4), st.integers(-4, 4), st.sampled_from(sorted(MODES)))
def test_whole_pixels_are_shifted(right, down, mode):
    x = torch.zeros(1, 1, 11, 13)
    x[0, 0, 5, 6] = 1
    moved = affine(x, torch.zeros(1), torch.tensor([[right, down]]).float(), torch.ones(1), mode)
    assert moved[0, 0, 5 + down, 6 + right] == pytest.approx(1, abs=1e-4)
    assert moved.sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_a_quarter_turn_is_one(mode):
    x = torch.rand(2, 1, 8, 8, generator=generator())
    turned = affine(x, torch.tensor([90.0, -90.0]), torch.zeros(2, 2), torch.ones(2), mode)
    assert torch.allclose(turned[0], x[0].rot90(-1, (1, 2)), atol=1e-4)
    assert torch.allclose(turned[1], x[1].rot90(1, (1, 2)), atol=1e-4)


EVERYTHING = {
    "degrees": 30.0,
    "translate": 0.2,
    "scale": (0.8, 1.2),
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "brightness": 0.3,
    "contrast": 0.3,
    "hue": 0.2,
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_equal_images_of_a_batch_come_out_different(name):
    """What a batched transform of torchvision does not do: it draws once for all."""
    x = torch.rand(1, 3, 12, 12, generator=generator()).expand(64, -1, -1, -1)
    out = ImageTransformation(**{name: EVERYTHING[name]})(x, generator(1))
    assert len(out.flatten(1).unique(dim=0)) > 1


def test_everything_at_once_stays_in_range_and_follows_the_generator():
    x = torch.rand(32, 3, 12, 12, generator=generator())
    transformation = ImageTransformation(**EVERYTHING)
    once, again = transformation(x, generator(1)), transformation(x, generator(1))
    assert torch.equal(once, again)
    assert once.min() >= 0
    assert once.max() <= 1
    assert not torch.equal(once, transformation(x, generator(2)))


def test_no_range_is_the_identity():
    x = torch.rand(4, 1, 9, 9, generator=generator())
    assert torch.equal(ImageTransformation()(x, generator()), x)
    assert ImageTransformation().title == "identity (bilinear)"


def test_flips_come_as_often_as_they_should():
    x = torch.arange(4.0).view(1, 1, 1, 4).expand(10_000, 1, 1, 4) / 3
    share = (ImageTransformation(horizontal_flip=0.3)(x, generator())[:, 0, 0, 0] == 1).float().mean()
    assert share == pytest.approx(0.3, abs=4 * (0.21 / 10_000) ** 0.5)


def test_shifts_are_whole_pixels_within_the_range():
    x = torch.zeros(500, 1, 21, 21)
    x[:, 0, 10, 10] = 1
    out = ImageTransformation(translate=0.1, interpolation="nearest")(x, generator())
    places = out.flatten(2).argmax(2)
    rows, columns = (places // 21).unique().tolist(), (places % 21).unique().tolist()
    assert rows == columns == [8, 9, 10, 11, 12]


@pytest.mark.parametrize("wrong", [(1.1, 0.9), (0.0, 1.0), (-1.0, 1.0)])
def test_a_range_of_scales_that_is_none_is_refused(wrong):
    with pytest.raises(UserError, match="no range of factors"):
        ImageTransformation(scale=wrong)


@pytest.mark.parametrize(
    "wrong", [{"degrees": -1}, {"translate": 1.5}, {"vertical_flip": 2}, {"contrast": -1}, {"interpolation": "cubic"}]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImageTransformation(**wrong)
