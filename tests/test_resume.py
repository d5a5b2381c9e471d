"""A run that was stopped anywhere goes on, and ends with the bits of a run that was not."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import harness
import pytest
from harness import SMALL, methods_of, numbers, small
from safetensors import safe_open

from reprise import callbacks, run

# Three epochs of 17 steps, with whatever carries state from step to step.
STATEFUL = {
    "dvrl": ["method.module.outer_steps=51", "method.module.selections=4"],
    "dvrl_paper": [
        "method.module.outer_steps=51",
        "method.module.outer_batch=20",
        "method.module.predictor.batch_size=16",
    ],
    "dvrl_official_code": ["method.module.outer_steps=51"],
    "loo": ["method.module.together=20"],
}
STREAM = ["method.module.steps=4", "method.module.parallel=1"]  # two epochs per task
LONG = ["method=dvrl", *SMALL, "method.module.outer_steps=400"]


def made_once(tmp_path_factory, options):
    """Gives the folder of a method's uninterrupted run with ``options(method)``, made when it is first asked for."""
    made = {}

    def get(method):
        if method not in made:
            made[method] = harness.run(small(method, tmp_path_factory.mktemp(method), *options(method)))
        return made[method]

    return get


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Folder of the uninterrupted run of a method, made once."""
    return made_once(tmp_path_factory, STATEFUL.__getitem__)


def results(folder):
    """What two runs of the same config must share to the last bit; methods that log nothing have no history."""
    files = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    assert len(files) >= 3
    return files | {path.name: tensors(path) for path in folder.glob("*.safetensors")} | {"metrics": numbers(folder)}


def tensors(path):
    """A file's tensors and what is written about them, whose order within the file is not fixed."""
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()} | {"about": file.metadata()}  # noqa: SIM118


def stop_at(call, owner, name, after=False):
    """A replacement of ``owner.name`` interrupted at its ``call``-th call (of ``os.replace``: those on checkpoints)."""
    original, calls = getattr(owner, name), []

    def interrupted(*args, **kwargs):
        if name == "replace" and Path(args[1]).name != "last.ckpt":
            return original(*args, **kwargs)
        calls.append(1)
        if len(calls) == call and not after:
            raise KeyboardInterrupt
        result = original(*args, **kwargs)
        if len(calls) == call:
            raise KeyboardInterrupt
        return result

    return interrupted


def stop_after(epoch, cfg, monkeypatch):
    """Run until an epoch's checkpoint is written, and no further."""
    name = "on_train_epoch_end"
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.LastCheckpoint, name, stop_at(epoch, callbacks.LastCheckpoint, name, after=True))
        with pytest.raises(KeyboardInterrupt):
            harness.run(cfg)
    assert harness.read(harness.folder_of(cfg) / "status.json")["state"] == "interrupted"


MOMENTS = {
    "in the first epoch": (callbacks.History, "on_train_batch_end", 1, False),
    "before the second checkpoint": (callbacks.LastCheckpoint, "on_train_epoch_end", 2, False),
    "while the second checkpoint is renamed": (callbacks.os, "replace", 2, False),
    "after the second checkpoint": (callbacks.LastCheckpoint, "on_train_epoch_end", 2, True),
    "after the last checkpoint": (callbacks.LastCheckpoint, "on_train_epoch_end", 3, True),
    "while the results are written": (run, "write_json", 2, False),
    "just before the end": (run, "_write_results", 1, True),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_stopped_anywhere_ends_like_a_straight_one(straight, tmp_path, monkeypatch, moment):
    owner, name, call, after = MOMENTS[moment]
    cfg = small("dvrl", tmp_path, *STATEFUL["dvrl"])
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop_at(call, owner, name, after))
        with pytest.raises(KeyboardInterrupt):
            harness.run(cfg)
    folder = harness.folder_of(cfg)
    assert harness.read(folder / "status.json")["state"] == "interrupted"
    assert harness.run(cfg) == folder
    assert harness.read(folder / "status.json")["state"] == "done"
    assert results(folder) == results(straight("dvrl"))


@pytest.mark.parametrize("method", [m for m in STATEFUL if m != "dvrl"])
def test_every_method_with_state_goes_on_where_it_stopped(straight, tmp_path, monkeypatch, capsys, method):
    cfg = small(method, tmp_path, *STATEFUL[method])
    with monkeypatch.context() as patch:
        name = "on_train_epoch_end"
        patch.setattr(callbacks.LastCheckpoint, name, stop_at(2, callbacks.LastCheckpoint, name, after=True))
        with pytest.raises(KeyboardInterrupt):
            harness.run(cfg)
    capsys.readouterr()
    folder = harness.run(cfg)
    done = 2 if method == "loo" else 34
    assert f"going on at step {done} of" in capsys.readouterr().err
    assert results(folder) == results(straight(method))


@pytest.fixture(scope="module")
def short_epochs():
    """Two optimiser steps between two checkpoints, so that a run is also stopped within a task."""
    from reprise.papers.supsup import continual

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(continual, "EPOCH", 2)
        yield


@pytest.fixture(scope="module")
def straight_stream(tmp_path_factory, short_epochs):
    """Folder of the uninterrupted run of a method that learns a stream, made once."""
    return made_once(tmp_path_factory, lambda method: STREAM)


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("method", methods_of("supsup"))
def test_a_stream_goes_on_within_a_task_and_between_tasks(straight_stream, tmp_path, monkeypatch, method, epoch):
    cfg = small(method, tmp_path, *STREAM)
    stop_after(epoch, cfg, monkeypatch)
    assert results(harness.run(cfg)) == results(straight_stream(method))


def test_a_half_written_checkpoint_is_ignored(straight, tmp_path, monkeypatch):
    cfg = small("dvrl", tmp_path, *STATEFUL["dvrl"])
    with monkeypatch.context() as patch:
        name = "on_train_epoch_end"
        patch.setattr(callbacks.LastCheckpoint, name, stop_at(1, callbacks.LastCheckpoint, name, after=True))
        with pytest.raises(KeyboardInterrupt):
            harness.run(cfg)
    folder = harness.folder_of(cfg)
    whole = (folder / "last.ckpt").read_bytes()
    (folder / "last.writing").write_bytes(whole[: len(whole) // 2])
    (folder / ".metrics.csv.abc").write_text("step,train/re")
    assert results(harness.run(cfg)) == results(straight("dvrl"))
    assert not (folder / "last.writing").exists()


def test_a_checkpoint_with_flipped_bits_is_reported_and_the_run_starts_afresh(straight, tmp_path, monkeypatch, caplog):
    cfg = small("dvrl", tmp_path, *STATEFUL["dvrl"])
    with monkeypatch.context() as patch:
        name = "on_train_epoch_end"
        patch.setattr(callbacks.LastCheckpoint, name, stop_at(1, callbacks.LastCheckpoint, name, after=True))
        with pytest.raises(KeyboardInterrupt):
            harness.run(cfg)
    path = harness.folder_of(cfg) / "last.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert results(harness.run(cfg)) == results(straight("dvrl"))
    assert "last.ckpt is damaged; the run starts from the beginning" in caplog.text


def wait_for(condition, process, seconds=100):
    for _ in range(seconds * 100):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    pytest.fail("the other process did not get there")


def test_kill_9_loses_at_most_an_epoch(tmp_path, capsys):
    """Both ways through one real process: killed by the system once it has a checkpoint, then gone on with here."""
    process = harness.start(*LONG, f"paths.output_dir={tmp_path / 'killed'}")
    try:
        wait_for(lambda: list((tmp_path / "killed").glob("runs/dvrl/digits/*/last.ckpt")), process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    cfg = harness.compose(*LONG, f"paths.output_dir={tmp_path / 'killed'}")
    assert harness.read(harness.folder_of(cfg) / "status.json")["state"] == "running"
    capsys.readouterr()
    killed = harness.run(cfg)
    assert "going on at step " in capsys.readouterr().err
    assert results(killed) == results(harness.run(harness.compose(*LONG, f"paths.output_dir={tmp_path / 'straight'}")))


def test_a_second_process_waits_and_takes_the_stored_result(tmp_path, monkeypatch):
    """The second one starts while the first (this one) is at work and holds the lock."""
    from reprise import building

    argv = ["method=validation_only", *SMALL, f"paths.output_dir={tmp_path}"]
    source, other = building.source, []

    def start_other(config):
        other.append(harness.start(*argv))
        for line in other[0].stderr:
            if "another process is at work" in line:
                break
        assert other[0].poll() is None
        return source(config)

    monkeypatch.setattr(building, "source", start_other)
    folder = harness.run(harness.compose(*argv))
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}
    out, err = other[0].communicate(timeout=100)
    assert other[0].returncode == 0, err
    assert "already done" in err
    assert str(folder) in out
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"} == written


@pytest.fixture(scope="module")
def short_passes():
    """A checkpoint after every pass over the few images."""
    from reprise.papers.crvae import module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EPOCH", 1)
        yield


@pytest.fixture(scope="module")
def straight_views(tmp_path_factory, short_passes):
    """Folder of the uninterrupted run of an auto-encoder, made once."""
    return made_once(tmp_path_factory, lambda method: VIEWS)


VIEWS = ("method.module.warmup=2", "method.module.schedule=cosine")  # what depends on the step


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("method", ["crvae", "iwae", "cr_hierarchical"])
def test_an_autoencoder_goes_on_with_its_best_weights(straight_views, tmp_path, monkeypatch, method, epoch):
    cfg = small(method, tmp_path, *VIEWS)
    stop_after(epoch, cfg, monkeypatch)
    assert results(harness.run(cfg)) == results(straight_views(method))
