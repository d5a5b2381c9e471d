"""The mirror in Weights & Biases: offline by default, never the truth, never a reason for a run to fail.

The run's id is its run_key, so the dashboard knows a run however often it was interrupted. Offline, where W&B cannot
resume, the folder of an interrupted attempt is replaced and its history replayed from the checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from reprise.callbacks import History
from reprise.config import content, group_key, run_key
from reprise.errors import UserError

MODES = ("offline", "online", "disabled")

log = logging.getLogger("reprise")


class Mirror(Callback):
    """Sends a run's history while it trains, and its results when it is done.

    Args:
        config: the resolved config; ``logger.wandb`` false or ``logger.mode`` disabled opens nothing.
        history: where the metrics are kept.
    """

    def __init__(self, config: dict[str, Any], history: History) -> None:
        self.history, self.run, self.sent = history, None, 0
        options = config["logger"]
        self.every = options.get("every", 1)
        if not options["wandb"]:
            return
        if options["mode"] not in MODES:
            raise UserError(f"logger.mode={options['mode']} is not one of {', '.join(MODES)} (WANDB_MODE sets it).")
        if options["mode"] == "disabled":
            return
        import wandb

        folder, key = Path(config["paths"]["output_dir"]), run_key(config)
        offline = options["mode"] == "offline"
        if offline:
            for partial in (folder / "wandb").glob(f"offline-run-*-{key}"):
                shutil.rmtree(partial)
        method, dataset = config["method"]["name"], config["dataset"]["name"]
        try:
            self.run = wandb.init(
                project=options["project"],
                dir=folder,
                mode=options["mode"],
                id=f"{key}-{time.time():.0f}" if config["force"] and not offline else key,
                resume=None if offline else "allow",
                name=f"{method} {dataset} seed {config['seed']}",
                group=group_key(config),
                job_type=f"{method}/{dataset}",
                tags=[config["method"]["paper"], *([config["table"]] if config["table"] else [])],
                config=content(config),
                settings=wandb.Settings(silent=True, console="off"),
            )
        except Exception as error:
            log.warning("W&B could not start, the run goes on without it: %s", " ".join(str(error).split()))

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Send what is new, every few steps; after a resume that includes the rows from before."""
        if len(self.history.rows) - self.sent >= self.every:
            self._send_history()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send the rest."""
        self._send_history()

    def _send_history(self) -> None:
        with self._or_without():
            for row in self.history.rows[self.sent :] if self.run is not None else ():
                self.run.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])
        self.sent = len(self.history.rows)

    def publish(self, metrics: dict[str, float], files: list[Path]) -> None:
        """Final metrics as the run's summary; figures and tables as media, whatever else there is as files."""
        if self.run is None:
            return
        import pandas as pd
        import wandb

        with self._or_without():
            media = {path.stem: wandb.Image(str(path)) for path in files if path.suffix == ".png"}
            media |= {path.stem: wandb.Table(dataframe=pd.read_csv(path)) for path in files if path.suffix == ".csv"}
            self.run.log(media)
            for path in files:
                if path.suffix not in (".png", ".csv"):  # a copy, since W&B would link to the run's folder
                    self.run.save(shutil.copy(path, self.run.dir), base_path=self.run.dir, policy="now")
            self.run.summary.update(metrics)

    def close(self) -> None:
        """End W&B's run, as failed when an exception is on its way; the next job of a sweep needs a fresh one."""
        code = int(sys.exc_info()[0] is not None)
        with self._or_without():
            run, self.run = self.run, None
            if run is not None:
                run.finish(exit_code=code)

    @contextlib.contextmanager
    def _or_without(self) -> Iterator[None]:
        """Whatever goes wrong in W&B while the run is at work is a warning and ends the mirror, not the run."""
        try:
            yield
        except Exception as error:
            log.warning("W&B stopped, the run goes on without it: %s", " ".join(str(error).split()))
            run, self.run = self.run, None
            if run is not None:
                with contextlib.suppress(Exception):
                    run.finish(exit_code=1)
