"""One run: config -> data, module, trainer -> record.

A run is its content. Its folder is named by the hash of what determines its numbers, so a finished run is returned at
once, an interrupted one goes on from its last epoch, and two processes never work on the same run at the same time.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
from omegaconf import DictConfig

from reprise import ledger
from reprise.config import group_key, protocol_key, resolved, run_key
from reprise.errors import UserError
from reprise.records import RunFolder, environment, write_json

log = logging.getLogger("reprise")


def run(cfg: DictConfig) -> dict[str, float]:
    """Do one run, or return the stored metrics of the same run done before.

    Raises:
        UserError: the input cannot work; any other exception is a failed run, kept in ``status.json`` and ``train.log``.
    """
    config = resolved(cfg)
    key = run_key(config)
    folder = RunFolder(
        Path(config["paths"]["output_dir"])
        / "runs"
        / config["method"]["name"]
        / config["dataset"]["name"]
        / f"s{config['seed']}-{key}"
    )
    entry = {"method": config["method"]["name"], "dataset": config["dataset"]["name"], "seed": config["seed"]}
    entry |= {"folder": str(folder.path), "paper": config["method"]["paper"]}
    try:
        with _alone(folder):
            metrics = None if config["force"] else folder.stored_metrics()
            state = "done" if metrics is None else "stored"
            if metrics is None:
                metrics = _execute(config, folder, key)
    except Exception as error:
        ledger.append(entry | {"state": "failed", "error": f"{type(error).__name__}: {error}"})
        if ledger.active():
            log.error("%s on %s, seed %s failed: %s", entry["method"], entry["dataset"], entry["seed"], error)
        raise
    ledger.append(entry | {"state": state, "error": None})
    _report(folder, state)
    return metrics


@contextmanager
def _alone(folder: RunFolder) -> Iterator[None]:
    """Hold the run's lock; the operating system frees it when the process dies. Only the first process of a run asks."""
    if int(os.environ.get("LOCAL_RANK", "0")) > 0:
        yield
        return
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


def _execute(config: dict[str, Any], folder: RunFolder, key: str) -> dict[str, float]:
    """Train, measure and write everything down; the state on disk is ``running`` until the last file is there."""
    if config["force"] or folder.state not in ("running", "interrupted"):
        folder.clear()
    folder.set_state("running")
    folder.write_config(config)
    with _log_file(folder.path / "train.log"):
        try:
            metrics = _train(config, folder, key)
        except BaseException as error:
            log.debug("%s", traceback.format_exc())
            interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
            folder.set_state("interrupted" if interrupted else "failed", f"{type(error).__name__}: {error}")
            raise KeyboardInterrupt from error if interrupted else error
    return metrics


def _train(config: dict[str, Any], folder: RunFolder, key: str) -> dict[str, float]:
    import lightning.pytorch as pl
    import torch

    from reprise import building, callbacks, dashboard

    pl.seed_everything(config["seed"], workers=True, verbose=False)
    if config["hardware"]["threads"]:
        torch.set_num_threads(config["hardware"]["threads"])
    source = building.source(config)
    datamodule = building.datamodule(config, source)
    module = building.module(config, datamodule)
    history = callbacks.History(folder.path / "metrics.csv")
    checkpoint = callbacks.LastCheckpoint(folder.path / "last.ckpt")
    mirror = dashboard.open_mirror(config, key, group_key(config), checkpoint.path)
    try:
        trainer = building.trainer(config, module, mirror, [history, checkpoint, callbacks.Progress()])
        resume = str(checkpoint.path) if checkpoint.path.exists() else None
        trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=True)
        began = time.perf_counter()
        metrics = module.final_metrics(datamodule)
        files = module.artifacts(folder.path)
        metrics |= {"time/fit_seconds": history.seconds, "time/evaluation_seconds": time.perf_counter() - began}
        metrics = {name: building.number(name, value) for name, value in metrics.items()}
        env = environment(source.spec.checksum, module.device.type)
        _write_results(config, folder, key, metrics, env, datamodule.protocol)
        dashboard.publish(mirror, metrics, files)
    finally:
        dashboard.close(mirror)
    checkpoint.path.unlink(missing_ok=True)
    folder.set_state("done")
    return metrics


def _write_results(
    config: dict[str, Any],
    folder: RunFolder,
    key: str,
    metrics: dict[str, float],
    env: dict[str, Any],
    protocol: dict[str, Any],
) -> None:
    write_json(folder.path / "metrics.json", metrics)
    write_json(folder.path / "env.json", env)
    record = {
        "paper": config["method"]["paper"],
        "method": config["method"]["name"],
        "dataset": config["dataset"]["name"],
        "seed": config["seed"],
        "scale": config["scale"],
        "run_key": key,
        "group": group_key(config),
        "protocol": protocol_key(config),
        "condition": protocol,
        "table": config["table"],
        "metrics": metrics,
        "env": {name: env[name] for name in ("commit", "dirty", "device", "finished")} | env["versions"],
    }
    write_json(folder.path / "record.json", record)


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Everything logged during the run, tracebacks included, also goes to ``train.log``."""
    handler = logging.FileHandler(path)
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
    from rich.console import Console

    from reprise.reported import load_reported
    from reprise.tables import summary_of_run

    console = Console()
    console.print(summary_of_run(record, load_reported(record["paper"])))
    console.print(f"Run folder: {folder.path}", soft_wrap=True)


__all__ = ["UserError", "run"]
