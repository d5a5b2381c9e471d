"""A sweep on a real Slurm: one node on this machine. ``make test-slurm``; needs root, slurm-wlm and munge.

A job is killed and the node's daemon with it; the same command again does what is missing, and the table is that of a
sweep in one process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import harness
import pytest

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
MISSING = [name for name in NEEDED if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed: apt-get install slurm-wlm munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons run as root here"),
]
CONF = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmUser=root
SlurmdUser=root
ReturnToService=2
SlurmdTimeout=10
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000
PartitionName=local Nodes={host} Default=YES State=UP
"""
# What submitit asks the accounting database, which is not there, from the scheduler's own memory.
SACCT = """#!{python}
import re, subprocess
print("JobID|State|NodeList")
for line in subprocess.run(["scontrol", "show", "job", "-o"], capture_output=True, text=True).stdout.splitlines():
    known = dict(re.findall(r"(\\S+?)=(\\S*)", line))
    if "JobId" in known:
        array = "ArrayTaskId" in known
        name = known["ArrayJobId"] + "_" + known["ArrayTaskId"] if array else known["JobId"]
        print("|".join([name, known["JobState"], known.get("NodeList", "")]))
"""
SWEEP = (
    "method=random,knn_shapley",
    "seed=range(0,4)",
    "table=dvrl/methods",
    "method.datamodule.removal_curves=false",
    "logger=csv",
    "hardware.threads=1",
)
ON_SLURM = (
    "-m",
    "hydra/launcher=slurm",
    "hydra.launcher.partition=local",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
)


def running(name):
    """Whether a daemon of this name runs on this machine, whoever's it is."""
    return subprocess.run(["pgrep", "-x", name], capture_output=True, check=False).returncode == 0


def stop(folder, name, how=signal.SIGTERM):
    """End this test's own daemon."""
    os.kill(int((folder / f"{name}.pid").read_text()), how)


def until(what, seconds, condition):
    """Wait for something, but not for ever."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Slurm with one node of two processors; calls of its commands."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = os.uname().nodename.split(".")[0]
    (folder / "slurm.conf").write_text(CONF.format(host=host, folder=folder))
    (folder / "sacct").write_text(SACCT.format(python=sys.executable))
    (folder / "sacct").chmod(0o755)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1", "REPRISE_LEDGER": ""}
    environment["PATH"] = f"{folder}{os.pathsep}{environment['PATH']}"

    def call(*command):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        return done.stdout

    if any(map(running, ("slurmctld", "slurmd"))):
        pytest.skip("a Slurm runs on this machine already")
    if munge := not running("munged"):
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True)
    call("slurmctld", "-c")
    call("slurmd")
    until("a node that is idle", 60, lambda: "idle" in call("sinfo", "-h", "-o", "%T"))
    call.environment, call.folder = environment, folder
    yield call
    call("scancel", "--state=RUNNING"), call("scancel", "--state=PENDING")
    for name in ("slurmd", "slurmctld"):
        stop(folder, name)
    if munge:
        subprocess.run(["munged", "--stop"], check=False)


def train(environment, out, *words):
    return subprocess.Popen(
        [sys.executable, "train.py", *words, *SWEEP, f"paths.output_dir={out}"],
        cwd=harness.ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def done(out):
    return len(list(out.glob("runs/*/*/*/metrics.json")))


def table(out):
    subprocess.run([sys.executable, "scripts/table.py", "dvrl", "--output-dir", out], cwd=harness.ROOT, check=True)
    return (out / "tables" / "dvrl.md").read_text()


def test_a_sweep_with_a_killed_job_and_a_lost_node_ends_as_it_would_have(cluster, tmp_path):
    local, out = tmp_path / "local", tmp_path / "slurm"
    with train(cluster.environment, local, "-m") as alone:
        print(alone.communicate(timeout=600)[0])
    assert (alone.returncode, done(local)) == (0, 8)

    with train(cluster.environment, out, *ON_SLURM) as first:
        until("a job that runs", 120, lambda: "RUNNING" in cluster("squeue", "-h", "-o", "%T"))
        job = cluster("squeue", "-h", "-t", "RUNNING", "-o", "%A").split()[0]
        cluster("scancel", "--signal=KILL", "--full", job)
        until("a finished run", 300, lambda: done(out) >= 2)
        stop(cluster.folder, "slurmd", signal.SIGKILL)
        time.sleep(2)
        cluster("slurmd")
        print(first.communicate(timeout=900)[0])
    assert first.returncode != 0, "a killed job is no success"
    until("an empty queue", 300, lambda: not cluster("squeue", "-h").strip())
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/*/metrics.json")}
    assert 2 <= len(before) < 8

    with train(cluster.environment, out, *ON_SLURM) as again:
        print(again.communicate(timeout=900)[0])
    assert (again.returncode, done(out)) == (0, 8)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items()), "what was finished is not done again"
    assert table(out) == table(local)
