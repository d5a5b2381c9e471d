"""Curves from what runs measured on their way, and accuracy against bytes."""

from __future__ import annotations

from reprise.evidence import Record
from reprise.papers.supsup.sweep_figures import bytes_figure, draw, points, tasks_figure
from reprise.reported import load_reported


def run(method: str = "supsup", seed: int = 0, **metrics: float) -> Record:
    on_the_way = {f"accuracy/given@{k}": 0.9 + k / 1000 + seed / 100 for k in (5, 10, 20)}
    raw = {
        "paper": "supsup",
        "method": method,
        "dataset": "toy",
        "seed": seed,
        "scale": "cpu",
        "run_key": f"{method}{seed}",
        "group": method,
        "protocol": "one",
        "condition": {"kind": "permuted", "num_tasks": 20, "network": "8"},
        "metrics": on_the_way | {"accuracy/given": 0.9, "bytes/bank": 1000.0} | metrics,
    }
    return Record.of(raw)


def test_points_are_sorted_by_number_of_tasks_and_hold_all_seeds():
    found = points([run(seed=0), run(seed=1)], "accuracy/given")
    assert list(found) == [5, 10, 20]
    assert found[10] == [0.91, 0.92]
    assert points([run()], "accuracy") == {}


def test_a_panel_per_configuration_with_the_lines_that_were_measured():
    figure = tasks_figure([run(), run(seed=1), run("psp")], "cpu")
    first, second = figure.axes
    assert [len(ax.lines) for ax in (first, second)] == [1, 1]
    assert [ax.get_title(loc="left") for ax in (first, second)] == ["toy, psp, 8", "toy, supsup, 8"]
    assert list(first.lines[0].get_xdata()) == [5, 10, 20]


def test_bytes_need_three_methods_on_the_same_stream():
    reported = load_reported("supsup")
    two = [run(), run("psp", **{"bytes/bank": 10.0})]
    assert bytes_figure(reported, two, "cpu") is None
    (ax,) = bytes_figure(reported, [*two, run("batche", **{"accuracy/given": 0.5})], "cpu").axes
    assert sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines) == [
        (10.0, 0.9),
        (1000.0, 0.5),
        (1000.0, 0.9),
    ]
    assert ax.get_xscale() == "log"


def test_nothing_is_drawn_from_nothing(tmp_path):
    assert draw(load_reported("supsup"), [], tmp_path) == ({}, [])
