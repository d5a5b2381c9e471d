"""Tables: claims, evidence, paper against ours; and the sections that a paper's table file is made of.

Every table is a pure function of the records and the reported numbers: sorted, without dates, so that the same evidence
gives the same bytes. No table mixes scales. Which methods and metrics appear, and under which names, is said by the
``display`` section of a paper's ``reported.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

from reprise.evidence import Record
from reprise.judging import CellResult, ClaimResult, PartResult, SiteResult, judge_cell, judge_claim
from reprise.layout import NOTHING, SCALE_ORDER, Table, comparison, describe, scales_of, show, to_markdown, varying
from reprise.reported import Cell, Claim, Reported
from reprise.results import cost_tables, curves_tables, results_tables, variants_tables

MARKS = {"exact": "", "secondary": "°", "recalled": "?"}
LEGEND = "° from a secondary source, not compared with the paper itself; ? recalled only, not a reference value."
NUMBERS = {"fraction": ".4f", "percent": ".2f"}
LISTED = 4  # so many cells are named one by one where they share a line


# --- claims -----------------------------------------------------------------------------------------------------------


def _judged(reported: Reported, records: Sequence[Record]) -> dict[str, list[ClaimResult]]:
    """Claim results by scale, for the scales at which any claim could be judged (for all where none could)."""
    judged = {
        scale: [judge_claim(claim, records, scale) for claim in reported.claims if scale in claim.scales]
        for scale in [s for s in scales_of(records) if s != "smoke"] or ["cpu"]
    }
    return {scale: results for scale, results in judged.items() if any(r.sites for r in results)} or judged


def claims_tables(reported: Reported, records: Sequence[Record]) -> list[Table]:
    """Per scale: the verdict on each claim."""
    header = ("Claim", "What the paper says", "Verdict", "Why")
    return [
        Table(
            f"Claims, {scale} scale",
            header,
            tuple((r.claim.id, r.claim.sentence, r.verdict.value, r.reason) for r in results),
        )
        for scale, results in _judged(reported, records).items()
    ]


def evidence_tables(reported: Reported, records: Sequence[Record]) -> list[Table]:
    """Per scale: the numbers behind the verdicts, data set by data set."""
    judged = _judged(reported, records).items()
    tables = [evidence(reported, results, f"Evidence for the claims, {scale} scale") for scale, results in judged]
    return [table for table in tables if table.rows]


def evidence(reported: Reported, results: Iterable[ClaimResult], title: str) -> Table:
    """The numbers behind the verdicts on some claims: a row per site and part."""
    header = ("Claim", "Data", "Comparison", "Left", "Right", "Difference", "P(better)", "Pairs", "Verdict")
    parts = [(result, site, part) for result in results for site in result.sites for part in site.parts]
    rows = tuple(
        _detail(reported, result.claim, site, part, varying([other.condition for other in result.sites]))
        for result, site, part in parts
    )
    notes = (
        "Left and right are means over the paired seeds, with 95 % intervals. P(better): of all pairs of a run of "
        "either side, how many show what is claimed; 0.50 is chance.",
    )
    return Table(title, header, rows, notes=notes, runs=tuple(part.groups for _, _, part in parts))


def _detail(reported: Reported, claim: Claim, site: SiteResult, result: PartResult, keys: list[str]) -> tuple[str, ...]:
    where = describe(site.condition, keys)
    column = reported.display.metrics[result.part.left.metric]
    judged = result.judgement
    return (
        f"{claim.id} (our check)" if result.part.ours else claim.id,
        site.dataset + (f" ({where})" if where else "") + ("" if site.counted else " (not counted)"),
        comparison(reported, result.part),
        show(result.left, column.format),
        show(result.right, column.format),
        show(judged.difference, column.format, signed=True),
        NOTHING if result.improvement is None else f"{result.improvement:.2f}",
        str(judged.n),
        f"{judged.verdict.value}: {judged.reason}",
    )


# --- paper against ours -----------------------------------------------------------------------------------------------


def comparison_tables(reported: Reported, records: Sequence[Record]) -> list[Table]:
    """Every reported cell: beside our runs where there are any, else with the reason why not."""
    results = [result for cell in reported.cells for result in judge_cell(cell, records)]
    tables = []
    for scale in [s for s in SCALE_ORDER if any(r.scale == s for r in results)]:
        rows = tuple(_compared(reported, r) for r in results if r.scale == scale)
        header = ("Reported in", "Row", "Column", "Paper", "Ours", "Seeds", "Verdict")
        tables.append(Table(f"Paper against ours, {scale} scale", header, rows, notes=(LEGEND,)))
    absent = [r for r in results if not r.scale]
    blocks = groupby(absent, key=lambda r: _reason(r, reported))
    rows = tuple(_absent(list(block), reported) for _, block in blocks)
    notes = tuple(f"Not found in any source: {'; '.join(reported.not_found)}." for _ in reported.not_found[:1])
    header = ("Reported in", "What", "Paper", "Verdict")
    caption = "Reported, without a run of ours to set beside it."
    return [*tables, Table("Not compared", header, rows, caption, (LEGEND, *notes))]


def _compared(reported: Reported, result: CellResult) -> tuple[str, ...]:
    cell, ours = result.cell, result.ours
    own = reported.display.metrics[cell.experiment.metric].format if cell.experiment else ".4g"
    return (
        reported.tables[cell.table],
        cell.row,
        cell.column,
        paper_number(cell),
        show(ours, NUMBERS.get(cell.unit, own)),
        str(ours.n if ours else 0),
        f"{result.judgement.verdict.value}: {result.judgement.reason}",
    )


def paper_number(cell: Cell) -> str:
    """The reported number with its spread and its mark of confidence."""
    if cell.value is None:
        return "n/a (not recovered)"
    form = NUMBERS.get(cell.unit, ".4g")
    spread = "" if cell.std is None else f" ± {cell.std:{form}}"
    return f"{cell.value:{form}}{spread}{MARKS[cell.confidence]}"


def _reason(result: CellResult, reported: Reported) -> tuple[str, ...]:
    """Cells are listed together when table and reason agree, except a number that a run could still be set beside."""
    alone = result.cell.id if result.cell.experiment and result.cell.value is not None else ""
    return reported.tables[result.cell.table], result.judgement.reason, alone


def _absent(results: list[CellResult], reported: Reported) -> tuple[str, ...]:
    cells, judged = [r.cell for r in results], results[0].judgement
    names = [c.row if c.column == "-" else f"{c.row}, {c.column}" for c in cells]
    marks = "".join(sorted({MARKS.get(c.confidence, "") for c in cells}))
    numbers = list(dict.fromkeys(paper_number(c) for c in cells))
    return (
        reported.tables[cells[0].table],
        "; ".join(names) if len(names) <= LISTED else f"{len(names)} cells",
        "; ".join(numbers) if len(names) <= LISTED or len(numbers) == 1 else f"see reported.yaml {marks}".rstrip(),
        f"{judged.verdict.value}: {judged.reason}",
    )


SECTIONS: Mapping[str, Callable[[Reported, Sequence[Record]], list[Table]]] = {
    "claims": claims_tables,
    "evidence": evidence_tables,
    "comparison": comparison_tables,
    "results": results_tables,
    "recipes": variants_tables,
    "curves": curves_tables,
    "cost": cost_tables,
}


def provenance(records: Sequence[Record]) -> str:
    """One line on what the tables rest on: number of runs, commits, versions of torch."""

    def listed(name: str) -> str:
        return ", ".join(sorted({str(r.env[name]) for r in records if r.env.get(name)})) or "unknown"

    dirty = sum(bool(r.env.get("dirty")) for r in records)
    changed = f", {dirty} of them with uncommitted changes" if dirty else ""
    return f"From {len(records)} runs{changed}; commits: {listed('commit')}; torch: {listed('torch')}."


def build(reported: Reported, records: Sequence[Record], names: Iterable[str]) -> list[Table]:
    """The tables of the named sections, in that order."""
    return [table for name in names for table in SECTIONS[name](reported, records)]


def markdown(reported: Reported, records: Sequence[Record], names: Iterable[str]) -> str:
    """The named sections as Markdown, closed by their provenance."""
    return f"{to_markdown(build(reported, records, names))}\n{provenance(records)}\n"
