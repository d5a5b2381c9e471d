"""What was decided while tasks came unannounced: as metrics, as a table and as a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import pandas as pd

from reprise.canvas import BLUE, GREY, ORANGE, VERMILION, canvas, label, save
from reprise.records import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Decision:
    """One decision.

    Attributes:
        task: that the batch came from, which the learner does not see.
        ratio: n max nu.
        known: whether an earlier decision of this task had led to training.
        mask: that goes on; -1 = batches are skipped.
        masks: allocated so far, this decision included.
    """

    task: int
    ratio: float
    known: bool
    mask: int
    masks: int


def of_task(decisions: Sequence[Decision], task: int) -> Iterator[Decision]:
    """Those of the task that is at hand, the latest first."""
    return takewhile(lambda d: d.task == task, reversed(decisions))


def ratios(decisions: Sequence[Decision]) -> dict[str, float]:
    """Mean of n max nu where the task was new and where it was known, each if there was such a decision."""
    kinds = {"new": [d.ratio for d in decisions if not d.known], "known": [d.ratio for d in decisions if d.known]}
    return {f"novelty/at_{kind}_tasks": fmean(values) for kind, values in kinds.items() if values}


def write(
    run_dir: Path, decisions: Sequence[Decision], numbers: dict[str, Sequence[int]], epsilon: float
) -> list[Path]:
    """``allocation.csv``, one line per task with its decisions' ratios in order, and ``allocation.png``.

    ``numbers`` are further columns, of which ``masks_after`` is drawn.
    """
    found: dict[int, list[str]] = {}
    for decision in decisions:
        found.setdefault(decision.task, []).append(f"{decision.ratio:.6g}")
    rows = []
    for task in range(len(numbers["masks_after"])):
        mine = found.get(task, [])
        columns = {name: values[task] for name, values in numbers.items()}
        rows.append({"task": task, "decisions": len(mine), **columns, "ratios": " ".join(mine)})
    table = run_dir / "allocation.csv"
    write_text(table, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    return [table, save(_figure(decisions, numbers["masks_after"], epsilon), run_dir / "allocation.png")]


def _figure(decisions: Sequence[Decision], masks: Sequence[int], epsilon: float) -> Figure:
    figure, axes = canvas(1, 2, height=3.6, width=10.4)
    left, right = axes[0]
    tasks = range(1, len(masks) + 1)
    left.plot(tasks, tasks, "--", color=GREY, linewidth=0.8, label="one per task")
    left.plot(tasks, masks, ".-", color=BLUE, label="allocated")
    label(left, "Masks", "tasks trained", "masks")
    left.legend(frameon=False, fontsize=8)
    for known, name, colour in ((False, "at a new task", VERMILION), (True, "at a known task", ORANGE)):
        kind = [d for d in decisions if d.known is known]
        right.plot([d.task for d in kind], [d.ratio for d in kind], ".", color=colour, ms=4, label=name)
    right.axhline(1 + epsilon, color=GREY, linewidth=0.8, linestyle="--", label="threshold")
    right.set_yscale("log")
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter("{x:.3g}")
    right.tick_params(which="minor", labelsize=8)
    label(right, "How far one mask stands out", "task", r"$k\,\max\,\nu$")
    right.legend(frameon=False, fontsize=8)
    return figure
