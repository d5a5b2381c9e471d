"""Scores of G predictors on one labelled set, larger = better: rewards on validation rows, results on test rows."""

from __future__ import annotations

from collections.abc import Callable

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
    """Area under the ROC curve of class 1 against class 0, ties counted half; shapes as above, C = 2."""
    margin = outputs[..., 1] - outputs[..., 0]
    gap = margin[y == 1].unsqueeze(1) - margin[y == 0].unsqueeze(0)
    return ((gap > 0).float() + 0.5 * (gap == 0).float()).mean((0, 1))


def neg_rmse(outputs: Tensor, y: Tensor) -> Tensor:
    """Minus the root mean squared error; ``outputs [M, G, 1]``, ``y [M]``; returns ``[G]``."""
    return -(outputs.squeeze(-1) - y.unsqueeze(1)).square().mean(0).sqrt()


REWARDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "neg_log_loss": neg_log_loss,
    "accuracy": accuracy,
    "auc": auc,
    "neg_rmse": neg_rmse,
}


def reward_function(name: str, spec: DataSpec) -> Callable[[Tensor, Tensor], Tensor]:
    """The reward of that name, where it suits the data; regression always uses ``neg_rmse``.

    Raises:
        UserError: unknown name, or the area under the curve with other than two classes.
    """
    if spec.task == "regression":
        return neg_rmse
    if name not in REWARDS or name == "neg_rmse":
        names = ", ".join(known for known in REWARDS if known != "neg_rmse")
        raise UserError(f"method.module.reward={name} is not a reward for classes; choose one of {names}.")
    if name == "auc" and spec.num_classes != 2:
        raise UserError(
            f"method.module.reward=auc needs two classes and dataset={spec.name} has {spec.num_classes}; "
            "use neg_log_loss or accuracy."
        )
    return REWARDS[name]


def test_score(outputs: Tensor, y: Tensor, y_scale: float) -> Tensor:
    """What the tables report ``[G]``: accuracy for classes, RMSE in the target's unit for numbers."""
    return accuracy(outputs, y) if y.dtype == torch.int64 else -neg_rmse(outputs, y) * y_scale
