"""Figures over runs that the common ones lack: accuracy as tasks come, and accuracy against bytes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from reprise.canvas import BLUE, GREY, VERMILION, canvas, headline, label, legend
from reprise.evidence import Record
from reprise.layout import scales_of
from reprise.panels import seeds_of, standing, styles
from reprise.reported import Reported

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINT = re.compile(r"(.+)@(\d+)")
AS_TASKS_COME = {
    "accuracy/given": ("task given", GREY, "o-"),
    "accuracy/inferred/official": ("task inferred, official batches", BLUE, "s-"),
    "task_id/accuracy": ("task found, image by image", VERMILION, "x--"),
}
FEWEST = 3  # points of a curve, or methods in a panel
MOST = 6  # panels
PANEL = 2.6  # inches

Points = dict[int, list[float]]


def draw(reported: Reported, records: Sequence[Record], output_dir: Path) -> tuple[dict[str, Figure], list[str]]:
    """The figures that the records have data for, by name; ``output_dir`` is not read, so nothing can be missing."""
    figures: dict[str, Figure | None] = {}
    for scale in scales_of(records):
        figures[f"tasks_{scale}"] = tasks_figure(records, scale)
        figures[f"bytes_{scale}"] = bytes_figure(reported, records, scale)
    return {name: figure for name, figure in figures.items() if figure}, []


def points(runs: Sequence[Record], metric: str) -> Points:
    """A metric against the number of tasks, from the runs that measured it on the way: values of all seeds."""
    found: Points = defaultdict(list)
    for run in runs:
        for name, value in run.metrics.items():
            match = POINT.fullmatch(name)
            if match and match[1] == metric:
                found[int(match[2])].append(value)
    return dict(sorted(found.items()))


def longest_streams(records: Sequence[Record], scale: str) -> list[list[Record]]:
    """The configurations that were judged as tasks came, those with the most tasks first."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.scale == scale and len(points([record], "accuracy/given")) >= FEWEST:
            groups[record.group].append(record)
    return sorted(groups.values(), key=lambda runs: (-max(points(runs, "accuracy/given")), name_of(runs[0])))[:MOST]


def tasks_figure(records: Sequence[Record], scale: str) -> Figure | None:
    """Accuracy and task inference against the number of tasks, a panel per configuration."""
    chosen = longest_streams(records, scale)
    if not chosen:
        return None
    rows = -(-len(chosen) // 2)
    figure, axes = canvas(rows, min(2, len(chosen)), PANEL * rows)
    for ax, runs in zip(axes.ravel(), chosen, strict=False):
        for metric, (text, colour, style) in AS_TASKS_COME.items():
            curve = points(runs, metric)
            if curve:
                means = [fmean(values) for values in curve.values()]
                ax.plot(list(curve), means, style, color=colour, label=text, markersize=4)
        label(ax, name_of(runs[0]), "number of tasks", "share")
    for ax in axes.ravel()[len(chosen) :]:
        ax.set_visible(False)
    headline(figure, f"As tasks come, {scale} scale: {seeds_of(chosen)}, judged after the last task of each run")
    legend(figure, axes, columns=3)
    return figure


def name_of(run: Record) -> str:
    """As short as two panels side by side need it."""
    scenario, network, outputs = (run.facts.get(name) for name in ("scenario", "network", "outputs"))
    parts = (run.dataset, scenario or run.method, network, f"s = {outputs}" if outputs else None)
    return ", ".join(part for part in parts if part)


def shared_streams(
    reported: Reported, records: Sequence[Record], scale: str
) -> list[tuple[tuple[str, str], dict[str, list[Record]]]]:
    """Data set and protocol of the streams on which several methods met, and their runs."""
    places: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.scale == scale and not record.variant and record.metric("bytes/bank"):
            places[record.dataset, record.protocol].append(record)
    there = {place: standing(reported, runs) for place, runs in places.items()}
    there = {place: methods for place, methods in there.items() if len(methods) >= FEWEST}
    return sorted(there.items(), key=lambda item: (-len(item[1]), item[0]))[:MOST]


def bytes_figure(reported: Reported, records: Sequence[Record], scale: str) -> Figure | None:
    """Accuracy with a given task against the bytes that are stored, where several methods met on the same stream."""
    ordered = shared_streams(reported, records, scale)
    if not ordered:
        return None
    rows, chosen = -(-len(ordered) // 2), styles(reported)
    figure, axes = canvas(rows, min(2, len(ordered)), PANEL * rows)
    for ax, ((dataset, _), methods) in zip(axes.ravel(), ordered, strict=False):
        for name, runs in methods.items():
            style = chosen[name.split(" [")[0]] if name not in chosen else chosen[name]
            ax.plot(*mean_point(runs), style.marker, color=style.colour, label=reported.display.methods.get(name, name))
        ax.set_xscale("log")
        first = next(iter(methods.values()))[0]
        tasks, kind, network = (first.condition.get(name) for name in ("num_tasks", "kind", "network"))
        label(ax, f"{dataset}, {tasks} {kind}, {network}", "bytes stored", "accuracy, task given")
    for ax in axes.ravel()[len(ordered) :]:
        ax.set_visible(False)
    counts = seeds_of([runs for _, methods in ordered for runs in methods.values()])
    headline(figure, f"Accuracy against storage, {scale} scale: mean over {counts}")
    legend(figure, axes, columns=3)
    return figure


def mean_point(runs: Sequence[Record]) -> tuple[float, float]:
    """Mean bytes and mean accuracy."""
    return fmean(r.metrics["bytes/bank"] for r in runs), fmean(r.metrics["accuracy/given"] for r in runs)
