"""Figures over runs that the common ones lack: what a regime changes, seed by seed, and Figure 1 before and after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from reprise.canvas import GREY, canvas, headline, label, legend
from reprise.drawings import seeds_of, standing, styles
from reprise.evidence import Record
from reprise.layout import scales_of
from reprise.papers.crvae.artifacts import draw_latents
from reprise.reported import Reported
from reprise.stats import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASE = "vae"
REGIMES = ("vae_equal_compute", "vae_aug_only", "vae_aug", "crvae", "vae_triplet", "vae_infonce")
METRICS = {
    "nll": "NLL (nats, lower is better)",
    "consistency_kl": "consistency KL (nats)",
    "probe/linear": "probe",
    "probe/ten_labels": "probe, 10 labels a class",
    "probe/transformed": "probe, transformed inputs",
    "active_units": "active units",
}
PANEL, LINE = 0.8, 0.25  # inches: a panel without its rows, and a row
BEFORE_AND_AFTER = ("vae", "vae_aug", "crvae")


def draw(reported: Reported, records: Sequence[Record], output_dir: Path) -> tuple[dict[str, Figure], list[str]]:
    """The figures that there is data for, by name, and what is missing; Figure 1 needs run folders."""
    figures: dict[str, Figure | None] = {}
    for scale in scales_of(records):
        places: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for record in records:
            if record.scale == scale and not record.variant:
                places[record.dataset, record.protocol].append(record)
        best: dict[str, dict[str, list[Record]]] = {}
        for (dataset, _), runs in sorted(places.items()):  # of several protocols the one with the most methods
            methods = standing(reported, runs)
            if BASE in methods and len(methods) > len(best.get(dataset, ())):
                best[dataset] = methods
        for dataset, methods in best.items():
            figures[f"paired_{dataset}_{scale}"] = paired(reported, dataset, methods, scale)
            figures[f"latents_{dataset}_{scale}"] = before_and_after(reported, dataset, methods, output_dir)
    return {name: figure for name, figure in figures.items() if figure}, []


def paired(reported: Reported, dataset: str, methods: dict[str, list[Record]], scale: str) -> Figure | None:
    """Differences from the plain VAE of the same seed, mean and 95 % interval, a panel per metric."""
    there = [name for name in REGIMES if name in methods]
    if not there:
        return None
    figure, axes = canvas(2, 3, 2 * (PANEL + LINE * len(there)), sharey=True)
    chosen = styles(reported)
    base = {run.seed: run for run in methods[BASE]}
    for ax, (metric, title) in zip(axes.ravel(), METRICS.items(), strict=True):
        ax.axvline(0, color=GREY, linewidth=1)
        for row, name in enumerate(reversed(there)):
            gaps = [
                run.metrics[metric] - base[run.seed].metrics[metric]
                for run in methods[name]
                if run.seed in base and metric in run.metrics and metric in base[run.seed].metrics
            ]
            if gaps:
                _bar(ax, row, gaps, chosen[name].colour, chosen[name].marker)
        label(ax, title)
    for ax in axes[:, 1:].ravel():
        ax.tick_params(labelleft=False)
    axes[0, 0].set_yticks(range(len(there)), [reported.display.methods[name] for name in reversed(there)])
    counts = seeds_of([methods[name] for name in there])
    headline(figure, f"Difference from the plain VAE of the same seed on {dataset}, {scale} scale: {counts}")
    return figure


def _bar(ax: Axes, row: int, gaps: Sequence[float], colour: str, marker: str) -> None:
    found = interval(gaps)
    ax.plot(gaps, [row] * len(gaps), "|", color=colour, alpha=0.6, ms=7)
    ax.plot([found.mean], [row], marker, color=colour, ms=5)
    if found.low is not None:
        ax.plot([found.low, found.high], [row, row], "-", color=colour, linewidth=1.5)


def before_and_after(
    reported: Reported, dataset: str, methods: dict[str, list[Record]], output_dir: Path
) -> Figure | None:
    """The latents of inputs and of their transformations, joined by lines, one method beside another (Figure 1)."""
    frames: dict[str, tuple[Record, pd.DataFrame]] = {}
    for name in BEFORE_AND_AFTER:
        for run in sorted(methods.get(name, ()), key=lambda run: run.seed):
            found = list(output_dir.glob(f"runs/{name}/{dataset}/s{run.seed}-{run.run_key}/latents.csv"))
            if found:
                frames.setdefault(name, (run, pd.read_csv(found[0], dtype={"class": str})))
    if len(frames) < 2 or BASE not in frames:
        return None
    figure, axes = canvas(1, len(frames), 3.2)
    for ax, (name, (run, frame)) in zip(axes[0], frames.items(), strict=True):
        draw_latents(ax, frame)
        ratio = run.metrics["consistency_w2_ratio"]
        label(ax, f"{reported.display.methods[name]}: apart by {ratio:.2f}", "first component", "second")
    headline(
        figure,
        f"Inputs of {dataset} (dots) and their transformations (crosses), in the plane of the two largest principal "
        "components; apart by a share of the variance",
    )
    legend(figure, axes, columns=10)
    return figure
