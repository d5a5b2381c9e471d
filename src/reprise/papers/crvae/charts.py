"""CR-VAE's own charts for the report: what each regime changes, seed by seed, and Figure 1 where it was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reprise.evidence import Record
from reprise.layout import scales_of
from reprise.panels import seeds_of
from reprise.papers.crvae.sweep_figures import BASE, FAMILIES, METRICS, REGIMES, Rows, compared, pairs_of
from reprise.report.charts import Axis, Chart, Panel, Picture, Row, intervals, present, short, spread
from reprise.report.common import method_series
from reprise.report.stills import still
from reprise.reported import Reported


def charts(reported: Reported, records: Sequence[Record], output_dir: Path) -> list[Chart | Picture]:
    """The charts that the records have data for, and the pictures of latents that were drawn from runs."""
    found: list[Chart | Picture | None] = []
    for scale in scales_of(records):
        regimes, families = compared(reported, records, scale)
        for dataset, methods in regimes.items():
            rows = pairs_of(methods, BASE, REGIMES)
            title = f"What a regime changes on {dataset}, {scale} scale: difference from the plain VAE of the same seed"
            found += [_differences(reported, f"paired_{dataset}_{scale}", title, [rows])] if rows else []
            found += [_latents(output_dir, dataset, scale)]
        for dataset, there in families.items():
            groups = [pairs for base, methods in there.items() if (pairs := pairs_of(methods, base, FAMILIES[base]))]
            title = f"Every base model on {dataset}, {scale} scale: difference from its plain form of the same seed"
            found += [_differences(reported, f"bases_{dataset}_{scale}", title, groups)] if len(groups) > 1 else []
    return [one for one in found if one]


def _differences(reported: Reported, name: str, title: str, groups: Sequence[Rows]) -> Chart:
    """A panel per metric, a row per method."""
    rows = {method: pairs for group in groups for method, pairs in group.items()}
    panels = [_panel(reported, metric, label, rows) for metric, label in METRICS.items()]
    told = (
        f"Mean and 95 % interval over {seeds_of(list(rows.values()))}, the seeds as small marks; dotted: no difference."
    )
    return Chart(name, title, told, tuple(panels))


def _panel(reported: Reported, metric: str, label: str, methods: Rows) -> Panel:
    chosen, form = method_series(reported), reported.display.metrics[metric].format
    rows: list[Row] = []
    seeds: list[Row] = []
    for method, pairs in methods.items():
        gaps = {
            r.seed: r.metrics[metric] - p.metrics[metric] for r, p in pairs if metric in r.metrics.keys() & p.metrics
        }
        if gaps:
            who = {"row": chosen[method].name, "kind": chosen[method].name}
            rows.append(who | spread(list(gaps.values()), form, signed=True))
            seeds += [who | {"seed": seed, "value": short(gap)} for seed, gap in gaps.items()]
    return Panel(label, intervals(rows, seeds, Axis(label), present(chosen.values(), rows, "kind"), 0.0))


def _latents(output_dir: Path, dataset: str, scale: str) -> Picture | None:
    told = (
        "Inputs (dots) and their transformations (crosses) in the plane of the two largest principal components. "
        "Drawn from the runs' own files, which the records do not hold."
    )
    name = f"latents_{dataset}_{scale}"
    return still(output_dir, "crvae", name, f"Figure 1 on {dataset}, before and after, {scale} scale", told)
