"""Mean curves over seeds, read from made-up run folders."""

from __future__ import annotations

import numpy as np
import pytest
from toy_runs import raw

from reprise.evidence import Record
from reprise.panels import styles
from reprise.papers.dvrl.charts import charts
from reprise.papers.dvrl.sweep_figures import INSPECTED, MOST, REMOVED, band, draw, readable
from reprise.reported import load_reported

NOISY = {"noise_rate": 0.2, "noise_kind": "flip_other", "train_size": 1000, "validation_size": 400}


@pytest.fixture(scope="module")
def reported():
    return load_reported("dvrl")


def record(method, seed, **condition):
    metrics = {"discovery/auroc": 0.9, "removal/area_between": 0.1, "weighted/test_accuracy": 0.8}
    where = NOISY | condition
    given = {"paper": "dvrl", "dataset": "digits", "condition": where, "metrics": metrics}
    return Record.of(raw(method, seed, run_key=f"{method}{where['noise_rate']}", **given))


def folder(out, run, found="0,0\n0.5,1\n1,1", low=0.8):
    place = out / "runs" / run.method / run.dataset / f"s{run.seed}-{run.run_key}"
    place.mkdir(parents=True)
    (place / "discovery_curve.csv").write_text(f"inspected,found\n{found}\n")
    removal = "".join(f"{x},{low},{low - x}\n" for x in (0.0, 0.25, 0.5, 0.75))
    (place / "removal_curve.csv").write_text(f"removed,low_first,high_first\n{removal}")
    return place


def test_the_band_is_students_t_at_every_point():
    mean, low, high = band(np.array([[0.0, 1.0], [0.5, 1.0]]))
    assert mean.tolist() == [0.25, 1.0]
    # two values: the standard error is half their distance, and the quantile is that of the Cauchy distribution
    half = np.tan(np.pi * 0.475) * 0.25
    assert np.allclose([low, high], [[0.25 - half, 1.0], [0.25 + half, 1.0]])
    assert all(np.array_equal(line, [0.3]) for line in band(np.array([[0.3]])))


def test_a_panel_holds_no_more_lines_than_can_be_told_apart(reported):
    chosen = readable(reported, list(reported.display.methods))
    assert len(chosen) == MOST
    assert len({styles(reported)[m].colour for m in chosen}) == MOST
    assert chosen == [m for m in reported.display.methods if m in chosen]
    assert {"dvrl", "random", "loo", "knn_shapley"} <= set(chosen)
    assert readable(reported, ["banzhaf", "random"]) != []


def test_mean_curves_of_noisy_and_clean_data(reported, tmp_path):
    runs = [record(m, s, noise_rate=rate) for m in ("dvrl", "random") for s in (0, 1, 2) for rate in (0.0, 0.2)]
    for run in runs:
        folder(tmp_path, run, "0,0\n0.5,1\n1,1" if run.seed else "0,0\n1,1", low=0.8 + run.seed / 100)
    figures, notes = draw(reported, runs, tmp_path)
    assert notes == []
    assert list(figures) == ["discovery_cpu", "removal_cpu"]
    (discovery,) = figures["discovery_cpu"].axes
    lines = {line.get_label(): line.get_ydata() for line in discovery.lines}
    assert list(lines) == ["best possible", "chance", "DVRL (stabilised)", "Random"]
    assert np.allclose(lines["best possible"], 100 * np.minimum(5 * INSPECTED, 1))
    assert np.allclose(lines["Random"], 100 * (INSPECTED + 2 * np.minimum(2 * INSPECTED, 1)) / 3)
    clean, noisy = figures["removal_cpu"].axes
    assert [ax.get_title(loc="left") for ax in (clean, noisy)] == ["digits, noise_rate 0.0", "digits, noise_rate 0.2"]
    low, high = clean.lines[:2]
    assert np.allclose(low.get_ydata(), 0.81)
    assert np.allclose(high.get_ydata(), 0.81 - REMOVED)
    assert (low.get_linestyle(), high.get_linestyle()) == ("-", "--")
    assert clean.get_ylabel() == "test accuracy"


def test_missing_and_damaged_curves_are_told_in_one_line_each(reported, tmp_path):
    runs = [record(m, s) for m in ("dvrl", "random") for s in (0, 1, 2)]
    figures, notes = draw(reported, runs, tmp_path)
    assert figures == {}
    runs_dir = tmp_path / "runs"
    assert notes == [
        f"{kind} curves, cpu scale: no figure; 6 of 6 runs have no curve below {runs_dir}."
        for kind in ("discovery", "removal")
    ]
    places = [folder(tmp_path, run) for run in runs[:4]]
    (places[0] / "removal_curve.csv").write_text("removed,low_first\n0,1\n")
    (places[1] / "removal_curve.csv").write_text("removed,low_first,high_first\n0,oops,1\n")
    (places[2] / "removal_curve.csv").write_text("removed,low_first,high_first\n0,nan,1\n")
    figures, notes = draw(reported, runs, tmp_path)
    assert list(figures) == ["discovery_cpu", "removal_cpu"]
    assert "discovery curves, cpu scale: drawn from 4 runs; 2 of 6 runs have no curve" in notes[0]
    assert "removal curves, cpu scale: drawn from 1 runs; 5 of 6 runs have no curve" in notes[1]


def test_without_runs_there_is_nothing_to_say(reported, tmp_path):
    assert draw(reported, [], tmp_path) == ({}, [])


# --- the same as charts -----------------------------------------------------------------------------------------------


def rows_of(panel, name):
    return [row for row in panel.spec["data"]["values"] if row["series"] == name]


def test_charts_show_the_curves_of_the_run_folders(reported, tmp_path):
    runs = [record(m, s, noise_rate=rate) for m in ("dvrl", "random") for s in (0, 1, 2) for rate in (0.0, 0.2)]
    for run in runs:
        folder(tmp_path, run, low=0.8 + run.seed / 100)
    discovery, removal = charts(reported, runs, tmp_path)
    assert [s.name for s in discovery.series] == ["best possible", "chance", "DVRL (stabilised)", "Random"]
    (panel,) = discovery.panels
    assert [(row["x"], row["mean"]) for row in rows_of(panel, "Random")][:2] == [(0.0, 0.0), (4.0, 8.0)]
    assert rows_of(panel, "best possible")[5]["mean"] == 100.0
    clean, noisy = removal.panels
    assert (clean.title, noisy.title) == ("digits, noise_rate 0.0", "digits, noise_rate 0.2")
    kept = rows_of(clean, "Random")[-1]
    lost = rows_of(clean, "Random, high values first")[-1]
    assert (kept["x"], kept["mean"], kept["seeds"], lost["mean"]) == (50.0, 0.81, 3, 0.31)


def test_a_picture_stands_in_for_curves_that_are_gone(reported, tmp_path):
    runs = [record(m, s) for m in ("dvrl", "random") for s in (0, 1, 2)]
    assert charts(reported, runs, tmp_path) == []
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "dvrl_discovery_cpu.png").write_bytes(b"drawn before")
    folder(tmp_path, runs[0])
    picture, chart = charts(reported, runs, tmp_path)
    assert picture.png == b"drawn before"
    assert (chart.name, rows_of(chart.panels[0], "DVRL (stabilised)")[0]["seeds"]) == ("removal_cpu", 1)
