"""The report's own charts of this paper: success against collateral, and what edits look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reprise.evidence import Record
from reprise.layout import scales_of
from reprise.panels import seeds_of
from reprise.papers.rewriting.sweep_figures import BEST, HARM, HIGHER, SUCCESS, mean_of, of_higher_rank, rules
from reprise.report.charts import Axis, Chart, Panel, Picture, Series, axis_over, lines, present, short, spread
from reprise.report.common import method_series
from reprise.report.stills import still
from reprise.reported import Reported


def charts(reported: Reported, records: Sequence[Record], output_dir: Path) -> list[Chart | Picture]:
    """The charts that the records have data for, and the picture that was drawn from runs."""
    found: list[Chart | Picture | None] = []
    for scale in scales_of(records):
        told = (
            "Unseen scenes before and after an edit, as they should be, and the difference. Drawn from the runs' own "
            "figures, which the records do not hold."
        )
        found += [tradeoff_chart(reported, records, scale)]
        found += [still(output_dir, "rewriting", f"edits_{scale}", f"Edits, {scale} scale", told)]
    return [one for one in found if one]


def tradeoff_chart(reported: Reported, records: Sequence[Record], scale: str) -> Chart | None:
    """Success against collateral, a panel per rule."""
    there = rules(reported, records, scale)
    if not there:
        return None
    panels, everything, looks = [], [], method_series(reported)
    entries = [*looks.values(), Series(HIGHER, looks["rewriting"].colour, "triangle-up")]
    for edit, methods in there.items():
        named = {reported.display.methods[name]: runs for name, runs in methods.items()}
        if higher := of_higher_rank(records, methods.get("rewriting", ())):
            named[HIGHER] = higher
        rows = []
        for name, runs in named.items():
            success = spread([run.metrics[SUCCESS] for run in runs], ".3f", 0.5)
            rows.append({"series": name, "x": short(mean_of(runs, HARM)), **success})
        ceiling = mean_of([run for runs in methods.values() for run in runs], BEST)
        x, y = axis_over("collateral: L1 outside", [row["x"] for row in rows]), Axis("success, pixels")
        spec = lines(rows, x, y, entries, joined=False)
        panels.append(Panel(f"{edit}; ceiling {ceiling:.2f}", spec))
        everything += rows
    counts = seeds_of([runs for methods in there.values() for runs in methods.values()])
    told = f"Mean and 95 % interval over {counts}; up and left is better."
    title = f"Success against collateral, {scale} scale"
    return Chart(f"tradeoff_{scale}", title, told, tuple(panels), present(entries, everything))
