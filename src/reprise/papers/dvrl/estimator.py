"""The data value estimator h_phi(x, y, m): the probability that a training row is worth selecting."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "tanh"]


class DataValueEstimator(nn.Module):
    """The official release's network (its class ``DataValueEstimator``), returning logits instead of probabilities.

    ``[x ; y]`` passes ``layers - 2`` hidden layers and a narrow one of ``combined`` units; the marginal information m
    joins there and passes one more layer of ``combined`` units. Glorot-uniform weights and zero biases.

    Args:
        features: width of x.
        outputs: width of y and of m: C for one-hot classes, 1 for regression.
        hidden: units of the hidden layers.
        combined: units of the two layers around the place where m joins.
        layers: the release's ``layer_number``, at least 3.
        activation: ReLU in the release (tanh for Rossmann); ReLU units die under REINFORCE's noise, tanh units do not.
        marginal: whether m is an input at all.
        shortcut: add a linear path from (y, m) to the logit (ours).
        label_branch: weight of a bilinear path y'Bx to the logit (ours), 0 = none: what a linear classifier says for
            the given label. With it the estimator learns from x and y even when m is off.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        hidden: int,
        combined: int,
        layers: int,
        activation: Activation,
        marginal: bool,
        shortcut: bool = False,
        label_branch: float = 0.0,
    ) -> None:
        super().__init__()
        act = nn.ReLU if activation == "relu" else nn.Tanh
        widths = [features + outputs] + [hidden] * (layers - 2)
        body: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            body += [nn.Linear(fan_in, fan_out), act()]
        self.body = nn.Sequential(*body, nn.Linear(widths[-1], combined), act())
        self.head = nn.Sequential(nn.Linear(combined + outputs * marginal, combined), act(), nn.Linear(combined, 1))
        self.marginal, self.label_weight = marginal, label_branch
        self.shortcut = nn.Linear(outputs + outputs * marginal, 1, bias=False) if shortcut else None
        self.label_branch = nn.Linear(features, outputs, bias=False) if label_branch else None
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for branch in (self.shortcut, self.label_branch):  # the start is the official network's
            if branch is not None:
                nn.init.zeros_(branch.weight)

    def forward(self, x: Tensor, y: Tensor, m: Tensor) -> Tensor:
        """Logits ``[B]`` for ``x [B, d]``, one-hot or numeric ``y [B, C]`` and marginal information ``m [B, C]``."""
        narrow = self.body(torch.cat([x, y], 1))
        logits = self.head(torch.cat([narrow, m], 1) if self.marginal else narrow).squeeze(1)
        if self.label_branch is not None:
            logits = logits + self.label_weight * (self.label_branch(x) * y).sum(1)
        if self.shortcut is not None:
            logits = logits + self.shortcut(torch.cat([y, m], 1) if self.marginal else y).squeeze(1)
        return logits

    def dead_fraction(self, x: Tensor, y: Tensor) -> Tensor:
        """Fraction of the narrow layer's units that give the same answer to every row: a sign of collapse."""
        return (self.body(torch.cat([x, y], 1)).std(0) < 1e-6).float().mean()
