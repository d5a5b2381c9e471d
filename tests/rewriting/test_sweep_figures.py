"""Success against collateral from records, and edits from the runs' own figures."""

from __future__ import annotations

import torch
from matplotlib.image import imsave

from reprise.evidence import Record
from reprise.papers.rewriting.charts import charts
from reprise.papers.rewriting.sweep_figures import HIGHER, draw, rules
from reprise.report.charts import SHAPES
from reprise.reported import load_reported

REPORTED = load_reported("rewriting")
METHODS = ("rewriting", "raw_key", "finetune_layer")


def run(method="rewriting", seed=0, edit="flat -> dome", rank=1, **metrics):
    known = {"edit/success": 0.5 + seed / 10, "collateral/l1_outside": 0.02, "ceiling/success": 0.9}
    raw = {
        "paper": "rewriting",
        "method": method,
        "dataset": "scenes",
        "seed": seed,
        "scale": "cpu",
        "run_key": f"{method}{seed}" + ("" if rank == 1 else f"-{rank}"),
        "group": method if rank == 1 else f"{method}-{rank}",
        "protocol": edit,
        "condition": {"edit": edit},
        "settings": {"recipe": {"rank": rank}},
        "table": "rewriting/objects",
        "metrics": {name: value for name, value in (known | metrics).items() if value is not None},
    }
    return Record.of(raw)


def test_a_rule_needs_three_methods_that_were_judged_on_it():
    two = [run(method) for method in METHODS[:2]]
    assert rules(REPORTED, two, "cpu") == {}
    blind = run("finetune_layer", **{"ceiling/success": None})
    assert rules(REPORTED, [*two, blind], "cpu") == {}
    assert list(rules(REPORTED, [run(method) for method in METHODS], "cpu")) == ["flat -> dome"]


def test_a_point_per_method_at_its_means(tmp_path):
    runs = [run(method, seed) for method in METHODS for seed in (0, 2)]
    figures, notes = draw(REPORTED, runs, tmp_path)
    assert list(figures) == ["tradeoff_cpu"]
    assert notes == ["the run rewriting s0-rewriting0 is not in " + f"{tmp_path}, its images are left out."]
    (ax,) = figures["tradeoff_cpu"].axes
    large = [line for line in ax.lines if line.get_label() in REPORTED.display.methods.values()]
    assert [(line.get_xdata()[0], round(float(line.get_ydata()[0]), 6)) for line in large] == [(0.02, 0.6)] * 3


def test_edits_are_shown_from_the_first_run_of_each_rule(tmp_path):
    folder = tmp_path / "runs/rewriting/scenes/s0-rewriting0"
    folder.mkdir(parents=True)
    imsave(folder / "edit.png", torch.rand(20, 40, 3).numpy())
    figures, notes = draw(REPORTED, [run(seed=1), run()], tmp_path)
    assert (list(figures), notes) == (["edits_cpu"], [])


def test_the_report_has_the_same_chart(tmp_path):
    (chart,) = charts(REPORTED, [run(method, seed) for method in METHODS for seed in (0, 2)], tmp_path)
    assert [panel.title for panel in chart.panels] == ["flat -> dome; ceiling 0.90"]
    assert {series.name for series in chart.series} == {REPORTED.display.methods[method] for method in METHODS}
    assert charts(REPORTED, [], tmp_path) == []


def test_the_highest_rank_stands_beside_rank_one_where_it_has_the_same_seeds(tmp_path):
    one = [run(method, seed) for method in METHODS for seed in (0, 2)]
    two = [run(seed=seed, rank=2, **{"edit/success": 0.8}) for seed in (0, 2)]
    three = [run(seed=seed, rank=3, **{"edit/success": 0.9}) for seed in (0, 2)]
    eight = run(seed=0, rank=8)  # of one seed alone
    (chart,) = charts(REPORTED, [*one, eight, *two, *three], tmp_path)
    (panel,) = chart.panels
    rows = {row["series"]: row["mean"] for row in panel.spec["data"]["values"]}
    assert rows[HIGHER] == 0.9
    assert rows[REPORTED.display.methods["rewriting"]] == 0.6
    (entry,) = [series for series in chart.series if series.name == HIGHER]
    assert entry.shape not in SHAPES.values()
    (chart,) = charts(REPORTED, [*one, two[0]], tmp_path)
    assert HIGHER not in {series.name for series in chart.series}
