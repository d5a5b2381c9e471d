"""Every paper's reported numbers load, and a file with a mistake is refused in one sentence that names it."""

from __future__ import annotations

import copy

import pytest
import yaml

from reprise.errors import UserError
from reprise.reported import CONFIDENCES, METHOD, METRIC, SCALES, Selector, available_papers, load_reported, parse

GOOD = yaml.safe_load(
    """
paper: toy
title: A toy
citation: Nobody, nowhere
pdf: none
code: {address: none, commit: none}
display:
  methods: {ours: Ours, base: Base}
  columns:
    - {metric: test/accuracy, label: accuracy, beside: [reference/all]}
  references:
    - {metric: reference/all, label: all}
tables:
  - id: t1
    title: Table 1
    metric: accuracy
    unit: fraction
    higher_is_better: true
    tolerance: 0.01
    confidence: exact
    source: the paper
    reason: not built
cells:
  - id: a
    table: t1
    row: Ours
    column: Toy
    value: 0.9
    experiment: {method: ours, dataset: toy, metric: test/accuracy}
  - {id: b, table: t1, row: Base, column: Toy, value: 0.8, std: 0.01, confidence: secondary}
  - {id: c, table: t1, row: Other, column: Toy, confidence: not_recovered}
claims:
  - id: C1
    sentence: Ours is better.
    datasets: [toy]
    where: {rate: 0.2}
    parts:
      - {left: {method: ours, metric: test/accuracy}, relation: ">", right: {method: base}}
      - {left: {method: ours, metric: test/accuracy}, relation: ">=", tolerance: 0.02, right: {metric: reference/all}}
      - {left: {method: ours, metric: test/accuracy}, relation: ">", right: {value: 0.5}, ours: true}
  - {id: C2, sentence: Cheap., reason: needs a sweep}
"""
)


def test_cells_inherit_from_their_table_and_override_it():
    reported = parse(GOOD)
    a, b, c = reported.cells
    assert (a.unit, a.tolerance, a.reason, a.confidence) == ("fraction", 0.01, "", "exact")
    assert a.experiment == Selector("ours", "test/accuracy", "toy", "paper")
    assert (b.confidence, b.std, b.reason, b.experiment) == ("secondary", 0.01, "not built", None)
    assert c.value is None
    assert reported.tables == {"t1": "Table 1"}


def test_the_right_side_of_a_part_inherits_from_the_left():
    first, second, third = parse(GOOD).claims[0].parts
    assert first.right == Selector("base", "test/accuracy", where={"rate": 0.2})
    assert second.right == Selector("ours", "reference/all", where={"rate": 0.2})
    assert (third.right, third.ours) == (0.5, True)


def test_settings_of_a_side_are_its_own():
    """What the claim says holds on both sides; what the left one adds holds for the same method only."""
    raw = copy.deepcopy(GOOD)
    left = {"method": "ours", "metric": "test/accuracy", "where": {"width": 9, "depth": 1}}
    rights = [{"method": "base"}, {"where": {"width": 3}}, {"method": "base", "where": {"width": 2}}]
    raw["claims"][0]["parts"] = [{"left": left, "relation": ">", "right": right} for right in rights]
    parts = parse(raw).claims[0].parts
    assert all(part.left.where == {"rate": 0.2, "width": 9, "depth": 1} for part in parts)
    assert [part.right.method for part in parts] == ["base", "ours", "base"]
    assert [part.right.where for part in parts] == [
        {"rate": 0.2},
        {"rate": 0.2, "width": 3, "depth": 1},
        {"rate": 0.2, "width": 2},
    ]


@pytest.mark.parametrize("name", ["forgetting", "accuracy/inferred/official@250", "task_id/accuracy", "bytes/bank"])
def test_names_of_metrics(name):
    assert METRIC.fullmatch(name)


@pytest.mark.parametrize("name", ["", "/accuracy", "accuracy/", "a//b", "Accuracy", "test accuracy", "@3"])
def test_what_is_no_name_of_a_metric(name):
    assert not METRIC.fullmatch(name)


def broken(path: str, value: object) -> dict:
    """GOOD with one value replaced (``None`` as the last step of a list appends)."""
    raw = copy.deepcopy(GOOD)
    *steps, last = [int(s) if s.isdigit() else s for s in path.split("/")]
    place = raw
    for step in steps:
        place = place[step]
    place[last] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("papre", "x", "unknown key 'papre'"),
        ("cells/0/vlaue", 1.0, "unknown key 'vlaue'"),
        ("claims/0/part", [], "unknown key 'part'"),
        ("display/colums", [], "unknown key 'colums'"),
        ("cells/0/experiment/data", "toy", "unknown key 'data'"),
        ("claims/0/parts/0/right/methd", "x", "unknown key 'methd'"),
        ("cells/1/id", "a", "share the cell id 'a'"),
        ("claims/1/id", "C1", "share the claim id 'C1'"),
        ("cells/0/value", 90.0, "outside the range 0 to 1"),
        ("cells/0/value", -0.1, "outside the range"),
        ("cells/0/value", "0.9", "needs a number"),
        ("cells/0/value", True, "needs a number"),
        ("cells/1/std", -0.1, "outside the range"),
        ("cells/0/value", None, "must have a value unless"),
        ("cells/2/value", 0.5, "must have a value unless"),
        ("cells/0/confidence", "sure", "unknown confidence 'sure'"),
        ("cells/0/table", "t9", "unknown table 't9'"),
        ("cells/0/tolerance", None, "needs a tolerance"),
        ("cells/0/seeds", "NOT FOUND", "whole number"),
        ("cells/0/higher_is_better", "yes", "true, false or null"),
        ("cells/0/experiment/dataset", None, "lacks 'dataset'"),
        ("cells/0/experiment/method", "Ours!", "malformed method"),
        ("cells/0/experiment/method", "other", "unknown method"),
        ("cells/0/experiment/metric", "test/", "malformed metric"),
        ("cells/0/experiment/metric", "test/acuracy", "unknown metric"),
        ("cells/0/experiment/scale", "smoke", "unknown scale 'smoke'"),
        ("claims/0/scales", ["huge"], "unknown scale 'huge'"),
        ("claims/0/parts/0/relation", "beats", "unknown relation 'beats'"),
        ("claims/0/parts/0/tolerance", 0.1, "takes no tolerance"),
        ("claims/0/parts/0/right", {}, "neither a method"),
        ("claims/0/parts/2/right/method", "base", "stand alone"),
        ("claims/0/datasets", [], "names no data sets"),
        ("claims/1/reason", "", "needs parts, or the reason"),
        ("display/columns/0/metric", "Test accuracy", "malformed metric"),
        ("claims/0/where", "rate", "'where' must be a mapping"),
        ("claims/0/parts/0/right/where", [1], "'where' must be a mapping"),
        ("display/columns/0/format", "nonsense", "no number format"),
        ("display/columns/0/beside", ["reference/none"], "unknown metric"),
        ("title", None, "lacks 'title'"),
        ("display", None, "display must be a mapping"),
    ],
)
def test_mistakes_are_named(path, value, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse(broken(path, value))
    assert "\n" not in str(caught.value)


def test_mistakes_in_a_file_become_one_sentence_with_its_path(tmp_path):
    (tmp_path / "toy").mkdir()
    file = tmp_path / "toy" / "reported.yaml"
    for text in ("a: [", "[]", yaml.safe_dump(broken("cells/0/value", 90.0))):
        file.write_text(text)
        with pytest.raises(UserError, match=r"reported\.yaml") as caught:
            load_reported("toy", tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="choose one of: toy"):
        load_reported("toi", tmp_path)


@pytest.mark.parametrize("paper", available_papers())
def test_every_paper_loads_and_its_selectors_are_well_formed(paper):
    reported = load_reported(paper)
    assert reported.paper == paper
    selectors = [c.experiment for c in reported.cells if c.experiment]
    selectors += [s for c in reported.claims for p in c.parts for s in (p.left, p.right) if isinstance(s, Selector)]
    for selector in selectors:
        assert METHOD.fullmatch(selector.method)
        assert METRIC.fullmatch(selector.metric)
        assert selector.scale in SCALES
    assert {c.confidence for c in reported.cells} <= set(CONFIDENCES)
    assert all(c.source for c in reported.cells)


def test_dvrl_was_typed_as_the_sources_say():
    reported = load_reported("dvrl")
    cells = {c.id: c for c in reported.cells}
    assert [c.id for c in reported.claims if " " not in c.id] == [f"C{i}" for i in range(1, 10)]
    adult = cells["notebook_adult.dvrl"]
    assert (adult.value, adult.confidence, adult.experiment.method) == (0.8272, "exact", "dvrl_official_code")
    assert all(c.confidence == "recalled" for c in reported.cells if c.table == "rossmann_rmspe")
    assert sum(c.table == "rossmann_rmspe" for c in reported.cells) == 48


def test_the_abstract_follows_from_the_cells():
    """The two figures of the abstract are means over cells: a typing error in any of them would show here."""
    v = {c.id: c.value for c in load_reported("dvrl").cells}
    gains = [
        v[f"domain_adaptation.{d}.dvrl"] / v[f"domain_adaptation.{d}.data_shapley"] - 1
        for d in ("ham10000", "usps", "sms")
    ]
    assert 100 * sum(gains) / 3 == pytest.approx(v["headline.domain_adaptation.dvrl_vs_state_of_the_art"], abs=0.05)
    cuts = []
    for kind in ("robust_uniform", "robust_background"):
        for data in ("cifar_10", "cifar_100"):
            rival = 100 - v[f"{kind}.learning_to_reweight.{data}"]
            cuts.append((rival - (100 - v[f"{kind}.dvrl.{data}"])) / rival)
    assert 100 * sum(cuts) / 4 == pytest.approx(v["headline.robust_learning.dvrl_vs_state_of_the_art"], abs=0.05)


def test_supsup_was_typed_as_the_sources_say():
    """Numbers that follow from others: the notebook's means, and a hundred networks of the size of one."""
    reported = load_reported("supsup")
    v = {c.id: c.value for c in reported.cells}
    assert [c.id for c in reported.claims if " " not in c.id] == [f"C{i}" for i in range(1, 12)]
    mean = sum(v[f"notebook.task{t}"] for t in range(5)) / 5
    assert mean == pytest.approx(v["notebook.gns"], abs=1e-9)
    assert mean == pytest.approx(v["notebook.mean"], abs=0.005)
    assert v["fig2_left_bytes.upper_bound"] == pytest.approx(100 * v["fig2_left_bytes.single_model"], rel=1e-4)
    judged = {c.experiment.scale for c in reported.cells if c.experiment}
    assert judged == {"paper"}
