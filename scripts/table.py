"""Paper against ours: print the tables of one paper or of all, write them to files, keep the records.

python scripts/table.py dvrl                    print, and write outputs/tables/dvrl.md and dvrl_cost.md
python scripts/table.py report                  write outputs/report/index.html and report.md, over all papers
python scripts/table.py dvrl --record           also keep the finished runs in outputs/records/dvrl.jsonl
python scripts/table.py dvrl --record --readme  also renew the tables in the README files
python scripts/table.py all --check             exit 1 if a README or a table file differs from the records
python scripts/table.py --status                which runs are finished, running, stale (their process died) or failed
python scripts/table.py --status sweep=dvrl/cost    how far the jobs are that `train.py sweep=dvrl/cost` asks for
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from reprise import planned
from reprise.cli import explain
from reprise.errors import UserError
from reprise.evidence import Collection, collect, save_records
from reprise.judging import unknown_conditions
from reprise.layout import terminal, to_rich
from reprise.records import write_text
from reprise.reported import PAPERS_DIR, available_papers, folder_of, load_reported
from reprise.tables import SECTIONS, build, markdown

ROOT = Path(__file__).resolve().parents[1]
MAIN = ("claims", "evidence", "comparison", "results", "recipes", "curves")
# <!-- table:dvrl --> holds the main tables, <!-- table:dvrl:claims --> one section
BLOCK = re.compile(r"(<!-- table:(\w+)(?::(\w+))? -->\n).*?(<!-- /table:\2(?::\3)? -->)", re.DOTALL)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="table.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "paper", nargs="?", default="all", help=f"one of {', '.join(available_papers())}, all (the default), or report"
    )
    parser.add_argument("words", nargs="*", help="with --status: words of train.py, whose jobs are looked for")
    parser.add_argument("--record", action="store_true", help="keep finished runs (not smoke) in the record file")
    parser.add_argument("--readme", action="store_true", help="renew the tables between the markers in the READMEs")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a committed table has drifted")
    parser.add_argument("--status", action="store_true", help="only list finished, running and failed runs")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), help="where runs lie (default: %(default)s)"
    )
    chosen = parser.parse_intermixed_args(argv)
    if "=" in chosen.paper:
        chosen.paper, chosen.words = "all", [chosen.paper, *chosen.words]
    if chosen.words and (not chosen.status or chosen.paper != "all" or not all("=" in word for word in chosen.words)):
        parser.error("words of train.py go with --status alone, as in: table.py --status sweep=dvrl/cost")
    if any(word.startswith("paths.output_dir=") for word in chosen.words):
        parser.error("where runs lie is said by --output-dir here")
    if chosen.check and (chosen.record or chosen.readme):
        parser.error("--check writes nothing, so it cannot be combined with --record or --readme")
    if chosen.paper == "report" and (chosen.record or chosen.readme or chosen.check or chosen.status):
        parser.error("report takes no option but --output-dir; record runs and renew READMEs with `all`")
    return chosen


def main(argv: Sequence[str] | None = None, root: Path = ROOT, papers_dir: Path = PAPERS_DIR) -> int:
    """Run the command; return its exit code (0 fine, 1 drift, 2 wrong input)."""
    chosen = arguments(argv)
    try:
        known = available_papers(papers_dir)
        if chosen.paper not in (*known, "all", "report"):
            choices = ", ".join([*known, "all", "report"])
            raise UserError(f"there is no paper {chosen.paper!r}; choose one of: {choices}.")
        if chosen.words:
            return planned.show(planned_states(chosen.words, chosen.output_dir))
        if chosen.paper == "report":
            return write_report(known, chosen.output_dir, papers_dir)
        papers = known if chosen.paper == "all" else [chosen.paper]
        if chosen.check:
            return check(papers, chosen.output_dir, root, papers_dir)
        for paper in papers:
            if chosen.record:
                print(f"{save_records(chosen.output_dir, paper)} runs recorded for {paper}.")
            found = collect(chosen.output_dir, paper)
            if not chosen.status:
                show_and_write(paper, found, chosen.output_dir, papers_dir)
            status(paper, found, chosen.status)
        if chosen.paper == "all" and not chosen.status:
            write_report(known, chosen.output_dir, papers_dir)
        if chosen.readme:
            for path, _, text in drifted(papers, chosen.output_dir, root, papers_dir):
                write_text(path, text)
                print(f"renewed {path}")
    except (UserError, OSError) as error:
        return explain(error)
    return 0


def planned_states(words: Sequence[str], output_dir: Path) -> list[tuple[planned.Job, str, str]]:
    """How far the jobs are that ``train.py WORDS`` asks for."""
    asked = list(planned.jobs(words))
    found = {paper: collect(output_dir, paper) for paper in {job.paper for job in asked}}
    return planned.states(asked, output_dir, found)


def write_report(papers: Sequence[str], output_dir: Path, papers_dir: Path) -> int:
    """Write the report over all papers; return the exit code."""
    from reprise.report.page import write  # its libraries are not needed for tables

    for path in write(output_dir, papers_dir, papers):
        print(f"wrote {path}")
    return 0


def show_and_write(paper: str, found: Collection, output_dir: Path, papers_dir: Path) -> None:
    """Print a paper's tables and write them as Markdown."""
    reported, console = load_reported(paper, papers_dir), terminal()
    for table in build(reported, found.records, SECTIONS):
        console.print(to_rich(table))
    for key in unknown_conditions(reported, found.records):
        console.print(
            f"warning: {paper}'s reported.yaml selects on {key!r}, a condition that no run has.", markup=False
        )
    for path, text in table_files(paper, found, output_dir, papers_dir):
        write_text(path, text)
        console.print(f"wrote {path}", markup=False, soft_wrap=True)


def table_files(paper: str, found: Collection, output_dir: Path, papers_dir: Path) -> list[tuple[Path, str]]:
    """The table files of a paper and what belongs in them; cost apart, because times differ between machines."""
    reported = load_reported(paper, papers_dir)
    folder, title = output_dir / "tables", f"# {reported.title}\n\n"
    return [
        (folder / f"{paper}.md", title + markdown(reported, found.records, MAIN)),
        (folder / f"{paper}_cost.md", title + markdown(reported, found.records, ("cost",))),
    ]


def drifted(papers: Sequence[str], output_dir: Path, root: Path, papers_dir: Path) -> list[tuple[Path, str, str]]:
    """``(path, old, new)`` of every README whose tables differ from the records (runs not recorded do not enter)."""
    changed = []
    for path in [root / "README.md", *(folder_of(paper, papers_dir) / "README.md" for paper in papers)]:
        if path.exists():
            old = path.read_text(encoding="utf-8")
            new = BLOCK.sub(lambda block: renewed(block, papers, output_dir, papers_dir), old)
            if new != old:
                changed.append((path, old, new))
    return changed


def renewed(block: re.Match[str], papers: Sequence[str], output_dir: Path, papers_dir: Path) -> str:
    """A marked block with its tables made anew; blocks of papers that were not asked for stay as they are."""
    opening, paper, section, closing = block.groups()
    if paper not in papers:
        return block.group()
    if section is not None and section not in SECTIONS:
        raise UserError(f"the marker {opening.strip()} names no section; choose one of: {', '.join(SECTIONS)}.")
    records = collect(output_dir, paper, runs=False).records
    return (
        f"{opening}\n{markdown(load_reported(paper, papers_dir), records, (section,) if section else MAIN)}\n{closing}"
    )


def check(papers: Sequence[str], output_dir: Path, root: Path, papers_dir: Path) -> int:
    """Compare READMEs and existing table files with what the records give; name each that differs."""
    stale = [path for path, _, _ in drifted(papers, output_dir, root, papers_dir)]
    for paper in papers:
        found = collect(output_dir, paper, runs=False)
        for place, reason in found.damaged:
            raise UserError(f"{place} {reason}; mend or delete that line.")
        for path, text in table_files(paper, found, output_dir, papers_dir):
            if path.exists() and path.read_text(encoding="utf-8") != text:
                stale.append(path)
    for path in stale:
        print(f"{path} differs from the records; renew it with: python scripts/table.py all --record --readme")
    return 1 if stale else 0


def status(paper: str, found: Collection, full: bool) -> None:
    """Counts of what is there; with ``full``, every run by name. Trouble is always named."""
    unrecorded = f" ({len(found.unrecorded)} not in the record file: add --record)" if found.unrecorded else ""
    print(
        f"{paper}: {len(found.records)} finished{unrecorded}, {len(found.running)} running, interrupted or stale, "
        f"{len(found.failed)} failed, {len(found.damaged)} unreadable, {found.smoke} smoke (never evidence)."
    )
    if full:
        for r in found.records:
            print(f"  finished  {r.method} {r.dataset} s{r.seed}-{r.run_key} ({r.scale})")
        for name in found.running:
            print(f"  unfinished  {name}: the same command goes on with it")
        for name, error in found.failed:
            print(f"  failed  {name}: {error}")
    for name, reason in found.damaged:
        print(f"  unreadable  {name} {reason}")


if __name__ == "__main__":
    sys.exit(main())
