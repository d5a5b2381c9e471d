"""The command line: help and typos answer at once, wrong input ends in one sentence, a sweep names what failed."""

from __future__ import annotations

import subprocess
import sys

import harness
import pytest
import torch
from harness import ROOT, SMALL, real

HEAVY = ("torch", "lightning", "wandb", "pandas", "sklearn", "scipy", "matplotlib")


def command(*argv: str) -> tuple[int, str, set[str]]:
    """Exit code, output and heavy imports of ``python train.py *argv`` in a fresh process."""
    code = (
        "import runpy, sys\n"
        "sys.argv = ['train.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "except SystemExit as stopped: code = stopped.code\n"
        f"print('IMPORTED', *[name for name in {HEAVY} if name in sys.modules])\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    text, _, imported = done.stdout.rpartition("IMPORTED")
    return done.returncode, text + done.stderr, set(imported.split())


# --- fast start -------------------------------------------------------------------------------------------------------


def test_help_names_choices_and_examples_without_heavy_imports():
    code, text, imported = command("--help")
    assert code == 0
    assert imported == set()
    assert "python train.py method=dvrl dataset=adult seed=3" in text
    assert "dataset: adult, blog, breast_cancer" in text
    ours = {path.name for path in harness.CONF.iterdir() if path.is_dir()} - {"hydra", "protocol"}
    for group in ours - {"experiment", "sweep"}:
        assert f"\n{group}: {', '.join(harness.options(group))}" in text


def test_showing_a_config_imports_nothing_heavy():
    code, text, imported = command("--cfg", "job", "method=loo", "scale=smoke")
    assert code == 0
    assert imported == set()
    assert "_target_: reprise.papers.dvrl.baselines.LeaveOneOut" in text


@pytest.mark.parametrize("typo", ["sede=1", "method=dvlr", "method.module.outer_stps=3", "seed=abc"])
def test_typing_errors_import_nothing_heavy(typo):
    code, text, imported = command(typo)
    assert code == 2
    assert imported == set()
    assert text.startswith("reprise: ")
    assert len(text.splitlines()) == 1


# --- wrong input ------------------------------------------------------------------------------------------------------

TYPOS = {
    ("method=dvlr",): ["method/dvlr", "knn_shapley"],
    ("method=supsup", "scenario=gsn"): ["scenario/gsn", "gns"],
    ("method=supsup", "method.module.output=3"): ["method.module.output", "did you mean `outputs`?"],
    ("dataset=mnits",): ["dataset/mnits", "mnist"],
    ("hardware=tpu",): ["hardware/tpu", "cpu"],
    ("sede=1",): ["`sede`", "did you mean `seed`?"],
    ("method.module.outer_stps=3",): ["outer_stps", "did you mean `outer_steps`?"],
    ("method.datamodule.noise=0.1",): ["method.datamodule.noise", "noise_rate"],
    ("seed=abc",): ["seed", "'abc'", "Integer"],
    ("scale=huge",): ["scale", "'huge'", "smoke"],
    ("force=perhaps",): ["force", "'perhaps'"],
    ("seed=1=",): ["seed=1="],
    ("dataset=csv", "dataset.target=y"): ["dataset.path"],
    ("dataset=csv", "dataset.path=/nowhere/my.csv", "dataset.target=y"): ["/nowhere/my.csv", "does not exist"],
}


@pytest.mark.parametrize("argv", TYPOS, ids=" ".join)
def test_a_typing_error_is_one_sentence(train, tmp_path, argv):
    sentence = train(*argv).sentence()
    assert all(word in sentence for word in TYPOS[argv]), sentence
    assert not (tmp_path / "out" / "runs").exists(), "nothing was started"


VALUES = {
    ("method.module.outer_steps=abc",): ["method.module.outer_steps='abc'", "integer"],
    ("method.module.learning_rate=-1",): ["method.module.learning_rate=-1", "greater than 0"],
    ("method.module.schedule=linear",): ["method.module.schedule='linear'", "cosine"],
    ("method.module.outer_steps=null",): ["method.module.outer_steps=None"],
    ("method.datamodule.train_size=-5",): ["method.datamodule.train_size=-5", "greater than 0"],
    ("method.datamodule.train_size=0",): ["method.datamodule.train_size=0", "greater than 0"],
    ("method.datamodule.noise_rate=1.5",): ["method.datamodule.noise_rate=1.5", "less than 1"],
    ("method.datamodule.noise_kind=flip",): ["method.datamodule.noise_kind='flip'", "flip_other"],
    ("method.datamodule.validation_size=5000",): ["validation_size=5000", "dataset=digits"],
    ("method.datamodule.train_size=1797",): ["train_size=1797", "dataset=digits"],
    ("method.datamodule.test_size=1797",): ["test_size=1797", "dataset=digits"],
    ("method.module.predictor.steps=-1",): ["method.module.predictor.steps=-1", "greater than 0"],
    ("method.module.predictor.l2=much",): ["method.module.predictor.l2='much'", "number"],
    ("method.module.selections=1",): ["baseline=leave_one_out", "selections"],
    ("method.module.reward=auc",): ["reward=auc", "dataset=digits", "10"],
    ("method.module.reward=f1",): ["reward=f1", "accuracy"],
    ("hardware=ddp",): ["method=dvrl", "one device", "hardware=cpu"],
    ("trainer.precision=13",): ["13"],
    ("+method.module.depth=3",): ["method.module", "depth"],
    ("~method.module.hidden",): ["method.module", "hidden"],
    ("hardware.threads=-1",): ["hardware.threads=-1", "at least 1"],
    ("hardware.threads=two",): ["hardware.threads='two'", "whole number"],
    ("trainer.max_epochs=0",): ["trainer.max_epochs=0", "at least 1"],
    ("trainer.limit_batches=0.5",): ["trainer.limit_batches=0.5", "whole number"],
    ("seed=-1",): ["seed=-1", "between 0 and"],
    ("seed=4294967296",): ["seed=4294967296", "between 0 and"],
}


STREAMS = {
    ("method.module.outputs=5",): ["method.module.outputs=5", "10 classes"],
    ("method.module.steps=0",): ["method.module.steps=0", "greater than 0"],
    ("method.module.scenario=gg",): ["scenario=gg", "method.module.inference=given"],
    ("method.module.inference=given",): ["scenario=gnu", "method.module.inference"],
    ("method.module.objective=G", "method.module.outputs=10"): ["objective", "outputs"],
    ("method.module.optimizer.lr=-1",): ["method.module.optimizer"],
    ("method.datamodule.num_tasks=0",): ["method.datamodule.num_tasks=0", "greater than 0"],
    ("method.datamodule.num_tasks=null",): ["method.datamodule.num_tasks"],
    ("method.datamodule.train_size=1797",): ["method.datamodule.train_size=1797", "dataset=digits"],
    ("method.datamodule.kind=folded",): ["method.datamodule.kind='folded'", "rotated"],
    ("stream=rotated", "method.datamodule.num_tasks=9"): ["method.datamodule.num_tasks=9", "45 degrees"],
    ("stream=split", "method.datamodule.classes_per_task=3"): ["classes_per_task=3", "dataset=digits", "2, 5"],
    ("hardware=ddp",): ["method=supsup", "one device", "hardware=cpu"],
    ("scenario=gnu", "network=gem_resnet18"): ["network=gem_resnet18", "scenario=gg"],
    ("predictor=cnn",): ["method.module.predictor", "does not take it"],
}


@pytest.mark.parametrize("argv", STREAMS, ids=" ".join)
def test_an_impossible_stream_is_one_sentence(train, argv):
    sentence = train("logger=csv", "method=supsup", *argv).sentence()
    assert all(word in sentence for word in STREAMS[argv]), sentence


VIEWS = {
    ("method.module.weight=-1",): ["method.module.weight=-1", "greater than or equal to 0"],
    ("base=iwae", "method.module.bound.samples=0"): ["method.module.bound.samples=0", "greater than 0"],
    ("base=beta_vae", "method.module.bound.beta=-1"): ["method.module.bound.beta=-1"],
    ("network=vae_conv", "method.datamodule.size=8"): ["network=vae_conv", "8x8", "method.datamodule.size=32"],
    ("network=lenet",): ["no auto-encoder", "network=vae_mlp"],
    ("transformation=rigid",): ["dataset=digits", "transformation=simple"],
    ("dataset=point_clouds",): ["dataset=point_clouds", "experiment=crvae/point_clouds"],
    ("method.module.views=clean",): ["method.module.views=clean", "regime=plain"],
    ("method.module.penalty.direction=back",): ["method.module.penalty.direction='back'", "'reverse'"],
    ("method.module.optimizer.lr=-1",): ["method.module.optimizer", "-1"],
    ("method.module.latent=0",): ["method.module.latent=0"],
    ("method.module.evaluation.probes.draws=0",): ["method.module.evaluation.probes.draws=0"],
    ("method.datamodule.train_size=5000",): ["method.datamodule.train_size=5000", "dataset=digits"],
    ("method.datamodule.transformation.scale=[2,1]",): ["transformation.scale=[2.0, 1.0]", "smaller one first"],
    ("hardware=ddp", "method.module.batch_size=7"): ["method.module.batch_size=7", "hardware.devices=2"],
    ("predictor=cnn",): ["method.module.predictor", "does not take it"],
}


@pytest.mark.parametrize("argv", VIEWS, ids=" ".join)
def test_views_that_cannot_be_are_one_sentence(train, argv):
    sentence = train("logger=csv", "method=crvae", *argv).sentence()
    assert all(word in sentence for word in VIEWS[argv]), sentence


def test_a_method_for_images_names_the_data_sets_of_images(train, monkeypatch):
    from reprise.papers.dvrl.baselines import RandomValues

    monkeypatch.setattr(RandomValues, "kinds", ("image",), raising=False)
    sentence = train("method=random", *SMALL, "dataset=breast_cancer").sentence()
    assert "method=random works on image data, dataset=breast_cancer has table data" in sentence
    names = sentence.partition("suitable data sets: ")[2].rstrip(".").split(", ")
    assert {"digits", "mnist", "cifar100"} <= set(names)
    assert not {"adult", "csv", "rossmann"} & set(names)


@pytest.mark.parametrize("argv", VALUES, ids=" ".join)
def test_an_impossible_value_is_one_sentence(train, argv):
    sentence = train("logger=csv", *argv).sentence()
    assert all(word in sentence for word in VALUES[argv]), sentence


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(train):
    assert "gpu" in train("logger=csv", "hardware=gpu").sentence().lower()


TABLES = {
    "no such column": ("a,b,label\n1,2,x\n2,3,y\n3,4,x\n", ["dataset.target", "'lable'", "'label'"]),
    "one class": ("a,b,lable\n" + "1,2,x\n2,3,x\n" * 20, ["'lable'", "'x'", "every row"]),
    "infinite target": ("a,b,lable\n" + "1,2,0.5\n2,3,inf\n" * 20, ["'lable'", "'inf'", "line 3"]),
    "missing target": ("a,b,lable\n" + "1,2,0.5\n2,3,\n" * 20, ["'lable'", "missing", "line 3"]),
    "infinite input": ("a,b,lable\n" + "1,2,x\n2,-inf,y\n" * 20, ["'b'", "'-inf'", "line 3"]),
    "header only": ("a,b,lable\n", []),
    "empty": ("", []),
    "ragged": ("a,b,lable\n1,2,x\n1,2\n", ["Line 3", "2 cells"]),
    "three rows": ("a,b,lable\n1,2,x\n2,3,y\n3,4,x\n", ["csv"]),
}


@pytest.mark.parametrize("name", TABLES)
def test_an_unusable_table_is_one_sentence(train, tmp_path, name):
    text, words = TABLES[name]
    path = tmp_path / "my.csv"
    path.write_text(text)
    sentence = train("logger=csv", "dataset=csv", f"dataset.path={path}", "dataset.target=lable").sentence()
    assert all(word in sentence for word in words), sentence
    assert "my.csv" in sentence or "dataset=csv" in sentence


def test_junk_in_place_of_a_table_is_one_sentence(train, tmp_path):
    path = tmp_path / "my.csv"
    path.write_bytes(bytes(range(256)) * 20)
    sentence = train("logger=csv", "dataset=csv", f"dataset.path={path}", "dataset.target=y").sentence()
    assert str(path) in sentence


def test_more_validation_rows_than_the_table_has(train, tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("a,b,label\n" + "1,2,x\n2,3,y\n" * 20)
    argv = ("dataset=csv", f"dataset.path={path}", "dataset.target=label", "method.datamodule.validation_size=100")
    sentence = train("logger=csv", *argv).sentence()
    assert "method.datamodule.validation_size=100" in sentence


def test_a_table_of_numbers_does_not_suit_a_method_for_classes(train, tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("a,b,y\n" + "".join(f"{i},{i % 7},{i / 3}\n" for i in range(60)))
    argv = ("method=knn_shapley", "dataset=csv", f"dataset.path={path}", "dataset.target=y")
    sentence = train("logger=csv", *argv).sentence()
    assert "method=knn_shapley needs a classification target" in sentence
    for suitable in ("adult", "breast_cancer", "digits"):
        assert suitable in sentence


@pytest.mark.parametrize("content", [b"39, State-gov, 77516\n", b"x" * 3_974_305], ids=["truncated", "altered"])
def test_a_damaged_data_file_is_one_sentence(train, tmp_path, monkeypatch, content):
    (tmp_path / "adult").mkdir()
    for name in ("adult.data", "adult.test"):
        (tmp_path / "adult" / name).write_bytes(content)
    monkeypatch.setenv("REPRISE_DATA", str(tmp_path))
    sentence = train("logger=csv", "dataset=adult").sentence()
    assert str(tmp_path / "adult" / "adult.data") in sentence
    assert "damaged" in sentence
    assert "REPRISE_DATA" in sentence


@pytest.mark.parametrize("mode", [[], ["-m"]], ids=["run", "sweep"])
def test_an_output_folder_that_cannot_be_made_is_one_sentence(train, tmp_path, mode):
    (tmp_path / "file").write_text("")
    sentence = train(*mode, "logger=csv", f"paths.output_dir={tmp_path}/file/out").sentence()
    assert f"{tmp_path}/file" in sentence


def test_the_whole_path_as_real_processes(tmp_path):
    """What the in-process tests cannot see: warnings, buffered streams, the interpreter's own exit."""
    path = tmp_path / "my.csv"
    path.write_text(TABLES["one class"][0])
    out = f"paths.output_dir={tmp_path / 'out'}"
    assert "'lable'" in real("dataset=csv", f"dataset.path={path}", "dataset.target=lable", out).sentence()
    assert "did you mean `seed`?" in real("sede=1", out).sentence()


def test_the_traceback_can_be_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    outcome = real("sede=1", f"paths.output_dir={tmp_path}")
    assert outcome.code == 1
    assert "Traceback" in outcome.err


# --- sweeps -----------------------------------------------------------------------------------------------------------


def test_a_sweep_finishes_its_other_jobs_and_names_what_failed(train, tmp_path):
    sizes = "method.datamodule.train_size=100000,60"
    outcome = train("-m", "method=random", *SMALL, sizes, "seed=0,1")
    assert outcome.code == 1
    assert len(list((tmp_path / "out").glob("runs/random/digits/*/metrics.json"))) == 2
    states = [harness.read(path)["state"] for path in (tmp_path / "out").glob("runs/random/digits/*/status.json")]
    assert states == ["done", "done"], "input that cannot work leaves no run behind"
    assert "4 jobs: 2 done, 2 failed" in outcome.out
    for seed in (0, 1):
        assert f"failed: random on digits, seed {seed}" in outcome.out
    summary = outcome.out.partition("4 jobs:")[2]
    assert summary.count("method.datamodule.train_size=100000 is more than") == 2, "each with its reason"
    assert "Traceback" not in outcome.out + outcome.err

    again = train("-m", "method=random", *SMALL, "seed=0,1")
    assert again.code == 0
    assert "2 jobs: 2 stored" in again.out


def test_a_sweep_prints_the_table_of_its_results(train):
    outcome = train("-m", "method=random,validation_only", *SMALL, "seed=0,1")
    assert outcome.code == 0
    assert "4 jobs: 4 done" in outcome.out
    rows = [line.split("│")[1:3] for line in outcome.out.splitlines() if line.startswith("│")]
    seeds = {name.split()[0]: number.strip() for name, number in rows if number.strip()}
    assert seeds == {"Validation": "2", "Random": "2"}, "one row a method, its name perhaps wrapped"


def test_a_plain_key_of_a_method_that_is_swept_over_is_one_sentence(train):
    sentence = train("-m", "method=vae,crvae", "method.module.epochs=3").sentence()
    assert "write 'method.module.epochs=choice(VALUE)'" in sentence
    outcome = train("-m", "method=vae,crvae", "method.module.epoch=choice(3)", "logger=csv")
    assert "there is no key `method.module.epoch`; did you mean `epochs`?" in outcome.err


def test_a_sweep_without_jobs_is_one_sentence(train):
    assert "no job of the sweep ran" in train("-m", "seed=range(0,0)").sentence()


def test_a_sweep_over_a_method_that_is_not_there_stops_with_a_sentence(train):
    outcome = train("-m", "method=random,randm", *SMALL)
    assert outcome.code != 0
    assert "randm" in outcome.err
    assert "Traceback" not in outcome.out + outcome.err


def test_a_failed_run_is_code_1_and_says_where_the_traceback_is(train, tmp_path, monkeypatch):
    from reprise import building

    def fail(*_):
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr(building, "datamodule", fail)
    outcome = train("method=random", *SMALL)
    assert outcome.code == 1
    assert outcome.err.startswith("reprise: the run failed: ZeroDivisionError: no such luck (traceback in ")
    assert len(outcome.err.splitlines()) == 1
    (log,) = (tmp_path / "out").glob("runs/random/digits/*/train.log")
    assert str(log) in outcome.err
    assert "Traceback" in log.read_text()


def test_an_interrupt_is_code_130_and_promises_to_go_on(train, monkeypatch):
    from reprise import building

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "datamodule", interrupt)
    outcome = train("method=random", *SMALL)
    assert outcome.code == 130
    assert "interrupted" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_users_rows_are_valued_with_a_word_about_the_validation_rows(train, tmp_path):
    """Said when the input is known to be good, so that the sentence about bad input stands alone."""
    path = tmp_path / "my.csv"
    path.write_text("a,b,label\n" + "".join(f"{i},{i % 7},{'xy'[i % 2]}\n" for i in range(60)))
    argv = ("method=random", "logger=csv", "dataset=csv", f"dataset.path={path}", "dataset.target=label")
    outcome = train(*argv, "trainer=debug")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("dataset.validation_path=") == 1
