"""A disk without space: what became of the jobs is still told, in a sentence each."""

from __future__ import annotations

import errno
import logging
import os
from types import SimpleNamespace

import pytest

from reprise import cli, ledger, run

FULL = OSError(errno.ENOSPC, "No space left on device")
CONFIG = {"method": {"name": "loo", "paper": "dvrl"}, "dataset": {"name": "digits"}, "seed": 3}


def test_the_sentence_says_what_to_do(capsys):
    assert cli.explain(FULL) == 2
    assert capsys.readouterr().err == (
        "reprise: there is no space left: free some, and the same command does what is missing.\n"
    )
    assert cli.explain(OSError(errno.ENOSPC, "No space", "/there/file")) == 2
    assert "no space left for '/there/file'" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(cli.os, "dup2", lambda *handles: None)
        patched.setattr(cli.sys, "stdout", SimpleNamespace(fileno=lambda: 1))
        assert cli.explain(BrokenPipeError(32, "Broken pipe")) == 0
    of_a_run = BrokenPipeError(32, "Broken pipe")
    of_a_run.add_note("here/train.log")
    assert cli.explain(of_a_run) == 1
    assert "the run failed: BrokenPipeError" in capsys.readouterr().err


def test_an_error_without_a_file_is_no_run_that_failed(capsys):
    assert cli.explain(OSError(5, "Input/output error")) == 2
    assert capsys.readouterr().err == "reprise: this cannot go on: Input/output error.\n"


def test_a_job_whose_line_cannot_be_written_is_remembered(tmp_path, monkeypatch):
    ledger.start()
    path = tmp_path / f"sweep-{os.getpid()}.jsonl"
    monkeypatch.setenv(ledger.VARIABLE, str(path))
    ledger.append(CONFIG, "done", folder="a")
    monkeypatch.setattr(ledger.Path, "open", lambda *args: (_ for _ in ()).throw(FULL))
    ledger.append(CONFIG, "failed", error="OSError: full")
    monkeypatch.undo()
    monkeypatch.setenv(ledger.VARIABLE, str(path))
    with path.open("a") as file:
        file.write('{"method": "lo')  # cut short
    ledger.append(CONFIG, "stored")
    assert [entry["state"] for entry in ledger.entries()] == ["done", "stored", "failed"]
    ledger.start()
    assert not ledger.active()
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "other.jsonl"))
    assert ledger.entries() == []


def test_a_worker_whose_line_cannot_be_written_says_so_to_its_launcher(tmp_path, monkeypatch):
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "sweep-1.jsonl"))  # opened by another process
    monkeypatch.setattr(ledger.Path, "open", lambda *args: (_ for _ in ()).throw(FULL))
    with pytest.raises(OSError, match="No space left"):
        ledger.append(CONFIG, "failed", error="OSError: full")


def test_a_log_that_cannot_be_written_makes_no_noise(tmp_path, monkeypatch, capsys):
    handler = run._LogFile(tmp_path / "train.log")

    def full(*args):
        raise FULL

    monkeypatch.setattr(handler, "flush", full)
    handler.emit(logging.LogRecord("reprise", logging.INFO, "", 0, "a word", (), None))
    handler.close()
    assert capsys.readouterr().err == ""


def test_the_first_error_is_the_one_that_is_told(tmp_path, monkeypatch):
    """Also where that the run has failed cannot be written down."""
    import harness

    def full(*args):
        raise FULL

    monkeypatch.setattr(run, "_train", lambda *args: 1 / 0)
    monkeypatch.setattr(run.RunFolder, "set_state", lambda folder, state, *error: full() if error else None)
    with pytest.raises(ZeroDivisionError):
        harness.run(harness.small("loo", tmp_path))
