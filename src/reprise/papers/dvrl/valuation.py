"""What all valuation methods share: the task on the device, the validation model, the evaluation, the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from reprise.data.base import DataSpec
from reprise.papers.dvrl import figures
from reprise.papers.dvrl.datamodule import ValuationTask
from reprise.papers.dvrl.evaluation import Evaluation, Values, evaluate, fit_many, outputs_of
from reprise.papers.dvrl.predictors import Parameters, Predictor, one_hot, predictions
from reprise.randomness import generator
from reprise.records import write_text

Task = Literal["classification", "regression"]
ABOUT_STEPS_PER_EPOCH = 25  # an epoch is what a kill can cost


def steps_in_epoch(steps: int) -> int:
    """The largest divisor of ``steps`` that is no larger than ``ABOUT_STEPS_PER_EPOCH``."""
    return next(size for size in range(min(steps, ABOUT_STEPS_PER_EPOCH), 0, -1) if steps % size == 0)


class Valuator(pl.LightningModule):
    """A method that gives every training row a value.

    Subclasses train in ``training_step`` and answer ``ranking``; those whose values are probabilities also override
    ``weights``; one that trains a predictor of its own on the way overrides ``trained``. Buffers hold all state between
    epochs, so that a resumed run equals a straight one.
    """

    tasks: tuple[Task, ...] = ("classification", "regression")
    single_device = True
    progress_metrics: tuple[str, ...] = ()
    title = "data valuation"
    epochs = 1
    steps_per_epoch = 1

    def __init__(self, spec: DataSpec, seed: int, predictor: Predictor) -> None:
        super().__init__()
        predictor.bind(spec)
        self.spec, self.seed, self.predictor = spec, seed, predictor
        self.task: ValuationTask | None = None
        self.evaluation: Evaluation | None = None
        # how much work the values cost: optimiser steps of predictors, and predictors fitted
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("fits", torch.zeros((), dtype=torch.int64))

    def ranking(self) -> Tensor:
        """Values ``[N]`` for ranking, larger = more valuable."""
        raise NotImplementedError

    def weights(self) -> Tensor:
        """Sample weights ``[N]`` in [0, 1]; by default the rank, since most values have no natural scale."""
        place = torch.argsort(torch.argsort(self.ranking(), stable=True))
        return (place + 1).float() / len(place)

    def trained(self) -> Parameters | None:
        """Parameters (G = 1) of a predictor that the method itself trained, judged in place of a weighted fit."""
        return None

    @property
    def condition(self) -> dict[str, str]:
        """Beside the protocol, what must be equal for two runs to be compared; the protocol has the last word."""
        return {"predictor": self.predictor.name}

    def health(self) -> dict[str, float]:
        """Signs of a run gone wrong, for methods that can go wrong."""
        return {}

    def generator(self, *purpose: int) -> torch.Generator:
        """Randomness that depends on the seed and the purpose alone, not on what was drawn before."""
        return generator(self.seed, *purpose, device=self.device)

    def on_fit_start(self) -> None:
        """Put the data on the device."""
        self.prepare(self.trainer.datamodule.task)

    def prepare(self, task: ValuationTask) -> None:
        """Put the data on the device and fit the validation model f_v."""
        self.task = task.to(self.device)
        self.target = one_hot(self.task.y_train, self.task.num_classes)
        valid = one_hot(self.task.y_valid, self.task.num_classes)
        ones = torch.ones(1, len(valid), device=self.device)
        with torch.no_grad():
            (theta,) = fit_many(self.predictor, self.task.x_valid, valid, ones, self.predictor.final_steps, self.seed)
            self.validation_model = theta
            outputs = self.predictor.outputs(theta, self.task.x_train)[:, 0]
            self.validation_predictions = predictions(outputs, self.task.num_classes)

    def validation_score(self) -> Tensor:
        """How well f_v, fitted on the validation rows alone, agrees with each given target ``[N]``, larger = better."""
        if self.task.num_classes:
            return self.validation_predictions.gather(1, self.task.y_train.unsqueeze(1)).squeeze(1)
        return -(self.validation_predictions.squeeze(1) - self.task.y_train).abs()

    def outputs_on_valid(self, weights: Tensor, steps: int) -> Tensor:
        """Validation outputs ``[L, G, C]`` of predictors fitted with ``weights [G, N]``; counts the work."""
        self.fits += len(weights)
        self.updates += len(weights) * steps
        fitted = fit_many(self.predictor, self.task.x_train, self.target, weights, steps, self.seed)
        return outputs_of(self.predictor, fitted, self.task.x_valid)

    def configure_optimizers(self) -> Any:
        """None by default: most methods have nothing to learn by gradient."""
        return None

    def final_metrics(self, datamodule: pl.LightningDataModule) -> dict[str, float]:
        """Evaluate the values on the test rows."""
        if self.task is None:
            self.prepare(datamodule.task)
        self.to(self.task.x_train.device)  # Lightning moves a module to the processor when training ends
        with torch.no_grad():
            values = Values(self.ranking(), self.weights(), self.trained())
            self.evaluation = evaluate(
                self.task, values, self.predictor, self.seed, datamodule.final_predictor, datamodule.removal_curves
            )
            cost = {"cost/predictor_updates": int(self.updates), "cost/predictor_fits": int(self.fits)}
            return self.evaluation.metrics | self.health() | cost

    @torch.no_grad()
    def artifacts(self, run_dir: Path) -> list[Path]:
        """Write the values, the curves as data and the figures; returns the files worth a place in the dashboard."""
        table = self.value_table().sort_values("row")
        curves = {"removal_curve": self.evaluation.removal, "discovery_curve": self.evaluation.discovery}
        tables = {"data_values": table} | {name: pd.DataFrame(c) for name, c in curves.items() if c is not None}
        paths = []
        for name, frame in tables.items():
            paths.append(run_dir / f"{name}.csv")
            write_text(paths[-1], frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
        corrupted = table["corrupted"].to_numpy() if self.task.knows_truth else None
        paths += figures.draw(run_dir, self.evaluation, table["value"].to_numpy(), corrupted, self.task.num_classes > 0)
        return paths

    def value_table(self) -> pd.DataFrame:
        """One line per training row: its number in the source, its name if it has one (an image's file), value, logit,
        given and true target, damaged or not.

        What is not known is left empty: a user's labels have no known truth.
        """
        task, names = self.task, np.array(self.spec.classes)
        ranking, weights = self.ranking().double().cpu().numpy(), self.weights().double().cpu().numpy()

        def label(y: Tensor) -> np.ndarray:
            return names[y.cpu().numpy()] if task.num_classes else y.cpu().numpy() * task.y_scale + task.y_mean

        unknown = [None] * len(ranking)
        return pd.DataFrame(
            {
                "row": task.rows.cpu().numpy(),
                **({"name": list(task.names)} if task.names else {}),
                "value": weights,
                "logit": ranking,
                "given_label": label(task.y_train),
                "true_label": label(task.y_true) if task.knows_truth else unknown,
                "corrupted": task.corrupted.cpu().numpy().astype(int) if task.knows_truth else unknown,
            }
        )
