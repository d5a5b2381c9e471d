"""The equations of DVRL's policy gradient, one small function each.

Symbols: logits l_i = logit h_phi(x_i, y_i), p_i = sigmoid(l_i), selection s in {0,1}^N with s_i ~ Bernoulli(p_i),
reward R(s) = score of the predictor fitted on the selected rows, larger = better. Shapes: N rows, G selections.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def select(probabilities: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` Bernoulli selections ``[G, N]`` as 0/1 floats for ``probabilities [N]``."""
    uniform = torch.rand(count, len(probabilities), generator=generator, device=probabilities.device)
    return (uniform < probabilities).float()


def fill_empty(selections: Tensor, generator: torch.Generator) -> Tensor:
    """Redraw selections that chose nothing with probability one half, as the official release does."""
    coin = torch.rand(selections.shape, generator=generator, device=selections.device) < 0.5
    return torch.where(selections.any(1, keepdim=True), selections, coin.float())


def log_probability(logits: Tensor, selections: Tensor) -> Tensor:
    """log pi(s) = sum_i s_i log p_i + (1 - s_i) log(1 - p_i), ``[G]``; from logits, so that nothing saturates."""
    rows = F.binary_cross_entropy_with_logits(logits.expand_as(selections), selections, reduction="none")
    return -rows.sum(1)


def reinforce(logits: Tensor, selections: Tensor, advantages: Tensor) -> Tensor:
    """Surrogate loss -mean_g A_g log pi(s_g), whose gradient is the REINFORCE estimate (Algorithm 1, line for phi)."""
    return -(advantages * log_probability(logits, selections)).mean()


def leave_one_out(rewards: Tensor) -> Tensor:
    """Advantages ``[G]``: each reward less the mean of the other G-1, an unbiased baseline (RLOO)."""
    return (rewards - rewards.mean()) * (len(rewards) / (len(rewards) - 1))


def moving_average(delta: Tensor, rewards: Tensor, window: int) -> Tensor:
    """delta <- (T-1)/T delta + 1/T mean R (Algorithm 1)."""
    return delta + (rewards.mean() - delta) / window


def exploration_penalty(logits: Tensor, on: str, bound: float = 0.9) -> Tensor:
    """Hinge on a mean selection probability outside [1 - bound, bound].

    ``on="probability"`` is the official release's term; its gradient vanishes once the sigmoid saturates, which is when
    it is needed. ``on="logit"`` bounds the mean logit instead and keeps pulling.
    """
    if on == "probability":
        mean, high, low = logits.sigmoid().mean(), bound, 1 - bound
    else:
        mean, high = logits.mean(), torch.logit(torch.tensor(bound)).item()
        low = -high
    return F.relu(mean - high) + F.relu(low - mean)


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the rows' Bernoulli distributions, in nats."""
    p = logits.sigmoid()
    return (F.binary_cross_entropy_with_logits(logits, p, reduction="none")).mean()
