"""What the right mask makes small for an unlabelled image: H, the entropy of the outputs, or G (section 3.3).

Both look at all s outputs, the superfluous ones included: those are no task's class, so that every mask has learned to
push them down, on the images of its own task.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reprise.errors import UserError


def entropy(logits: Tensor) -> Tensor:
    """H = - sum_c p_c log p_c in nats, ``[..., s] -> [...]``."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def g(logits: Tensor, real: int) -> Tensor:
    """G = log sum_j exp z_j, ``[..., s] -> [...]``, the gradient stopped through the first ``real`` logits.

    For a superfluous j, dG/dz_j = softmax(z)_j, which is the gradient of the cross entropy of any label (Lemma 1).
    """
    return torch.cat([logits[..., :real].detach(), logits[..., real:]], -1).logsumexp(-1)


def superfluous(logits: Tensor, real: int) -> Tensor:
    """- log P(one of the first ``real`` outputs), ``[..., s] -> [...]``, never negative.

    Its gradient through the superfluous logits is that of G. The value of G says nothing about a mask, for it grows
    with the logit of the right class; where values are compared, this one stands for it.
    """
    return logits.logsumexp(-1) - logits[..., :real].logsumexp(-1)


# of logits [..., s] and the number of real outputs, [...]: what is differentiated, and what is compared between masks
OBJECTIVES: dict[str, Callable[[Tensor, int], Tensor]] = {"H": lambda logits, real: entropy(logits), "G": g}
COMPARED: dict[str, Callable[[Tensor, int], Tensor]] = {"H": OBJECTIVES["H"], "G": superfluous}


def objective_values(logits: Tensor, objective: str, classes: int) -> Tensor:
    """H or G of every image, ``[..., s] -> [...]``, for tasks of so many classes."""
    return OBJECTIVES[objective](logits, classes)


def check_objective(objective: str, outputs: int, classes: int) -> None:
    """Refuse an objective that cannot tell masks apart.

    Raises:
        UserError: no such objective, or G without superfluous outputs, where its gradient is zero.
    """
    if objective not in OBJECTIVES:
        raise UserError(f"there is no objective {objective!r}; known objectives: {', '.join(sorted(OBJECTIVES))}.")
    if objective == "G" and outputs <= classes:
        raise UserError(
            f"objective=G has no gradient without superfluous outputs, and all {outputs} outputs are classes of a "
            f"task: set outputs above {classes}, or objective=H."
        )
