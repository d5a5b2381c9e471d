"""What a command asks for and how far it is, without doing it."""

from __future__ import annotations

import json

import harness
import pytest

from reprise import planned
from reprise.config import group_key, resolved, run_key
from reprise.errors import UserError
from reprise.evidence import collect, state_of
from reprise.records import RunFolder
from reprise.reported import available_papers

OUTPUTS = harness.ROOT / "outputs"
WORDS = ("method=random,loo", "seed=range(0,3)", *(f"{w.replace('=', '=choice(', 1)})" for w in harness.SIZES["dvrl"]))


def told(words, out):
    asked = list(planned.jobs(words))
    return planned.states(asked, out, {paper: collect(out, paper) for paper in available_papers()})


def test_the_jobs_are_those_that_a_sweep_would_do():
    jobs = list(planned.jobs(WORDS))
    assert [job.name.split("-")[0] for job in jobs] == [
        f"{method}/digits/s{seed}" for method in ("random", "loo") for seed in range(3)
    ]
    cfg = harness.compose("method=loo", "seed=2", *harness.SIZES["dvrl"])
    assert jobs[-1].key == run_key(resolved(cfg))
    assert jobs[-1].name == f"loo/digits/s2-{jobs[-1].key}"
    assert jobs[-1].words[:2] == ("method=loo", "seed=2")


def test_a_command_without_a_sweep_is_one_job():
    (job,) = planned.jobs(["method=vae", "hardware=gpu"])
    assert (job.paper, job.name.split("/")[0]) == ("crvae", "vae")


@pytest.mark.parametrize("words", [["method=nothing"], ["seed=range(0"], ["method.module.outer_step=3"], ["seed=-1"]])
def test_words_that_ask_for_nothing_are_refused(words):
    with pytest.raises(UserError) as error:
        list(planned.jobs(words))
    assert "\n" not in str(error.value)


def test_each_job_is_told_with_its_state(tmp_path, capsys):
    names = [job.name for job in planned.jobs(WORDS)]
    folders = [RunFolder(tmp_path / "runs" / name) for name in names]
    folders[0].set_state("failed", "ValueError: no\nluck")
    folders[1].set_state("running")
    folders[2].set_state("interrupted")
    folders[3].path.mkdir(parents=True)
    (folders[3].path / "status.json").write_text("{")
    folders[4].path.mkdir(parents=True)
    (folders[4].path / ".lock").touch()  # its command was refused
    harness.run(harness.small("loo", tmp_path, "seed=2"))
    found = told(WORDS, tmp_path)
    assert [state for _, state, _ in found] == ["failed", "stale", "interrupted", "unreadable", "missing", "finished"]
    assert found[0][2] == "ValueError: no luck"
    assert planned.show(found) == 1
    out = capsys.readouterr().out
    assert "6 jobs: 1 finished, 1 interrupted, 1 stale, 1 failed, 1 unreadable, 1 missing" in out
    assert f"failed  {names[0]}" in out
    assert planned.show(found[-1:]) == 0


def test_a_run_that_is_only_in_the_records_is_recorded():
    found = told(["sweep=supsup/fig6_rotated"], OUTPUTS)
    assert len(found) == 12
    assert {state for _, state, _ in found} == {"recorded"}
    assert planned.show(found) == 0


def test_a_finished_run_whose_record_is_gone_is_unreadable(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.set_state("done")
    assert state_of(folder.path) == ("unreadable", "has no record.json")
    record = next(iter(collect(OUTPUTS, "dvrl", runs=False).records))
    (folder.path / "record.json").write_text(json.dumps(dict(record.raw)))
    (folder.path / "metrics.json").write_text("{")
    assert state_of(folder.path) == ("unreadable", "has an unreadable metrics.json")


@pytest.mark.parametrize("paper", available_papers())
def test_recorded_runs_have_the_keys_that_their_own_words_give(paper):
    """Else the command that is to do what is missing would do all of it again. Every so-manieth record is tried."""
    records = [record for record in collect(OUTPUTS, paper, runs=False).records if record.overrides]
    for record in records[:: max(1, len(records) // 12)]:
        config = resolved(harness.compose(*record.overrides))
        assert (record.run_key, record.group) == (run_key(config), group_key(config)), record.overrides
