"""What the report says, before it is laid out: the same tables as elsewhere, sorted under papers, with their charts."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reprise.evidence import Collection, Record, collect
from reprise.judging import CellResult, ClaimResult, judge_cell, judge_claim
from reprise.layout import NOTHING, SCALE_ORDER, Table
from reprise.report import common
from reprise.report.charts import Chart, Picture
from reprise.report.runs import RunGroup, run_groups
from reprise.reported import SCALES, Cell, Claim, Reported, folder_of, load_reported
from reprise.results import cost_tables, curves_tables, results_tables, variants_tables
from reprise.stats import MIN_SEEDS, ClaimVerdict
from reprise.tables import NUMBERS, comparison_tables, evidence, paper_number, provenance

CONFIDENCE = {"exact": "exact", "secondary": "secondary", "recalled": "recalled", "not_recovered": "not recovered"}
NOT_JUDGED = "not judged"
SHOWN_SCALES = tuple(scale for scale in SCALE_ORDER if scale in SCALES)
HOUR, GIGABYTE = 3600.0, 1e9


@dataclass(frozen=True)
class ClaimView:
    """A claim with its result at each scale (``None`` where the claim is not meant for it) and what they rest on."""

    claim: Claim
    results: dict[str, ClaimResult | None]
    evidence: tuple[Table, ...]

    def verdict(self, scale: str) -> str:
        """The verdict in words."""
        result = self.results[scale]
        return result.verdict.value if result else NOT_JUDGED

    @property
    def idle(self) -> str:
        """Why the claim was judged at no scale; empty if it was."""
        reasons = [r.reason for r in self.results.values() if r]
        ran = any(r.verdict is not ClaimVerdict.NOT_RUN for r in self.results.values() if r)
        return "" if ran else "; ".join(dict.fromkeys(reasons))

    @property
    def judged(self) -> int:
        """How many relations were judged on enough pairs for a verdict, over all scales and sites."""
        parts = [p for r in self.results.values() if r for site in r.sites for p in site.parts]
        return sum(part.judgement.n >= MIN_SEEDS for part in parts)


@dataclass(frozen=True)
class PaperView:
    """Everything that the report says about one paper."""

    name: str
    reported: Reported
    found: Collection
    claims: tuple[ClaimView, ...]
    compared: tuple[Table, ...]
    absent: Table
    figures: tuple[Chart | Picture, ...]
    results: tuple[Table, ...]
    cost: tuple[Table, ...]
    runs: tuple[RunGroup, ...]

    @property
    def label(self) -> str:
        """What the method is called."""
        return self.reported.name or self.name

    @property
    def provenance(self) -> str:
        """One line on what the numbers rest on."""
        return provenance(self.found.records)

    def tally(self, scale: str) -> dict[str, int]:
        """How many claims have each verdict at a scale."""
        return {str(v): sum(view.verdict(scale) == v for view in self.claims) for v in ClaimVerdict}

    @property
    def scales(self) -> dict[str, int]:
        """How many runs there are at each scale."""
        return {scale: sum(r.scale == scale for r in self.found.records) for scale in SHOWN_SCALES}


def gather(output_dir: Path, papers_dir: Path, papers: Sequence[str]) -> list[PaperView]:
    """All papers, from the records and the finished runs in ``output_dir``."""
    return [paper_view(name, output_dir, papers_dir) for name in papers]


def paper_view(name: str, output_dir: Path, papers_dir: Path) -> PaperView:
    """One paper, from its reported numbers, its records and, where it has any, its own charts."""
    reported, found = load_reported(name, papers_dir), collect(output_dir, name)
    records = found.records
    return PaperView(
        name=name,
        reported=reported,
        found=found,
        claims=tuple(claim_view(reported, claim, records) for claim in reported.claims),
        compared=tuple(compared_tables(reported, records)),
        absent=comparison_tables(reported, records)[-1],
        figures=tuple(common.charts(reported, records) + own_charts(name, reported, records, output_dir, papers_dir)),
        results=tuple(t for make in (results_tables, variants_tables, curves_tables) for t in make(reported, records)),
        cost=(cost_by_table(records), *cost_tables(reported, records)),
        runs=tuple(run_groups(reported, records)),
    )


def claim_view(reported: Reported, claim: Claim, records: Sequence[Record]) -> ClaimView:
    """A claim judged at every scale that it is meant for."""
    results = {s: judge_claim(claim, records, s) if s in claim.scales else None for s in SHOWN_SCALES}
    tables = [evidence(reported, [r], f"Evidence, {s} scale") for s, r in results.items() if r]
    return ClaimView(claim, results, tuple(table for table in tables if table.rows))


def own_charts(
    name: str, reported: Reported, records: Sequence[Record], output_dir: Path, papers_dir: Path
) -> list[Chart | Picture]:
    """What ``charts(reported, records, output_dir)`` in the paper's ``charts.py`` returns; nothing without one."""
    path = folder_of(name, papers_dir) / "charts.py"
    if not path.exists():
        return []
    spec = importlib.util.spec_from_file_location(f"reprise_charts_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.charts(reported, records, output_dir)


def compared_tables(reported: Reported, records: Sequence[Record]) -> list[Table]:
    """Per scale the reported cells that we have runs for, with everything known about either number."""
    results = [result for cell in reported.cells for result in judge_cell(cell, records)]
    header = ("Reported in", "Row", "Column", "Paper", "Confidence", "Ours", "SD", "95 % interval", "Seeds")
    tables = []
    for scale in [s for s in SCALE_ORDER if any(r.scale == s for r in results)]:
        there = [r for r in results if r.scale == scale]
        rows = tuple(_compared(reported, r) for r in there)
        behind = tuple((r.group,) for r in there)
        title = f"Paper against ours, {scale} scale"
        tables.append(Table(title, (*header, "Verdict"), rows, runs=behind))
    return tables


def _compared(reported: Reported, result: CellResult) -> tuple[str, ...]:
    cell, ours = result.cell, result.ours
    form = number_format(reported, cell)
    assert ours is not None  # a cell with a scale has runs
    between = NOTHING if ours.low is None or ours.high is None else f"[{ours.low:{form}}, {ours.high:{form}}]"
    deviation = format(statistics.stdev(result.values), form) if ours.n > 1 else NOTHING
    return (
        reported.tables[cell.table],
        cell.row,
        cell.column,
        paper_number(cell),
        CONFIDENCE[cell.confidence],
        format(ours.mean, form),
        deviation,
        between,
        str(ours.n),
        f"{result.judgement.verdict.value}: {result.judgement.reason}",
    )


def number_format(reported: Reported, cell: Cell) -> str:
    """How numbers of a cell are written."""
    own = reported.display.metrics[cell.experiment.metric].format if cell.experiment else ".4g"
    return NUMBERS.get(cell.unit, own)


def cost_by_table(records: Sequence[Record]) -> Table:
    """What each sweep took, per scale: runs, hours of training and of measuring, memory, device."""
    header = ("Table", "Scale", "Runs", "Hours to fit", "Hours to measure", "Most memory (GB)", "Device", "Command")
    places = sorted({(r.table, r.scale) for r in records})
    rows = tuple(_cost(*place, [r for r in records if (r.table, r.scale) == place]) for place in places)
    notes = ("Sums over single runs. Times depend on the machine and on what else it did.",)
    return Table("Cost per table", header, rows, notes=notes)


def _cost(table: str, scale: str, runs: Sequence[Record]) -> tuple[str, ...]:
    def hours(name: str) -> str:
        found = [value for r in runs if (value := r.metric(name)) is not None]
        return f"{sum(found) / HOUR:.2f}" if found else NOTHING

    memory = [value for r in runs if (value := r.metric("memory/peak_bytes")) is not None]
    return (
        table or "(single runs)",
        scale,
        str(len(runs)),
        hours("time/fit_seconds"),
        hours("time/evaluation_seconds"),
        f"{max(memory) / GIGABYTE:.1f}" if memory else NOTHING,
        ", ".join(sorted({str(r.env["device"]) for r in runs if r.env.get("device")})) or NOTHING,
        f"python train.py sweep={table}" + (" scale=paper" if scale == "paper" else "") if table else NOTHING,
    )
