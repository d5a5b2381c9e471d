"""Charts as specifications: hand-computed rows, styles, axes."""

from __future__ import annotations

import re

import pytest
import vl_convert
from toy_runs import raw, seeds, write_paper

from reprise.evidence import Record
from reprise.report import common
from reprise.report.charts import Axis, Series, axis_over, intervals, lines, plain, present, reference, spread
from reprise.reported import load_reported

ONE, TWO = Series("one", "#0072b2", "circle"), Series("two", "#6b6b6b", "square", (5, 2))


@pytest.fixture
def reported(tmp_path):
    return load_reported("toy", write_paper(tmp_path))


def layer(spec, kind):
    return next(one for one in spec["layer"] if one["mark"]["type"] == kind)


def test_a_row_holds_mean_interval_and_the_text_of_the_tables():
    # mean 2, deviation 1, t(0.975, 2) = 4.3027: 2 -+ 2.4841
    assert spread([1.0, 2.0, 3.0], ".2f") == {
        "mean": 2.0,
        "low": pytest.approx(-0.48414, abs=1e-5),
        "high": pytest.approx(4.48414, abs=1e-5),
        "seeds": 3,
        "shown": "2.00 ± 2.48",
    }


def test_fractions_are_cut_at_their_limits_and_differences_are_signed():
    assert spread([0.9, 1.0, 0.98], ".2f", level=0.5)["high"] == 1.0
    assert spread([0.9, 1.0, 0.98], ".2f")["high"] > 1.0
    assert spread([0.25], ".1f", signed=True) == {"mean": 0.25, "low": None, "high": None, "seeds": 1, "shown": "+0.2"}


def test_no_band_narrows_to_a_single_seed():
    rows = [{"series": "one", "x": x, **spread(found, ".1f")} for x, found in ((1.0, [1.0, 3.0]), (2.0, [2.0]))]
    assert [row["low"] is None for row in rows] == [False, True]
    svg = vl_convert.vegalite_to_svg(lines(rows, Axis("x"), Axis("y"), [ONE]) | {"width": 200})
    (band,) = re.findall(r'aria-roledescription="area mark"[^>]* d="([^"]*)"', svg)
    assert len(set(re.findall(r"[ML](-?[\d.]+),", band))) == 1  # it stays where there are two seeds


def test_lines_know_only_the_series_that_have_rows():
    spec = lines([{"series": "two", "x": 1.0, **plain(3.0, ".1f")}], Axis("x"), Axis("y"), [ONE, TWO])
    scale = spec["encoding"]["color"]["scale"]
    assert (scale["domain"], scale["range"]) == (["two"], ["var(--ink-6b6b6b)"])
    assert layer(spec, "line")["encoding"]["strokeDash"]["scale"]["range"] == [[5, 2]]
    assert layer(spec, "point")["encoding"]["shape"]["scale"]["range"] == ["square"]


def test_points_that_are_not_joined_have_bars():
    rows = [{"series": "one", "x": 1.0, **spread([1.0, 2.0, 4.0], ".1f")}]
    kinds = [one["mark"]["type"] for one in lines(rows, Axis("x"), Axis("y"), [ONE], joined=False)["layer"]]
    assert kinds == ["rule", "point", "point"]


def test_references_have_no_points():
    rows = [{"series": name, "x": 1.0, **plain(1.0, ".1f")} for name in ("one", "chance")]
    spec = lines(rows, Axis("x"), Axis("y"), [ONE, reference("chance")])
    assert layer(spec, "point")["transform"] == [{"filter": {"field": "series", "oneOf": ["one"]}}]


@pytest.mark.parametrize(("numbers", "kind"), [([1, 5], "linear"), ([1, 100], "log"), ([0, 1, 100], "symlog")])
def test_axes_suit_their_numbers(numbers, kind):
    axis = axis_over("x", numbers, ticked=True)
    assert (axis.scale, axis.ticks) == (kind, tuple(numbers))
    rows = [{"series": "one", "x": x, **plain(1.0, ".1f")} for x in numbers]
    scale = lines(rows, axis, Axis("y"), [ONE])["encoding"]["x"]["scale"]
    assert scale["type"] == kind
    assert scale.get("constant") == (1 if kind == "symlog" else None)


def test_a_list_keeps_its_order_and_marks_nothing():
    rows = [{"row": name, "kind": "one", **spread([1.0, 2.0, 3.0], ".1f")} for name in ("z", "a")]
    dots = [{"row": "z", "kind": "one", "seed": 0, "value": 1.0}]
    spec = intervals(rows, dots, Axis("x"), [ONE], nothing=0.5)
    assert spec["encoding"]["y"]["sort"] == ["z", "a"]
    assert spec["layer"][0]["encoding"]["x"]["datum"] == 0.5
    assert len(intervals(rows, dots, Axis("x"), [ONE])["layer"]) == len(spec["layer"]) - 1
    svg = vl_convert.vegalite_to_svg(spec | {"width": 200})
    assert svg.index(">z<") < svg.index(">a<")


def test_a_legend_names_each_series_once():
    rows = [{"series": "two"}, {"series": "two"}]
    assert present([ONE, TWO, TWO], rows) == (TWO,)


def test_methods_are_compared_on_the_data_of_the_claim(reported):
    records = seeds("ours", [0.9, 0.92, 0.94]) + seeds("base", [0.8, 0.82, 0.84])
    (chart,) = common.charts(reported, records)
    assert chart.name == "methods_cpu"
    (panel,) = chart.panels
    assert [(row["row"], row["mean"]) for row in panel.spec["data"]["values"]] == [("Ours", 0.92), ("Base", 0.82)]
    assert panel.spec["layer"][0]["encoding"]["x"]["datum"] == 0.2  # chance, by the condition's rate


def test_a_sweep_has_a_panel_per_column_and_chance_where_it_is_known(tmp_path):
    papers = write_paper(tmp_path)
    path = papers / "toy" / "reported.yaml"
    told = "  curves: [{table: toy/sweep, by: rate, label: rate, columns: [test/accuracy, reference/all]}]\ntables:"
    path.write_text(path.read_text().replace("tables:", told, 1))
    records = [
        Record.of(raw("ours", seed, 0.5 + rate + seed / 100, table="toy/sweep", condition={"rate": rate}))
        for rate in (0.1, 0.2)
        for seed in range(3)
    ]
    chart = next(one for one in common.charts(load_reported("toy", papers), records) if one.name == "sweep_cpu")
    assert [panel.title for panel in chart.panels] == ["toy: accuracy"]
    rows = chart.panels[0].spec["data"]["values"]
    assert {row["series"] for row in rows} == {"chance", "all rows", "Ours"}
    assert [(row["x"], row["mean"]) for row in rows if row["series"] == "Ours"] == [(0.1, 0.61), (0.2, 0.71)]
    assert [row["mean"] for row in rows if row["series"] == "chance"] == [0.1, 0.2]


def test_a_sweep_over_names_is_a_list(tmp_path):
    papers = write_paper(tmp_path)
    path = papers / "toy" / "reported.yaml"
    told = "  curves: [{table: toy/sweep, by: kind, label: kind, columns: [test/accuracy]}]\ntables:"
    path.write_text(path.read_text().replace("tables:", told, 1))
    records = [
        Record.of(raw("ours", seed, value + seed / 100, table="toy/sweep", condition={"rate": 0.2, "kind": kind}))
        for kind, value in (("soft", 0.5), ("hard", 0.7))
        for seed in range(3)
    ]
    chart = next(one for one in common.charts(load_reported("toy", papers), records) if one.name == "sweep_names_cpu")
    (panel,) = chart.panels
    assert [(row["row"], row["mean"]) for row in panel.spec["data"]["values"]] == [("hard", 0.71), ("soft", 0.51)]
    assert len(panel.spec["layer"][0]["data"]["values"]) == 6


def test_without_runs_nothing_is_drawn(reported):
    assert common.charts(reported, []) == []
