"""Figures over runs that the common ones lack: success against collateral for each rule, and what edits look like."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from reprise.canvas import GREY, canvas, headline, label, legend
from reprise.evidence import Record
from reprise.layout import scales_of
from reprise.panels import Methods, seeds_of, standing, styles
from reprise.reported import Reported

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUCCESS, HARM, BEST = "edit/success", "collateral/l1_outside", "ceiling/success"
FEWEST = 3  # methods of a panel
PANEL = 2.6  # inches
HIGHER = "The same of a higher rank"
SHOWN = {  # rules whose edits are shown, and the method that does each best in the paper's own terms
    "dome -> spire": "rewriting",
    "flat -> dome": "rewriting",
    "windows removed": "rewriting",
    "reflection inverted": "learned_direction",
}


def draw(reported: Reported, records: Sequence[Record], output_dir: Path) -> tuple[dict[str, Figure], list[str]]:
    """The figures that the records have data for, by name, and what is missing for the others."""
    figures: dict[str, Figure | None] = {}
    notes: list[str] = []
    for scale in scales_of(records):
        figures[f"tradeoff_{scale}"] = tradeoff_figure(reported, records, scale)
        figures[f"edits_{scale}"], missing = edits_figure(records, scale, output_dir)
        notes += missing
    return {name: figure for name, figure in figures.items() if figure}, notes


def rules(reported: Reported, records: Sequence[Record], scale: str) -> dict[str, Methods]:
    """The methods that met on each rule, with the runs that stand for them; every run edited the same scenes."""
    split: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.scale == scale and record.metric(SUCCESS) is not None and record.metric(BEST) is not None:
            split[str(record.condition.get("edit"))].append(record)
    found = {edit: standing(reported, runs) for edit, runs in split.items()}
    return {edit: methods for edit, methods in sorted(found.items()) if len(methods) >= FEWEST}


def of_higher_rank(records: Sequence[Record], one: Sequence[Record]) -> list[Record]:
    """The runs of the same method, rule and seeds with most directions, where those that stand for it have one."""
    if not one or one[0].settings.get("recipe.rank") != 1:
        return []
    first, seeds = one[0], sorted(run.seed for run in one)
    by_rank: dict[int, list[Record]] = defaultdict(list)
    for run in records:
        same = (run.method, run.scale, run.protocol) == (first.method, first.scale, first.protocol)
        if same and run.settings["recipe.rank"] > 1 and run.metric(SUCCESS) is not None:
            by_rank[run.settings["recipe.rank"]].append(run)
    full = [rank for rank, runs in by_rank.items() if sorted(run.seed for run in runs) == seeds]
    return by_rank[max(full)] if full else []


def mean_of(runs: Sequence[Record], metric: str) -> float:
    """Over all seeds."""
    return fmean(run.metrics[metric] for run in runs)


def tradeoff_figure(reported: Reported, records: Sequence[Record], scale: str) -> Figure | None:
    """Success against collateral, a panel per rule: the upper left corner is where an edit should be."""
    there = rules(reported, records, scale)
    if not there:
        return None
    rows, chosen = -(-len(there) // 2), styles(reported)
    figure, axes = canvas(rows, min(2, len(there)), PANEL * rows)
    for ax, (edit, methods) in zip(axes.ravel(), there.items(), strict=False):
        for name, runs in methods.items():
            style = chosen[name]
            ax.plot(
                [r.metrics[HARM] for r in runs],
                [r.metrics[SUCCESS] for r in runs],
                style.marker,
                ms=2,
                alpha=0.4,
                color=style.colour,
            )
            point = mean_of(runs, HARM), mean_of(runs, SUCCESS)
            ax.plot(*point, style.marker, ms=8, color=style.colour, label=reported.display.methods[name])
        if higher := of_higher_rank(records, methods.get("rewriting", ())):
            at = ([r.metrics[metric] for r in higher] for metric in (HARM, SUCCESS))
            colour, point = chosen["rewriting"].colour, (mean_of(higher, HARM), mean_of(higher, SUCCESS))
            ax.plot(*at, "o", ms=2, alpha=0.4, color=colour)
            ax.plot(*point, "o", ms=8, mfc="white", mew=2, color=colour, label=HIGHER)
        everything = [run for runs in methods.values() for run in runs]
        ax.axhline(mean_of(everything, BEST), color=GREY, linestyle="--", linewidth=1)
        ax.set_xlim(left=0)
        ax.set_ylim(0, 1.05)
        label(ax, edit, "collateral: L1 outside", "success, pixels")
    for ax in axes.ravel()[len(there) :]:
        ax.set_visible(False)
    counts = seeds_of([runs for methods in there.values() for runs in methods.values()])
    headline(
        figure,
        f"Success against collateral, {scale} scale: {counts} over three generators, means large; dashed: ceiling",
    )
    legend(figure, axes, columns=3)
    return figure


def edits_figure(records: Sequence[Record], scale: str, output_dir: Path) -> tuple[Figure | None, list[str]]:
    """What the first run of some rules did to unseen scenes, from its own figure."""
    from matplotlib.image import imread

    pictures, notes = [], []
    for edit, method in SHOWN.items():
        runs = [r for r in records if (r.scale, r.method, r.condition.get("edit")) == (scale, method, edit)]
        if not runs:
            continue
        run = min(runs, key=lambda r: (r.table != "rewriting/objects", r.seed, r.order))
        path = output_dir / "runs" / method / run.dataset / f"s{run.seed}-{run.run_key}" / "edit.png"
        if path.exists():
            pictures.append(imread(path))
        else:
            notes.append(f"the run {method} s{run.seed}-{run.run_key} is not in {output_dir}, its images are left out.")
    if not pictures:
        return None, notes
    figure, axes = canvas(len(pictures), 1, height=sum(9.0 * p.shape[0] / p.shape[1] for p in pictures), width=9.0)
    for ax, picture in zip(axes.ravel(), pictures, strict=True):
        ax.imshow(picture)
        ax.set_axis_off()
    return figure, notes
