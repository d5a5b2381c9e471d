"""DVRL's own charts for the report: discovery and removal curves, from the run folders where they are there.

The records hold no curves. Where the folders are gone, the pictures that were drawn from them stand in.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reprise.canvas import DOTTED
from reprise.evidence import Record
from reprise.layout import scales_of
from reprise.panels import Site, at, seeds_of, shared, site_name
from reprise.papers.dvrl.sweep_figures import (
    INSPECTED,
    REMOVED,
    Curves,
    Folders,
    discovery_panels,
    is_regression,
    removal_panels,
)
from reprise.report.charts import Axis, Chart, Panel, Picture, Row, Series, lines, plain, present, reference, spread
from reprise.report.common import method_series
from reprise.report.stills import still
from reprise.reported import Reported

BEST, CHANCE = reference("best possible"), reference("chance", DOTTED[1])
EVERY = 8  # of the points of a discovery curve, more than a screen shows
LATER = ", high values first"
FROM_RUNS = "Drawn from the runs' own files, which the records do not hold."

Found = dict[str, list[Curves]]


def charts(reported: Reported, records: Sequence[Record], output_dir: Path) -> list[Chart | Picture]:
    """Discovery and removal at every scale, as far as there is anything to show."""
    found: list[Chart | Picture | None] = []
    for scale in scales_of(records):
        for name, title, draw in (
            ("discovery", "Discovering damaged labels", _discovery),
            ("removal", "Removing rows by value", _removal),
        ):
            folders, title = Folders(output_dir), f"{title}, {scale} scale"
            chart = draw(reported, records, scale, folders, title)
            whole = chart is not None and folders.found == folders.asked
            found.append((not whole and still(output_dir, "dvrl", f"{name}_{scale}", title, FROM_RUNS)) or chart)
    return [one for one in found if one]


def _discovery(reported: Reported, records: Sequence[Record], scale: str, folders: Folders, title: str) -> Chart | None:
    """Damaged rows found against rows inspected, lowest value first (Figures 4 and 9)."""
    where, panels = discovery_panels(reported, records, scale, folders)
    x = Axis("rows inspected, lowest value first (%)", domain=(0.0, 100.0))
    y = Axis("damaged rows found (%)", domain=(0.0, 100.0))
    inspected = INSPECTED[::EVERY]
    series, drawn, everything = [BEST, CHANCE, *_methods(reported)], [], []
    for site, found in panels:
        best = np.minimum(inspected / site.condition["noise_rate"], 1.0)  # whoever inspects the damaged rows first
        rows = [_fixed(BEST, a, b) for a, b in zip(inspected, best, strict=True)]
        rows += [_fixed(CHANCE, a, a) for a in (0.0, 1.0)]
        rows += _rows(reported, found, "found", inspected, EVERY, unit=100.0)
        drawn.append(Panel(site_name(site, where), lines(rows, x, y, series)))
        everything += rows
    return _chart(f"discovery_{scale}", title, panels, drawn, present(series, everything))


def _removal(reported: Reported, records: Sequence[Record], scale: str, folders: Folders, title: str) -> Chart | None:
    """Test score against rows removed (Figures 3 and 8)."""
    where, panels = removal_panels(reported, records, scale, folders)
    first = _methods(reported)
    series, drawn, everything = [*first, *(_later(one) for one in first)], [], []
    for site, found in panels:
        rows = _rows(reported, found, "low_first", REMOVED, 1)
        rows += _rows(reported, found, "high_first", REMOVED, 1, suffix=LATER)
        error = is_regression(at(records, scale, site))
        y = Axis("test RMSE" if error else "test accuracy")
        drawn.append(Panel(site_name(site, where), lines(rows, Axis("rows removed (%)"), y, series)))
        everything += rows
    return _chart(f"removal_{scale}", title, panels, drawn, present(series, everything))


def _chart(
    name: str, title: str, panels: Sequence[tuple[Site, Found]], drawn: list[Panel], series: tuple[Series, ...]
) -> Chart | None:
    if not panels:
        return None
    count = seeds_of([curves for _, found in panels for curves in found.values()])
    told = f"Mean and pointwise 95 % band over {count}. {shared([site for site, _ in panels])}"
    return Chart(name, title, told, tuple(drawn), series)


def _methods(reported: Reported) -> list[Series]:
    """Methods without marks: curves have many points."""
    return [Series(one.name, one.colour) for one in method_series(reported).values()]


def _later(series: Series) -> Series:
    return Series(series.name + LATER, series.colour, dash=(5, 2))


def _fixed(series: Series, inspected: float, found: float) -> Row:
    return {"series": series.name, "x": 100 * float(inspected), **plain(100 * float(found), ".1f")}


def _rows(
    reported: Reported, found: Found, column: str, grid: np.ndarray, every: int, unit: float = 1.0, suffix: str = ""
) -> list[Row]:
    """``grid`` is every so-manieth point of the curves; shown in percent of the rows."""
    return [
        {
            "series": reported.display.methods[method] + suffix,
            "x": 100 * float(x),
            **spread([unit * float(curve[column][i * every]) for curve in curves], ".4g"),
        }
        for method, curves in found.items()
        for i, x in enumerate(grid)
    ]
