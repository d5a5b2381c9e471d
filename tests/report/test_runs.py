"""The commands that repeat runs, and what a group of runs tells."""

from __future__ import annotations

import shlex

import pytest
from toy_runs import rec, write_paper

from reprise.report.content import cost_by_table
from reprise.report.runs import command, run_groups
from reprise.reported import load_reported


@pytest.fixture
def reported(tmp_path):
    return load_reported("toy", write_paper(tmp_path))


def test_one_command_repeats_all_seeds():
    runs = [rec(seed=s, overrides=["sweep=toy/a", "method=ours", f"seed={s}", "at=[1,2]"]) for s in (3, 0)]
    told = command(runs)
    assert told == "python train.py -m sweep=toy/a method=ours 'at=[1,2]' seed=0,3"
    assert "at=[1,2]" in shlex.split(told)


def test_a_single_run_needs_no_multirun():
    assert command([rec(overrides=["method=ours", "seed=0"])]) == "python train.py method=ours seed=0"


def test_a_command_that_was_not_kept_is_marked(reported):
    (kept,) = run_groups(reported, [rec(overrides=["method=ours", "seed=0"])])
    (lost,) = run_groups(reported, [rec()])
    assert kept.exact
    assert not lost.exact
    assert lost.command == "python train.py method=ours dataset=toy scale=cpu seed=0"


def test_groups_hold_repetitions_in_the_order_of_scales_and_methods(reported):
    records = [rec("base", 1), rec("base", 0), rec("ours", 0), rec("ours", 0, scale="paper", group="p", run_key="p")]
    found = run_groups(reported, records)
    assert [(g.name, [r.seed for r in g.records]) for g in found] == [
        ("Ours, toy, paper scale", [0]),
        ("Ours, toy, cpu scale", [0]),
        ("Base, toy, cpu scale", [0, 1]),
    ]


def test_a_group_tells_its_settings_without_class_paths(reported):
    settings = {"_target_": "a.B", "net": {"_target_": "a.Net", "width": 3}, "rate": 0.1}
    (group,) = run_groups(reported, [rec(settings=settings)])
    assert group.settings == {"net": "Net", "net.width": 3, "rate": 0.1}
    assert group.noted("commit") == "abc"
    assert group.noted("gpu") == "not recorded"


def test_cost_sums_the_hours_of_a_sweep_and_keeps_the_highest_memory():
    metrics = {"time/fit_seconds": 1800.0, "time/evaluation_seconds": 360.0}
    most = enumerate((2e9, 3e9))
    runs = [rec(seed=s, table="toy/a", metrics=metrics | {"memory/peak_bytes": size}) for s, size in most]
    table = cost_by_table([*runs, rec(seed=5, scale="paper", table="toy/a", metrics={}), rec(seed=9, metrics={})])
    assert table.rows == (
        ("(single runs)", "cpu", "1", "-", "-", "-", "cpu", "-"),
        ("toy/a", "cpu", "2", "1.00", "0.20", "3.0", "cpu", "python train.py sweep=toy/a"),
        ("toy/a", "paper", "1", "-", "-", "-", "cpu", "python train.py sweep=toy/a scale=paper"),
    )
