from dataclasses import replace

import pytest
import torch
from linear_gaussian import generator

from reprise.canvas import gallery
from reprise.papers.crvae import artifacts
from reprise.papers.crvae.assessment import Assessed
from reprise.papers.crvae.model import Gaussian


@pytest.fixture
def assessed():
    g = generator()
    mean = torch.randn(30, 4, generator=g) * torch.tensor([3.0, 2.0, 0.1, 0.01])
    clean = Gaussian(mean, torch.zeros(30, 4))
    augmented = Gaussian(mean + 0.1, torch.zeros(30, 4))
    pictures = {
        name: torch.rand(count, 1, 8, 8, generator=g)
        for name, count in {
            **dict.fromkeys(("inputs", "reconstructed", "transformed", "transformed_reconstructed"), 5),
            "samples": 9,
        }.items()
    } | {"traversals": torch.rand(2, 3, 1, 8, 8, generator=g)}
    return Assessed(
        {"consistency_w2_ratio": 0.5, "consistency_kl": 2.0},
        clean,
        augmented,
        torch.arange(30) % 3,
        ("a", "b", "c"),
        torch.rand(10, generator=g),
        4 * torch.rand(30, generator=g),
        clean.mean.var(0).sort(descending=True).values,
        pictures,
    )


def test_every_input_is_joined_to_its_transformation(assessed):
    (ax,) = artifacts.latents(assessed).axes
    joins = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert len(joins) == 30
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "c"]
    assert "0.50 of the variance" in ax.get_title(loc="left")


def test_the_plane_is_that_of_the_largest_spread(assessed):
    columns = artifacts.plane(assessed)
    spread = torch.linalg.svdvals(assessed.clean.mean - assessed.clean.mean.mean(0)) / 29**0.5
    assert columns["x"].std(ddof=1) == pytest.approx(float(spread[0]), rel=1e-4)
    assert columns["y"].std(ddof=1) == pytest.approx(float(spread[1]), rel=1e-4)
    assert abs(columns["moved_x"] - columns["x"]).max() <= 0.1 * 4**0.5 + 1e-6


def test_a_code_of_one_number_has_a_plane(assessed):
    flat = replace(
        assessed,
        clean=Gaussian(assessed.clean.mean[:, :1], torch.zeros(30, 1)),
        augmented=Gaussian(assessed.augmented.mean[:, :1], torch.zeros(30, 1)),
    )
    assert abs(artifacts.plane(flat)["y"]).max() == 0


def test_units_above_the_line_are_counted(assessed):
    (ax,) = artifacts.units(assessed.variances).axes
    assert ax.get_title(loc="left") == f"{int((assessed.variances >= 0.01).sum())} of 4 units are active"
    assert len(ax.patches) == 4


def test_units_are_counted_in_whole_numbers():
    (ax,) = artifacts.units(torch.linspace(1, 0.1, 20)).axes
    assert all(tick == round(tick) for tick in ax.get_xticks())


def test_every_input_is_in_the_histogram():
    kl = torch.tensor([0.0, 1e-9, 0.5, 20.0, 80.0])
    (ax,) = artifacts.consistency(kl, float(kl.mean())).axes
    assert sum(bar.get_height() for bar in ax.patches) == 5
    assert ax.get_xscale() == "log"
    assert "nats; 2 below 0.001" in ax.get_xlabel()
    assert ax.lines[0].get_xdata()[0] == pytest.approx(float(kl.mean()))
    assert "below" not in artifacts.consistency(kl[2:], 33.5).axes[0].get_xlabel()


def test_a_collapsed_code_has_a_histogram():
    """Then nothing moves: the mean is 0, which a logarithmic axis does not have."""
    (ax,) = artifacts.consistency(torch.zeros(7), 0.0).axes
    assert [bar.get_height() for bar in ax.patches if bar.get_height()] == [7]
    low, high = ax.get_xlim()
    assert 0 < low <= ax.lines[0].get_xdata()[0] <= high
    assert high / low > 5, "an axis that can be read"


def test_a_gallery_has_every_picture():
    images = torch.rand(2, 3, 1, 8, 8, generator=generator())
    (ax,) = gallery(images, ["one", "two"], "title").axes
    sheet = ax.images[0].get_array()
    assert sheet.shape == (8 + 1 + 8, 8 + 1 + 8 + 1 + 8)
    assert torch.equal(torch.from_numpy(sheet[9:, 18:]), images[1, 2, 0])
    assert gallery(torch.rand(1, 2, 3, 8, 8), [], "colour").axes[0].images[0].get_array().shape == (8, 17, 3)


def test_a_run_writes_them_all(assessed, tmp_path):
    paths = artifacts.write(tmp_path, assessed, torch.nn.Linear(2, 2))
    assert (
        {path.name for path in paths}
        == {path.name for path in tmp_path.iterdir()}
        >= {
            *("inputs.csv", "units.csv", "latents.csv", "model.safetensors"),
            *("latents.png", "consistency.png", "units.png", "reconstructions.png", "samples.png", "traversals.png"),
        }
    )
    lines = (tmp_path / "inputs.csv").read_text().splitlines()
    assert lines[0] == "label,nll,consistency_kl"
    assert len(lines) == 31
    assert lines[11].split(",")[1] == "", "the likelihood was taken of ten inputs"


def test_many_classes_share_a_colour(assessed):
    many = replace(assessed, labels=torch.arange(30), classes=tuple(map(str, range(30))))
    (ax,) = artifacts.latents(many).axes
    assert ax.get_legend() is None
