"""Files appear whole or not at all, and a run's state survives whatever lies in its folder."""

from __future__ import annotations

import json
import os

import pytest
import yaml

from reprise import records
from reprise.records import RunFolder, environment, write_json, write_text


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "s0-abc")


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deeper" / "a.txt"
    write_text(path, "first")
    write_text(path, "zweite Ü")
    assert path.read_text(encoding="utf-8") == "zweite Ü"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"], "no temporary file stays"
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("moment", ["fdopen", "replace"])
def test_a_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch, moment):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, moment, fail)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_json_does_not_have(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"loss": value})
    assert list(tmp_path.iterdir()) == []


def test_json_is_sorted_and_keeps_every_digit(tmp_path):
    write_json(tmp_path / "a.json", {"b": 0.1 + 0.2, "a": 1})
    text = (tmp_path / "a.json").read_text()
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")
    assert json.loads(text) == {"a": 1, "b": 0.1 + 0.2}


def test_a_new_folder_has_no_state(folder):
    assert folder.state is None
    assert folder.stored_metrics() is None


@pytest.mark.parametrize("text", ["", "{", '{"state"', "{}", "\x00\x01"])
def test_an_unreadable_status_is_no_state(folder, text):
    write_text(folder.path / "status.json", text)
    assert folder.state is None
    assert folder.stored_metrics() is None


@pytest.mark.parametrize("state", ["running", "failed", "interrupted"])
def test_metrics_count_only_when_the_run_is_done(folder, state):
    write_json(folder.path / "metrics.json", {"a": 1.0})
    write_json(folder.path / "record.json", {})
    folder.set_state(state, "ValueError: x" if state == "failed" else None)
    assert folder.state == state
    assert folder.stored_metrics() is None
    folder.set_state("done")
    assert folder.stored_metrics() == {"a": 1.0}
    (folder.path / "record.json").unlink()
    assert folder.stored_metrics() is None
    assert json.loads((folder.path / "status.json").read_text()) == {"state": "done", "error": None}


def test_clearing_keeps_the_lock(folder):
    for name in (".lock", "metrics.json", "masks/task0.pt", ".metrics.json.tmp"):
        write_text(folder.path / name, "x")
    folder.clear()
    assert [p.name for p in folder.path.rglob("*") if p.is_file()] == [".lock"]


def test_the_config_can_be_read_back_in_its_order(folder):
    config = {"seed": 0, "method": {"name": "m", "sizes": [1, 2], "none": None}, "a": 1.0e-3}
    folder.write_config(config)
    read = yaml.safe_load((folder.path / "config.yaml").read_text())
    assert read == config
    assert list(read) == ["seed", "method", "a"]


def test_the_environment_names_versions_hardware_and_data():
    env = environment("sha-of-the-data", "cpu")
    assert env["data"] == "sha-of-the-data"
    assert env["device"] == "cpu"
    assert env["processor_threads"] >= 1
    assert set(env["versions"]) == set(records.PACKAGES)
    assert all(version[0].isdigit() for version in env["versions"].values())
    json.dumps(env, allow_nan=False)


def test_a_copy_outside_git_still_has_an_environment(monkeypatch):
    monkeypatch.setenv("GIT_DIR", os.devnull)
    assert records._git() == (None, None)
    monkeypatch.setenv("PATH", "")
    assert records._git() == (None, None)
