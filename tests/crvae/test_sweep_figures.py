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
