"""``python scripts/value.py``: a run's values for its own rows and for new ones, and one sentence for the rest."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import harness
import numpy as np
import pandas as pd
import pytest

from reprise.papers.dvrl.valuer import FILE

SCRIPT = harness.ROOT / "scripts" / "value.py"
SIZES = [option for option in harness.SMALL if "_size" not in option]


@pytest.fixture
def value(capfd, tmp_path, monkeypatch):
    """``python scripts/value.py`` in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        capfd.readouterr()
        with pytest.MonkeyPatch.context() as patch, harness.unchanged_process():
            patch.setattr(sys, "argv", ["value.py", *map(str, argv)])
            patch.setenv("HYDRA_FULL_ERROR", "0")
            patch.setenv("REPRISE_LEDGER", "")
            with pytest.raises(SystemExit) as stopped:
                runpy.run_path(str(SCRIPT), run_name="__main__")
        captured = capfd.readouterr()
        return harness.Outcome(int(stopped.value.code or 0), captured.out, captured.err)

    return call


def mine(folder, numbers=False):
    """A table with text and holes among its columns."""
    rng = np.random.default_rng(0)
    lines = ["size,colour,weight,y"]
    for k in range(120):
        size, colour = k % 11, ("red", "blue", "")[k % 3]
        target = f"{size + rng.normal():.3f}" if numbers else ("yes" if size > 5 else "no")
        lines.append(f"{size},{colour},{'' if k % 17 == 0 else f'{rng.normal():.4f}'},{target}")
    folder.joinpath("my.csv").write_text("\n".join(lines) + "\n")
    return folder / "my.csv"


def of_table(folder, *options, numbers=False):
    """A run on such a table."""
    path = mine(folder, numbers)
    own = ["dataset=csv", f"dataset.path={path}", "dataset.target=y", *SIZES, *options]
    return harness.run(harness.compose("method=dvrl", f"paths.output_dir={folder / 'out'}", "trainer=debug", *own))


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits")
    return harness.run(harness.small("dvrl", out, "trainer=debug", "method.datamodule.noise_rate=0.2"))


@pytest.fixture(scope="module")
def table_run(tmp_path_factory):
    return of_table(tmp_path_factory.mktemp("table"))


def read(path):
    return pd.read_csv(path, keep_default_na=False)


def compare(found, had):
    """The rows of a run's own values among those of the whole data set."""
    there = found.set_index("row").loc[had["row"]]
    np.testing.assert_allclose(there["logit"], had["logit"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(there["value"], had["value"], rtol=1e-4)
    assert had["logit"].std() > 1e-4


def test_digits_again(value, digits_run):
    outcome = value(f"run={digits_run}")
    assert outcome.code == 0, outcome.err
    found, had = read("values.csv"), read(digits_run / "data_values.csv")
    assert list(found.columns) == ["row", "value", "logit", "given_label"]
    assert len(found) == 1797
    # the data set knows the true labels only
    compare(found, had[had["corrupted"].astype(int) == 0])
    assert (found["given_label"][had["row"]].to_numpy() == had["true_label"].to_numpy()).all()
    assert "1797 rows of digits" in outcome.out
    assert "wrote values.csv" in outcome.out


@pytest.mark.parametrize("numbers", [False, True])
def test_a_table_again_and_the_same_rows_as_new_ones(value, tmp_path, numbers):
    folder = of_table(tmp_path, numbers=numbers)
    had = read(folder / "data_values.csv")
    assert value(f"run={folder}", "out=own.csv").code == 0
    compare(read("own.csv"), had)
    new = tmp_path / "new.csv"
    new.write_text((tmp_path / "my.csv").read_text())
    assert value(f"run={folder}", "dataset=csv", f"dataset.path={new}", "out=deep/new.csv").code == 0
    compare(read("deep/new.csv"), had)
    if numbers:
        assert read("own.csv")["given_label"].tolist() == pytest.approx(pd.read_csv(new)["y"].tolist())


def test_new_rows_with_fewer_levels_other_order_and_more_columns(value, table_run, tmp_path):
    """Read on its own, this table would have other columns; the run's plan holds."""
    old = pd.read_csv(table_run.parents[4] / "my.csv", dtype=str, keep_default_na=False)
    old.iloc[[1, 4]].assign(id=["p", "q"]).iloc[:, ::-1].to_csv("new.csv", index=False)
    outcome = value(f"run={table_run}", f"dataset.path={tmp_path / 'new.csv'}")
    assert outcome.code == 0, outcome.err
    assert outcome.err.splitlines() == [
        f"Columns of {tmp_path / 'new.csv'} that the run was not trained on are ignored: id."
    ]
    assert value(f"run={table_run}", "out=own.csv").code == 0
    own = read("own.csv").iloc[[1, 4]]
    assert read("values.csv")["logit"].tolist() == pytest.approx(own["logit"].tolist(), rel=1e-5)


def test_a_category_that_was_never_seen_is_said_once(value, table_run):
    Path("new.csv").write_text("size,colour,weight,y\n1,green,2,yes\n1,black,2,no\n")
    outcome = value(f"run={table_run}", "dataset.path=new.csv")
    assert outcome.code == 0
    assert len(outcome.err.splitlines()) == 1
    assert "'colour' holds 2 cells that never occur" in outcome.err


def test_other_parts(value, table_run):
    text = "size,colour,weight,y\n1,red,2,yes\n"
    for name in ("a.csv", "b.csv"):
        Path(name).write_text(text)
    outcome = value(f"run={table_run}", "dataset.path=a.csv", "dataset.test_path=b.csv", "part=test")
    assert outcome.code == 0, outcome.err
    assert len(read("values.csv")) == 1


def test_help_needs_no_torch():
    command = [sys.executable, "-X", "importtime", str(SCRIPT), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "python scripts/value.py run=RUN" in done.stdout
    assert " torch" not in done.stderr


GOOD = "size,colour,weight,y\n1,red,2,yes\n2,blue,,no\n"


@pytest.mark.parametrize(
    ("words", "text", "told"),
    [
        ([], None, "run= is missing"),
        (["run="], None, "run= has no value"),
        (["--run", "x"], None, "'--run' is no option"),
        (["run=RUN", "method=loo"], None, "'method=loo' is no option"),
        (["run=RUN", "prat=test"], None, r"'prat=test' is no option \(did you mean 'part'\?\)"),
        (["run=RUN", "run=RUN"], None, "run= is given twice"),
        (["run=RUN", "part=all"], None, "part=all is not known; choose one of train, test, validation"),
        (["run=absent"], None, "run=absent is no folder"),
        (["run=."], None, "run=. is no run folder"),
        (["run=RUN", "part=test"], None, "dataset=csv has no official test rows"),
        (["run=RUN", "out=."], None, r"out=\. is a folder"),
        (["run=RUN", "out=new.csv", "dataset.path=new.csv"], GOOD, "out=new.csv would replace the rows"),
        (["run=RUN", "dataset=nowhere"], None, "nowhere"),
        (["run=RUN", "dataset=digits"], None, "dataset=digits lacks the input 'size'"),
        (["run=RUN", "dataset=csv"], None, "dataset.path has no value"),
        (["run=RUN", "dataset.paht=new.csv"], GOOD, "there is no key `dataset.paht`; did you mean `path`"),
        (["run=RUN", "dataset.path=gone.csv"], None, "gone.csv does not exist"),
        (["run=RUN", "dataset.path=new.csv", "part=test"], GOOD, r"dataset\.test_path is not set"),
        (["run=RUN", "dataset.path=new.csv", "dataset.target=z"], GOOD, "no column 'z', its target column"),
        (["run=RUN", "dataset.path=new.csv"], "", "new.csv is empty"),
        (["run=RUN", "dataset.path=new.csv"], "size,colour,weight,y\n", "a header line but no data rows"),
        (["run=RUN", "dataset.path=new.csv"], "1,red,2,yes\n2,red,2,no\n", "more than one column|its first line must"),
        (["run=RUN", "dataset.path=new.csv"], GOOD.replace("weight", "wait"), "no column 'weight'"),
        (["run=RUN", "dataset.path=new.csv"], GOOD.replace("2,blue", "two,blue"), "'size' is numeric in the training"),
        (["run=RUN", "dataset.path=new.csv"], GOOD.replace("no", "perhaps"), "class 'perhaps' in data row 1"),
        (["run=RUN", "dataset.path=new.csv"], GOOD.replace("no", ""), "Target 'y' is missing in 1 of 2 rows"),
        (["run=RUN", "dataset.path=new.csv"], GOOD + "3,red\n", "Line 4 of new.csv has 2 cells"),
        (["run=RUN", "dataset.path=new.csv", "dataset.separator=semicolon"], GOOD, "one column only"),
    ],
)
def test_wrong_input_is_one_sentence(value, table_run, words, text, told):
    if text is not None:
        Path("new.csv").write_text(text)
    sentence = value(*(word.replace("RUN", str(table_run)) for word in words)).sentence()
    assert re.search(told, sentence), sentence
    assert not Path("values.csv").exists()


def test_runs_that_cannot_value(value, digits_run, tmp_path, debug_run):
    _, loo = debug_run("loo")
    assert "method=loo learns no function" in value(f"run={loo}").sentence()
    Path("new.csv").write_text(GOOD)
    words = (f"run={digits_run}", "dataset=csv", "dataset.path=new.csv", "dataset.target=y")
    assert "dataset=digits, whose inputs of shape (1, 8, 8) have no column names" in value(*words).sentence()
    assert "choose a data set like that" in value(f"run={digits_run}", "dataset=breast_cancer").sentence()
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.yaml", "status.json"):
        (copy / name).write_text((digits_run / name).read_text())
    assert f"holds no {FILE}" in value(f"run={copy}").sentence()
    (copy / FILE).write_text("x")
    assert "is damaged" in value(f"run={copy}").sentence()
    (copy / "status.json").write_text('{"state": "failed", "error": "x"}')
    assert "is not finished (it is failed)" in value(f"run={copy}").sentence()


def test_a_strangers_folder_never_chooses_the_loader(value, digits_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(digits_run, copy)
    config = (copy / "config.yaml").read_text()
    assert "reprise.data.digits.load" in config
    (copy / "config.yaml").write_text(config.replace("reprise.data.digits.load", "reprise.records.os.getpid"))
    assert "names reprise.records.os.getpid, which is not the suite's own" in value(f"run={copy}").sentence()


def test_a_table_that_changed_since_the_run_is_new_rows_only_when_said_so(value, tmp_path):
    folder = of_table(tmp_path)
    path = tmp_path / "my.csv"
    path.write_text(path.read_text().replace("yes", "no", 1))
    assert "changed" in value(f"run={folder}").sentence()
    assert value(f"run={folder}", f"dataset.path={path}").code == 0
