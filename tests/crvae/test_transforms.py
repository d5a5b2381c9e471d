from pathlib import Path

import pytest
import torch
import torchvision.transforms.functional as reference
import yaml
from hypothesis import given
from hypothesis import strategies as st
from linear_gaussian import generator
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as second

from reprise import building
from reprise.errors import UserError
from reprise.papers.crvae.transforms import (
    ImageTransformation,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    affine,
    places,
)

CONFIGS = Path(__file__).parents[2] / "conf" / "transformation"
PATH = "reprise.papers.crvae.transforms.ImageTransformation"
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
        for theirs in (reference, second):
            expected = theirs.affine(x[i], *own, interpolation=MODES[mode])
            assert torch.allclose(ours[i], expected, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 24)])
def test_rotation_alone_is_torchvisions_the_other_way_round(mode, shape):
    """Its `affine` counts angles clockwise and its `rotate` anticlockwise; ours is `affine`."""
    n, g = 6, generator()
    x, degrees = torch.rand(n, *shape, generator=g), torch.rand(n, generator=g) * 60 - 30
    ours = affine(x, degrees, torch.zeros(n, 2), torch.ones(n), mode)
    for i in range(n):
        for theirs in (reference, second):
            assert torch.allclose(ours[i], theirs.rotate(x[i], -float(degrees[i]), MODES[mode]), atol=1e-4)


@pytest.mark.parametrize("shape", [(28, 28), (17, 24), (1, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_places_are_those_of_affine_grid(shape, dtype):
    theta = torch.randn(5, 2, 3, generator=generator(), dtype=dtype)
    expected = F.affine_grid(theta, [5, 1, *shape], align_corners=False)
    assert places(theta, *shape).dtype == dtype
    assert torch.allclose(places(theta, *shape), expected, rtol=0, atol=10 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_torchvisions(channels):
    x, factors = torch.rand(5, channels, 7, 6, generator=generator()), torch.tensor([0.0, 0.4, 1.0, 1.3, 2.0])
    for ours in (adjust_brightness, adjust_contrast):
        for library in (reference, second):
            theirs = getattr(library, ours.__name__)
            expected = torch.stack([theirs(image, float(f)) for image, f in zip(x, factors, strict=True)])
            assert torch.allclose(ours(x, factors), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["horizontal_flip", "vertical_flip"])
def test_flips_are_torchvisions(name):
    x = torch.rand(3, 3, 5, 8, generator=generator())
    flipped = ImageTransformation(**{name: 1.0})(x, generator())
    assert torch.equal(flipped, getattr(second, name)(x))
    assert torch.equal(ImageTransformation(**{name: 1.0})(flipped, generator()), x)


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


@given(st.integers(-4, 4), st.integers(-4, 4), st.sampled_from(sorted(MODES)))
def test_a_shift_back_restores_what_was_not_lost(right, down, mode):
    x, shift = torch.rand(1, 3, 12, 13, generator=generator()), torch.tensor([[right, down]]).float()
    there = affine(x, torch.zeros(1), shift, torch.ones(1), mode)
    back = affine(there, torch.zeros(1), -shift, torch.ones(1), mode)
    kept = torch.zeros(12, 13)
    kept[max(0, -down) : 12 - max(0, down), max(0, -right) : 13 - max(0, right)] = 1
    assert torch.allclose(back, x * kept, atol=1e-4)


@given(st.floats(-60, 60), st.floats(0.8, 1.25))
def test_the_inverse_map_restores_the_middle_of_a_smooth_image(degrees, factor):
    row = torch.linspace(0, 1, 41)
    x = (0.3 * row + 0.7 * row.unsqueeze(1)).view(1, 1, 41, 41)  # linear, so bilinear interpolation is exact
    angle, scale = torch.tensor([degrees]), torch.tensor([factor])
    there = affine(x, angle, torch.zeros(1, 2), scale, "bilinear")
    back = affine(there, -angle, torch.zeros(1, 2), 1 / scale, "bilinear")
    assert torch.allclose(back[..., 15:26, 15:26], x[..., 15:26, 15:26], atol=1e-4)


@given(st.floats(-180, 180), st.floats(-8, 8), st.floats(-8, 8), st.floats(0.3, 3), st.sampled_from(sorted(MODES)))
def test_no_parameters_lead_out_of_the_range(degrees, right, down, factor, mode):
    x = torch.rand(1, 1, 9, 10, generator=generator())
    out = affine(x, torch.tensor([degrees]), torch.tensor([[right, down]]), torch.tensor([factor]), mode)
    assert out.min() >= 0
    assert out.max() <= x.max() + 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_what_comes_from_outside_is_black(mode):
    x = torch.ones(2, 1, 6, 8)
    out = affine(x, torch.zeros(2), torch.tensor([[8.0, 0.0], [0.0, -2.0]]), torch.ones(2), mode)
    assert not out[0].any()
    assert torch.allclose(out[1, 0], torch.cat([torch.ones(4, 8), torch.zeros(2, 8)]), atol=1e-4)


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


@pytest.mark.parametrize("name", ["degrees", "scale", "brightness", "contrast", "hue"])
def test_two_equal_images_come_out_different(name):
    x = torch.rand(1, 3, 28, 28, generator=generator()).expand(2, -1, -1, -1)
    first, other = ImageTransformation(**{name: EVERYTHING[name]})(x, generator(1))
    assert not torch.equal(first, other)


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


@pytest.mark.parametrize("mode", MODES)
def test_shifts_are_whole_pixels_within_the_range(mode):
    x = torch.zeros(500, 1, 21, 21)
    x[:, 0, 10, 10] = 1
    out = ImageTransformation(translate=0.1, interpolation=mode)(x, generator())
    assert torch.allclose(out.amax((1, 2, 3)), torch.ones(500), atol=1e-4)  # a part of a pixel would smear it
    positions = out.flatten(2).argmax(2)
    rows, columns = (positions // 21).unique().tolist(), (positions % 21).unique().tolist()
    assert rows == columns == [8, 9, 10, 11, 12]


@pytest.mark.parametrize("wrong", [(1.1, 0.9), (0.0, 1.0), (-1.0, 1.0), (1.0, float("inf"))])
def test_a_range_of_scales_that_is_none_is_refused(wrong):
    with pytest.raises(UserError, match="no range of factors"):
        ImageTransformation(scale=wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("degrees", -1),
        ("translate", -0.1),
        ("translate", 1.5),
        ("horizontal_flip", -0.1),
        ("vertical_flip", 2),
        ("brightness", -1),
        ("contrast", -1),
        ("hue", 0.6),
        ("interpolation", "cubic"),
    ],
)
def test_a_value_out_of_range_is_one_sentence_that_names_it(name, value):
    with pytest.raises(UserError, match=rf"^here\.{name}={value!r} cannot be used: input should be [^;]*\.$"):
        building.instantiate({"_target_": PATH, name: value}, "here")


def read(name):
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", ["simple", "large"])
def test_released_variants_are_the_preset_and_one_thing_more(name):
    preset = read(name)
    assert read(f"{name}_flip") == preset | {"vertical_flip": 0.5}
    assert read(f"{name}_jitter") == preset | {"brightness": 0.2, "contrast": 0.5, "hue": 0.2}
