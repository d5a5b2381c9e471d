"""Figures over runs that the common ones lack: what a regime changes, seed by seed, and Figure 1 before and after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from reprise.canvas import GREY, PALE, canvas, headline, label, legend
from reprise.evidence import Record
from reprise.layout import scales_of
from reprise.panels import seeds_of, standing, styles
from reprise.reported import Reported
from reprise.stats import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASE = "vae"
FAMILIES = {  # of each base model: the transformed view alone, both views, consistency
    base: (f"{base}_aug_only", f"{base}_aug", consistent)
    for base, consistent in {
        "vae": "crvae",
        "beta_vae": "cr_beta_vae",
        "iwae": "cr_iwae",
        "hierarchical": "cr_hierarchical",
    }.items()
}
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

Methods = dict[str, list[Record]]
Rows = dict[str, list[tuple[Record, Record]]]  # a method's runs, each with that of the plain model of its seed


def draw(reported: Reported, records: Sequence[Record], output_dir: Path) -> tuple[dict[str, Figure], list[str]]:
    """The figures that there is data for, by name, and what is missing; Figure 1 needs run folders."""
    figures: dict[str, Figure | None] = {}
    for scale in scales_of(records):
        regimes, families = compared(reported, records, scale)
        for dataset, methods in regimes.items():
            figures[f"paired_{dataset}_{scale}"] = paired(reported, dataset, methods, scale)
            figures[f"latents_{dataset}_{scale}"] = before_and_after(reported, dataset, methods, output_dir)
        for dataset, there in families.items():
            figures[f"bases_{dataset}_{scale}"] = bases(reported, dataset, there, scale)
    return {name: figure for name, figure in figures.items() if figure}, []


def compared(
    reported: Reported, records: Sequence[Record], scale: str
) -> tuple[dict[str, Methods], dict[str, dict[str, Methods]]]:
    """By data set the regimes of the plain VAE, and by data set and base model the regimes of each."""
    places: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.scale == scale and not record.variant:
            places[record.dataset, record.protocol].append(record)
    families = {base: fullest(reported, places, base, (base, *family)) for base, family in FAMILIES.items()}
    datasets = sorted({dataset for found in families.values() for dataset in found})
    there = {d: {base: found[d] for base, found in families.items() if d in found} for d in datasets}
    return fullest(reported, places, BASE), there


def fullest(
    reported: Reported, places: dict[tuple[str, str], list[Record]], base: str, wanted: Sequence[str] = ()
) -> dict[str, Methods]:
    """By data set the methods (all, or the ``wanted`` ones) of the protocol that has the base and the most of them."""
    best: dict[str, Methods] = {}
    for (dataset, _), runs in sorted(places.items()):
        methods = {name: found for name, found in standing(reported, runs).items() if not wanted or name in wanted}
        if base in methods and len(methods) > len(best.get(dataset, ())):
            best[dataset] = methods
    return best


def paired(reported: Reported, dataset: str, methods: Methods, scale: str) -> Figure | None:
    """Differences from the plain VAE of the same seed, mean and 95 % interval, a panel per metric."""
    rows = pairs_of(methods, BASE, REGIMES)
    title = f"Difference from the plain VAE of the same seed on {dataset}, {scale} scale"
    return _differences(reported, [rows], title) if rows else None


def bases(reported: Reported, dataset: str, families: dict[str, Methods], scale: str) -> Figure | None:
    """The same for every base model, each from its own plain form; ``None`` with fewer than two of them (claim C5).

    A family is whole within one protocol, but families may differ in theirs: a hierarchical model has another network.
    """
    groups = [pairs_of(methods, base, FAMILIES[base]) for base, methods in families.items()]
    groups = [rows for rows in groups if rows]
    title = f"Difference from the plain form of each base model, same seed, on {dataset}, {scale} scale"
    return _differences(reported, groups, title) if len(groups) > 1 else None


def pairs_of(methods: Methods, base: str, names: Sequence[str]) -> Rows:
    """Runs beside the base's run of the same seed; methods without any are left out."""
    plain = {run.seed: run for run in methods[base]}
    rows = {name: [(r, plain[r.seed]) for r in methods.get(name, ()) if r.seed in plain] for name in names}
    return {name: pairs for name, pairs in rows.items() if pairs}


def _differences(reported: Reported, groups: Sequence[Rows], title: str) -> Figure:
    """A panel per metric, a row per method, from the top; a line between groups."""
    rows = [row for group in groups for row in group.items()][::-1]
    figure, axes = canvas(2, 3, 2 * (PANEL + LINE * len(rows)), sharey=True)
    chosen = styles(reported)
    for ax, (metric, name) in zip(axes.ravel(), METRICS.items(), strict=True):
        ax.axvline(0, color=GREY, linewidth=1)
        for i in range(1, len(groups)):
            ax.axhline(sum(map(len, groups[i:])) - 0.5, color=PALE, linewidth=0.8)
        for row, (method, pairs) in enumerate(rows):
            gaps = [r.metrics[metric] - p.metrics[metric] for r, p in pairs if metric in r.metrics.keys() & p.metrics]
            if gaps:
                _bar(ax, row, gaps, chosen[method].colour, chosen[method].marker)
        label(ax, name)
    for ax in axes[:, 1:].ravel():
        ax.tick_params(labelleft=False)
    axes[0, 0].set_yticks(range(len(rows)), [reported.display.methods[method] for method, _ in rows])
    headline(figure, f"{title}: {seeds_of([pairs for _, pairs in rows])}")
    return figure


def _bar(ax: Axes, row: int, gaps: Sequence[float], colour: str, marker: str) -> None:
    found = interval(gaps)
    ax.plot(gaps, [row] * len(gaps), "|", color=colour, alpha=0.6, ms=7)
    ax.plot([found.mean], [row], marker, color=colour, ms=5)
    if found.low is not None:
        ax.plot([found.low, found.high], [row, row], "-", color=colour, linewidth=1.5)


def before_and_after(reported: Reported, dataset: str, methods: Methods, output_dir: Path) -> Figure | None:
    """The latents of inputs and of their transformations, joined by lines, one method beside another (Figure 1)."""
    from reprise.papers.crvae.artifacts import draw_latents  # needs torch

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
