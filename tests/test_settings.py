"""Claims between settings of one method: which runs stand on which side, and how both sides are named."""

from __future__ import annotations

import pytest
import yaml
from toy_runs import YAML, rec, seeds

from reprise.judging import judge_cell, judge_claim, unknown_conditions
from reprise.layout import comparison
from reprise.reported import parse
from reprise.results import results_tables
from reprise.summary import claim_lines

WIDE, NARROW = {"width": 9}, {"width": 3}


def reported_with(*parts, **cell):
    raw = yaml.safe_load(YAML)
    raw["claims"] = [{"id": "C1", "sentence": "s", "datasets": ["toy"], "where": {"rate": 0.2}, "parts": list(parts)}]
    raw["cells"][0]["experiment"]["where"] |= cell
    return parse(raw)


def part(right, relation=">", **where):
    return {"left": {"method": "ours", "metric": "test/accuracy", "where": where}, "relation": relation, "right": right}


def runs(settings, numbers, method="ours"):
    return seeds(method, numbers, settings=settings, group=f"{method} {settings}")


@pytest.fixture
def records():
    return runs(WIDE, [0.9, 0.9, 0.91]) + runs(NARROW, [0.5, 0.6, 0.5, 0.5]) + runs({"depth": 1}, [0.7] * 3, "base")


def verdicts(reported, records):
    (site,) = judge_claim(reported.claims[0], records, "cpu").sites
    return [(p.judgement.verdict.value, p.judgement.n) for p in site.parts]


def test_each_side_takes_the_runs_with_its_settings(records):
    against = part({"where": NARROW}, **WIDE), part({"method": "base"}, **WIDE), part({"method": "base"}, **NARROW)
    assert verdicts(reported_with(*against), records) == [("SUPPORTED", 3), ("SUPPORTED", 3), ("REFUTED", 3)]


def test_another_metric_of_the_same_settings_is_one_of_the_same_run(records):
    reported = reported_with(part({"metric": "reference/all"}, **WIDE), part({"metric": "reference/all"}, **NARROW))
    assert verdicts(reported, records) == [("SUPPORTED", 3), ("REFUTED", 4)]


def test_a_cell_takes_the_runs_with_its_settings(records):
    assert [r.ours.n for r in judge_cell(reported_with(part({"value": 0.5}), **NARROW).cells[0], records)] == [4]
    assert judge_cell(reported_with(part({"value": 0.5}), width=5).cells[0], records)[0].ours is None


def test_settings_that_no_run_has_are_told(records):
    reported = reported_with(part({"method": "base", "where": {"colour": 1}}, **WIDE))
    assert unknown_conditions(reported, records) == ["colour"]


@pytest.mark.parametrize(
    ("right", "told"),
    [
        ({"where": NARROW}, "accuracy: Ours [width 9] > Ours [width 3]"),
        ({"method": "base"}, "accuracy: Ours > Base"),
        ({"metric": "reference/all"}, "accuracy: Ours > all rows"),
        ({"metric": "reference/all", "where": NARROW}, "accuracy: Ours [width 9] > all rows of Ours [width 3]"),
        ({"value": 0.5}, "accuracy: Ours > 0.5"),
    ],
)
def test_sides_are_named_by_what_they_do_not_share(right, told):
    reported = reported_with(part(right, **WIDE))
    assert comparison(reported, reported.claims[0].parts[0]) == told


def test_a_run_is_told_what_it_showed_beside_the_other_settings(records):
    reported = reported_with(part({"where": NARROW}, **WIDE))
    (line,) = claim_lines(records[0], reported, records)
    assert line == "C1 held on this seed (0.900 > 0.500 (Ours [width 3])); verdict SUPPORTED: 3 seeds"
    (alone,) = claim_lines(records[3], reported, [])
    assert alone == "C1 needs Ours [width 9] on the same data and seed; verdict NOT RUN: 0 of 3 seeds"
    rival = rec("ours", 0, 0.1, settings=WIDE | {"depth": 2}, group="rival")
    (line,) = claim_lines(rival, reported, records)
    assert line.startswith("C1 did not hold on this seed (0.100, not > 0.500"), "the other wide runs stand aside"


def test_classes_among_settings_are_known_by_their_names():
    kinds = [{"_target_": f"pkg.{kind}", "search._target_": f"pkg.{kind}Search", "depth": 1} for kind in ("A", "B")]
    records = [r for kind in kinds for r in runs(kind, [0.5])]
    (table,) = results_tables(reported_with(part({"value": 0.5})), records)
    assert [row[0] for row in table.rows] == ["Ours [search ASearch]", "Ours [search BSearch]"]
