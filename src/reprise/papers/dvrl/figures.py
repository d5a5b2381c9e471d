"""A run's figures: discovery, removal, the values themselves, and how the training went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reprise.canvas import BLUE, GREY, ORANGE, canvas, label, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from reprise.papers.dvrl.evaluation import Evaluation


def draw(
    run_dir: Path, evaluation: Evaluation, values: np.ndarray, corrupted: np.ndarray | None, classify: bool
) -> list[Path]:
    """Draw every figure that the run has data for; returns the files.

    Args:
        run_dir: the run's folder; ``metrics.csv`` in it is the training history.
        evaluation: the curves.
        values: ``[N]`` as in ``data_values.csv``.
        corrupted: ``[N]`` damaged or not, ``None`` where the truth is unknown.
        classify: accuracy or error on the axis.
    """
    drawn = [save(_values(values, corrupted), run_dir / "values.png")]
    if evaluation.removal is not None:
        drawn.append(save(_removal(evaluation, classify), run_dir / "removal.png"))
    if evaluation.discovery is not None:
        drawn.append(save(_discovery(evaluation), run_dir / "discovery.png"))
    history = run_dir / "metrics.csv"
    if history.exists():
        figure = _diagnostics(pd.read_csv(history))
        drawn += [save(figure, run_dir / "diagnostics.png")] if figure else []
    return drawn


def _figure(columns: int = 1, rows: int = 1) -> tuple[Figure, np.ndarray]:
    """A sheet of panels that are large enough alone, and its axes ``[rows * columns]``."""
    figure, axes = canvas(rows, columns, height=3.6 * rows, width=5.2 * columns)
    return figure, axes.ravel()


def _removal(evaluation: Evaluation, classify: bool) -> Figure:
    figure, (ax,) = _figure()
    curve = pd.DataFrame(evaluation.removal)
    curve = curve[curve["removed"] <= 0.5 + 1e-9]
    ax.plot(100 * curve["removed"], curve["low_first"], "o-", color=BLUE, label="lowest values first")
    ax.plot(100 * curve["removed"], curve["high_first"], "s-", color=ORANGE, label="highest values first")
    ax.fill_between(100 * curve["removed"], curve["high_first"], curve["low_first"], color=BLUE, alpha=0.08)
    ax.axhline(evaluation.metrics["reference/all"], color=GREY, linestyle=":", label="all rows")
    if "reference/clean_only" in evaluation.metrics:
        ax.axhline(evaluation.metrics["reference/clean_only"], color=GREY, linestyle="--", label="clean rows only")
    label(ax, "Removing training rows", "rows removed (%)", "test accuracy" if classify else "test RMSE")
    ax.legend(frameon=False, fontsize=8)
    return figure


def _discovery(evaluation: Evaluation) -> Figure:
    figure, (ax,) = _figure()
    inspected, found = (100 * np.array(evaluation.discovery[key]) for key in ("inspected", "found"))
    damaged = _damaged_share(found)
    ax.plot(inspected, found, color=BLUE, label=f"this run (AUROC {evaluation.metrics['discovery/auroc']:.3f})")
    ax.plot([0, damaged, 100], [0, 100, 100], color=GREY, linestyle="--", label="best possible")
    ax.plot([0, 100], [0, 100], color=GREY, linestyle=":", label="chance")
    label(ax, "Discovering damaged labels", "rows inspected, lowest value first (%)", "damaged rows found (%)")
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _damaged_share(found: np.ndarray) -> float:
    """Percent of damaged rows, read off the curve: each damaged row raises it by the same step."""
    return 100 * np.count_nonzero(np.diff(found)) / (len(found) - 1)


def _values(values: np.ndarray, corrupted: np.ndarray | None) -> Figure:
    figure, (ax,) = _figure()
    bins = np.linspace(min(values.min(), 0), max(values.max(), 1), 41)
    if corrupted is None:
        ax.hist(values, bins, color=BLUE)
    else:
        groups = [values[corrupted == 0], values[corrupted == 1]]
        ax.hist(groups, bins, stacked=True, color=[BLUE, ORANGE], label=["clean", "damaged"])
        ax.legend(frameon=False, fontsize=8)
    label(ax, "Data values", "value", "training rows")
    return figure


def _diagnostics(history: pd.DataFrame) -> Figure | None:
    names = [name for name in history.columns if name != "step" and history[name].notna().sum() > 1]
    if not names:
        return None
    columns = min(3, len(names))
    figure, axes = _figure(columns, -(-len(names) // columns))
    for ax, name in zip(axes, names, strict=False):
        smooth = history[name].rolling(max(1, len(history) // 50), min_periods=1).mean()
        ax.plot(history["step"], history[name], color=BLUE, alpha=0.25, linewidth=0.8)
        ax.plot(history["step"], smooth, color=BLUE)
        label(ax, name, "step", "")
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    return figure
