"""Finding a task's mask again from its unlabelled images and a Hopfield network that holds the masks of all tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor
from torch.nn import Parameter

from reprise.canvas import BLUE, GREY, canvas, headline, label, legend, save
from reprise.papers.supsup.hopfield import energy, hamming
from reprise.papers.supsup.objectives import entropy
from reprise.papers.supsup.unit_masks import UnitMasked, hard
from reprise.records import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 10  # tasks in the figure


@dataclass
class Recovery:
    """How the mask of one task was looked for.

    Attributes:
        masks: ``[T + 1, D]`` bool, the units of all hidden layers in a row; the start, then after every step.
        energies: ``[T + 1]``, of the layers together.
        distances: ``[T + 1, K]``, units that differ from the mask of every task.
    """

    masks: Tensor
    energies: Tensor
    distances: Tensor

    @property
    def mask(self) -> Tensor:
        """What was found, ``[D]``."""
        return self.masks[-1]

    @property
    def nearest(self) -> int:
        """The task whose mask is nearest; the first of several."""
        return int(self.distances[-1].argmin())

    @property
    def steps(self) -> int:
        """Steps after which the mask was, for the first time, the one that was found."""
        return int((self.masks == self.mask).all(1).int().argmax())


@torch.enable_grad()
def recover(
    network: UnitMasked,
    weights: Sequence[Tensor],
    psi: Sequence[Tensor],
    start: Sequence[Tensor],
    batches: Sequence[Tensor],
    steps: int,
    gamma: float,
    optimizer: Callable[..., torch.optim.Optimizer],
    stored: Tensor,
) -> Recovery:
    """Descend from entropy to energy: at step t of T the loss is (1 - t/T) H(p(m)) + gamma t/T sum_l E_l(m).

    H leads to the masks that suit the images, E to one that is stored. Section 3.5, in numbers the official code.

    Args:
        network, weights: the frozen network.
        psi: ``[d, d]`` per hidden layer.
        start: scores ``[d]`` per hidden layer.
        batches: images ``[B, C, H, W]`` of the one task, taken in turn.
        steps: T.
        gamma: weight of the energy.
        optimizer: called with the scores.
        stored: masks ``[K, D]`` to which distances are taken; what is found does not depend on them.
    """
    scores = [Parameter(s.clone()) for s in start]
    descent = optimizer(scores)
    masks, energies = [], []
    for t in range(1, steps + 1):
        units = [hard(s) for s in scores]
        logits = network.masked(weights, [m[None] for m in units], batches[(t - 1) % len(batches)][None])
        total = _energy(psi, units)
        masks.append(torch.cat(units).detach() > 0)
        energies.append(total.detach())
        loss = (1 - t / steps) * entropy(logits).mean() + gamma * t / steps * total
        descent.zero_grad(set_to_none=True)
        loss.backward()
        descent.step()
    found = [hard(s.detach()) for s in scores]
    masks.append(torch.cat(found) > 0)
    energies.append(_energy(psi, found))
    trail = torch.stack(masks)
    return Recovery(trail, torch.stack(energies), hamming(trail[:, None], stored))


def _energy(psi: Sequence[Tensor], units: Sequence[Tensor]) -> Tensor:
    return torch.stack([energy(p, 2 * m - 1) for p, m in zip(psi, units, strict=True)]).sum()


def write(run_dir: Path, recoveries: Sequence[Recovery]) -> list[Path]:
    """``recovery.csv``, one line per task and step, and ``recovery.png``.

    Columns ``to_task_k`` are units that differ from the mask of task k, of all hidden layers together.
    """
    rows = [
        {"task": task, "step": step, "energy": value} | {f"to_task_{other}": far for other, far in enumerate(distances)}
        for task, one in enumerate(recoveries)
        for step, (value, distances) in enumerate(zip(one.energies.tolist(), one.distances.tolist(), strict=True))
    ]
    table = run_dir / "recovery.csv"
    write_text(table, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    return [table, save(_figure(recoveries[:PANELS]), run_dir / "recovery.png")]


def _figure(recoveries: Sequence[Recovery]) -> Figure:
    columns = min(len(recoveries), 5)
    rows = -(-len(recoveries) // columns)
    figure, axes = canvas(rows, columns, height=2.3 * rows, width=max(2.2 * columns, 5.2), sharey=True)
    for task, (one, ax) in enumerate(zip(recoveries, axes.ravel(), strict=False)):
        distances = one.distances.cpu().numpy()
        for other in range(distances.shape[1]):
            own = other == task
            name, colour, width = ("its own", BLUE, 1.8) if own else ("of other tasks", GREY, 0.7)
            ax.plot(distances[:, other], color=colour, linewidth=width, zorder=2 + own, label=name)
        ax.set_ylim(bottom=0)
        label(ax, f"Task {task}", "step", "units that differ" if task % columns == 0 else "")
    for ax in axes.ravel()[len(recoveries) :]:
        ax.set_visible(False)
    headline(figure, "How far the mask is from those that were stored, while it is looked for")
    legend(figure, axes)
    return figure
