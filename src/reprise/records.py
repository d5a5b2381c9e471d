"""What a run leaves on disk, written so that a kill at any moment leaves either the old file or the new one."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import yaml

log = logging.getLogger("reprise")
PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "omegaconf", "numpy", "scipy", "scikit-learn", "wandb")


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: a temporary file beside it, then a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write sorted, indented JSON atomically; NaN and infinity are refused because JSON has neither."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


class RunFolder:
    """One run's folder: ``<output_dir>/runs/<method>/<dataset>/s<seed>-<run_key>/``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def state(self) -> str | None:
        """``running``, ``done``, ``failed``, or ``None`` when there is no readable status."""
        try:
            return json.loads((self.path / "status.json").read_text())["state"]
        except (OSError, ValueError, KeyError):
            return None

    def set_state(self, state: str, error: str | None = None) -> None:
        """Record how the run stands."""
        write_json(self.path / "status.json", {"state": state, "error": error})

    def stored_metrics(self) -> dict[str, float] | None:
        """The metrics of a finished run that is still whole, else ``None``; damage is reported."""
        if self.state != "done":
            return None
        try:
            metrics, record = (json.loads((self.path / name).read_text()) for name in ("metrics.json", "record.json"))
        except (OSError, ValueError) as error:
            log.warning("%s was finished, but its results cannot be read (%s); it is done again", self.path, error)
            return None
        return metrics if isinstance(record, dict) and isinstance(metrics, dict) else None

    @property
    def held(self) -> bool:
        """Whether a process is at work on it. Its lock is freed by the operating system when that dies."""
        lock = filelock.FileLock(self.path / ".lock")
        try:
            with lock.acquire(timeout=0):
                return False
        except filelock.Timeout:
            return True
        except OSError:  # a folder that cannot be written to
            return False

    def record(self) -> dict[str, Any]:
        """The compact line of a finished run."""
        return json.loads((self.path / "record.json").read_text())

    def clear(self) -> None:
        """Remove what an earlier, different or unwanted attempt left; the lock stays."""
        for file in self.path.rglob("*"):
            if file.is_file() and file.name != ".lock":
                file.unlink()

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the resolved config."""
        write_text(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False))


def environment(data_checksum: str, device: str, count: int = 1) -> dict[str, Any]:
    """Where and with what a run was made: the commit, versions, hardware (so many of one kind) and data."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else device

    commit, dirty = _git()
    return {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor_threads": torch.get_num_threads(),
        "device": name if count == 1 else f"{count} x {name}",
        "data": data_checksum,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git() -> tuple[str | None, bool | None]:
    """Commit of the source tree and whether it has uncommitted changes; ``None`` outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
