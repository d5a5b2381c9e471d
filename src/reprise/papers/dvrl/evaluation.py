"""What a set of data values is worth: discovery of damaged labels, removal of rows, learning with weights.

Everything is a function of a ranking (larger = more valuable), weights in [0, 1] and one predictor; all fits of one
evaluation are done at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprise.papers.dvrl.datamodule import ValuationTask
from reprise.papers.dvrl.predictors import Parameters, Predictor, one_hot
from reprise.papers.dvrl.scores import accuracy, neg_rmse, test_score

# The official release removes 0 %, 5 %, ..., 95 % of the rows; its figures show the first half.
REMOVED = tuple(round(0.05 * step, 2) for step in range(20))
SHOWN = 0.5
ELEMENTS_PER_CHUNK = 20_000_000


@dataclass(frozen=True)
class Evaluation:
    """Metrics and curves of one ranking; ``discovery`` is ``None`` where the truth is unknown."""

    metrics: dict[str, float]
    removal: dict[str, list[float]]
    discovery: dict[str, list[float]] | None


def fit_many(
    predictor: Predictor, x: Tensor, target: Tensor, weights: Tensor, steps: int, seed: int
) -> list[Parameters]:
    """Fit G weighted predictors from the same start, in chunks that fit in memory; ``weights [G, N]``."""
    chunk = max(1, ELEMENTS_PER_CHUNK // (len(x) * target.shape[1]))
    fitted = []
    for part in weights.split(chunk):
        generator = torch.Generator(x.device).manual_seed(seed)  # the same start and batches for every chunk
        start = predictor.initial(x.shape[1], target.shape[1], len(part), generator)
        fitted.append(predictor.fit(x, target, part, start, steps, generator))
    return fitted


def outputs_of(predictor: Predictor, fitted: list[Parameters], x: Tensor) -> Tensor:
    """Outputs ``[M, G, C]`` of the predictors that ``fit_many`` returned."""
    return torch.cat([predictor.outputs(theta, x) for theta in fitted], dim=1)


def removal_weights(ranking: Tensor, fractions: tuple[float, ...], first: str) -> Tensor:
    """0/1 weights ``[len(fractions), N]`` that drop that share of the rows, ``high`` or ``low`` values first."""
    order = torch.argsort(ranking, descending=first == "high", stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    drop = torch.tensor([int(f * len(order) + 1e-9) for f in fractions], device=order.device)
    return (place >= drop.unsqueeze(1)).float()


def discovery_curve(ranking: np.ndarray, corrupted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of rows inspected, lowest value first, and share of the damaged rows found among them; ``[N + 1]`` each."""
    found = np.concatenate([[0], np.cumsum(corrupted[np.argsort(ranking, kind="stable")])])
    return np.arange(len(found)) / len(corrupted), found / corrupted.sum()


def area_between(fractions: tuple[float, ...], better: np.ndarray, worse: np.ndarray, until: float) -> float:
    """Mean height between two curves over ``[0, until]`` (trapezoids)."""
    kept = np.asarray(fractions) <= until + 1e-9
    return float(np.trapezoid((better - worse)[kept], np.asarray(fractions)[kept]) / until)


def discovery_metrics(ranking: np.ndarray, corrupted: np.ndarray) -> dict[str, float]:
    """AUROC of finding damaged rows by low value, and their share among as many lowest rows as there are."""
    from sklearn.metrics import roc_auc_score

    lowest = np.argsort(ranking, kind="stable")[: corrupted.sum()]
    return {
        "discovery/auroc": float(roc_auc_score(corrupted, -ranking)),
        "discovery/tpr_at_noise_rate": float(corrupted[lowest].mean()),
    }


@dataclass(frozen=True)
class Scores:
    """Test score, and validation score (larger = better), of every model fitted on one set of rows: ``[G]`` each."""

    test: np.ndarray
    valid: np.ndarray


def fit_and_score(
    task: ValuationTask, x: Tensor, y: Tensor, weights: Tensor, predictor: Predictor, model: Any, seed: int
) -> Scores:
    """Fit with each row of ``weights [G, N]``; ``model``, a scikit-learn estimator, replaces the predictor if given."""
    if model is not None:
        return _score_estimator(task, x.cpu().numpy(), y.cpu().numpy(), weights.cpu().numpy(), model)
    fitted = fit_many(predictor, x, one_hot(y, task.num_classes), weights, predictor.final_steps, seed)
    on_test, on_valid = (outputs_of(predictor, fitted, rows) for rows in (task.x_test, task.x_valid))
    valid = accuracy(on_valid, task.y_valid) if task.num_classes else neg_rmse(on_valid, task.y_valid)
    test = test_score(on_test, task.y_test, task.y_scale)
    return Scores(test.double().cpu().numpy(), valid.double().cpu().numpy())


def _score_estimator(task: ValuationTask, x: np.ndarray, y: np.ndarray, weights: np.ndarray, model: Any) -> Scores:
    """One fit after the other, on the rows with weight: a scikit-learn estimator has no selection axis."""
    from sklearn.base import clone
    from sklearn.metrics import accuracy_score, root_mean_squared_error

    def score(fitted: Any, inputs: Tensor, truth: Tensor) -> float:
        predicted = fitted.predict(inputs.cpu().numpy())
        if task.num_classes:
            return float(accuracy_score(truth.cpu().numpy(), predicted))
        return float(root_mean_squared_error(truth.cpu().numpy(), predicted))

    test, valid = [], []
    for row in weights:
        kept = row > 0
        fitted = clone(model).fit(x[kept], y[kept], sample_weight=row[kept])
        test.append(score(fitted, task.x_test, task.y_test) * (1 if task.num_classes else task.y_scale))
        valid.append(score(fitted, task.x_valid, task.y_valid) * (1 if task.num_classes else -1))
    return Scores(np.array(test), np.array(valid))


@torch.no_grad()
def evaluate(
    task: ValuationTask, predictor: Predictor, ranking: Tensor, weights: Tensor, seed: int, model: Any = None
) -> Evaluation:
    """Score a ranking and weights.

    Args:
        task: the data.
        predictor: the model of every fit; all fits get its ``final_steps``.
        ranking: ``[N]``, larger = more valuable.
        weights: ``[N]`` in [0, 1], used as sample weights of the weighted fit.
        seed: for the predictor's start and batches, the same in every fit.
        model: a scikit-learn estimator to evaluate with in place of the predictor.

    Returns:
        ``weighted/test_*``, ``reference/*``, ``removal/area_between``, ``best_subset/test_*`` and, where the damage is
        known, ``discovery/*``. ``reference/clean_only`` needs the truth as well. ``best_subset`` is the release's
        "learning with DVRL": of the removal subsets the one with the best validation score, so no weighted fit, and one
        more look at the validation rows than the other numbers take.
    """
    low, high = (removal_weights(ranking, REMOVED, first) for first in ("low", "high"))
    stack = torch.cat([low, high, weights.unsqueeze(0), (~task.corrupted).float().unsqueeze(0)])
    scores = fit_and_score(task, task.x_train, task.y_train, stack, predictor, model, seed)
    everything = torch.ones(1, len(task.y_valid), device=stack.device)
    on_valid = fit_and_score(task, task.x_valid, task.y_valid, everything, predictor, model, seed)

    n, test = len(REMOVED), scores.test
    sign, name = (1, "accuracy") if task.num_classes else (-1, "rmse")
    metrics = {
        f"weighted/test_{name}": test[2 * n],
        "reference/all": test[0],
        "reference/validation_only": on_valid.test[0],
        "removal/area_between": sign * area_between(REMOVED, test[:n], test[n : 2 * n], SHOWN),
        f"best_subset/test_{name}": test[scores.valid[: 2 * n].argmax()],
    }
    discovery = None
    if task.knows_truth:
        metrics["reference/clean_only"] = test[2 * n + 1]
        rank, corrupted = ranking.double().cpu().numpy(), task.corrupted.cpu().numpy()
        metrics |= discovery_metrics(rank, corrupted)
        inspected, found = discovery_curve(rank, corrupted)
        discovery = {"inspected": inspected.tolist(), "found": found.tolist()}
    removal = {"removed": list(REMOVED), "low_first": test[:n].tolist(), "high_first": test[n : 2 * n].tolist()}
    return Evaluation({key: float(value) for key, value in metrics.items()}, removal, discovery)
