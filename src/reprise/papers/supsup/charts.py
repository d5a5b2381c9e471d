"""SupSup's own charts for the report: accuracy as tasks come, and accuracy against bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reprise.canvas import BLUE, GREY, VERMILION
from reprise.evidence import Record
from reprise.layout import scales_of
from reprise.panels import seeds_of
from reprise.papers.supsup.sweep_figures import longest_streams, mean_point, name_of, points, shared_streams
from reprise.report.charts import Axis, Chart, Panel, Row, Series, axis_over, lines, present, short, spread
from reprise.report.common import method_series
from reprise.reported import Reported

AS_TASKS_COME = {
    "accuracy/given": Series("task given", GREY, "circle"),
    "accuracy/inferred/official": Series("task inferred, official batches", BLUE, "square"),
    "task_id/accuracy": Series("task found, image by image", VERMILION, "diamond", (5, 2)),
}


def charts(reported: Reported, records: Sequence[Record], output_dir: Path) -> list[Chart]:
    """The charts that the records have data for; ``output_dir`` is not read."""
    found = []
    for scale in scales_of(records):
        found += [tasks_chart(records, scale), storage_chart(reported, records, scale)]
    return [chart for chart in found if chart]


def tasks_chart(records: Sequence[Record], scale: str) -> Chart | None:
    """Accuracy and task inference against the number of tasks, a panel per configuration (Figures 3 and 4)."""
    chosen = longest_streams(records, scale)
    if not chosen:
        return None
    panels, everything = [], []
    for runs in chosen:
        rows = [row for metric, series in AS_TASKS_COME.items() for row in _as_tasks_come(runs, metric, series)]
        x, y = axis_over("number of tasks", [row["x"] for row in rows], ticked=True), Axis("share")
        panels.append(Panel(name_of(runs[0]), lines(rows, x, y, list(AS_TASKS_COME.values()))))
        everything += rows
    told = f"Mean over {seeds_of(chosen)}, with 95 % intervals where there are several; judged after the last task."
    series = present(AS_TASKS_COME.values(), everything)
    return Chart(f"tasks_{scale}", f"Accuracy as tasks come, {scale} scale", told, tuple(panels), series)


def _as_tasks_come(runs: Sequence[Record], metric: str, series: Series) -> list[Row]:
    found = points(runs, metric)
    return [{"series": series.name, "x": count, **spread(values, ".4f", 0.5)} for count, values in found.items()]


def storage_chart(reported: Reported, records: Sequence[Record], scale: str) -> Chart | None:
    """Accuracy with a given task against the bytes that are stored (Figure 2)."""
    ordered = shared_streams(reported, records, scale)
    if not ordered:
        return None
    panels, everything = [], []
    for (dataset, _), methods in ordered:
        rows = [_stored(reported, name, runs) for name, runs in methods.items()]
        first = next(iter(methods.values()))[0]
        tasks, kind, network = (first.condition.get(name) for name in ("num_tasks", "kind", "network"))
        x, y = axis_over("bytes stored", [row["x"] for row in rows]), Axis("accuracy, task given")
        spec = lines(rows, x, y, list(method_series(reported).values()), joined=False)
        panels.append(Panel(f"{dataset}, {tasks} {kind}, {network}", spec))
        everything += rows
    told = f"Mean and 95 % interval over {seeds_of([runs for _, found in ordered for runs in found.values()])}."
    series = present(method_series(reported).values(), everything)
    return Chart(f"storage_{scale}", f"Accuracy against storage, {scale} scale", told, tuple(panels), series)


def _stored(reported: Reported, method: str, runs: Sequence[Record]) -> Row:
    accuracy = spread([run.metrics["accuracy/given"] for run in runs], ".4f", 0.5)
    return {"series": reported.display.methods[method], "x": short(mean_point(runs)[0]), **accuracy}
