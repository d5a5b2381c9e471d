"""What a set of data values is worth: discovery of damaged labels, removal of rows, learning with weights.

Everything is a function of a ranking (larger = more valuable), weights in [0, 1] and one predictor; all fits of one
evaluation are done at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reprise.papers.dvrl.datamodule import ValuationTask
from reprise.papers.dvrl.predictors import Parameters, Predictor, one_hot
from reprise.papers.dvrl.scores import accuracy, neg_rmse, neg_rmspe, test_score

# The official release removes 0 %, 5 %, ..., 95 % of the rows; its figures show the first half.
REMOVED = tuple(round(0.05 * step, 2) for step in range(20))
SHOWN = 0.5
ELEMENTS_PER_CHUNK = 20_000_000


@dataclass(frozen=True)
class Evaluation:
    """Metrics and curves of one method's values; a curve that was not asked for, or cannot be known, is ``None``."""

    metrics: dict[str, float]
    removal: dict[str, list[float]] | None
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
class Values:
    """What a method found: ``ranking [N]`` (larger = more valuable), ``weights [N]`` in [0, 1], and where the method
    trained a predictor itself, its parameters.
    """

    ranking: Tensor
    weights: Tensor
    trained: Parameters | None = None


@dataclass(frozen=True)
class Judge:
    """Test score ``[G]``, and validation score ``[G]`` (larger = better), of predictors on one task."""

    task: ValuationTask
    predictor: Predictor
    seed: int

    def fit(self, x: Tensor, y: Tensor, weights: Tensor) -> list[Parameters]:
        """One predictor for each row of ``weights [G, N]``."""
        target = one_hot(y, self.task.num_classes)
        return fit_many(self.predictor, x, target, weights, self.predictor.final_steps, self.seed)

    def test(self, fitted: list[Parameters]) -> np.ndarray:
        """Accuracy, or error in the target's unit."""
        outputs = outputs_of(self.predictor, fitted, self.task.x_test)
        return test_score(outputs, self.task.y_test, self.task.y_scale).double().cpu().numpy()

    def valid(self, fitted: list[Parameters]) -> np.ndarray:
        """Accuracy, or minus the error."""
        outputs, y = outputs_of(self.predictor, fitted, self.task.x_valid), self.task.y_valid
        return (accuracy if self.task.num_classes else neg_rmse)(outputs, y).double().cpu().numpy()

    def percentage_error(self, fitted: list[Parameters]) -> float | None:
        """RMSPE on the test rows, as a fraction; ``None`` for classes, and where a target is 0."""
        zero = self.task.y_mean / self.task.y_scale
        if self.task.num_classes or ((self.task.y_test + zero).abs() < 1e-6 * max(1.0, abs(zero))).any():
            return None
        return -neg_rmspe(outputs_of(self.predictor, fitted, self.task.x_test), self.task.y_test, zero)[0].item()

    def references(self, everything: list[Parameters]) -> dict[str, float]:
        """Test scores without any values: what the values have to beat, or can hope for."""
        task = self.task
        one = torch.ones(1, len(task.y_train), device=task.x_train.device)
        few = torch.ones(1, len(task.y_valid), device=one.device)
        models = {"validation_only": self.fit(task.x_valid, task.y_valid, few)}
        if self.predictor.tensors:
            generator = torch.Generator(one.device).manual_seed(self.seed)
            target, steps = one_hot(task.y_valid, task.num_classes), self.predictor.final_steps
            models["fine_tuned"] = [self.predictor.fit(task.x_valid, target, few, everything[0], steps, generator)]
        if task.knows_truth:
            models["clean_only"] = self.fit(task.x_train, task.y_train, (~task.corrupted).float().unsqueeze(0))
            models["zero_noise"] = self.fit(task.x_train if task.x_true is None else task.x_true, task.y_true, one)
        return {f"reference/{name}": self.test(fitted)[0] for name, fitted in models.items()}


def _is_network_of(predictor: Predictor, theta: Parameters, task: ValuationTask) -> bool:
    """Whether these parameters (G = 1) are of the predictor's own kind and sizes, which its name does not tell."""
    if not predictor.tensors:
        return False
    generator = torch.Generator(task.x_train.device)
    start = predictor.initial(task.x_train.shape[1], task.num_classes or 1, 1, generator)
    return [p.shape for p in start] == [p.shape for p in theta]


@torch.no_grad()
def evaluate(
    task: ValuationTask,
    values: Values,
    predictor: Predictor,
    seed: int,
    final_predictor: Predictor | None = None,
    removal_curves: bool = True,
) -> Evaluation:
    """Score a method's values.

    Args:
        task: the data.
        values: the ranking, and the sample weights of the weighted fit.
        predictor: the model of every fit; all fits get its ``final_steps``.
        seed: for the predictor's start and batches, the same in every fit.
        final_predictor: judges in place of ``predictor`` where it is given.
        removal_curves: also refit after removing 0 %, 5 %, ..., 95 % of the rows from either end.

    Returns:
        ``weighted/test_*`` (accuracy; for numbers RMSE, and RMSPE where no target is 0), ``reference/*``,
        ``removal/area_between``, ``best_subset/test_*`` and, where the damage is known, ``discovery/*``. References:
        ``all`` rows as given; ``validation_only``; ``fine_tuned``, ``all`` trained on with the validation rows; with
        the truth at hand ``clean_only`` and ``zero_noise`` (all rows, none damaged). ``best_subset`` is the release's
        "learning with DVRL": of the removal subsets the one with the best validation score, so no weighted fit, and one
        more look at the validation rows than the other numbers take.
    """
    judge = Judge(task, final_predictor or predictor, seed)
    if values.trained and _is_network_of(judge.predictor, values.trained, task):
        own = [values.trained]
    else:
        own = judge.fit(task.x_train, task.y_train, values.weights.unsqueeze(0))
    sign, name = (1, "accuracy") if task.num_classes else (-1, "rmse")
    metrics = {f"weighted/test_{name}": judge.test(own)[0]}
    everything = judge.fit(task.x_train, task.y_train, torch.ones(1, len(task.y_train), device=task.x_train.device))
    metrics |= {"reference/all": judge.test(everything)[0]} | judge.references(everything)
    percentages = {
        "weighted/test_rmspe": judge.percentage_error(own),
        "reference/all_rmspe": judge.percentage_error(everything),
    }
    metrics |= {key: value for key, value in percentages.items() if value is not None}
    removal = discovery = None
    if removal_curves:
        low, high = (removal_weights(values.ranking, REMOVED, first) for first in ("low", "high"))
        subsets = judge.fit(task.x_train, task.y_train, torch.cat([low, high]))
        score, n = judge.test(subsets), len(REMOVED)
        metrics["removal/area_between"] = sign * area_between(REMOVED, score[:n], score[n:], SHOWN)
        metrics[f"best_subset/test_{name}"] = score[judge.valid(subsets).argmax()]
        removal = {"removed": list(REMOVED), "low_first": score[:n].tolist(), "high_first": score[n:].tolist()}
    if task.knows_truth:
        rank, corrupted = values.ranking.double().cpu().numpy(), task.corrupted.cpu().numpy()
        metrics |= discovery_metrics(rank, corrupted)
        inspected, found = discovery_curve(rank, corrupted)
        discovery = {"inspected": inspected.tolist(), "found": found.tolist()}
    return Evaluation({key: float(value) for key, value in metrics.items()}, removal, discovery)
