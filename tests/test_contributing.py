"""The paper on the page for contributors is made from that page, run, and judged, outside of the suite's folders."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import harness
import pytest
import yaml

PAGE = harness.ROOT / "CONTRIBUTING.md"
FILE = re.compile(r"^`mine/([^`]+)`:.*?^```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """The folder on the page, and a command in an environment that knows it."""
    folder = tmp_path_factory.mktemp("fifth") / "mine"
    files = dict(FILE.findall(PAGE.read_text()))
    assert set(files) == {"conf/method/prototypes.yaml", "prototypes/__init__.py", "prototypes/reported.yaml"}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def call(*words):
        known = {"PYTHONPATH": str(folder), "REPRISE_PAPERS": str(folder), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=harness.ROOT, env=os.environ | known, capture_output=True, text=True, timeout=120, check=False
        )

    call.folder = folder
    return call


def test_it_runs_and_its_claim_is_judged(mine, tmp_path):
    options = ("--config-dir", str(mine.folder / "conf"), "-m", "method=prototypes", "logger=csv")
    done = mine("train.py", *options, "seed=range(0,3)", f"paths.output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    records = [harness.read(path) for path in tmp_path.glob("runs/prototypes/digits/*/record.json")]
    assert sorted(record["seed"] for record in records) == [0, 1, 2]
    assert all(0.8 < record["metrics"]["accuracy"] < 1 for record in records)
    table = mine("scripts/table.py", "prototypes", "--output-dir", str(tmp_path))
    assert table.returncode == 0, table.stderr
    assert "SUPPORTED: held on 3 of 3 seeds" in (tmp_path / "tables" / "prototypes.md").read_text()


def test_it_is_in_the_report_beside_the_others(mine, tmp_path):
    assert mine("scripts/table.py", "report", "--output-dir", str(tmp_path)).returncode == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Nearest class mean" in page
    assert "Data Valuation" in page


def test_a_mistake_in_its_config_is_a_sentence(mine, tmp_path):
    options = ("--config-dir", str(mine.folder / "conf"), "method=prototypes", f"paths.output_dir={tmp_path}")
    done = mine("train.py", *options, "method.module.norm=-1", "logger=csv")
    assert (done.returncode, "method.module.norm=-1" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr


def test_a_mistake_in_what_it_reports_is_a_sentence_after_a_sweep_too(mine, tmp_path):
    path = mine.folder / "prototypes" / "reported.yaml"
    whole = path.read_text()
    path.write_text(yaml.safe_dump(yaml.safe_load(whole) | {"claim": []}))
    options = ("--config-dir", str(mine.folder / "conf"), "-m", "method=prototypes", f"paths.output_dir={tmp_path}")
    done = mine("train.py", *options, "seed=0,1", "logger=csv")
    path.write_text(whole)
    assert done.returncode == 2
    assert "unknown key 'claim'" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_variable_nobody_knows_it(mine):
    done = subprocess.run(
        [sys.executable, "scripts/table.py", "prototypes"],
        cwd=harness.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "there is no paper 'prototypes'" in done.stderr) == (2, True)
