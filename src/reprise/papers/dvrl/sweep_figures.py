"""Mean discovery and removal curves over seeds, read from the run folders: the records hold no curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from reprise.canvas import DASHED, DOTTED, GREY, canvas, headline, label, legend
from reprise.evidence import Record
from reprise.layout import scales_of
from reprise.panels import Site, at, claims_on, seeds_of, shared, site_name, sites, standing, styles
from reprise.reported import Reported

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 7  # lines in one panel that can still be told apart
INSPECTED = np.linspace(0.0, 1.0, 201)
REMOVED = np.linspace(0.0, 0.5, 11)  # the paper's figures show the first half
PANEL = 2.5  # inches

ENDS: dict[str, Any] = {"low_first": "-", "high_first": DASHED}

Curves = dict[str, np.ndarray]
Panels = tuple[list[Site], list[tuple[Site, dict[str, list[Curves]]]]]


@dataclass
class Folders:
    """The curves of runs, as far as their folders are there; counts what was asked for and what was found."""

    output_dir: Path
    asked: int = 0
    found: int = 0
    lacking: list[str] = field(default_factory=list)

    def curves(self, runs: Sequence[Record], name: str, x: str, ys: Sequence[str], grid: np.ndarray) -> list[Curves]:
        """``<name>.csv`` of each run that has it: the columns ``ys``, each ``[len(grid)]``, at ``grid`` of ``x``."""
        read = [self._read(run, name, [x, *ys]) for run in runs]
        self.asked += len(read)
        whole = [frame for frame in read if frame is not None]
        self.found += len(whole)
        return [{y: np.interp(grid, frame[x], frame[y]) for y in ys} for frame in whole]

    def _read(self, run: Record, name: str, columns: Sequence[str]) -> pd.DataFrame | None:
        folder = self.output_dir / "runs" / run.method / run.dataset / f"s{run.seed}-{run.run_key}"
        try:
            frame = pd.read_csv(folder / f"{name}.csv", usecols=list(columns), dtype=float)
        except (OSError, ValueError):
            return None
        return frame if len(frame) and np.isfinite(frame.to_numpy()).all() else None

    def note(self, what: str) -> list[str]:
        """One line if curves are missing."""
        if self.found == self.asked:
            return []
        missing = self.asked - self.found
        left = "no figure" if not self.found else f"drawn from {self.found} runs"
        return [f"{what}: {left}; {missing} of {self.asked} runs have no curve below {self.output_dir / 'runs'}."]


def draw(reported: Reported, records: Sequence[Record], output_dir: Path) -> tuple[dict[str, Figure], list[str]]:
    """The figures that the run folders have data for, by name, and a line on each that lacks some or all of it."""
    figures: dict[str, Figure] = {}
    notes: list[str] = []
    for scale in scales_of(records):
        for name, figure_of in (("discovery", discovery_figure), ("removal", removal_figure)):
            folders = Folders(output_dir)
            figure = figure_of(reported, records, scale, folders)
            figures |= {f"{name}_{scale}": figure} if figure else {}
            notes += folders.note(f"{name} curves, {scale} scale")
    return figures, notes


def discovery_panels(reported: Reported, records: Sequence[Record], scale: str, folders: Folders) -> Panels:
    """Where the first claim about discovery is judged, and the curves there."""
    claims = claims_on(reported, "discovery/auroc")[:1]
    where = [site for claim in claims for site in sites(claim, records, scale)]
    found = panels_of(reported, records, scale, where, folders, "discovery_curve", "inspected", ("found",), INSPECTED)
    return where, found


def removal_panels(reported: Reported, records: Sequence[Record], scale: str, folders: Folders) -> Panels:
    """The sites of every claim about removal, and the curves there."""
    claims = claims_on(reported, "removal/area_between")
    where = [site for claim in claims for site in sites(claim, records, scale)]
    datasets = [site.dataset for site in where]
    where.sort(key=lambda site: datasets.index(site.dataset))
    return where, panels_of(reported, records, scale, where, folders, "removal_curve", "removed", tuple(ENDS), REMOVED)


def discovery_figure(reported: Reported, records: Sequence[Record], scale: str, folders: Folders) -> Figure | None:
    """Damaged rows found against rows inspected, lowest value first, where the first claim about it is judged."""
    where, panels = discovery_panels(reported, records, scale, folders)
    if not panels:
        return None
    figure, axes = _grid(len(panels))
    for ax, (site, found) in zip(axes.ravel(), panels, strict=False):
        best = np.minimum(INSPECTED / site.condition["noise_rate"], 1.0)  # whoever inspects the damaged rows first
        ax.plot(100 * INSPECTED, 100 * best, color=GREY, linestyle=DASHED, linewidth=1.2, label="best possible")
        ax.plot([0, 100], [0, 100], color=GREY, linestyle=DOTTED, linewidth=1.2, label="chance")
        _lines(ax, reported, found, 100 * INSPECTED, {"found": "-"}, 100.0, (0.0, 100.0))
        label(ax, site_name(site, where), "rows inspected, lowest value first (%)", "damaged rows found (%)")
    return _finish(figure, axes, panels, f"Discovering damaged labels, {scale} scale")


def removal_figure(reported: Reported, records: Sequence[Record], scale: str, folders: Folders) -> Figure | None:
    """Test score against rows removed, on the sites of every claim about removal."""
    where, panels = removal_panels(reported, records, scale, folders)
    if not panels:
        return None
    figure, axes = _grid(len(panels))
    for ax, (site, found) in zip(axes.ravel(), panels, strict=False):
        errors = is_regression(at(records, scale, site))
        _lines(ax, reported, found, 100 * REMOVED, ENDS, 1.0, (0.0, np.inf if errors else 1.0))
        label(ax, site_name(site, where), "rows removed (%)", "test RMSE" if errors else "test accuracy")
    return _finish(figure, axes, panels, f"Removing rows, low values first (solid) or high (dashed), {scale} scale")


def panels_of(
    reported: Reported,
    records: Sequence[Record],
    scale: str,
    where: Sequence[Site],
    folders: Folders,
    name: str,
    x: str,
    ys: tuple[str, ...],
    grid: np.ndarray,
) -> list[tuple[Site, dict[str, list[Curves]]]]:
    """The sites with curves, and the curves of the methods that fit in one panel."""
    panels = []
    for site in where:
        runs = standing(reported, at(records, scale, site))
        read = {m: folders.curves(runs[m], name, x, ys, grid) for m in readable(reported, list(runs))}
        drawn = {method: curves for method, curves in read.items() if curves}
        panels += [(site, drawn)] if drawn else []
    return panels


def is_regression(records: Sequence[Record]) -> bool:
    """Whether the runs at a site are judged by their error."""
    return any(r.metric("weighted/test_accuracy") is None for r in records)


def readable(reported: Reported, methods: Sequence[str]) -> list[str]:
    """Those of ``methods`` that one panel holds, in the given order: the compared ones first, no colour twice."""
    chosen: dict[str, str] = {}
    for method, style in styles(reported).items():
        if method in methods and len(chosen) < MOST:
            chosen.setdefault(style.colour, method)
    return [method for method in methods if method in chosen.values()]


def band(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean ``[P]`` of ``curves [S, P]`` and the ends of its pointwise 95 % interval (Student's t); S = 1 has none."""
    mean = curves.mean(0)
    if len(curves) == 1:
        return mean, mean, mean
    from scipy.stats import t

    half = t.ppf(0.975, len(curves) - 1) * curves.std(0, ddof=1) / np.sqrt(len(curves))
    return mean, mean - half, mean + half


def _lines(
    ax: Axes,
    reported: Reported,
    found: dict[str, list[Curves]],
    x: np.ndarray,
    dashes: dict[str, object],
    unit: float,
    limits: tuple[float, float],
) -> None:
    """One line with its band per method and column; the first column carries the method's name."""
    chosen = styles(reported)
    for method, curves in found.items():
        for i, (column, dash) in enumerate(dashes.items()):
            mean, low, high = (unit * line for line in band(np.array([curve[column] for curve in curves])))
            colour, name = chosen[method].colour, reported.display.methods[method] if i == 0 else None
            ax.fill_between(x, np.clip(low, *limits), np.clip(high, *limits), color=colour, alpha=0.1, linewidth=0)
            ax.plot(x, mean, color=colour, linestyle=dash, linewidth=1.5, label=name)


def _grid(panels: int) -> tuple[Figure, np.ndarray]:
    """Axes for so many panels, two in a row; what is left over is hidden."""
    columns = min(2, panels)
    rows = -(-panels // columns)
    figure, axes = canvas(rows, columns, PANEL * rows)
    for ax in axes.ravel()[panels:]:
        ax.set_visible(False)
    return figure, axes


def _finish(figure: Figure, axes: np.ndarray, panels: list[tuple[Site, dict[str, list[Curves]]]], title: str) -> Figure:
    count = seeds_of([curves for _, found in panels for curves in found.values()])
    headline(figure, f"{title}: mean and 95 % band over {count}", shared([site for site, _ in panels]))
    legend(figure, axes)
    return figure
