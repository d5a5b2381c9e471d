"""One run: config -> data, module, trainer -> record.

A run is its content. Its folder is named by the hash of what determines its numbers, so a finished run is returned at
once, an interrupted one goes on from its last epoch, and two processes never work on the same run at the same time.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
from omegaconf import DictConfig

from reprise import ledger
from reprise.config import given_overrides, group_key, protocol_key, resolved, run_key
from reprise.errors import UserError
from reprise.records import RunFolder, environment, write_json

log = logging.getLogger("reprise")


def run(cfg: DictConfig) -> dict[str, float]:
    """Do one run, or return the stored metrics of the same run done before.

    Raises:
        UserError: the input cannot work. Any other exception is a failed run, kept in ``status.json`` and the log.
    """
    config = resolved(cfg)
    folder = RunFolder(
        Path(config["paths"]["output_dir"])
        / "runs"
        / config["method"]["name"]
        / config["dataset"]["name"]
        / f"s{config['seed']}-{run_key(config)}"
    )
    with _alone(folder):
        metrics = None if config["force"] else folder.stored_metrics()
        state = "done" if metrics is None else "stored"
        if metrics is None:
            metrics = _execute(config, folder)
    ledger.append(config, state, folder=str(folder.path))
    _report(folder, state)
    return metrics


@contextmanager
def _alone(folder: RunFolder) -> Iterator[None]:
    """Hold the run's lock, which the operating system frees when the process dies."""
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder.path / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log.info("another process is at work on %s; waiting for it", folder.path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _execute(config: dict[str, Any], folder: RunFolder) -> dict[str, float]:
    """Train, measure and write everything down; the state on disk is ``running`` until the last file is there."""
    if config["force"] or folder.state not in ("running", "interrupted"):
        folder.clear()
    folder.set_state("running")
    folder.write_config(config)
    with _log_file(folder.path / "train.log"):
        try:
            metrics = _train(config, folder)
        except BaseException as error:
            log.debug("%s", traceback.format_exc())
            if isinstance(error, UserError):  # nothing was run: leave no trace, and no checkpoint is lost
                with suppress(OSError):
                    folder.set_state("interrupted")
                if not (folder.path / "last.ckpt").exists():
                    folder.clear()
                raise
            if isinstance(error, Exception):
                with suppress(OSError):  # the disk may be full; the first error is the one to tell
                    folder.set_state("failed", f"{type(error).__name__}: {error}")
                error.add_note(f"{folder.path}/train.log")
                raise
            with suppress(OSError):
                folder.set_state("interrupted")
            raise KeyboardInterrupt from error  # Lightning turns an interrupt into SystemExit
    return metrics


def _train(config: dict[str, Any], folder: RunFolder) -> dict[str, float]:
    from reprise import building, callbacks, dashboard, processes
    from reprise.memory import peak_bytes

    setting_up = time.perf_counter()
    source, datamodule, module = _built(config)
    history = callbacks.History(folder.path / "metrics.csv")
    mirror = dashboard.Mirror(config, history)
    try:
        with processes.beside(config, folder.path, _follow):
            _fit(config, folder.path, module, datamodule, [history, mirror, callbacks.Progress()])
        began = time.perf_counter()
        metrics = module.final_metrics(datamodule)
        files = module.artifacts(folder.path)
        metrics |= {"time/setup_seconds": history.set_up - setting_up, "time/fit_seconds": history.seconds}
        metrics["time/evaluation_seconds"] = time.perf_counter() - began
        metrics["memory/peak_bytes"] = peak_bytes()  # of the process: in a sweep, of all its runs so far
        metrics = {name: building.number(name, value) for name, value in metrics.items()}
        env = environment(source.spec.checksum, module.device.type, processes.count(config))
        _write_results(config, folder, metrics, env, getattr(module, "condition", {}) | datamodule.protocol)
        mirror.publish(metrics, files)
    finally:
        mirror.close()
    folder.set_state("done")
    return metrics


def _follow(config: dict[str, Any], folder: Path, ready: Callable[[], None]) -> None:
    """What a run's other processes do: the same training, whose results the first one writes down."""
    from reprise import callbacks

    _, datamodule, module = _built(config)
    _fit(config, folder, module, datamodule, [callbacks.History(folder / "metrics.csv")], ready)


def _built(config: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Data, datamodule and module, all from the run's seed."""
    import lightning.pytorch as pl
    import torch

    from reprise import building, processes
    from reprise.memory import keep_freed_memory

    keep_freed_memory()
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    if threads := processes.threads(config):
        torch.set_num_threads(threads)
    source = building.source(config)
    datamodule = building.datamodule(config, source)
    datamodule.cache_dir = Path(config["paths"]["output_dir"]) / "cache"  # for what runs may share
    return source, datamodule, building.module(config, datamodule)


def _fit(
    config: dict[str, Any],
    folder: Path,
    module: Any,
    datamodule: Any,
    others: list[Any],
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Train, or go on from the last epoch; ``ready`` is called when nothing else is left to do."""
    from reprise import building, callbacks

    checkpoint = callbacks.LastCheckpoint(folder / "last.ckpt")
    trainer = building.trainer(config, module, [*others, checkpoint])
    last = checkpoint.to_resume()
    ready()
    trainer.fit(module, datamodule=datamodule, ckpt_path=last, weights_only=True)


def _write_results(
    config: dict[str, Any],
    folder: RunFolder,
    metrics: dict[str, float],
    env: dict[str, Any],
    condition: dict[str, Any],
) -> None:
    write_json(folder.path / "metrics.json", metrics)
    write_json(folder.path / "env.json", env)
    record = {
        "paper": config["method"]["paper"],
        "method": config["method"]["name"],
        "dataset": config["dataset"]["name"],
        "seed": config["seed"],
        "scale": "smoke" if config["trainer"]["limit_batches"] or config["trainer"]["max_epochs"] else config["scale"],
        "run_key": run_key(config),
        "group": group_key(config),
        "protocol": protocol_key(config, condition),
        "condition": condition,
        "settings": config["method"]["module"],
        "table": config["table"],
        "variant": config["variant"],
        "overrides": given_overrides(),
        "metrics": metrics,
        "env": {name: env[name] for name in ("commit", "dirty", "device", "finished")} | env["versions"],
    }
    write_json(folder.path / "record.json", record)


class _LogFile(logging.FileHandler):
    """A log that a full disk does not turn into noise: what goes wrong is said elsewhere, too."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing."""

    def close(self) -> None:
        """Close it, whatever is left to write."""
        with suppress(OSError):
            super().close()


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Everything logged during the run, tracebacks included, also goes to ``train.log``."""
    handler = _LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    log.setLevel(logging.DEBUG)
    consoles = [h for h in root.handlers if h is not handler]
    for console in consoles:
        console.addFilter(_not_debug)
    try:
        yield
    finally:
        for console in consoles:
            console.removeFilter(_not_debug)
        logging.captureWarnings(False)
        root.removeHandler(handler)
        handler.close()


def _not_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG and record.name != "py.warnings"


def _report(folder: RunFolder, state: str) -> None:
    """The run's table and verdicts, and where its files are; in a sweep one line, since the table comes at the end."""
    record = folder.record()
    if state == "stored":
        log.info("already done, nothing to repeat (force=true would): %s", folder.path)
    if ledger.active():
        log.info("%s on %s, seed %s: %s", record["method"], record["dataset"], record["seed"], folder.path)
        return
    from reprise.evidence import collect
    from reprise.layout import terminal
    from reprise.reported import load_reported
    from reprise.summary import summary_of_run

    console = terminal()
    others = collect(folder.path.parents[3], record["paper"]).records
    console.print(summary_of_run(record, load_reported(record["paper"]), others))
    console.print(f"Run folder: {folder.path}", soft_wrap=True)
