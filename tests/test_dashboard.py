"""The offline runs, read back with W&B's own tool, say what the local files say."""

from __future__ import annotations

import json
import subprocess
import sys

import harness
import pytest
import wandb
from harness import SIZES, SMALL, small

from reprise import callbacks
from reprise.config import content, group_key, resolved
from reprise.errors import UserError

MIRRORED = [option for option in SMALL if option != "logger=csv"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)


def inspect(folder, *options):
    """``wandb leet inspect --json``: one object with ``--summary``, else one per record."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout) if options else [json.loads(line) for line in done.stdout.splitlines()]


def offline_runs(out):
    return sorted((out / "wandb").glob("offline-run-*"))


def history(folder):
    return [r["history"]["item"] for r in inspect(folder) if r["type"] == "history"]


def mirrored(method, out, *overrides):
    return small(method, out, "logger=wandb", "trainer=debug", *overrides)


def test_a_sweep_leaves_one_offline_run_per_job_that_agrees_with_the_local_files(train, tmp_path):
    outcome = train("-m", "method=dvrl,random", *MIRRORED, "trainer=debug", "table=dvrl/label_noise", "seed=3")
    assert outcome.code == 0, outcome.err
    folders = offline_runs(tmp_path / "out")
    records = [harness.read(path) for path in (tmp_path / "out").glob("runs/*/digits/*/record.json")]
    assert len(folders) == len(records) == 2
    shown = {run["run_id"]: run for run in (inspect(folder, "--summary") for folder in folders)}
    assert set(shown) == {record["run_key"] for record in records}
    for record in records:
        run, method = shown[record["run_key"]], record["method"]
        cfg = harness.compose(f"method={method}", *MIRRORED, "trainer=debug", "seed=3")
        assert {name: run["summary"][name] for name in record["metrics"]} == record["metrics"]
        assert {"removal", "values", "discovery", "data_values", "removal_curve"} <= set(run["summary"])
        assert {name: value for name, value in run["config"].items() if name != "_wandb"} == content(resolved(cfg))
        assert (run["state"], run["exit_code"], run["project"]) == ("finished", 0, "reprise")
        assert run["name"] == f"{method} digits seed 3"


def test_a_stream_of_tasks_is_mirrored_with_its_figures_and_tables(tmp_path):
    folder = harness.run(small("supsup", tmp_path, "logger=wandb", "table=supsup/hopfield"))
    (offline_run,) = offline_runs(tmp_path)
    shown, metrics = inspect(offline_run, "--summary"), harness.read(folder / "metrics.json")
    assert {name: shown["summary"][name] for name in metrics} == metrics
    assert {"accuracy", "entropy", "tasks", "curve", "accuracy_matrix"} <= set(shown["summary"])
    (run,) = [record["run"] for record in inspect(offline_run) if record["type"] == "run"]
    assert run["tags"] == ["supsup", "supsup/hopfield"]


def test_files_that_are_no_media_are_kept_as_they_are(tmp_path):
    folder = harness.run(mirrored("rewriting", tmp_path, *SIZES["rewriting"]))
    (run,) = offline_runs(tmp_path)
    shown, metrics = inspect(run, "--summary"), harness.read(folder / "metrics.json")
    assert shown["state"] == "finished"
    assert {name: shown["summary"][name] for name in metrics} == metrics
    (kept,) = (run / "files").glob("*.safetensors")
    assert kept.read_bytes() == (folder / kept.name).read_bytes()


def test_group_job_type_and_tags_let_the_dashboard_compare(tmp_path):
    cfg = mirrored("random", tmp_path, "table=dvrl/label_noise")
    harness.run(cfg)
    (folder,) = offline_runs(tmp_path)
    (run,) = [record["run"] for record in inspect(folder) if record["type"] == "run"]
    assert run["run_group"] == group_key(resolved(cfg))
    assert run["job_type"] == "random/digits"
    assert run["tags"] == ["dvrl", "dvrl/label_noise"]


def test_every_step_is_sent_even_when_they_are_sent_in_bundles(tmp_path):
    cfg = small("dvrl", tmp_path, "logger=wandb", "method.module.outer_steps=7", "logger.every=5")
    folder = harness.run(cfg)
    (offline_run,) = offline_runs(tmp_path)
    sent = history(offline_run)
    header, *lines = (folder / "metrics.csv").read_text().splitlines()
    names = header.split(",")
    assert [row["_step"] for row in sent] == list(range(1, 8))
    for row, line in zip(sent, lines, strict=True):
        assert {name: row[name] for name in names[1:]} == dict(
            zip(names[1:], map(float, line.split(",")[1:]), strict=True)
        )


def test_an_interrupted_and_resumed_run_is_one_offline_run_with_its_whole_history(tmp_path, monkeypatch):
    cfg = small("dvrl", tmp_path, "logger=wandb", "method.module.outer_steps=51")
    original, calls = callbacks.LastCheckpoint.on_train_epoch_end, []

    def stop(*args):
        original(*args)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.LastCheckpoint, "on_train_epoch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            harness.run(cfg)
    (partial,) = offline_runs(tmp_path)
    assert inspect(partial, "--summary")["exit_code"] == 1
    folder = harness.run(cfg)
    (whole,) = offline_runs(tmp_path)
    assert [row["_step"] for row in history(whole)] == list(range(1, 52))
    summary, metrics = inspect(whole, "--summary")["summary"], harness.read(folder / "metrics.json")
    assert {name: summary[name] for name in metrics} == metrics


def test_a_repeated_run_replaces_its_mirror_and_a_stored_one_leaves_it_alone(tmp_path):
    harness.run(mirrored("random", tmp_path))
    (first,) = offline_runs(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    harness.run(mirrored("random", tmp_path))
    assert offline_runs(tmp_path) == [first]
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    folder = harness.run(mirrored("random", tmp_path, "force=true"))
    (second,) = offline_runs(tmp_path)
    summary, metrics = inspect(second, "--summary")["summary"], harness.read(folder / "metrics.json")
    assert {name: summary[name] for name in metrics} == metrics


def test_other_runs_mirrors_are_never_removed(tmp_path):
    harness.run(mirrored("random", tmp_path))
    harness.run(mirrored("random", tmp_path, "seed=1"))
    assert len(offline_runs(tmp_path)) == 2


def test_a_failed_run_is_shown_as_failed(tmp_path, monkeypatch):
    from reprise.papers.dvrl.baselines import RandomValues

    monkeypatch.setattr(RandomValues, "health", lambda self: {"health/x": float("nan")})
    with pytest.raises(FloatingPointError):
        harness.run(mirrored("random", tmp_path))
    (folder,) = offline_runs(tmp_path)
    assert inspect(folder, "--summary")["exit_code"] == 1
    assert wandb.run is None, "the next job of a sweep opens a run of its own"


@pytest.mark.parametrize("how", ["WANDB_MODE=disabled", "logger=csv", "logger.wandb=false", "logger.mode=disabled"])
def test_no_dashboard_leaves_no_trace(tmp_path, monkeypatch, how):
    overrides = [how]
    if how.startswith("WANDB"):
        monkeypatch.setenv(*how.split("="))
        overrides = []
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("nothing may be opened"))
    folder = harness.run(mirrored("random", tmp_path, *overrides))
    assert harness.read(folder / "status.json")["state"] == "done"
    assert not (tmp_path / "wandb").exists()


def break_folder(tmp_path, monkeypatch):
    (tmp_path / "wandb").write_text("a file where the folder should be")


def break_init(tmp_path, monkeypatch):
    def fail(**_):
        raise wandb.errors.CommError("no service")

    monkeypatch.setattr(wandb, "init", fail)


def break_log(tmp_path, monkeypatch):
    def fail(self, *_, **__):
        raise BrokenPipeError("the service died")

    monkeypatch.setattr(wandb.Run, "log", fail)


def break_finish(tmp_path, monkeypatch):
    original = wandb.Run.finish

    def fail(self, *args, **kwargs):
        original(self, *args, **kwargs)
        raise TimeoutError("the service hangs")

    monkeypatch.setattr(wandb.Run, "finish", fail)


@pytest.mark.parametrize("damage", [break_folder, break_init, break_log, break_finish])
def test_whatever_breaks_in_the_dashboard_is_a_warning(tmp_path, monkeypatch, damage):
    damage(tmp_path, monkeypatch)
    folder = harness.run(mirrored("dvrl", tmp_path))
    assert harness.read(folder / "status.json") == {"state": "done", "error": None}
    assert (folder / "metrics.json").exists()
    assert "the run goes on without it" in (folder / "train.log").read_text()
    assert wandb.run is None


def test_an_unknown_mode_is_a_mistake_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "bogus")
    with pytest.raises(UserError, match="bogus is not one of offline, online, disabled"):
        harness.run(mirrored("dvrl", tmp_path))
