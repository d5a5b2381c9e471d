"""The ledger of one sweep: every job leaves a line, and the command ends with what became of each.

Hydra's launchers run all jobs but report one failure only; jobs may be other processes or other machines. So the jobs
append to a small file in the output folder, whose path travels in the environment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

VARIABLE = "REPRISE_LEDGER"

_unwritten: list[dict[str, Any]] = []  # this process's own, where the file could not be written


class Ledger(Callback):
    """Hydra callback: opens a ledger when a multirun starts."""

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Choose the ledger's path and hand it to the jobs through the environment."""
        stamp = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
        os.environ[VARIABLE] = str(Path(config.paths.output_dir).absolute() / "sweeps" / f"{stamp}.jsonl")


def start() -> None:
    """Forget a ledger inherited from the shell that started this command, or left by an earlier one."""
    _unwritten.clear()
    os.environ.pop(VARIABLE, None)


def active() -> bool:
    """Whether this process is a job of a sweep."""
    return VARIABLE in os.environ


def append(config: Mapping[str, Any], state: str, folder: str | None = None, error: str | None = None) -> None:
    """Add one job's line; does nothing outside a sweep. A line is one write, so that parallel jobs do not mix.

    Raises:
        OSError: it cannot be written, and the ledger is another process's.
    """
    if not active():
        return
    method = config["method"]
    entry = {"method": method["name"], "paper": method["paper"], "dataset": config["dataset"]["name"]}
    entry |= {"seed": config["seed"], "state": state, "folder": folder, "error": error}
    path = Path(os.environ[VARIABLE])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write("\n" + json.dumps(entry, sort_keys=True) + "\n")  # apart from a line that was cut short
    except OSError:  # a full disk must not hide what became of the job
        if not _opened_here(path):  # nobody would learn of it but through the launcher
            raise
        _unwritten.append(entry)


def _opened_here(path: Path) -> bool:
    return path.stem.rpartition("-")[2] == str(os.getpid())


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a ledger, in the order in which the jobs ended."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError):  # a line that a full disk cut short; its job is in `_unwritten`
            found.append(json.loads(line))
    return found


def entries() -> list[dict[str, Any]]:
    """How the jobs of this sweep have ended so far."""
    return [*read(Path(os.environ[VARIABLE])), *_unwritten]


def summarise() -> list[dict[str, Any]]:
    """Print how the sweep's jobs ended and the table of its results; return the failed ones (none outside a sweep)."""
    if not active():
        return []
    ended = entries()
    failed = [entry for entry in ended if entry["state"] == "failed"]
    if ended:
        from reprise.summary import print_sweep

        print_sweep(ended)
    return failed
