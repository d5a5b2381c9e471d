"""A run's files: what was found per task, per number of tasks and per pair of tasks, as data and as figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from torch import Tensor

from reprise.canvas import BLUE, GREY, ORANGE, VERMILION, canvas, label, save
from reprise.papers.supsup.evaluation import Evaluation
from reprise.records import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WRITTEN_OUT = 20  # a matrix of at most so many tasks has its numbers written in


def write(run_dir: Path, evaluation: Evaluation) -> list[Path]:
    """Write tables as CSV and figures as PNG; returns the files.

    ``tasks.csv``: one line per task. ``curve.csv``: one line per number of tasks. ``accuracy_matrix.csv``,
    ``entropy_matrix.csv``: row = whose images, column = whose mask. ``task_confusion.csv``: row = task of the images,
    column = task found, as shares.
    """
    tables = {"tasks": pd.DataFrame(evaluation.per_task), "curve": pd.DataFrame(evaluation.curve)}
    squares = {
        "accuracy_matrix": evaluation.matrix,
        "entropy_matrix": evaluation.entropies,
        "task_confusion": evaluation.confusion,
    }
    tables |= {name: _square(values) for name, values in squares.items() if values is not None}
    paths = []
    for name, frame in tables.items():
        paths.append(run_dir / f"{name}.csv")
        write_text(paths[-1], frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    return paths + [save(figure, run_dir / f"{name}.png") for name, figure in _figures(evaluation, run_dir).items()]


def _square(values: Tensor) -> pd.DataFrame:
    columns = [f"task_{column}" for column in range(values.shape[1])]
    frame = pd.DataFrame(values.cpu().numpy(), columns=columns)
    frame.insert(0, "task", range(len(values)))
    return frame


def _figures(evaluation: Evaluation, run_dir: Path) -> dict[str, Figure]:
    figures = {"accuracy": _accuracy(evaluation)}
    if evaluation.matrix is not None and len(evaluation.matrix) > 1:
        figures["accuracy_matrix"] = _heat(evaluation.matrix, "Accuracy", "mask of task", "images of task")
    if evaluation.confusion is not None and len(evaluation.confusion) > 1:
        figures["task_confusion"] = _heat(evaluation.confusion, "Task found", "task found", "images of task")
    if evaluation.wrong is not None:
        figures["entropy"] = _entropy(evaluation)
    history = run_dir / "metrics.csv"
    if history.exists():
        figures["training"] = _training(pd.read_csv(history))
    return figures


def _figure(columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure, axes = canvas(1, columns, height=3.6, width=5.2 * columns)
    return figure, list(axes.ravel())


def _accuracy(evaluation: Evaluation) -> Figure:
    """Each task's accuracy at the end; and, where tasks are found, all that came out against the number of tasks."""
    curve, tasks = pd.DataFrame(evaluation.curve), pd.DataFrame(evaluation.per_task)
    figure, axes = _figure(1 + (len(curve) > 1))
    ax = axes[0]
    ax.plot(tasks["task"], tasks["accuracy_after_training"], "o", color=GREY, ms=5, label="right after its training")
    ax.plot(tasks["task"], tasks["accuracy"], ".", color=BLUE, ms=5, label="after the last task")
    if "task_id" in tasks:
        ax.plot(tasks["task"], tasks["task_id"], "x", color=VERMILION, ms=4, label="its images find its mask")
    label(ax, "Task by task", "task", "accuracy")
    ax.legend(frameon=False, fontsize=8)
    if len(curve) > 1:
        names = {
            "accuracy/given": ("task given", GREY, "o-"),
            "accuracy/inferred/official": ("task inferred, official batches", BLUE, "s-"),
            "task_id/accuracy": ("task found", VERMILION, "x--"),
        }
        for name, (text, colour, style) in names.items():
            if name in curve:
                axes[1].plot(curve["tasks"], curve[name], style, color=colour, label=text)
        label(axes[1], "As tasks come", "number of tasks", "accuracy")
        axes[1].legend(frameon=False, fontsize=8)
    return figure


def _heat(values: Tensor, title: str, x: str, y: str) -> Figure:
    figure, (ax,) = _figure()
    image = ax.imshow(values.cpu(), cmap="cividis", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    ax.grid(False)
    if max(values.shape) <= WRITTEN_OUT:
        for row, line in enumerate(values.tolist()):
            for column, value in enumerate(line):
                shade = "black" if value > 0.6 else "white"
                text = f"{value:.2f}"
                ax.text(column, row, text, ha="center", va="center", fontsize=5 if len(line) > 10 else 7, color=shade)
    figure.colorbar(image, ax=ax)
    label(ax, title, x, y)
    return figure


def _entropy(evaluation: Evaluation) -> Figure:
    figure, (ax,) = _figure()
    right, wrong = evaluation.right.cpu().numpy(), evaluation.wrong.cpu().numpy()
    bounds = (0.0, max(right.max(), wrong.max()))
    ax.hist(right, bins=50, range=bounds, density=True, color=BLUE, alpha=0.7, label="the task's own mask")
    ax.hist(wrong, bins=50, range=bounds, density=True, color=ORANGE, alpha=0.7, label="another task's mask")
    label(ax, "Entropy of the outputs, image by image", "entropy (nats)", "density")
    ax.legend(frameon=False, fontsize=8)
    return figure


def _training(history: pd.DataFrame) -> Figure:
    figure, axes = _figure(2)
    for ax, name in zip(axes, ("loss", "accuracy"), strict=True):
        if f"train/{name}" in history:
            ax.plot(history["train/tasks"], history[f"train/{name}"], color=BLUE, linewidth=0.8)
        label(ax, f"Training {name}", "tasks trained", name)
    return figure
