from dataclasses import replace

import pandas as pd
import pytest

from reprise.evidence import Record
from reprise.papers.crvae import sweep_figures
from reprise.reported import load_reported

METRICS = {
    **{"nll": 90.0, "consistency_kl": 50.0, "consistency_w2_ratio": 0.5, "active_units": 20, "probe/linear": 0.9},
    **{"probe/ten_labels": 0.7, "probe/transformed": 0.8},
}


def run(method, seed, **changes):
    return Record(
        paper="crvae",
        method=method,
        dataset="digits",
        seed=seed,
        scale="cpu",
        run_key=f"{method}{seed}",
        group=method,
        protocol="p",
        condition={},
        metrics=METRICS | changes,
        settings={"weight": 0.1 if method == "crvae" else 0.0, "penalty.direction": "paper", "objective": "paper"},
    )


@pytest.fixture
def reported():
    return load_reported("crvae")


def test_differences_are_from_the_same_seed(reported, tmp_path):
    runs = [run("vae", s, nll=90 + 10 * s) for s in range(3)] + [run("crvae", s, nll=88 + 10 * s) for s in range(4)]
    figures, notes = sweep_figures.draw(reported, runs, tmp_path)
    assert list(figures) == ["paired_digits_cpu"]
    assert notes == []
    ax = figures["paired_digits_cpu"].axes[0]
    seeds, mean = (line for line in ax.lines if line.get_marker() not in ("None", None) and len(line.get_xdata()))
    assert list(seeds.get_xdata()) == [-2, -2, -2], "the fourth seed has no partner"
    assert mean.get_xdata()[0] == -2
    assert [text.get_text() for text in ax.get_yticklabels()] == ["CR-VAE"]
    assert figures["paired_digits_cpu"]._suptitle.get_text().endswith(": 3 seeds"), "those that are drawn"


def test_methods_without_a_partner_have_no_row(reported, tmp_path):
    runs = [run("vae", 0), run("crvae", 0), run("vae_aug", 1)]
    (ax, *_) = sweep_figures.draw(reported, runs, tmp_path)[0]["paired_digits_cpu"].axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["CR-VAE"]


def test_each_base_model_is_compared_with_its_own_plain_form(reported, tmp_path):
    """The ladder's protocol is another one, as its network is: it is found there, whole."""
    runs = [run("vae", s) for s in range(2)] + [run("crvae", s, nll=89.0) for s in range(2)]
    ladder = [run("hierarchical", s, nll=80.0) for s in range(2)]
    ladder += [run(name, s, nll=77.0) for name in ("hierarchical_aug", "cr_hierarchical") for s in range(2)]
    figures, _ = sweep_figures.draw(reported, runs + [replace(r, protocol="ladder") for r in ladder], tmp_path)
    assert list(figures) == ["paired_digits_cpu", "bases_digits_cpu"]
    ax = figures["bases_digits_cpu"].axes[0]
    names = ["CR-hierarchical VAE", "Hierarchical VAE + Aug (both views)", "CR-VAE"]
    assert [text.get_text() for text in ax.get_yticklabels()] == names, "from the bottom"
    means = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
    assert means == [-3, -3, -1]
    (between,) = [line for line in ax.lines if list(line.get_ydata()) == [1.5, 1.5]]
    assert list(between.get_xdata()) == [0, 1], "across the panel"


def test_a_base_model_alone_is_no_comparison_of_base_models(reported, tmp_path):
    runs = [run("vae", 0), run("crvae", 0), run("iwae", 0), run("cr_iwae", 1)]
    assert list(sweep_figures.draw(reported, runs, tmp_path)[0]) == ["paired_digits_cpu"]


def test_without_the_plain_vae_there_is_nothing_to_draw(reported, tmp_path):
    assert sweep_figures.draw(reported, [run("crvae", 0)], tmp_path) == ({}, [])


def test_figure_1_stands_side_by_side_where_run_folders_are(reported, tmp_path):
    runs = [run("vae", 0), run("crvae", 0, consistency_w2_ratio=0.1)]
    for record in runs:
        folder = tmp_path / "runs" / record.method / "digits" / f"s0-{record.run_key}"
        folder.mkdir(parents=True)
        columns = {"class": ["0", "1"], "x": [0.0, 1.0], "y": [0.0, 1.0], "moved_x": [0.5, 1.5], "moved_y": [0.0, 1.0]}
        pd.DataFrame(columns).to_csv(folder / "latents.csv", index=False)
    figure = sweep_figures.draw(reported, runs, tmp_path)[0]["latents_digits_cpu"]
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["VAE: apart by 0.50", "CR-VAE: apart by 0.10"]
    assert len([line for line in figure.axes[0].lines if line.get_linestyle() == "-"]) == 2
