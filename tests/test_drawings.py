"""Figures from records, on made-up runs: what is drawn where."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from toy_runs import YAML, rec

from reprise.canvas import save
from reprise.drawings import curve_figure, draw, methods_figure, recipes_figure
from reprise.panels import Site, chance, ends, level_scale, seeds_of, shared, site_name, standing, styles
from reprise.reported import Column, available_papers, load_reported, parse
from reprise.stats import interval

DISPLAY = {
    "methods": {"ours": "Ours", "base": "Base", "third": "Third"},
    "columns": [
        {"metric": "test/accuracy", "label": "accuracy", "chance": "rate"},
        {"metric": "weighted/accuracy", "label": "weighted accuracy", "beside": ["reference/all"]},
    ],
    "references": [{"metric": "reference/all", "label": "all rows"}],
    "counts": [
        {"metric": "health/collapsed", "label": "collapsed"},
        {"metric": "health/inverted", "label": "inverted"},
    ],
    "cost": [{"metric": "cost/fits", "label": "fits"}],
    "variants": [{"metric": "test/accuracy", "label": "accuracy"}],
    "curves": [
        {
            "table": "toy/size",
            "by": "size",
            "label": "rows",
            "columns": ["weighted/accuracy", "reference/all", "cost/fits"],
        }
    ],
}


@pytest.fixture(scope="module")
def reported():
    return parse(yaml.safe_load(YAML) | {"display": DISPLAY})


def run(method="ours", seed=0, accuracy=0.9, weighted=0.8, metrics=(), condition=(), **changes):
    measured = {"test/accuracy": accuracy, "weighted/accuracy": weighted, "reference/all": 0.7} | dict(metrics)
    where = {"rate": 0.2} | dict(condition)
    return rec(method, seed, metrics=measured, condition=where, **changes)


def both(n=3):
    return [run(m, seed, a + seed / 100, a - 0.1) for m, a in (("ours", 0.9), ("base", 0.5)) for seed in range(n)]


def lines(ax, marker):
    """Points ``[(x, y), ...]`` of each line with that marker."""
    return [list(map(tuple, line.get_xydata().tolist())) for line in ax.lines if line.get_marker() == marker]


def named(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


# --- names and styles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", available_papers())
def test_every_method_of_a_paper_has_a_style_of_its_own(paper):
    found = styles(load_reported(paper))
    assert len(set(found.values())) == len(found) == len(load_reported(paper).display.methods)
    compared = list(found.values())[:12]
    assert len({style.colour for style in compared}) == len(compared)


def test_a_claim_without_runs_leaves_the_figure_of_methods_to_the_next():
    raw = yaml.safe_load(YAML) | {"display": DISPLAY}
    raw["claims"] = [dict(raw["claims"][0], id="C0", where={"rate": 0.9}), *raw["claims"]]
    assert methods_figure(parse(raw), both(), "cpu") is not None


def test_a_setting_can_be_swept():
    raw = yaml.safe_load(YAML) | {"display": DISPLAY | {"curves": [DISPLAY["curves"][0] | {"by": "width"}]}}
    records = [run("ours", s, settings={"width": w}, group=f"g{w}", table="toy/size") for w in (1, 2) for s in range(3)]
    reported = parse(raw)
    (ax,) = curve_figure(reported, reported.display.curves[0], records, "cpu").axes
    assert lines(ax, styles(reported)["ours"].marker) == [[(1.0, 0.8), (2.0, 0.8)]]


def test_methods_that_claims_compare_come_first(reported):
    claim = {"id": "C", "sentence": "s", "datasets": ["toy"]}
    part = {"left": {"method": "third", "metric": "test/accuracy"}, "relation": ">", "right": {"method": "base"}}
    other = parse(yaml.safe_load(YAML) | {"display": DISPLAY, "claims": [claim | {"parts": [part]}]})
    assert list(styles(other)) == ["third", "base", "ours"]
    assert list(styles(reported)) == ["ours", "base", "third"]


def test_the_runs_that_stand_for_a_method_are_those_that_claims_take(reported):
    records = [*both(), run("ours", 5, group="other"), run("ours", 6, variant="odd", group="odd")]
    found = standing(reported, records)
    assert list(found) == ["ours", "base"]
    assert [r.seed for r in found["ours"]] == [0, 1, 2]


def test_settings_that_a_claim_selects_stand_for_the_method():
    raw = yaml.safe_load(YAML) | {"display": DISPLAY}
    raw["claims"][0]["parts"][0]["left"]["where"] = {"width": 9, "depth": 1}
    reported = parse(raw)
    wide = [run("ours", s, settings={"width": 9, "depth": 1}, group="wide") for s in range(2)]
    more = [run("ours", s, settings={"width": 3, "depth": 1}, group="narrow") for s in range(3)]
    assert standing(reported, wide + more)["ours"] == wide
    assert standing(reported, more)["ours"] == more
    deep = [run("ours", s, settings={"width": 3, "depth": 2}, group="deep") for s in range(4)]
    assert standing(reported, more + deep)["ours"] == deep
    assert standing(reported, more + deep, free="width")["ours"] == more


def test_what_is_written_about_data_and_seeds():
    one, two = (Site("toy", p, {"rate": 0.2, "size": s, "kind": "flip"}) for p, s in (("p", 10), ("q", 20)))
    other = Site("more", "r", {"rate": 0.2, "size": 30, "kind": "flip"})
    assert [site_name(s, [one, two, other]) for s in (one, other)] == ["toy, size 10", "more"]
    assert shared([one, two, other]) == "kind flip, rate 0.2"
    assert [seeds_of(x) for x in ([[1]], [[1, 2], [3, 4], []], [[1], [1, 2, 3]])] == [
        "1 seed",
        "2 seeds",
        "1 to 3 seeds",
    ]


def test_the_level_for_guessing_is_a_number_a_condition_or_unknown():
    levels = [chance(Column("a/b", "x", chance=c), {"rate": 0.2}) for c in (0.5, "rate", "size", None)]
    assert levels == [0.5, 0.2, None, None]


def test_intervals_of_fractions_end_at_zero_and_one():
    wide = interval([0.1, 0.9])
    assert ends(wide, 0.5) == (0.0, 1.0)
    assert ends(wide, None) == ends(wide, 0.0) == (wide.low, wide.high)
    assert ends(interval([0.3]), 0.5) == (0.3, 0.3)


# --- methods ----------------------------------------------------------------------------------------------------------


def test_methods_are_rows_with_their_mean_interval_and_seeds(reported):
    records = [*both(), run("ours", 0, 0.1, variant="odd", group="odd")]
    left, right = methods_figure(reported, records, "cpu").axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["Ours", "Base"]
    means, dots = [points for points in lines(left, "o") if len(points) == 1], lines(left, "o")
    assert [points[0] for points in means] == [pytest.approx((0.91, 0)), pytest.approx((0.51, 1))]
    assert [[x for x, _ in points] for points in dots if len(points) == 3] == [[0.9, 0.91, 0.92], [0.5, 0.51, 0.52]]
    half = 4.302653 * 0.01 / 3**0.5  # Student's t with two degrees of freedom
    bar = next(line for line in left.lines if line.get_linewidth() == 1.8)
    assert bar.get_xdata().tolist() == pytest.approx([0.91 - half, 0.91 + half])
    assert left.lines[0].get_xdata() == [0.2, 0.2]  # chance is the rate
    differences = [points[0][0] for points in lines(right, "o") if len(points) == 1]
    assert differences == pytest.approx([0.8 - 0.7, 0.4 - 0.7])
    assert right.lines[0].get_xdata() == [0.0, 0.0]


def test_broken_seeds_are_not_counted(reported):
    broken = [run("base", 3, float("nan")), run("ours", 3, 0.93)]
    title = methods_figure(reported, both() + broken, "cpu").get_suptitle()
    assert "3 to 4 seeds" in title
    assert "cpu scale" in title
    assert title.endswith("rate 0.2")


@pytest.mark.parametrize("records", [[], [run("ours")], [run("third"), run("base")]])
def test_without_a_pair_for_the_claim_there_is_no_figure(reported, records):
    assert methods_figure(reported, records, "cpu") is None


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_recipes_show_every_seed_and_mark_those_that_collapsed(reported):
    odd = {"variant": "odd", "group": "odd"}
    records = [
        *both(2),
        run("ours", 0, 0.9, **odd),
        run("ours", 1, 0.5, metrics={"health/collapsed": 1, "health/inverted": 1}, **odd),
        run("ours", 2, float("nan"), **odd),
        run("ours", 0, 0.3, variant="odd", group="odd", dataset="other", metrics={"health/inverted": 1}),
    ]
    other, toy = recipes_figure(reported, records, "cpu").axes
    assert [ax.get_title(loc="left") for ax in (other, toy)] == ["other", "toy"]
    assert [text.get_text() for text in toy.get_yticklabels()] == ["Ours", "Ours, odd"]
    points = {name: line.get_xydata().tolist() for name, line in named(toy).items()}
    assert points["a seed"] == [[0.9, 0], [0.91, 0], [0.9, 1]]
    assert points["collapsed"] == [[0.5, 1]]
    assert "inverted" not in points
    assert points["mean"] == [pytest.approx([0.905, 0]), pytest.approx([0.7, 1])]
    assert [text.get_text() for text in other.get_yticklabels()] == ["Ours, odd"]
    assert list(named(other)) == ["chance", "inverted", "mean"]


def test_without_variants_there_is_no_figure_of_recipes(reported):
    assert recipes_figure(reported, both(), "cpu") is None


# --- sweeps -----------------------------------------------------------------------------------------------------------


def sweep(sizes, method="ours", table="toy/size", n=2, **changes):
    return [
        run(
            method,
            seed,
            weighted=0.5 + size / 1e4 + seed / 100,
            metrics={"cost/fits": size, "reference/all": 0.6 + seed / 10},
            condition={"size": size},
            table=table,
            **changes,
        )
        for size in sizes
        for seed in range(n)
    ]


def test_a_sweep_is_a_line_per_method_and_grey_lines_for_references(reported):
    records = sweep([10, 100, 1000]) + sweep([10, 100], "base", n=1) + sweep([1000], "base", table="else", n=1)
    (curve,) = reported.display.curves
    accuracy, fits = curve_figure(reported, curve, records, "cpu").axes
    assert [ax.get_title(loc="left") for ax in (accuracy, fits)] == ["toy: weighted accuracy", "toy: fits"]
    found = {name: line.get_xydata().tolist() for name, line in named(accuracy).items()}
    assert list(found) == ["all rows", "Ours", "Base"]
    assert found["Ours"] == [pytest.approx(p) for p in ([10, 0.506], [100, 0.515], [1000, 0.605])]
    assert found["Base"] == [pytest.approx(p) for p in ([10, 0.501], [100, 0.51], [1000, 0.6])]
    assert found["all rows"] == [pytest.approx([size, 0.65]) for size in (10, 100, 1000)]  # a seed counts once
    assert list(named(fits)) == ["Ours", "Base"]
    assert (accuracy.get_xscale(), accuracy.get_yscale(), fits.get_yscale()) == ("log", "linear", "log")
    assert [text.get_text() for text in accuracy.get_xticklabels()] == ["10", "100", "1,000"]
    assert {float(text.get_text()) for text in fits.get_yticklabels()} > {10, 100, 1000}, "plain numbers"
    assert not any(text.get_text() for text in fits.get_yticklabels(minor=True))


def test_axes_are_plain_where_the_values_lie_close_together(reported):
    (curve,) = reported.display.curves
    figure = curve_figure(reported, curve, sweep([10, 20, 100]), "cpu")
    assert {(ax.get_xscale(), ax.get_yscale()) for ax in figure.axes} == {("linear", "linear")}


def test_a_condition_that_is_0_has_a_place_on_a_logarithmic_axis(reported):
    (curve,) = reported.display.curves
    assert {ax.get_xscale() for ax in curve_figure(reported, curve, sweep([0, 1, 100]), "cpu").axes} == {"symlog"}


def test_many_columns_are_wrapped(reported):
    (curve,) = reported.display.curves
    metric = curve.columns[0]
    many = replace(curve, columns=(metric,) * 7)
    shown = [ax for ax in curve_figure(reported, many, sweep([10, 20]), "cpu").axes if ax.get_visible()]
    assert len(shown) == 7
    assert len({round(ax.get_position().y0, 3) for ax in shown}) == 3


def test_a_condition_in_words_has_a_table_and_no_figure(reported):
    (curve,) = reported.display.curves
    records = [replace(r, condition={**r.condition, curve.by: str(r.facts[curve.by])}) for r in sweep([10, 20])]
    assert curve_figure(reported, curve, records, "cpu") is None


@pytest.mark.parametrize("records", [[], sweep([10]), sweep([10, 20], table="else"), sweep([10, 20], scale="paper")])
def test_without_a_sweep_there_is_no_figure(reported, records):
    (curve,) = reported.display.curves
    assert curve_figure(reported, curve, records, "cpu") is None


# --- all of them ------------------------------------------------------------------------------------------------------


def test_scales_are_apart_and_what_has_no_data_is_left_out(reported, tmp_path):
    paper = [run(m, seed, scale="paper") for m in ("ours", "base") for seed in range(3)]
    assert draw(reported, []) == {}
    assert list(draw(reported, both() + paper)) == ["methods_paper", "methods_cpu"]
    assert list(draw(reported, sweep([10, 20]))) == ["size_cpu"]


def test_the_order_of_the_records_does_not_change_a_byte(reported, tmp_path):
    records = both() + sweep([10, 20]) + [run("ours", 0, variant="odd", group="odd")]
    files = []
    for name, given in (("one", records), ("two", records[::-1])):
        drawn = draw(reported, given)
        assert sorted(drawn) == ["methods_cpu", "recipes_cpu", "size_cpu"]
        files.append([save(drawn[key], tmp_path / name / f"{key}.png").read_bytes() for key in sorted(drawn)])
    assert files[0] == files[1]


def test_a_level_is_logarithmic_only_where_no_interval_reaches_down_to_nothing():
    numbers = [0.01, 0.5]
    assert level_scale(numbers, [0.005, 0.4]) == level_scale(numbers, []) == "log"
    assert level_scale(numbers, [-0.001, 0.4]) == level_scale(numbers, [0.0]) == "linear"
    assert level_scale([0.1, 0.5], [0.01]) == "linear", "the ends of intervals do not call for it"
