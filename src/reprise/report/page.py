"""The report as one HTML file that loads nothing else, and as Markdown; both are functions of the content alone."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from reprise.canvas import COLOURS, GREY, MORE_COLOURS, PALE
from reprise.layout import NOTHING, Table, to_markdown
from reprise.records import write_text
from reprise.report.charts import Chart, Picture
from reprise.report.content import SHOWN_SCALES, PaperView, gather
from reprise.stats import BCA_FROM, MIN_SEEDS, RESAMPLES, CellVerdict, ClaimVerdict

TEMPLATES = Path(__file__).parent / "templates"
VERDICTS = tuple(dict.fromkeys([*map(str, ClaimVerdict), *map(str, CellVerdict)]))
NUMBER = re.compile(r"[+-]?[\d,]*\.?\d+(e[+-]?\d+)?\b")
# Where the palette's own colour would be lost on a dark page.
ON_DARK = {
    GREY: "#9aa3ab",
    PALE: "#5d666e",
    "#0072b2": "#3f9fdc",
    "#000000": "#f2f2f2",
    "#882255": "#c8679a",
    "#332288": "#8f86dd",
    "#009e73": "#1fb88c",
}


def write(output_dir: Path, papers_dir: Path, papers: Sequence[str]) -> list[Path]:
    """Write ``<output_dir>/report/index.html`` and ``report.md``; return their paths."""
    views = gather(output_dir, papers_dir, papers)
    folder = output_dir / "report"
    files = {folder / "index.html": html(views), folder / "report.md": markdown(views)}
    for path, text in files.items():
        write_text(path, text)
    return list(files)


# --- HTML -------------------------------------------------------------------------------------------------------------


def html(papers: Sequence[PaperView]) -> str:
    """The page. Everything that comes from records or reported numbers is escaped."""
    import vl_convert

    vega_lite = vl_convert.get_vegalite_versions()[-1]
    drawn = any(isinstance(figure, Chart) for paper in papers for figure in paper.figures)
    template = _environment().get_template("page.html")
    text = template.render(
        papers=papers,
        scales=SHOWN_SCALES,
        verdicts=[str(v) for v in ClaimVerdict],
        charts=_charts(papers),
        methods=_methods_html(papers),
        palette=_palette(),
        style=_asset("page.css"),
        script=_asset("page.js"),
        library=Markup(vl_convert.javascript_bundle(vl_version=vega_lite)) if drawn else "",
        versions=(vl_convert.get_vega_version(), vega_lite, vl_convert.get_vega_embed_version()),
    )
    return text.strip() + "\n"


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and not name.endswith(".md"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters |= {"slug": slug, "picture": picture, "web": web, "as_given": as_given}
    made.tests |= {"chart": lambda figure: isinstance(figure, Chart)}
    made.globals |= {"split_verdict": split_verdict, "numeric": numeric, "differences": differences, "NOTHING": NOTHING}
    return made


def _asset(name: str) -> Markup:
    """A file of our own, which is not escaped."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def slug(text: str) -> str:
    """A text as part of an anchor: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def numeric(table: Table) -> list[bool]:
    """For each column whether it holds numbers only, so that it is set flush right."""
    columns = [[cell for cell in column if cell != NOTHING] for column in zip(*table.rows, strict=True)]
    return [bool(cells) and all(NUMBER.match(c) or c.startswith("[") for c in cells) for cells in columns]


def split_verdict(cell: str) -> tuple[str, str]:
    """``SUPPORTED: held on 5 of 5 seeds`` as verdict and reason; two empty strings where it is no verdict."""
    first, _, rest = cell.partition(": ")
    return (first, rest) if first in VERDICTS else ("", "")


def differences(tables: Sequence[Table], table: Table) -> str:
    """What the caption of a table says and those of its namesakes do not all say; empty where it has none."""
    twins = [set(one.caption.split(", ")) for one in tables if one.title == table.title]
    return ", ".join(part for part in table.caption.split(", ") if not all(part in twin for twin in twins))


def picture(figure: Picture) -> str:
    """A picture as the address of an image that holds it."""
    return "data:image/png;base64," + base64.b64encode(figure.png).decode()


def as_given(value: Any) -> str:
    """A setting as the command line takes it: ``true``, ``null``, ``[16, 12]``; text as it is."""
    return value if isinstance(value, str) else json.dumps(value)


def web(address: str) -> str:
    """An address that a reader can follow; empty for anything else."""
    return address if re.match(r"https?://", address) else ""


def _charts(papers: Sequence[PaperView]) -> dict[str, list[dict[str, Any]]]:
    """The panels of every chart, by its anchor."""
    return {
        f"{paper.name}-{figure.name}": [
            dict(panel.spec) | {"description": f"{figure.title}. {panel.title}. {figure.told}"}
            for panel in figure.panels
        ]
        for paper in papers
        for figure in paper.figures
        if isinstance(figure, Chart)
    }


def _palette() -> list[tuple[str, str, str]]:
    """Name, colour on light and colour on dark of everything that charts use."""
    colours = dict.fromkeys((*COLOURS, *MORE_COLOURS, PALE))
    return [(f"--ink-{c.removeprefix('#')}", c, ON_DARK.get(c, c)) for c in colours]


# --- the text on methods ----------------------------------------------------------------------------------------------


def methods(papers: Sequence[PaperView]) -> str:
    """How verdicts come about, in Markdown, with this report's own numbers."""
    runs = {scale: sum(paper.scales[scale] for paper in papers) for scale in SHOWN_SCALES}
    judged = sum(claim.judged for paper in papers for claim in paper.claims)
    return (
        _environment()
        .get_template("methods.md")
        .render(
            scales=[f"{count:,} runs at {scale} scale" for scale, count in runs.items()],
            smoke=sum(paper.found.smoke for paper in papers),
            bca_from=BCA_FROM,
            min_seeds=MIN_SEEDS,
            resamples=f"{RESAMPLES:,}",
            judged=judged,
            false_each=f"{0.025 * judged:.0f}",
        )
    )


def _methods_html(papers: Sequence[PaperView]) -> Markup:
    from markdown_it import MarkdownIt

    return Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(methods(papers)))


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(papers: Sequence[PaperView]) -> str:
    """The same tables, texts and commands as Markdown; charts are named only, as their numbers are in the tables."""
    blocks = ["# Papers re-run: claims, numbers, runs", to_markdown([claims_overview(papers)], level=2)]
    for paper in papers:
        blocks += _paper_markdown(paper)
    blocks += ["## Methods", methods(papers)]
    return "\n\n".join(block.strip("\n") for block in blocks) + "\n"


def claims_overview(papers: Sequence[PaperView]) -> Table:
    """Every claim of every paper with its verdict at each scale."""
    rows = tuple(
        (paper.label, view.claim.id, view.claim.sentence, *(_told(view.results[s]) for s in SHOWN_SCALES))
        for paper in papers
        for view in paper.claims
    )
    header = ("Paper", "Claim", "What the paper says", *(f"{scale} scale" for scale in SHOWN_SCALES))
    return Table("Claims", header, rows)


def _told(result: Any) -> str:
    return f"{result.verdict.value}: {result.reason}" if result else "not judged"


def _paper_markdown(paper: PaperView) -> list[str]:
    evidence = [table for view in paper.claims for table in view.evidence]
    titles = [f"{v.claim.id}, {t.title[0].lower()}{t.title[1:]}" for v in paper.claims for t in v.evidence]
    named = [Table(title, t.header, t.rows, t.caption, t.notes) for title, t in zip(titles, evidence, strict=True)]
    commands = Table(
        "Runs and commands",
        ("Runs", "Key", "Seeds", "Command"),
        tuple((g.name, g.key, str(len(g.records)), g.command + ("" if g.exact else " (near)")) for g in paper.runs),
    )
    tables = [*named, *paper.compared, *paper.results, paper.absent, *paper.cost, commands]
    figures = "\n".join(f"- {figure.title}" for figure in paper.figures)
    return [
        f"## {paper.reported.title}",
        paper.reported.citation,
        paper.provenance,
        *([f"Figures, drawn in the HTML report:\n\n{figures}"] if figures else []),
        to_markdown(tables),
    ]
