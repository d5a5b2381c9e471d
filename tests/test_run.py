"""One run: the files it promises, what is stored, what is repeated, what a failure leaves."""

from __future__ import annotations

import csv
import json
import math
import re

import harness
import pytest
import yaml
from harness import METHODS, PAPERS, SMALL, VALUATION, cut, methods_of, small

from reprise import building
from reprise.config import group_key, protocol_key, resolved, run_key
from reprise.evidence import Record, collect
from reprise.reported import Selector, available_papers, load_reported

PROMISED = {
    *("config.yaml", "status.json", "metrics.json", "metrics.csv", "env.json", "record.json", "train.log", "last.ckpt")
}
OF_THE_PAPER = {
    "dvrl": {
        *("data_values.csv", "removal_curve.csv", "discovery_curve.csv"),
        *("removal.png", "values.png", "discovery.png"),
    },
    "supsup": {"tasks.csv", "curve.csv", "accuracy_matrix.csv", "accuracy.png", "accuracy_matrix.png", "entropy.png"},
    "crvae": {
        *("inputs.csv", "units.csv", "latents.csv", "model.safetensors", "latents.png", "consistency.png", "units.png"),
        *("reconstructions.png", "samples.png", "traversals.png", "training.png"),
    },
    "rewriting": {"path.csv", "edit.png", "request.png"},
}
# metrics of every method of a paper that are shares of something
SHARES = {
    "dvrl": ("discovery/auroc", "discovery/tpr_at_noise_rate", "weighted/test_accuracy", "reference/all"),
    "supsup": ("accuracy/given", "accuracy/after_training", "accuracy/chance"),
    "crvae": ("probe/linear", "probe/ten_labels", "probe/transformed", "retrieval"),
    "rewriting": ("generator/recall/sky", "renderer/recall/dome", "generator/mae"),
}
SHARES_OF = {"scenes_gan": ("generator/apart", "renderer/apart", "generator/share/sky")}  # unlike the rest of its paper
MADE = {  # methods that make a generator, and what they call it
    "scenes_generator": "regression to rendered scenes, 2 steps (not a GAN)",
    "scenes_gan": "GAN on rendered scenes, 2 steps",
}


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def states(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}


def no_training(monkeypatch):
    def refuse(*_):
        raise AssertionError("a finished run must not be repeated")

    for step in ("source", "datamodule", "module", "trainer"):
        monkeypatch.setattr(building, step, refuse)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_promised_file_is_there(debug_run, method):
    cfg, folder = debug_run(method)
    config = resolved(cfg)
    present = {path.name for path in folder.iterdir()}
    silent = {"metrics.csv"} if method in ("random", "validation_only", "knn_shapley", "loo") else set()
    own = {"generator.safetensors", "scenes.png"} if method in MADE else OF_THE_PAPER[PAPERS[method]]
    assert (PROMISED | own) - silent <= present
    assert not [name for name in present if "writing" in name or name.startswith(".metrics")], "nothing temporary"
    for figure in folder.glob("*.png"):
        content = figure.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5_000
    assert folder.name == f"s0-{run_key(config)}"
    assert yaml.safe_load((folder / "config.yaml").read_text()) == config


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_its_metrics_are_finite(debug_run, method):
    _, folder = debug_run(method)
    metrics = harness.read(folder / "metrics.json")
    assert harness.read(folder / "status.json") == {"state": "done", "error": None}
    assert all(math.isfinite(value) for value in metrics.values())
    for name in SHARES_OF.get(method, SHARES[PAPERS[method]]):
        assert 0 <= metrics[name] <= 1
    assert all(metrics[f"time/{part}_seconds"] > 0 for part in ("setup", "fit", "evaluation"))


@pytest.mark.parametrize("method", VALUATION)
def test_fits_of_the_predictor_are_counted(debug_run, method):
    metrics = harness.read(debug_run(method)[1] / "metrics.json")
    assert "cost/predictor_updates" in metrics
    assert (metrics["cost/predictor_fits"] == 0) == (method in ("random", "knn_shapley"))


@pytest.mark.parametrize("method", methods_of("supsup"))
def test_every_task_has_a_line_and_bytes_are_counted(debug_run, method):
    folder = debug_run(method)[1]
    metrics, tasks = harness.read(folder / "metrics.json"), table(folder / "tasks.csv")
    assert [row["task"] for row in tasks] == ["0", "1", "2"]
    assert metrics["tasks/learned"] == 3
    mean = sum(float(row["accuracy"]) for row in tasks) / 3
    assert metrics["accuracy/given"] == pytest.approx(mean, abs=1e-5)
    assert metrics["bytes/bank"] > 0


@pytest.mark.parametrize("method", VALUATION)
def test_data_values_have_a_line_for_every_training_row(debug_run, method):
    rows = table(debug_run(method)[1] / "data_values.csv")
    assert list(rows[0]) == ["row", "value", "logit", "given_label", "true_label", "corrupted"]
    numbers = [int(row["row"]) for row in rows]
    assert numbers == sorted(set(numbers))
    assert len(rows) == 60
    assert all(0 <= float(row["value"]) <= 1 and math.isfinite(float(row["logit"])) for row in rows)
    assert sum(int(row["corrupted"]) for row in rows) == 12, "a fifth of 60"
    assert all((row["given_label"] != row["true_label"]) == (row["corrupted"] == "1") for row in rows)
    values = [value for _, value in sorted((float(row["logit"]), float(row["value"])) for row in rows)]
    assert values == sorted(values), "value and logit rank alike, ties aside"


@pytest.mark.parametrize("method", VALUATION)
def test_curves_run_from_start_to_end(debug_run, method):
    folder = debug_run(method)[1]
    discovery, removal = table(folder / "discovery_curve.csv"), table(folder / "removal_curve.csv")
    assert len(discovery) == 61
    assert [float(discovery[0][k]) for k in ("inspected", "found")] == [0, 0]
    assert [float(discovery[-1][k]) for k in ("inspected", "found")] == [1, 1]
    assert float(removal[0]["low_first"]) == float(removal[0]["high_first"])
    assert float(removal[0]["low_first"]) == pytest.approx(harness.numbers(folder)["reference/all"])


@pytest.mark.parametrize("method", METHODS)
def test_the_record_carries_what_a_table_needs(debug_run, method):
    cfg, folder = debug_run(method)
    config, record, env = resolved(cfg), harness.read(folder / "record.json"), harness.read(folder / "env.json")
    home = "scenes" if PAPERS[method] == "rewriting" else "digits"
    assert (record["method"], record["dataset"], record["seed"]) == (method, home, 0)
    assert record["scale"] == "smoke", "a run cut short by the trainer is never evidence"
    keys = (run_key(config), group_key(config), protocol_key(config, record["condition"]))
    assert (record["run_key"], record["group"], record["protocol"]) == keys
    assert record["metrics"] == harness.read(folder / "metrics.json")
    assert record["paper"] == PAPERS[method] == config["method"]["paper"]
    told = {
        "dvrl": {"noise_rate": 0.2, "train_size": 60},
        "supsup": {"num_tasks": 3, "train_size": 80, "steps": 3},
        "crvae": {"train_size": 80, "latent": 3, "epochs": 3},
        "rewriting": {"generator": MADE.get(method, MADE["scenes_generator"])},
    }
    assert told[PAPERS[method]].items() <= record["condition"].items()
    assert record["env"]["torch"] == env["versions"]["torch"]
    assert re.fullmatch(r"[0-9a-f]{64}", env["data"])


def test_a_whole_run_keeps_its_scale(tmp_path):
    assert harness.read(harness.run(harness.small("random", tmp_path)) / "record.json")["scale"] == "cpu"


def test_the_history_has_a_line_for_every_step(debug_run):
    rows = table(debug_run("dvrl")[1] / "metrics.csv")
    assert [row["step"] for row in rows] == ["1", "2"]
    assert {"train/reward", "train/mean_probability", "train/entropy"} <= set(rows[0])


# what a small run at home cannot have, measured in tests/dvrl and tests/rewriting: rows to spare, numbers for targets,
# domes that are seen as such, and a watermark to remove
ELSEWHERE = (
    *("unseen/auroc", "weighted/test_rmspe", "reference/all_rmspe"),
    *("edit/success", "edit/of_ceiling", "watermarks_per_1000"),
)
# settings that a method has only with another choice of a group; tested below
CHOSEN = {"search.density": ("supsup", "search=edge_popup"), "angle": ("supsup", "stream=rotated")}


@pytest.mark.parametrize("paper", available_papers())
def test_every_metric_that_the_reported_numbers_name_is_produced(debug_run, paper):
    reported = load_reported(paper)
    selectors = [cell.experiment for cell in reported.cells if cell.experiment]
    selectors += [s for claim in reported.claims for part in claim.parts for s in (part.left, part.right)]
    selectors = [s for s in selectors if isinstance(s, Selector)]
    assert selectors
    wanted = {(s.method, s.metric) for s in selectors if s.metric not in ELSEWHERE}
    for method, metric in sorted(wanted):
        assert method in METHODS
        assert metric in harness.read(debug_run(method)[1] / "metrics.json"), f"{method} does not measure {metric}"
    for method, key in sorted({(s.method, key) for s in selectors for key in s.where}):
        facts = Record.of(harness.read(debug_run(method)[1] / "record.json")).facts
        assert key in facts or key in CHOSEN, f"no run of {method} tells its {key}"


@pytest.mark.parametrize("key", CHOSEN)
def test_settings_of_another_choice_are_told(tmp_path, key):
    folder = harness.run(small(CHOSEN[key][0], tmp_path, CHOSEN[key][1]))
    assert key in Record.of(harness.read(folder / "record.json")).facts


# --- stored and repeated ----------------------------------------------------------------------------------------------


def test_a_finished_run_is_returned_without_training(tmp_path, monkeypatch):
    cfg = small("validation_only", tmp_path)
    folder = harness.run(cfg)
    before, metrics = states(folder), harness.read(folder / "metrics.json")
    no_training(monkeypatch)
    from reprise.run import run

    assert run(cfg) == metrics
    assert states(folder) == before


@pytest.mark.parametrize("name", ["metrics.json", "record.json"])
@pytest.mark.parametrize("content", ["", '{"a": ', "\0\0\0", None])
def test_a_finished_run_whose_results_are_damaged_is_done_again(tmp_path, caplog, name, content):
    cfg = small("validation_only", tmp_path)
    folder = harness.run(cfg)
    before = harness.numbers(folder)
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    harness.run(cfg)
    assert "its results cannot be read" in caplog.text
    assert harness.numbers(folder) == before
    assert harness.read(folder / "record.json")["metrics"].keys() == harness.read(folder / "metrics.json").keys()


def test_volatile_settings_find_the_same_finished_run(tmp_path, monkeypatch):
    folder = harness.run(small("validation_only", tmp_path))
    no_training(monkeypatch)
    assert (
        harness.run(small("validation_only", tmp_path, "hardware.threads=2", "table=t", "logger.wandb=false")) == folder
    )


def test_force_repeats_a_finished_run(tmp_path):
    folder = harness.run(small("validation_only", tmp_path))
    (folder / "left_over.txt").write_text("from an older version")
    before = states(folder)
    numbers, values = harness.numbers(folder), (folder / "data_values.csv").read_bytes()
    assert harness.run(small("validation_only", tmp_path, "force=true")) == folder
    after = states(folder)
    assert "left_over.txt" not in after
    assert all(after[name] > before[name] for name in ("metrics.json", "data_values.csv", "record.json"))
    assert harness.numbers(folder) == numbers
    assert (folder / "data_values.csv").read_bytes() == values


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bits(debug_run, tmp_path, method):
    import torch

    torch.rand(7)  # what ran before in this process must not matter
    _, first = debug_run(method)
    second = harness.run(cut(method, tmp_path))
    assert second != first
    assert second.name == first.name
    assert harness.numbers(second) == harness.numbers(first)
    files = sorted(path.name for path in first.glob("*.csv"))
    assert "metrics.csv" in files
    assert len(files) >= (1 if PAPERS[method] == "rewriting" else 3)
    for name in files:
        assert (second / name).read_bytes() == (first / name).read_bytes()


def test_another_seed_gives_another_split_and_other_values(tmp_path):
    first, second = (harness.run(small("random", tmp_path, f"seed={seed}")) for seed in (0, 1))
    rows = [[row["row"] for row in table(folder / "data_values.csv")] for folder in (first, second)]
    assert rows[0] != rows[1]
    assert harness.numbers(first) != harness.numbers(second)


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_diverging_run_fails_and_keeps_its_traceback(tmp_path):
    cfg = small("dvrl", tmp_path, "method.module.outer_steps=10", "method.module.learning_rate=1e30")
    with pytest.raises(FloatingPointError, match="NaN at step"):
        harness.run(cfg)
    folder = harness.folder_of(cfg)
    status, log = harness.read(folder / "status.json"), (folder / "train.log").read_text()
    assert status["state"] == "failed"
    assert status["error"].startswith("FloatingPointError: ")
    assert "Traceback (most recent call last)" in log
    assert status["error"] in log
    assert not (folder / "metrics.json").exists()
    assert not (folder / "record.json").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_result_that_is_no_number_fails_the_run_and_a_rerun_starts_afresh(tmp_path, monkeypatch, value):
    from reprise.papers.dvrl.baselines import ValidationModel

    cfg = small("validation_only", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(ValidationModel, "health", lambda self: {"health/collapsed": value})
        with pytest.raises(FloatingPointError, match=f"health/collapsed is {value}"):
            harness.run(cfg)
    folder = harness.folder_of(cfg)
    assert harness.read(folder / "status.json")["state"] == "failed"
    assert not (folder / "metrics.json").exists()

    assert harness.run(cfg) == folder
    assert harness.read(folder / "status.json") == {"state": "done", "error": None}
    assert "Traceback" not in (folder / "train.log").read_text(), "the log is the successful attempt's"
    fresh = harness.run(small("validation_only", tmp_path / "fresh"))
    assert harness.numbers(folder) == harness.numbers(fresh)


def test_a_failed_attempt_is_not_resumed_from_its_checkpoint(tmp_path, monkeypatch):
    from reprise.papers.dvrl.module import DVRL

    cfg = small("dvrl", tmp_path, "method.module.outer_steps=51")
    with monkeypatch.context() as patch:
        patch.setattr(DVRL, "artifacts", lambda self, folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            harness.run(cfg)
    folder = harness.folder_of(cfg)
    assert (folder / "last.ckpt").exists()
    first = (folder / "last.ckpt").stat().st_mtime_ns
    harness.run(cfg)
    assert (folder / "last.ckpt").stat().st_mtime_ns > first
    assert [row["step"] for row in table(folder / "metrics.csv")] == [str(step) for step in range(1, 52)]


def test_a_log_belongs_to_its_run_alone(tmp_path):
    import logging

    first = harness.run(small("random", tmp_path))
    size = (first / "train.log").stat().st_size
    harness.run(small("random", tmp_path, "seed=1"))
    assert (first / "train.log").stat().st_size == size
    assert not [
        h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler) and "train.log" in h.baseFilename
    ]


def test_numbers_are_plain():
    import torch

    assert building.number("a", torch.tensor(3)) == 3
    assert type(building.number("a", torch.tensor(0.5))) is float
    assert type(building.number("a", 2)) is int
    json.dumps(building.number("a", torch.tensor(0.5)))


def test_a_run_keeps_the_command_line_that_repeats_it(train, tmp_path):
    sizes = ("method=random", *SMALL, "force=true", "seed=4")
    assert train(*sizes, "sweep=dvrl/removal", "dataset=digits", "method.datamodule.noise_rate=0.1").code == 0
    record = Record.of(harness.read(next((tmp_path / "out").glob("runs/*/*/*/record.json"))))
    assert "sweep=dvrl/removal" in record.overrides
    assert not [given for given in record.overrides if given.startswith(("force", "hardware", "logger", "paths"))]
    again = resolved(harness.compose(*record.overrides))
    assert (run_key(again), again["table"]) == (record.run_key, "dvrl/removal")


@pytest.mark.parametrize("paper", available_papers())
def test_the_commands_of_the_records_name_their_sweep_and_seed(paper):
    for record in collect(harness.ROOT / "outputs", paper, runs=False).records:
        if record.overrides:
            assert f"seed={record.seed}" in record.overrides
            named = [given for given in record.overrides if given.startswith(("sweep=", "table="))]
            assert named in ([f"sweep={record.table}"], [f"table={record.table}"]) if record.table else not named
