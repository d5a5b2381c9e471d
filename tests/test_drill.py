"""The fault drill: a sweep of every method under kills, two launchers, a full disk, a read-only folder, wrong clocks
and damaged files ends as one that was left alone. ``make test-drill``; needs root, for its own disks, and faketime.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import harness
import pytest
from harness import PAPERS, SIZES, methods_of

pytestmark = [
    pytest.mark.drill,
    pytest.mark.skipif(os.geteuid() != 0, reason="a disk that is full or read-only is mounted by root"),
    pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed: apt-get install faketime"),
]
ORDER = ("dvrl", "supsup", "crvae", "rewriting")
SEEDS = {"dvrl": "0,1"}  # of the others one, which makes 62 jobs
JOBS = len(PAPERS) + len(methods_of("dvrl"))
KILLS = 24
CLOCKS = ((), ("faketime", "-f", "+3d"), ("faketime", "-f", "-400d"))
TIMES = ("time/", "memory/")


def words(paper, out):
    """The command of a paper's sweep; in a sweep over methods, their keys are written as choices."""
    sizes = [w if "." not in w.partition("=")[0] else f"{w.replace('=', '=choice(', 1)})" for w in SIZES[paper]]
    methods = ",".join(methods_of(paper))
    return [f"method={methods}", f"seed={SEEDS.get(paper, '0')}", *harness.ALWAYS, *sizes, f"paths.output_dir={out}"]


class Launcher:
    """Does all papers' sweeps one after the other, however often it is killed."""

    def __init__(self, out, log, order=ORDER):
        self.out, self.log, self.left, self.process = out, log.open("ab"), list(order), None

    def go_on(self, clock=()):
        command = [*clock, sys.executable, "train.py", "-m", *words(self.left[0], self.out)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self.process = subprocess.Popen(
            command, cwd=harness.ROOT, env=environment, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def ended(self):
        """Whether its sweep is done; the next one's turn then."""
        if self.process.poll() is None:
            return False
        assert self.process.returncode == 0, f"the sweep of {self.left[0]} ended with {self.process.returncode}"
        self.left.pop(0)
        return True

    def kill(self):
        """How many were killed: 1, or 0 where it had ended."""
        if self.process.poll() is not None:
            return 0
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return 1

    def finish(self):
        """All that is left, undisturbed; what each sweep said at its end."""
        while self.left:
            self.go_on()
            self.process.wait()
            self.ended()


def metrics_of(folder):
    """What a run measured, less times."""
    found = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in found.items() if not name.startswith(TIMES)}


def finished(out):
    """Folders of finished runs, by name, and what they measured."""
    found = {}
    for folder in out.glob("runs/*/*/s*-*"):
        try:
            if json.loads((folder / "status.json").read_text())["state"] == "done":
                found[str(folder.relative_to(out))] = metrics_of(folder)
        except (OSError, ValueError):  # it is being written, or was damaged
            continue
    return found


def tables(out):
    """The tables of all papers as files, and what the status says."""
    command = [sys.executable, "scripts/table.py", "all", "--output-dir", str(out)]
    subprocess.run(command, cwd=harness.ROOT, check=True, capture_output=True)
    status = subprocess.run([*command, "--status"], cwd=harness.ROOT, check=True, capture_output=True, text=True)
    return {paper: (out / "tables" / f"{paper}.md").read_bytes() for paper in ORDER}, status.stdout


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own, and how to change its options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", str(folder)], check=True)
    yield folder, lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def sweep(paper, out):
    command = [sys.executable, "train.py", "-m", *words(paper, out)]
    return subprocess.run(command, cwd=harness.ROOT, capture_output=True, text=True, check=False)


def damaged(out, draw, done):
    """Damage one finished run's metrics and one unfinished run's checkpoint, where there are any."""
    found = {"metrics.json": [], "last.ckpt": []}
    for folder in out.glob("runs/*/*/s*-*"):
        name = str(folder.relative_to(out))
        kind = "metrics.json" if name in finished(out) else "last.ckpt"
        if kind not in done and (folder / kind).exists():
            found[kind].append((folder / kind, name))
    for kind, places in found.items():
        if places:
            path, name = draw.choice(sorted(places))
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            done[kind] = name


def test_whatever_happens_the_sweep_ends_as_it_would_have(tmp_path, disk):
    calm = tmp_path / "calm"
    Launcher(calm, tmp_path / "calm.log").finish()
    expected, (expected_tables, _) = finished(calm), tables(calm)
    assert len(expected) == JOBS >= 60

    out, remount = disk
    full = sweep("dvrl", out)
    lost = full.stdout.count("failed: ")
    assert full.returncode == 1, full.stderr[-2000:]
    assert f"{lost} failed" in full.stdout.splitlines()[-lost - 1]
    assert "no space left" in full.stderr
    assert "Traceback" not in full.stdout + full.stderr
    remount("ro")
    refused = sweep("dvrl", out)
    assert refused.returncode == 2
    assert "Read-only file system" in refused.stderr.splitlines()[-1]
    remount("rw,size=4G")

    draw, kills, seen, done = random.Random(0), 0, {}, {}
    launchers = [Launcher(out, tmp_path / f"{i}.log", order) for i, order in enumerate((ORDER, ORDER[::-1]))]
    while kills < KILLS:
        for launcher in launchers:
            launcher.left = launcher.left or list(ORDER)
            launcher.go_on(draw.choice(CLOCKS))
        try:
            for launcher in draw.sample(launchers, len(launchers)):
                time.sleep(draw.uniform(4, 12))
                kills += 0 if launcher.ended() else launcher.kill()
        finally:
            for launcher in launchers:
                launcher.kill()
        for name, metrics in finished(out).items():
            assert seen.setdefault(name, metrics) == metrics, f"{name} was done and is another now"
        assert set(seen) - {done.get("metrics.json")} <= set(finished(out)), "what was finished stays"
        damaged(out, draw, done)
    assert set(done) == {"metrics.json", "last.ckpt"}

    last = Launcher(out, tmp_path / "last.log")
    last.finish()
    told = "".join((tmp_path / f"{name}.log").read_text() for name in (0, 1, "last"))
    assert "cannot be read" in told
    assert "is damaged; the run starts from the beginning" in told
    assert finished(out) == expected, "nothing is lost, nothing is there twice, and every number is the same"
    found_tables, status = tables(out)
    assert found_tables == expected_tables
    assert status.count(", 0 failed, 0 unreadable") == len(ORDER), status
    print(f"{kills} kills, {len(expected)} jobs, {lost} failed on the full disk; damaged: {done}")
    assert Path(out, "sweeps").is_dir()
