"""Figures over many runs: those of one paper or of all, from the records and, where they are there, the run folders.

python scripts/figures.py dvrl    write outputs/figures/dvrl_*.png
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from reprise.canvas import save
from reprise.cli import explain
from reprise.drawings import draw
from reprise.errors import UserError
from reprise.evidence import collect
from reprise.reported import PAPERS_DIR, available_papers, load_reported


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="figures.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paper", help=f"one of {', '.join(available_papers())}, or all")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), help="where runs lie (default: %(default)s)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, papers_dir: Path = PAPERS_DIR) -> int:
    """Run the command; return its exit code (0 fine, 2 wrong input)."""
    chosen = arguments(argv)
    try:
        known = available_papers(papers_dir)
        if chosen.paper not in (*known, "all"):
            raise UserError(f"there is no paper {chosen.paper!r}; choose one of: {', '.join([*known, 'all'])}.")
        for paper in known if chosen.paper == "all" else [chosen.paper]:
            figures_of(paper, chosen.output_dir, papers_dir)
    except (UserError, OSError) as error:
        return explain(error)
    return 0


def figures_of(paper: str, output_dir: Path, papers_dir: Path) -> None:
    """Draw and write a paper's figures; print their paths, and what is missing."""
    reported, found = load_reported(paper, papers_dir), collect(output_dir, paper)
    for place, reason in found.damaged:
        print(f"{paper}: left out {place}, which {reason}.")
    figures, notes = draw(reported, found.records), []
    if (papers_dir / paper / "sweep_figures.py").exists():
        own = importlib.import_module(f"reprise.papers.{paper}.sweep_figures")
        more, notes = own.draw(reported, found.records, output_dir)
        figures |= more
    for name, figure in figures.items():
        print(save(figure, output_dir / "figures" / f"{paper}_{name}.png"))
    for note in notes:
        print(f"{paper}: {note}")
    if not figures:
        print(f"{paper}: nothing to draw in {output_dir} ({len(found.records)} finished runs, smoke runs apart).")


if __name__ == "__main__":
    sys.exit(main())
