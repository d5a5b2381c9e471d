"""Which runs become evidence, and the verdicts they lead to."""

from __future__ import annotations

import json

import filelock
import pytest
from toy_runs import raw, rec, seeds, write, write_paper

from reprise.errors import UserError
from reprise.evidence import collect, records_path, save_records
from reprise.judging import judge_cell, judge_claim, pair, unknown_conditions
from reprise.reported import load_reported
from reprise.results import results_tables
from reprise.stats import CellVerdict, ClaimVerdict


@pytest.fixture
def reported(tmp_path):
    return load_reported("toy", write_paper(tmp_path))


# --- collecting -------------------------------------------------------------------------------------------------------


def test_only_finished_runs_of_the_paper_are_evidence_and_the_rest_is_named(tmp_path):
    write(tmp_path, raw(seed=0))
    write(tmp_path, raw(seed=1), state="running")
    write(tmp_path, raw(seed=2), state="failed", error="ValueError: boom\nmore")
    write(tmp_path, raw(seed=3, scale="smoke"))
    write(tmp_path, raw(seed=4, paper="another"))
    write(tmp_path, raw(seed=5, paper="another"), state="failed", error="not ours")
    (write(tmp_path, raw(seed=6)) / "record.json").write_text('{"half')
    (write(tmp_path, raw(seed=7)) / "record.json").unlink()
    (write(tmp_path, raw(seed=8)) / "status.json").write_text("[]")
    (write(tmp_path, raw(seed=9)) / "record.json").write_text('{"paper": "toy"}')
    found = collect(tmp_path, "toy")
    assert [r.seed for r in found.records] == [0]
    assert found.smoke == 1
    assert len(found.running) == 1
    assert [error for _, error in found.failed] == ["ValueError: boom more"]
    reasons = sorted(reason for _, reason in found.damaged)
    assert len(reasons) == 4
    assert "has an unreadable record.json" in reasons
    assert "has no record.json" in reasons
    assert "lacks a usable 'method'" in reasons


def test_a_folder_that_holds_nothing_but_a_lock_is_passed_over(tmp_path):
    folder = write(tmp_path, raw(seed=0))
    for file in folder.iterdir():
        file.unlink()
    (folder / ".lock").touch()
    found = collect(tmp_path, "toy")
    assert (found.records, found.damaged) == ([], [])


def test_an_empty_output_folder_is_no_error(tmp_path):
    assert collect(tmp_path / "nowhere", "toy").records == []


def test_recording_merges_sorts_and_replaces_older_versions(tmp_path):
    write(tmp_path, raw(seed=1))
    write(tmp_path, raw(seed=0))
    write(tmp_path, raw(seed=2, scale="smoke"))
    assert save_records(tmp_path, "toy") == 2
    path = records_path(tmp_path, "toy")
    first = path.read_bytes()
    assert [json.loads(line)["seed"] for line in first.splitlines()] == [0, 1]
    assert save_records(tmp_path, "toy") == 0
    assert path.read_bytes() == first
    again = raw(seed=1, accuracy=0.5)
    again["env"]["finished"] = "2027"
    write(tmp_path, again)
    assert save_records(tmp_path, "toy") == 1
    assert [json.loads(line)["metrics"]["test/accuracy"] for line in path.read_text().splitlines()] == [0.9, 0.5]


def test_records_outlive_their_run_folders(tmp_path):
    path = records_path(tmp_path, "toy")
    path.parent.mkdir()
    path.write_text(json.dumps(raw(seed=5)) + "\n\n" + json.dumps(raw(seed=6, scale="smoke")) + "\n")
    found = collect(tmp_path, "toy")
    assert [r.seed for r in found.records] == [5]
    assert found.unrecorded == []


def test_a_damaged_record_line_is_skipped_when_reading_and_never_overwritten(tmp_path):
    path = records_path(tmp_path, "toy")
    path.parent.mkdir()
    path.write_text("<<<<<<< HEAD\n" + json.dumps(raw(seed=5)) + "\n")
    write(tmp_path, raw(seed=0))
    assert len(collect(tmp_path, "toy").records) == 2
    with pytest.raises(UserError, match=r"jsonl:1 is not valid JSON"):
        save_records(tmp_path, "toy")
    assert "<<<<<<<" in path.read_text()


def test_a_metric_that_is_not_finite_becomes_null_and_counts_as_missing(tmp_path):
    write(tmp_path, raw(accuracy=float("nan")))
    save_records(tmp_path, "toy")
    assert '"test/accuracy":null' in records_path(tmp_path, "toy").read_text()
    assert collect(tmp_path, "toy", runs=False).records[0].metric("test/accuracy") is None


# --- judging ----------------------------------------------------------------------------------------------------------


def claim_of(reported, records, scale="cpu"):
    return judge_claim(reported.claims[0], records, scale)


def test_runs_are_paired_by_seed_and_only_on_the_same_data(reported):
    records = [
        *seeds("ours", [0.9, 0.8, 0.7]),
        rec("base", 1, 0.5),
        rec("base", 2, 0.6),
        rec("base", 0, 0.1, protocol="x"),
    ]
    pairs, broken = pair(reported.claims[0].parts[0], [r for r in records if r.protocol != "x"], "cpu", "toy")
    assert pairs == [(1, 0.8, 0.5), (2, 0.7, 0.6)]
    assert broken == []
    assert claim_of(reported, records).sites[0].parts[0].judgement.n == 2


def test_a_claim_on_one_data_set(reported):
    result = claim_of(reported, seeds("ours", [0.9, 0.91, 0.9]) + seeds("base", [0.8, 0.8, 0.79]))
    assert result.verdict is ClaimVerdict.SUPPORTED
    assert "held on 3 of 3" in result.reason
    assert claim_of(reported, seeds("ours", [0.7, 0.71, 0.7]) + seeds("base", [0.8, 0.8, 0.79])).verdict == "REFUTED"
    assert claim_of(reported, seeds("ours", [0.9, 0.9]) + seeds("base", [0.8, 0.8])).verdict == "INCONCLUSIVE"
    assert claim_of(reported, seeds("ours", [0.9] * 3)).verdict == "NOT RUN"
    assert claim_of(reported, []).verdict == "NOT RUN"
    assert judge_claim(reported.claims[1], [], "cpu").reason == "needs a sweep"


def test_scales_are_never_mixed(reported):
    records = seeds("ours", [0.9] * 3, scale="paper") + seeds("base", [0.8] * 3)
    assert claim_of(reported, records, "cpu").verdict == claim_of(reported, records, "paper").verdict == "NOT RUN"


@pytest.mark.parametrize(
    ("other", "expected", "told"),
    [
        ([0.9, 0.9, 0.9], "SUPPORTED", "supported on toy, other"),
        ([0.1, 0.1, 0.1], "REFUTED", "supported on toy; refuted on other"),
        ([0.9, 0.1, 0.9], "INCONCLUSIVE", "supported on toy; inconclusive on other"),
    ],
)
def test_a_claim_over_data_sets_is_no_better_than_its_worst(reported, other, expected, told):
    records = seeds("ours", [0.9] * 3) + seeds("base", [0.5] * 3)
    records += seeds("ours", other, dataset="other") + seeds("base", [0.5] * 3, dataset="other")
    result = claim_of(reported, records)
    assert (result.verdict, result.reason) == (expected, told)
    assert [site.dataset for site in result.sites] == ["toy", "other"]


def test_the_suites_own_checks_do_not_move_the_verdict(reported):
    result = claim_of(reported, seeds("ours", [0.7, 0.7, 0.71]) + seeds("base", [0.5] * 3))
    assert result.verdict is ClaimVerdict.SUPPORTED
    assert [p.judgement.verdict for p in result.sites[0].parts] == ["SUPPORTED", "REFUTED"]


def test_other_conditions_are_left_out_and_a_stray_run_does_not_undo_a_verdict(reported):
    both = seeds("ours", [0.9] * 3) + seeds("base", [0.5] * 3)
    clean = {"condition": {"rate": 0.0}}
    assert len(claim_of(reported, [*both, rec("ours", 0, 0.1, **clean), rec("base", 0, 0.9, **clean)]).sites) == 1
    small = {"condition": {"rate": 0.2, "rows": 10}}
    result = claim_of(reported, [*both, rec("ours", 0, 0.1, **small), rec("base", 0, 0.9, **small)])
    assert result.verdict is ClaimVerdict.SUPPORTED
    assert sorted(site.counted for site in result.sites) == [False, True]
    full = seeds("ours", [0.1] * 3, **small) + seeds("base", [0.9] * 3, **small)
    assert claim_of(reported, both + full).verdict is ClaimVerdict.REFUTED


def test_a_seed_without_a_finite_value_keeps_a_claim_from_being_supported(reported):
    result = claim_of(reported, seeds("ours", [0.9, 0.9, 0.9, float("nan")]) + seeds("base", [0.5] * 4))
    assert result.verdict is ClaimVerdict.INCONCLUSIVE
    assert "no finite value on seed 3" in result.reason


def test_of_two_configurations_the_one_with_more_seeds_stands_for_the_method(reported):
    tuned = [rec("ours", s, 0.1, group="tuned", settings={"steps": 9}) for s in range(2)]
    records = seeds("ours", [0.9] * 3, settings={"steps": 5}) + tuned + seeds("base", [0.5] * 3)
    assert claim_of(reported, records).verdict is ClaimVerdict.SUPPORTED
    (table,) = results_tables(reported, records)
    assert [row[0] for row in table.rows] == ["Ours [steps 5]", "Ours [steps 9]", "Base"]
    assert "first row" in table.notes[0]
    late = [rec("ours", s, 0.1, group="late", env={"finished": "2027"}) for s in range(3)]
    assert claim_of(reported, records + late).verdict is ClaimVerdict.REFUTED


def test_cells_are_judged_in_their_own_unit_at_each_scale(reported):
    cell = reported.cells[0]
    (alone,) = judge_cell(cell, [])
    assert alone.judgement.verdict is CellVerdict.NOT_RUN
    numbers = [0.899, 0.9, 0.901]
    records = seeds("ours", numbers) + seeds("ours", numbers, scale="paper")
    cpu, paper = judge_cell(cell, records)
    assert (cpu.scale, cpu.judgement.verdict) == ("cpu", CellVerdict.PARTIAL)
    assert (paper.scale, paper.judgement.verdict) == ("paper", CellVerdict.REPRODUCED)
    assert paper.ours.mean == pytest.approx(90.0)
    broken = [*records, rec("ours", 3, float("inf"), scale="paper")]
    assert judge_cell(cell, broken)[1].judgement.verdict is CellVerdict.PARTIAL


def test_nested_conditions_are_flattened_and_unknown_ones_told(reported):
    assert rec(condition={"noise": {"rate": 0.2}}).condition == {"noise.rate": 0.2}
    assert unknown_conditions(reported, [rec(condition={"noise": {"rate": 0.2}})]) == ["rate"]
    assert unknown_conditions(reported, [rec()]) == []


def test_a_run_whose_process_is_gone_is_stale(tmp_path):
    write(tmp_path, raw(seed=1), state="running")
    (found,) = collect(tmp_path, "toy").running
    assert found.endswith("(stale)")
    (folder,) = (tmp_path / "runs").glob("*/*/s*")
    with filelock.FileLock(folder / ".lock"):
        (found,) = collect(tmp_path, "toy").running
    assert found.endswith("(running)")
