"""Scores of G predictors on one labelled set, larger = better: rewards on validation rows, results on test rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.data.base import DataSpec
from reprise.errors import UserError


def neg_log_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Minus the mean cross entropy, the reward with the least noise: ``outputs [M, G, C]``, ``y [M]`` to ``[G]``."""
    classes, labels = outputs.movedim(-1, 1), y.unsqueeze(1).expand(-1, outputs.shape[1])
    return -F.cross_entropy(classes, labels, reduction="none").mean(0)


def accuracy(outputs: Tensor, y: Tensor) -> Tensor:
    """Fraction of right classes; shapes as above."""
    return (outputs.argmax(-1) == y.unsqueeze(1)).float().mean(0)


def auc(outputs: Tensor, y: Tensor) -> Tensor:
    """Area under the ROC curve of class 1 against class 0, ties counted half; shapes as above, C = 2.

    Raises:
        UserError: all rows are of one class.
    """
    if not 0 < int(y.sum()) < len(y):
        raise UserError(
            f"method.module.reward=auc needs both classes among the {len(y)} validation rows: raise "
            "method.datamodule.validation_size, or use neg_log_loss or accuracy."
        )
    margin = outputs[..., 1] - outputs[..., 0]
    gap = margin[y == 1].unsqueeze(1) - margin[y == 0].unsqueeze(0)
    return ((gap > 0).float() + 0.5 * (gap == 0).float()).mean((0, 1))


def neg_rmse(outputs: Tensor, y: Tensor) -> Tensor:
    """Minus the root mean squared error; ``outputs [M, G, 1]``, ``y [M]``; returns ``[G]``."""
    return -(outputs.squeeze(-1) - y.unsqueeze(1)).square().mean(0).sqrt()


def neg_mae(outputs: Tensor, y: Tensor) -> Tensor:
    """Minus the mean absolute error; shapes as for ``neg_rmse``."""
    return -(outputs.squeeze(-1) - y.unsqueeze(1)).abs().mean(0)


def neg_rmspe(outputs: Tensor, y: Tensor, zero: float = 0.0) -> Tensor:
    """Minus the root mean square percentage error (as a fraction), the measure of the paper's Rossmann table.

    Targets are standardised, so the error relative to the true target t = mean + scale y is (o - y) / (y + mean/scale).
    Rows with t = 0 have no relative error and are left out: the official release drops them when it reads the file,
    and the Rossmann competition ignores them.

    Args:
        outputs: ``[M, G, 1]``, standardised.
        y: ``[M]``, standardised.
        zero: mean/scale, what has to be added to ``y`` so that 0 is the target's own zero.

    Raises:
        UserError: every target is 0.
    """
    true = y + zero
    kept = true.abs() > 1e-6 * max(1.0, abs(zero))  # float32 does not bring a standardised 0 back exactly
    if not kept.any():
        raise UserError("method.module.reward=neg_rmspe needs targets other than 0; use neg_rmse or neg_mae.")
    error = (outputs.squeeze(-1) - y.unsqueeze(1))[kept] / true[kept].unsqueeze(1)
    return -error.square().mean(0).sqrt()


CLASS_REWARDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "neg_log_loss": neg_log_loss,
    "accuracy": accuracy,
    "auc": auc,
}
NUMBER_REWARDS: dict[str, Callable[..., Tensor]] = {"neg_rmse": neg_rmse, "neg_mae": neg_mae, "neg_rmspe": neg_rmspe}
REWARDS = CLASS_REWARDS | NUMBER_REWARDS


def reward_function(name: str, spec: DataSpec) -> Callable[[Tensor, Tensor], Tensor]:
    """The reward of that name, where it suits the data.

    Method files name a reward for classes; on numbers each of these stands for the default there, ``neg_rmse``.

    Raises:
        UserError: unknown name, a reward for numbers on classes, or the area under the curve with other than two
            classes.
    """
    if spec.task == "regression":
        return _reward_for_numbers(name, spec)
    if name not in CLASS_REWARDS:
        names = ", ".join(CLASS_REWARDS)
        raise UserError(f"method.module.reward={name} is not a reward for classes; choose one of {names}.")
    if name == "auc" and spec.num_classes != 2:
        raise UserError(
            f"method.module.reward=auc needs two classes and dataset={spec.name} has {spec.num_classes}; "
            "use neg_log_loss or accuracy."
        )
    return CLASS_REWARDS[name]


def _reward_for_numbers(name: str, spec: DataSpec) -> Callable[[Tensor, Tensor], Tensor]:
    if name not in REWARDS:
        names = ", ".join(NUMBER_REWARDS)
        raise UserError(f"method.module.reward={name} is not a reward for numbers; choose one of {names}.")
    if name == "neg_rmspe":
        return partial(neg_rmspe, zero=spec.target_mean / spec.target_scale)
    return NUMBER_REWARDS.get(name, neg_rmse)


def test_score(outputs: Tensor, y: Tensor, y_scale: float) -> Tensor:
    """What the tables report ``[G]``: accuracy for classes, RMSE in the target's unit for numbers."""
    return accuracy(outputs, y) if y.dtype == torch.int64 else -neg_rmse(outputs, y) * y_scale
