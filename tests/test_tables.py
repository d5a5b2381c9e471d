"""Tables, summaries and the command that writes them, on made-up runs."""

from __future__ import annotations

import importlib.util
import io
import random
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from toy_runs import raw, rec, seeds, write, write_paper

from reprise.evidence import collect, records_path, save_records
from reprise.judging import matches
from reprise.layout import Table, describe, show, to_markdown, varying
from reprise.reported import load_reported
from reprise.results import results_tables
from reprise.stats import interval
from reprise.summary import claim_lines, print_sweep, summary_of_run
from reprise.tables import SECTIONS, markdown

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def papers(tmp_path) -> Path:
    return write_paper(tmp_path)


@pytest.fixture
def reported(papers):
    return load_reported("toy", papers)


def script():
    spec = importlib.util.spec_from_file_location("table_script", ROOT / "scripts" / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(*argv: str, root: Path, papers: Path, out: Path) -> int:
    return script().main([*argv, "--output-dir", str(out)], root=root, papers_dir=papers)


def spoken(renderable) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


# --- rendering --------------------------------------------------------------------------------------------------------


def test_markdown_is_a_plain_grid():
    text = to_markdown([Table("T", ("a", "b"), (("1", "x | y"),), "cap", ("note",))])
    assert text == "### T\n\ncap\n\n| a | b |\n| --- | --- |\n| 1 | x \\| y |\n\nnote\n"


def test_numbers_and_conditions_as_text():
    assert show(interval([1.0, 2.0, 3.0]), ".1f") == "2.0 ± 2.5"
    assert show(interval([1.0, 2.0, 3.0]), ".1f", signed=True) == "+2.0 ± 2.5"
    assert show(interval([0.5]), ".3f") == "0.500"
    assert show(None, ".3f") == "-"
    assert show(interval([float(i) for i in range(10)]), ".0f").startswith("4 [")
    assert describe({"b": 1, "a": 2}) == "a 2, b 1"
    assert varying([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 0}]) == ["b", "c"]


def test_tables_show_paper_and_ours_honestly(reported):
    records = seeds("ours", [0.7, 0.7, 0.7]) + seeds("base", [0.8, 0.8, 0.8])
    text = markdown(reported, records, ("claims", "evidence", "comparison", "results"))
    assert "| C1 | Ours is better than a \\| base. | REFUTED |" in text
    assert "90.00 ± 0.50°" in text
    assert "80.00?" in text
    assert "n/a (not recovered)" in text
    assert "| C2 | It is cheap. | NOT RUN | needs a sweep |" in text
    assert "0/3" in text
    assert "unused" not in text  # a column that nothing fills is left out
    assert "3.0" not in text  # wall-clock time stays in the cost table
    assert "3.0" in markdown(reported, records, ("cost",))


def test_no_table_mixes_scales(reported):
    records = seeds("ours", [0.7] * 3) + seeds("ours", [0.8] * 3, scale="paper")
    titles = [table.title for table in results_tables(reported, records)]
    assert titles == ["Results: toy, paper scale", "Results: toy, cpu scale"]


def test_the_same_evidence_gives_the_same_bytes(reported, tmp_path):
    runs = [raw(m, s, 0.9 - s / 100) for m in ("ours", "base") for s in range(12)]
    texts = []
    for attempt in range(2):
        random.Random(attempt).shuffle(runs)
        out = tmp_path / str(attempt)
        for run in runs:
            write(out, run)
        save_records(out, "toy")
        tables = markdown(reported, collect(out, "toy").records, SECTIONS)
        texts.append((records_path(out, "toy").read_bytes(), tables.encode()))
    assert texts[0] == texts[1]


def test_the_summary_of_one_run_names_numbers_references_and_verdicts(reported):
    text = spoken(summary_of_run(raw(accuracy=0.8), reported))
    assert "all rows 0.850, chance 0.200" in text
    assert "collapsed no" in text
    assert "C1 needs Base on the same data and seed; verdict NOT RUN: 0 of 3 seeds" in text
    assert "C1 (our check) did not hold on this seed (0.800, not > 0.850 (all rows)); verdict INCONCLUSIVE" in text
    others = seeds("ours", [0.8, 0.81, 0.8]) + seeds("base", [0.7, 0.7, 0.71])
    assert "C1 held on this seed (0.800 > 0.700 (Base)); verdict SUPPORTED: 3 seeds" in claim_lines(
        others[0], reported, others
    )


def test_rivals_stand_beside_a_run_where_they_are_at_hand(reported):
    shown = replace(reported, display=replace(reported.display, rivals=("base",)))
    others = [rec("base", seed=0, accuracy=0.734), rec("base", seed=1, accuracy=0.555)]
    with_them, without = (spoken(summary_of_run(raw(accuracy=0.8), r, others)) for r in (shown, reported))
    assert with_them.count("0.734") == without.count("0.734") + 1, "a column, beside what the claims say"
    assert "0.555" not in with_them, "another seed"


def test_a_baselines_summary_says_what_it_waits_for(reported):
    assert claim_lines(rec("base"), reported) == [
        "C1 needs Ours on the same data and seed; verdict NOT RUN: 0 of 3 seeds"
    ]


@pytest.mark.parametrize(
    ("changes", "line"), [({"scale": "smoke"}, "tests the mechanics"), ({"dataset": "mine"}, "No claim of the paper")]
)
def test_runs_that_no_claim_speaks_about(reported, changes, line):
    assert line in claim_lines(rec(**changes), reported)[0]


def test_a_sweep_ends_with_its_table_and_its_failures(tmp_path, capsys):
    done = write(tmp_path, raw("dvrl", paper="dvrl"))
    entry = {"method": "dvrl", "dataset": "toy", "paper": "dvrl", "error": None}
    failed = entry | {"seed": 1, "state": "failed", "error": "ValueError: [boom]", "folder": "somewhere"}
    print_sweep([entry | {"seed": 0, "state": "done", "folder": str(done)}, failed])
    text = capsys.readouterr().out
    assert "Results: toy, cpu scale" in text
    assert "2 jobs: 1 done, 1 failed" in text
    assert "dvrl on toy, seed 1: ValueError: [boom]" in text


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, papers):
    for seed in range(3):
        write(tmp_path / "out", raw("ours", seed, 0.9))
        write(tmp_path / "out", raw("base", seed, 0.8))
    (tmp_path / "README.md").write_text("before\n<!-- table:toy:claims -->\nold\n<!-- /table:toy:claims -->\nafter\n")
    (papers / "toy" / "README.md").write_text("<!-- table:toy -->\n<!-- /table:toy -->\n")
    return {"root": tmp_path, "papers": papers, "out": tmp_path / "out"}


def test_recording_renewing_and_the_drift_check(place, capsys):
    assert command("toy", "--check", **place) == 1  # the README says "old"
    assert command("toy", "--record", "--readme", **place) == 0
    readme = (place["root"] / "README.md").read_text()
    assert readme.startswith("before\n<!-- table:toy:claims -->")
    assert readme.endswith("<!-- /table:toy:claims -->\nafter\n")
    assert "SUPPORTED" in readme
    assert "Results: toy" not in readme
    assert "Results: toy" in (place["papers"] / "toy" / "README.md").read_text()
    assert (place["out"] / "tables" / "toy_cost.md").exists()
    assert command("all", "--check", **place) == 0
    (place["root"] / "README.md").write_text(readme.replace("SUPPORTED", "REFUTED"))
    capsys.readouterr()
    assert command("all", "--check", **place) == 1
    assert "README.md differs" in capsys.readouterr().out


def test_unrecorded_runs_enter_no_readme(place):
    assert command("toy", "--readme", **place) == 0
    assert "SUPPORTED" not in (place["root"] / "README.md").read_text()


def test_status_names_failures_and_writes_nothing(place, capsys):
    write(place["out"], raw(seed=9), state="failed", error="ValueError: boom")
    assert command("toy", "--status", **place) == 0
    text = capsys.readouterr().out
    assert "6 finished (6 not in the record file: add --record)" in text
    assert "1 failed" in text
    assert "ValueError: boom" in text
    assert not (place["out"] / "tables").exists()


def test_wrong_input_is_one_sentence_and_code_two(place, capsys):
    assert command("tyo", **place) == 2
    assert capsys.readouterr().err == "reprise: there is no paper 'tyo'; choose one of: toy, all, report.\n"
    (place["root"] / "README.md").write_text("<!-- table:toy:clams -->\n<!-- /table:toy:clams -->\n")
    assert command("toy", "--readme", **place) == 2
    assert "names no section" in capsys.readouterr().err


def test_the_committed_readmes_agree_with_the_committed_records():
    module = script()
    stale = module.drifted(module.available_papers(), ROOT / "outputs", ROOT, module.PAPERS_DIR)
    assert [str(path) for path, _, _ in stale] == []


def test_the_lines_of_a_run_leave_out_checks_of_another_recipe() -> None:
    reported = load_reported("dvrl")
    records = collect(ROOT / "outputs", "dvrl", runs=False).records
    there = {"noise_rate": 0.2, "validation_size": 400}
    runs = [r for r in records if (r.dataset, r.seed, r.variant) == ("digits", 0, "") and matches(there, r.condition)]
    verdicts = {}
    for method in ("dvrl", "dvrl_paper"):
        run = next(r for r in runs if r.method == method)
        (line,) = (x for x in claim_lines(run, reported, records) if x.startswith("C2 (our check)"))
        verdicts[method] = "SUPPORTED" in line
    assert verdicts == {"dvrl": True, "dvrl_paper": False}
