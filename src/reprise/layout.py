"""A table of finished strings, its two renderings, and how numbers, conditions and comparisons are written in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reprise.evidence import Record
from reprise.reported import Part, Reported, Selector
from reprise.stats import Interval

WIDTH_WITHOUT_TERMINAL = 190

NOTHING = "-"
SCALE_ORDER = ("paper", "cpu", "smoke")


@dataclass(frozen=True)
class Table:
    """A titled grid of finished strings, with a line above and lines below.

    ``runs`` holds for each row the groups (see `Record`) of the runs behind it; empty where no row has any.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    notes: tuple[str, ...] = ()
    runs: tuple[tuple[str, ...], ...] = ()


def to_markdown(tables: Iterable[Table], level: int = 3) -> str:
    """GitHub Markdown, one heading per table, ending in one newline."""
    blocks = []
    for table in tables:
        blocks.append(f"{'#' * level} {table.title}")
        if table.caption:
            blocks.append(table.caption)
        if table.rows:
            grid = [table.header, ("---",) * len(table.header), *table.rows]
            blocks.append("\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in grid))
        blocks.extend(table.notes)
    return "\n\n".join(blocks) + "\n"


def terminal() -> Any:
    """A console as wide as the terminal; wide enough for the tables where there is none (a log, a pipe)."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)


def to_rich(table: Table) -> Any:
    """The same table for the terminal."""
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    parts: list[Any] = [Text(table.title, style="bold")]
    if table.caption:
        parts.append(Text(table.caption))
    if table.rows:
        grid = Grid()
        for name in table.header:
            grid.add_column(Text(name))
        for row in table.rows:
            grid.add_row(*(Text(c) for c in row))
        parts.append(grid)
    return Group(*parts, *(Text(note, style="dim") for note in table.notes), Text(""))


def show(found: Interval | None, number_format: str, signed: bool = False) -> str:
    """``0.957 ± 0.004``; the ends in brackets where the interval is not symmetric; the bare number for one value."""
    if found is None:
        return NOTHING
    form = ("+" if signed else "") + number_format
    if found.low is None or found.high is None:
        return format(found.mean, form)
    if found.method == "bca":
        return f"{found.mean:{form}} [{found.low:{form}}, {found.high:{form}}]"
    return f"{found.mean:{form}} ± {found.half_width:{number_format}}"


def describe(condition: Mapping[str, Any], keys: Iterable[str] | None = None) -> str:
    """``noise.rate 0.2, train_size 1000``; only ``keys`` where given."""
    chosen = condition if keys is None else set(keys) & set(condition)
    return ", ".join(f"{key} {condition[key]}" for key in sorted(chosen))


def varying(conditions: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys on which the conditions do not all agree."""
    keys = {key for condition in conditions for key in condition}
    return sorted(key for key in keys if len({repr(c.get(key)) for c in conditions}) > 1)


def scales_of(records: Iterable[Record]) -> list[str]:
    """The scales that occur, largest first."""
    return sorted({r.scale for r in records}, key=lambda s: SCALE_ORDER.index(s) if s in SCALE_ORDER else -1)


def comparison(reported: Reported, part: Part) -> str:
    """A part in words: ``discovery AUROC: DVRL > random``, ``accuracy: SupSup [outputs 100] > SupSup [outputs 10]``."""
    metric = reported.display.metrics[part.left.metric].label
    return f"{metric}: {left_label(reported, part)} {related(part, right_label(reported, part))}"


def left_label(reported: Reported, part: Part) -> str:
    """The method on the left, with the settings that the same method on the right does not share."""
    return _named(reported, part, part.left)


def right_label(reported: Reported, part: Part) -> str:
    """What the left side is compared with: a method, a metric of the same run, or a number."""
    if not isinstance(part.right, Selector):
        return f"{part.right:g}"
    name = _named(reported, part, part.right)
    if part.right.metric == part.left.metric:
        return name
    label = reported.display.metrics[part.right.metric].label
    same = (part.right.method, part.right.where) == (part.left.method, part.left.where)
    return label if same else f"{label} of {name}"


def _named(reported: Reported, part: Part, side: Selector) -> str:
    name = reported.display.methods[side.method]
    if not isinstance(part.right, Selector) or part.right.method != part.left.method:
        return name
    own = describe(side.where, varying([part.left.where, part.right.where]))
    return f"{name} [{own}]" if own else name


def told(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a reader knows them: a class by its name, and the method's own class not at all."""
    names = {k.removesuffix("._target_"): str(v).rpartition(".")[2] for k, v in settings.items() if "._target_" in k}
    return names | {k: v for k, v in settings.items() if not k.endswith("_target_") and not k.endswith("._partial_")}


def related(part: Part, right: str) -> str:
    """The relation and its right side: ``> 0.932``, ``>= 0.967 - 0.02``, ``within 0.02 of 0.967``."""
    if part.relation == "within":
        return f"within {part.tolerance:g} of {right}"
    slack = {">=": f" - {part.tolerance:g}", "<=": f" + {part.tolerance:g}"}.get(part.relation, "")
    return f"{part.relation} {right}{slack if part.tolerance else ''}"
