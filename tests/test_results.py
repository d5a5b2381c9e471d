"""Tables of recipes and of sweeps over one condition, and how variants are kept out of everything else."""

from __future__ import annotations

import copy

import yaml
from toy_runs import YAML, rec, seeds

from reprise.judging import judge_claim
from reprise.reported import parse
from reprise.results import curves_tables, results_tables, variants_tables

EXTRA = {
    "variants": [
        {"metric": "test/accuracy", "label": "accuracy"},
        {"metric": "test/accuracy", "label": "worst", "of": "lowest"},
        {"metric": "test/accuracy", "label": "wins", "of": "positive", "less": "reference/all"},
        {"metric": "test/accuracy", "label": "gain", "less": "reference/all"},
    ],
    "curves": [{"table": "toy/rows", "by": "rows", "free": ["left"], "label": "rows", "columns": ["test/accuracy"]}],
}


def reported_with(**claim):
    raw = yaml.safe_load(YAML)
    raw["display"] |= copy.deepcopy(EXTRA)
    raw["claims"][0] |= claim
    return parse(raw)


def swept(rows, accuracy, method="ours", table="toy/rows", **changes):
    condition = {"rate": 0.2, "rows": rows, "left": 100 - rows}
    place = {"condition": condition, "protocol": f"p{rows}"}
    return [rec(method, s, accuracy, table=table, **(place | changes)) for s in range(3)]


def test_a_variant_stands_beside_its_method_and_nowhere_else():
    records = seeds("ours", [0.9, 0.7, 0.8]) + seeds("base", [0.5] * 3)
    records += [rec("ours", s, 0.1, variant="odd", group="odd") for s in range(5)]
    reported = reported_with()
    (table,) = variants_tables(reported, records)
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == ["Ours", "Ours, odd"]
    assert rows["Ours"][0] == "3"
    assert rows["Ours"][2] == "0.700"
    assert rows["Ours, odd"][1:3] == ("0.100 ± 0.000", "0.100")
    plain = results_tables(reported, records)
    assert [row[0] for table in plain for row in table.rows] == ["Ours", "Base"]
    assert judge_claim(reported.claims[0], records, "cpu").verdict == "SUPPORTED"


def test_wins_and_gains_are_counted_run_by_run():
    records = [
        rec("ours", s, metrics={"test/accuracy": a, "reference/all": 0.6}) for s, a in enumerate([0.9, 0.5, 0.7])
    ]
    records += [rec("ours", 0, 0.1, variant="odd", group="odd")]
    (table,) = variants_tables(reported_with(), records)
    assert table.rows[0][4] == "2/3"
    assert table.rows[0][5].startswith("+0.100 ± ")


def test_without_variants_there_is_no_table_of_recipes():
    assert variants_tables(reported_with(), seeds("ours", [0.9] * 3)) == []


def test_a_curve_has_a_line_per_value_and_method_and_takes_in_the_runs_of_other_sweeps():
    records = swept(10, 0.6) + swept(20, 0.7) + swept(20, 0.5, "base")
    elsewhere = swept(40, 0.8, table="toy/other")  # the same conditions but for the swept and the free one
    other_rate = swept(80, 0.1, table="toy/other", condition={"rate": 0.4, "rows": 80, "left": 20})
    reported = reported_with()
    (table,) = curves_tables(reported, records + elsewhere + other_rate)
    assert [row[:4] for row in table.rows] == [
        ("10", "Ours", "3", "0.600 ± 0.000"),
        ("20", "Ours", "3", "0.700 ± 0.000"),
        ("20", "Base", "3", "0.500 ± 0.000"),
        ("40", "Ours", "3", "0.800 ± 0.000"),
    ]
    other_recipe = swept(160, 0.1, table="toy/other", settings={"solver": "another"})
    assert curves_tables(reported, records + elsewhere + other_recipe) == [table], "it is another method's curve"
    shown = " ".join(t.caption for t in results_tables(reported, records + elsewhere))
    assert "rows 40" in shown
    assert "rows 10" not in shown


def test_a_verdict_that_differs_within_a_data_set_names_the_condition():
    records = swept(10, 0.6) + swept(10, 0.9, "base") + swept(20, 0.8) + swept(20, 0.5, "base")
    reported = reported_with(where={"rate": 0.2, "rows": [10, 20]})
    assert judge_claim(reported.claims[0], records, "cpu").reason == (
        "supported on toy with rows 20; refuted on toy with rows 10"
    )


def test_a_curve_over_names_is_a_table_too():
    names = [r for name in ("forward", "backward") for r in swept(10, 0.6, condition={"rows": name}, settings={})]
    (table,) = curves_tables(reported_with(), names)
    assert [row[0] for row in table.rows] == ["backward", "forward"]


def test_a_curve_has_a_table_for_each_value_of_the_condition_that_it_names():
    raw = yaml.safe_load(YAML)
    raw["display"] |= {"curves": [EXTRA["curves"][0] | {"per": "rate"}]}
    other = [r for n in (10, 20) for r in swept(n, 0.3, condition={"rate": 0.4, "rows": n, "left": 100 - n})]
    first, second = curves_tables(parse(raw), swept(10, 0.6) + swept(20, 0.7) + other)
    assert [table.title for table in (first, second)] == [
        f"Curve over rows: toy, {rate}, cpu scale" for rate in (0.2, 0.4)
    ]
    assert [row[3] for row in (*first.rows, *second.rows)] == [f"{value:.3f} ± 0.000" for value in (0.6, 0.7, 0.3, 0.3)]
