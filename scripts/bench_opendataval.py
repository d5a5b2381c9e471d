"""OpenDataVal's DVRL on rows given as npz; started by ``bench.py dvrl --opendataval`` with a Python that has it.

Prints one JSON line: ``[outer steps, seconds, AUROC]`` along the run. The clock stands still while values are judged.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time

import numpy as np
import torch
from opendataval.dataval import DVRL
from opendataval.metrics import accuracy
from opendataval.model import ClassifierSkLearnWrapper
from opendataval.model.logistic_regression import LogisticRegression as TorchLogisticRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

EVERY = 5  # outer steps between two looks at the values
TORCH_STEPS = 20  # full-batch Adam steps of an inner fit, as in ours; its default is one pass in batches of 32


class OutOfTimeError(Exception):
    """The time is up."""


class WatchedDVRL(DVRL):
    """Looks at its values on the way; ``evaluate`` is called once before the loop and once per outer step."""

    def watch(self, corrupted: np.ndarray, budget: float) -> None:
        """Start the clock."""
        self.corrupted, self.budget, self.history = corrupted, budget, []
        self.calls, self.paused, self.began = 0, 0.0, time.perf_counter()

    def evaluate(self, y: torch.Tensor, y_hat: torch.Tensor) -> float:
        """The reward, as always."""
        steps, now = self.calls - 1, time.perf_counter()  # the reward of a step comes before its update
        self.calls += 1
        if steps >= 0 and steps % EVERY == 0:
            with torch.no_grad():
                values = self.value_estimator(self.x_train, self.y_train, self.y_pred_diff)[:, 0]
            seconds = now - self.began - self.paused
            self.history.append([steps, seconds, float(roc_auc_score(self.corrupted, -values.double().numpy()))])
            if seconds > self.budget:
                raise OutOfTimeError
            self.paused += time.perf_counter() - now
        return super().evaluate(y, y_hat)


def main() -> None:
    """Arguments: npz file, ``sklearn`` or ``torch``, rows per outer step, seconds."""
    path, kind, rows, budget = sys.argv[1:]
    data = dict(np.load(path))
    tensors = {name: torch.tensor(data[name]).float() for name in ("x_train", "y_train", "x_valid", "y_valid")}
    features, classes = data["x_train"].shape[1], data["y_train"].shape[1]
    if kind == "torch":
        model = TorchLogisticRegression(features, classes)
        options = {"batch_size": int(rows), "epochs": TORCH_STEPS, "lr": 1 / float(data["row_size"])}
    else:
        model, options = ClassifierSkLearnWrapper(LogisticRegression, classes), {}
    method = WatchedDVRL(rl_batch_size=int(rows), random_state=0).input_data(**tensors)
    method.input_model(model).input_metric(accuracy)
    method.watch(data["corrupted"], float(budget))
    with contextlib.suppress(OutOfTimeError):
        method.train_data_values(**options)
    print(json.dumps(method.history))


if __name__ == "__main__":
    main()
