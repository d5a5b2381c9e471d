"""What every run does while it trains: keep its history, keep a checkpoint, show progress."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import os
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint

from reprise.records import write_text

log = logging.getLogger("reprise")


class History(Callback):
    """Every metric a module logs, step by step, in ``metrics.csv``.

    The rows travel in the checkpoint, so the file of a resumed run equals that of a straight one.

    Attributes:
        seconds: of training, those of earlier attempts included.
        set_up: when this process was ready to train, on the clock of `time.perf_counter`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self.set_up = self._began = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Rows and training time so far."""
        return {"rows": self.rows, "seconds": self.seconds + time.perf_counter() - self._began}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the rows of the interrupted run."""
        self.rows, self.seconds = list(state_dict["rows"]), state_dict["seconds"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Data and module are set up in this process, whether anything is left to train or not."""
        self.set_up = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Keep the step's metrics; a loss that is not a number ends the run."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        bad = [name for name, value in values.items() if value != value]
        if bad:
            raise FloatingPointError(f"{', '.join(bad)} became NaN at step {self.step(pl_module)}")
        self.rows.append({"step": self.step(pl_module)} | values)

    @staticmethod
    def step(module: pl.LightningModule) -> int:
        """Number of batches done, counted alike with one optimizer, several or none."""
        return module.trainer.fit_loop.epoch_loop.total_batch_idx + 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file once an epoch."""
        if trainer.is_global_zero and self.rows:
            text = io.StringIO()
            names = list(dict.fromkeys(name for row in self.rows for name in row))
            writer = csv.DictWriter(text, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
            write_text(self.path, text.getvalue())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self.seconds += time.perf_counter() - self._began
        self._began = time.perf_counter()


class LastCheckpoint(Checkpoint):
    """``last.ckpt`` after every epoch, written beside and renamed: a kill while writing leaves the last one whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def to_resume(self) -> Path | None:
        """The checkpoint to go on from; a file that is not whole is reported and the run starts afresh."""
        if not self.path.exists():
            return None
        with contextlib.suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(self.path) as file:
            if file.testzip() is None:  # torch writes zip files: their directory stands at the end, with checksums
                return self.path
        log.warning("%s is damaged; the run starts from the beginning", self.path)
        return None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; Lightning calls checkpoint callbacks after all others, so their state is complete."""
        beside = self.path.with_suffix(".writing")
        trainer.save_checkpoint(beside)
        if trainer.is_global_zero:
            os.replace(beside, self.path)


class Progress(Callback):
    """A progress bar on a terminal, a line every tenth of the way elsewhere.

    Shows the metrics that the module names in ``progress_metrics`` and the time left.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._tenth = 0
        self._began = (0, 0.0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar at the step where the run starts or goes on."""
        self._total = trainer.max_epochs * trainer.num_training_batches
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        self._began, self._tenth = (done, time.perf_counter()), 10 * done // self._total
        if done and trainer.is_global_zero:
            print(f"going on at step {done} of {self._total}", file=sys.stderr)
        if trainer.is_global_zero and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[metrics]}"), console=Console(stderr=True))
            self._task = self._bar.add_task(pl_module.title, total=self._total, completed=done, metrics="")
            self._bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Advance."""
        if not trainer.is_global_zero:
            return
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if self._bar is not None:
            self._bar.update(self._task, completed=done, metrics=self._metrics(trainer, pl_module))
        elif 10 * done // self._total > self._tenth:
            self._tenth = 10 * done // self._total
            first, since = self._began
            left = (time.perf_counter() - since) / max(done - first, 1) * (self._total - done)
            text = f"{pl_module.title} {done}/{self._total}  {self._metrics(trainer, pl_module)}  {left:.0f} s left"
            print(text, file=sys.stderr, flush=True)

    @staticmethod
    def _metrics(trainer: pl.Trainer, module: pl.LightningModule) -> str:
        known = trainer.callback_metrics
        return "  ".join(
            f"{name.rsplit('/')[-1]} {float(known[name]):.4g}" for name in module.progress_metrics if name in known
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self.on_train_end(trainer, pl_module)


def steps_loader(steps: int) -> torch.utils.data.DataLoader:
    """A loader of step numbers, for methods whose data lies on the device as one tensor."""
    return torch.utils.data.DataLoader(range(steps), batch_size=None, num_workers=0)
