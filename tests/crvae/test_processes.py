"""Several processes for one run: they do what one does, and nobody waits for one that is gone."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import harness
import pytest
import torch
from harness import numbers, small

from reprise import processes
from reprise.errors import UserError

TWO = ("hardware=ddp", "hardware.accelerator=cpu")


def history(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def left():
    return multiprocessing.active_children(), torch.distributed.is_initialized(), "LOCAL_RANK" in os.environ


def test_two_processes_and_half_a_batch_each_are_one_process(tmp_path, monkeypatch):
    """Twice in one process, as in a sweep: up to the order of sums, which is all that differs."""
    monkeypatch.setattr("reprise.papers.crvae.artifacts.figures", lambda *args: {})
    for options in (["method=crvae", "seed=0"], ["method=cr_iwae", "seed=1", "method.module.bound.samples=2"]):
        name = options[0].removeprefix("method=")
        one = harness.run(small(name, tmp_path / "one", *options[1:]))
        two = harness.run(small(name, tmp_path / "two", *options[1:], *TWO))
        expected, found = history(one), history(two)
        assert len(found) == len(expected) > 0
        for row, other in zip(expected, found, strict=True):
            assert other == pytest.approx(row, rel=1e-4, abs=1e-5)
        assert numbers(two) == pytest.approx(numbers(one), rel=1e-2, abs=1e-2)
        assert one.name == two.name, "hardware is no part of a run's identity"
        assert left() == ([], False, False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["method.module.batch_size=15"], "batch_size=15 cannot be shared out between hardware.devices=2"),
        (["regime=infonce"], "compares or sums over the inputs of a batch"),
        (["regime=triplet"], "compares or sums over the inputs of a batch"),
        (["method.module.objective=official_literal"], "compares or sums over the inputs of a batch"),
        (["hardware.devices=0"], "hardware.devices=0 cannot be used"),
        (["hardware.devices=auto"], "hardware.devices=auto cannot be used"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        harness.run(small("crvae", tmp_path, *TWO, *changes))
    assert left() == ([], False, False)


def test_layers_that_normalise_over_the_batch_are_refused_on_the_processor(tmp_path):
    sizes = [option for option in harness.SIZES["crvae"] if ".hidden=[" not in option]
    conv = ["network=vae_conv_narrow", "method.datamodule.size=32"]
    cfg = harness.compose("method=crvae", *harness.ALWAYS, *sizes, *conv, f"paths.output_dir={tmp_path}", *TWO)
    with pytest.raises(UserError, match="normalises over the batch"):
        harness.run(cfg)


def test_other_launchers_are_told_that_they_are_not_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="a launcher has set WORLD_SIZE"):
        harness.run(small("crvae", tmp_path, *TWO))


# One that is gone

CONFIG = {"hardware": {"devices": 2, "threads": None}}


def fails(config, folder, ready):
    raise ValueError("no data here")


def works(config, folder, ready):
    ready()
    (folder / os.environ["LOCAL_RANK"]).write_text(os.environ["MASTER_PORT"])


def stays(config, folder, ready):
    ready()
    time.sleep(60)


def test_others_are_placed_and_awaited(tmp_path):
    with processes.beside(CONFIG, tmp_path, works):
        here = os.environ["LOCAL_RANK"], os.environ["MASTER_PORT"]
    assert here[0] == "0"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"1": here[1]}
    assert left() == ([], False, False)


def test_one_that_ends_before_it_is_ready_ends_the_run(tmp_path):
    began = time.monotonic()
    with pytest.raises(ChildProcessError, match="ended early"), processes.beside(CONFIG, tmp_path, fails):
        pytest.fail("nobody waits for it")
    assert time.monotonic() - began < 40
    assert "process 1 ended early" in (tmp_path / "train.log").read_text()
    assert "no data here" in (tmp_path / "train.log").read_text()
    assert left() == ([], False, False)


def kill_one():
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    raise RuntimeError("connection reset by peer")


def test_one_that_is_killed_is_what_the_error_says(tmp_path):
    with pytest.raises(ChildProcessError, match="killed"), processes.beside(CONFIG, tmp_path, stays):
        kill_one()
    assert left() == ([], False, False)


def test_one_that_is_killed_while_it_trains_is_noticed(tmp_path):
    """By a run of the suite: its own words for it, and nothing that is left behind."""

    def kill():
        until = time.monotonic() + 60
        while time.monotonic() < until and not list(tmp_path.glob("runs/*/*/*/last.ckpt")):
            time.sleep(0.1)
        for other in multiprocessing.active_children():
            os.kill(other.pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(ChildProcessError, match="ended early"):
        harness.run(small("crvae", tmp_path, *TWO, "method.module.epochs=100000"))
    assert left() == ([], False, False)
    (status,) = tmp_path.glob("runs/*/*/*/status.json")
    assert json.loads(status.read_text())["state"] == "failed"


def orphaned(config, folder, ready):
    (folder / "pid").write_text(str(os.getpid()))
    ready()
    time.sleep(60)


LEADER = """
import os, signal, sys, time
from pathlib import Path
sys.path[:0] = [{here!r}]
from reprise import processes
from test_processes import CONFIG, orphaned
if __name__ == "__main__":
    with processes.beside(CONFIG, Path({folder!r}), orphaned):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_others_end_with_the_first_one_however_that_ends(tmp_path):
    script = tmp_path / "leader.py"
    script.write_text(LEADER.format(here=str(Path(__file__).parent), folder=str(tmp_path)))
    helpers = os.pathsep.join([str(harness.ROOT / "tests"), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, script], env=os.environ | {"PYTHONPATH": helpers}, check=False, capture_output=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    other = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 20
    while Path(f"/proc/{other}").exists() and "Z" not in Path(f"/proc/{other}/stat").read_text().split(") ")[-1][:1]:
        assert time.monotonic() < until, "it stays for ever"
        time.sleep(0.1)


def test_an_error_of_the_first_one_ends_the_others(tmp_path):
    with pytest.raises(FloatingPointError), processes.beside(CONFIG, tmp_path, stays):
        raise FloatingPointError("the loss became nan")
    assert left() == ([], False, False)


def test_cores_are_shared_out():
    cores = os.cpu_count()
    assert processes.threads({"hardware": {"devices": 1, "threads": None}}) is None
    assert processes.threads({"hardware": {"devices": 2, "threads": None}}) == max(1, cores // 2)
    assert processes.threads({"hardware": {"devices": 2, "threads": 3}}) == 3
