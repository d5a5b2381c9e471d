"""What a paper reported, as data: the schema of ``papers/<paper>/reported.yaml`` and its loader.

Every number was typed once, from a named source, with a mark of how sure we are of it; none of ours is in there. Cells
inherit from their table whatever they do not say themselves. A claim is one or more relations between two selectors,
and a selector names what our runs must provide: a method, a metric, conditions. The loader refuses what it does not
know, so that a typing error cannot quietly remove a comparison.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reprise.errors import UserError
from reprise.stats import check_relation

PAPERS_DIR = Path(__file__).parent / "papers"
EXTRA = "REPRISE_PAPERS"  # environment variable: more folders of papers, separated as those of PATH
CONFIDENCES = ("exact", "secondary", "recalled", "not_recovered")
SCALES = ("cpu", "paper")
METHOD = re.compile(r"[a-z][a-z0-9_]*")
METRIC = re.compile(r"[a-z0-9_]+(/[a-z0-9_.@-]+)*")
# (lowest, highest) value of a unit; other units are not bounded
RANGES = {"fraction": (0.0, 1.0), "percent": (0.0, 100.0)}

Where = Mapping[str, Any]


@dataclass(frozen=True)
class Selector:
    """Which of our runs, and which number of theirs.

    ``where`` maps keys of a record's ``condition`` or ``settings`` to a value, or to a list of values any of which will
    do. ``scale`` is the scale at which a cell counts as reproduced; a claim carries its scales itself. Our metrics are
    fractions: a cell in percent is compared with 100 times the metric.
    """

    method: str
    metric: str
    dataset: str | None = None
    scale: str = "paper"
    where: Where = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One reported number. ``value``, ``std`` and ``tolerance`` are in ``unit``.

    ``seeds`` is ``None`` where not stated. ``experiment`` is ``None`` when no run of ours reproduces the cell;
    ``reason`` then says why.
    """

    id: str
    table: str
    row: str
    column: str
    metric: str
    unit: str
    confidence: str
    source: str
    value: float | None = None
    std: float | None = None
    seeds: int | None = None
    higher_is_better: bool | None = None
    tolerance: float | None = None
    check: str = ""
    note: str = ""
    experiment: Selector | None = None
    reason: str = ""


@dataclass(frozen=True)
class Part:
    """One relation of a claim: ``left <relation> right``, judged on paired seeds.

    ``right`` is another method's metric on the same data, the same method's with other settings, another metric of the
    same run, or a constant. ``ours`` marks a check that the suite adds: judged and printed, but the paper never claimed
    it, so it does not move the verdict.
    """

    left: Selector
    relation: str
    right: Selector | float
    tolerance: float = 0.0
    ours: bool = False


@dataclass(frozen=True)
class Claim:
    """A claim of the paper in our words. ``reason`` says what is missing while it has no ``parts``, or no runs."""

    id: str
    sentence: str
    source: str = ""
    scales: tuple[str, ...] = SCALES
    datasets: tuple[str, ...] = ()
    where: Where = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Column:
    """A metric worth a column.

    ``beside`` names metrics of the same run that give it meaning. ``chance`` is its level for guessing: a number, or
    the name of the condition that equals it. In a table of variants ``less`` subtracts another metric of the same run,
    and ``of`` says what is shown of the seeds: their ``mean``, the ``lowest``, or how many are ``positive``.
    """

    metric: str
    label: str
    format: str = ".3f"
    beside: tuple[str, ...] = ()
    chance: float | str | None = None
    less: str = ""
    of: str = "mean"


@dataclass(frozen=True)
class Curve:
    """A sweep over one condition or setting, shown as one table per data set: ``by`` is its key, ``label`` its name.

    Runs of other sweeps under the same conditions and settings, but for ``by`` and the ``free`` ones, are shown too.
    Each value of the condition ``per`` has a table of its own.
    """

    table: str
    by: str
    label: str
    columns: tuple[str, ...]
    free: tuple[str, ...] = ()
    per: str = ""


@dataclass(frozen=True)
class Display:
    """Which methods and metrics the tables show, in which order and under which name.

    ``rivals`` are methods whose numbers stand beside a single run's, where they are at hand on the same data and seed.
    """

    methods: Mapping[str, str]
    columns: tuple[Column, ...]
    references: tuple[Column, ...] = ()
    counts: tuple[Column, ...] = ()  # 0/1 metrics, shown as "k of n runs"
    cost: tuple[Column, ...] = ()
    variants: tuple[Column, ...] = ()
    curves: tuple[Curve, ...] = ()
    rivals: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, Column]:
        """Every metric that is shown anywhere."""
        return {c.metric: c for c in (*self.columns, *self.references, *self.counts, *self.cost)}


@dataclass(frozen=True)
class Reported:
    """A whole ``reported.yaml``.

    ``tables`` maps a table's id to its title; ``not_found`` lists what no source gave; ``name`` is what the paper calls
    its method.
    """

    paper: str
    title: str
    citation: str
    pdf: str
    code: Mapping[str, str]
    display: Display
    tables: Mapping[str, str]
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...]
    not_found: tuple[str, ...] = ()
    name: str = ""


def available_papers(papers_dir: Path = PAPERS_DIR) -> list[str]:
    """Names of the papers that have a ``reported.yaml``, sorted; with the suite's own those of `EXTRA`."""
    return sorted({file.parent.name for place in _places(papers_dir) for file in place.glob("*/reported.yaml")})


def folder_of(paper: str, papers_dir: Path = PAPERS_DIR) -> Path:
    """The folder of a paper that is available."""
    return next(place / paper for place in _places(papers_dir) if (place / paper / "reported.yaml").exists())


def _places(papers_dir: Path) -> list[Path]:
    if papers_dir != PAPERS_DIR:
        return [papers_dir]
    return [papers_dir, *(Path(place) for place in os.environ.get(EXTRA, "").split(os.pathsep) if place)]


def load_reported(paper: str, papers_dir: Path = PAPERS_DIR) -> Reported:
    """Load and check ``<papers_dir>/<paper>/reported.yaml``.

    Raises:
        UserError: no such paper, or the file breaks the schema; one sentence that names the place.
    """
    choices = available_papers(papers_dir)
    if paper not in choices:
        raise UserError(f"there is no paper {paper!r} with reported numbers; choose one of: {', '.join(choices)}.")
    path = folder_of(paper, papers_dir) / "reported.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not readable YAML: {' '.join(str(error).split())}.") from error
    try:
        return parse(raw)
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from error


def parse(raw: Any) -> Reported:
    """Build a `Reported` from plain YAML values; a ``ValueError`` names what is wrong with them."""
    given = _keys(raw, "the file", {f.name for f in dataclasses.fields(Reported)})
    display = _display(given.pop("display", None))
    tables = {t["id"]: t for t in _unique([_table(t) for t in given.pop("tables", [])], "table", lambda t: t["id"])}
    cells = _unique([_cell(c, tables, display) for c in given.pop("cells", [])], "cell", lambda c: c.id)
    claims = _unique([_claim(c, display) for c in given.pop("claims", [])], "claim", lambda c: c.id)
    titles = {key: table["title"] for key, table in tables.items()}
    rest = given | {"not_found": tuple(given.get("not_found", ()))}
    return _build(Reported, rest | {"display": display, "tables": titles, "cells": cells, "claims": claims}, "the file")


def _keys(raw: Any, place: str, allowed: set[str]) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise ValueError(f"{place} must be a mapping, not {type(raw).__name__}")
    for key in raw:
        if key not in allowed:
            raise ValueError(f"{place} has the unknown key {key!r}; known keys: {', '.join(sorted(allowed))}")
    return dict(raw)


def _build(cls: type, given: Mapping[str, Any], place: str) -> Any:
    """An instance of a dataclass, with a sentence for a key that is missing or unknown."""
    _keys(given, place, {f.name for f in dataclasses.fields(cls)})
    for f in dataclasses.fields(cls):
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and given.get(f.name) is None:
            raise ValueError(f"{place} lacks {f.name!r}")
    return cls(**given)


def _unique(items: list[Any], kind: str, key: Any) -> tuple[Any, ...]:
    seen: set[str] = set()
    for item in items:
        if key(item) in seen:
            raise ValueError(f"two entries share the {kind} id {key(item)!r}")
        seen.add(key(item))
    return tuple(items)


def _choice(value: Any, choices: Sequence[str], place: str, what: str) -> None:
    if value not in choices:
        raise ValueError(f"{place} has the unknown {what} {value!r}; choose one of: {', '.join(choices)}")


def _table(raw: Any) -> dict[str, Any]:
    inherited = {f.name for f in dataclasses.fields(Cell)} - {"table", "row", "column", "value", "std"}
    table = _keys(raw, "a table", inherited | {"title"})
    for key in ("id", "title"):
        if not isinstance(table.get(key), str):
            raise ValueError(f"a table lacks {key!r}")
    return table


def _cell(raw: Any, tables: Mapping[str, Any], display: Display) -> Cell:
    place = f"cell {raw.get('id')!r}" if isinstance(raw, Mapping) else "a cell"
    own = _keys(raw, place, {f.name for f in dataclasses.fields(Cell)})
    _choice(own.get("table"), tuple(tables), place, "table")
    defaults = {key: value for key, value in tables[own["table"]].items() if key not in ("id", "title")}
    given = defaults | own
    if isinstance(given.get("experiment"), Mapping):
        given["experiment"] = _selector(given["experiment"], f"{place}, experiment", display)
        given["reason"] = ""
        if given["experiment"].dataset is None:
            raise ValueError(f"{place}, experiment lacks 'dataset'")
    cell = _build(Cell, given, place)
    _check_cell(cell, place)
    return cell


def _check_cell(cell: Cell, place: str) -> None:
    _choice(cell.confidence, CONFIDENCES, place, "confidence")
    if (cell.value is None) != (cell.confidence == "not_recovered"):
        raise ValueError(f"{place} must have a value unless its confidence is 'not_recovered', and then none")
    if cell.experiment is None and not cell.reason:
        raise ValueError(f"{place} has no experiment and gives no reason")
    if cell.higher_is_better is not None and not isinstance(cell.higher_is_better, bool):
        raise ValueError(f"{place} needs true, false or null as 'higher_is_better'")
    if cell.seeds is not None and (isinstance(cell.seeds, bool) or not isinstance(cell.seeds, int) or cell.seeds < 1):
        raise ValueError(f"{place} needs a whole number or null as 'seeds'")
    for name in ("value", "std", "tolerance"):
        number = getattr(cell, name)
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"{place} needs a number as {name!r}, not {number!r}")
        low, high = RANGES.get(cell.unit, (-math.inf if name == "value" else 0.0, math.inf))
        if not low <= number <= high:
            raise ValueError(f"{place}: {name} {number:g} is outside the range {low:g} to {high:g} of {cell.unit!r}")
    if cell.value is not None and cell.experiment is not None and not cell.tolerance:
        raise ValueError(f"{place} has an experiment and so needs a tolerance above zero")


def _selector(raw: Any, place: str, display: Display) -> Selector:
    selector: Selector = _build(Selector, _keys(raw, place, {f.name for f in dataclasses.fields(Selector)}), place)
    _choice(selector.scale, SCALES, place, "scale")
    for what, value, pattern in (("method", selector.method, METHOD), ("metric", selector.metric, METRIC)):
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(f"{place} has the malformed {what} {value!r}")
    _choice(selector.method, tuple(display.methods), place, "method (none of those under 'display')")
    _choice(selector.metric, tuple(display.metrics), place, "metric (none of those under 'display')")
    _where({"where": selector.where}, place)
    return selector


def _claim(raw: Any, display: Display) -> Claim:
    place = f"claim {raw.get('id')!r}" if isinstance(raw, Mapping) else "a claim"
    given = _keys(raw, place, {f.name for f in dataclasses.fields(Claim)})
    scales = given.get("scales", list(SCALES))
    given |= {"scales": tuple(scales), "datasets": tuple(given.get("datasets", ()))}
    parts = enumerate(given.get("parts", ()), start=1)
    given["parts"] = tuple(_part(part, given, f"{place}, part {i}", display) for i, part in parts)
    for scale in scales:
        _choice(scale, SCALES, place, "scale")
    claim: Claim = _build(Claim, given, place)
    if not claim.parts and not claim.reason:
        raise ValueError(f"{place} needs parts, or the reason why it cannot be judged yet")
    if claim.parts and not claim.datasets:
        raise ValueError(f"{place} names no data sets")
    return claim


def _part(raw: Any, claim: Mapping[str, Any], place: str, display: Display) -> Part:
    """Both selectors inherit the claim's conditions, and the right one inherits what it leaves out from the left.

    The left's own conditions are inherited by the same method only: another one has other settings.
    """
    given = _keys(raw, place, {f.name for f in dataclasses.fields(Part)})
    left = _keys(given.get("left"), f"{place}, left", {"method", "metric", "where"})
    right = _keys(given.get("right"), f"{place}, right", {"method", "metric", "where", "value"})
    shared = _where(claim, place)
    left["where"] = shared | _where(left, f"{place}, left")
    given["left"] = _selector(left, f"{place}, left", display)
    if "value" in right:
        if len(right) > 1 or isinstance(right["value"], bool) or not isinstance(right["value"], int | float):
            raise ValueError(f"{place}, right: 'value' must be a number and stand alone")
        given["right"] = float(right["value"])
    elif not right:
        raise ValueError(f"{place}, right names neither a method, a metric nor a value")
    else:
        same = right.get("method", left.get("method")) == left.get("method")
        where = (left["where"] if same else shared) | _where(right, f"{place}, right")
        given["right"] = _selector(left | right | {"where": where}, f"{place}, right", display)
    part: Part = _build(Part, given, place)
    try:
        check_relation(part.relation, part.tolerance)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: {error}") from error
    return part


def _where(raw: Mapping[str, Any], place: str) -> dict[str, Any]:
    where = raw.get("where", {})
    if not isinstance(where, Mapping):
        raise ValueError(f"{place}: 'where' must be a mapping")
    return dict(where)


def _display(raw: Any) -> Display:
    given = _keys(raw, "display", {f.name for f in dataclasses.fields(Display)})
    for name in ("columns", "references", "counts", "cost", "variants"):
        given[name] = tuple(_column(c, f"display, {name}") for c in given.get(name, ()))
    given["curves"] = tuple(_curve(c) for c in given.get("curves", ()))
    given["rivals"] = tuple(given.get("rivals", ()))
    display: Display = _build(Display, given, "display")
    for column in (*display.metrics.values(), *display.variants):
        for metric in (*column.beside, *filter(None, [column.less]), column.metric):
            _choice(metric, tuple(display.metrics), f"display, {column.metric!r}", "metric")
    for rival in display.rivals:
        _choice(rival, tuple(display.methods), "display, rivals", "method (none of those under 'display')")
    for curve in display.curves:
        for metric in curve.columns:
            _choice(metric, tuple(display.metrics), f"display, curve {curve.table!r}", "metric")
    return display


def _curve(raw: Any) -> Curve:
    given = _keys(raw, "display, curves", {f.name for f in dataclasses.fields(Curve)})
    lists = {name: tuple(given.get(name, ())) for name in ("columns", "free")}
    return _build(Curve, given | lists, "display, curves")


def _column(raw: Any, place: str) -> Column:
    given = _keys(raw, place, {f.name for f in dataclasses.fields(Column)})
    column: Column = _build(Column, given | {"beside": tuple(given.get("beside", ()))}, place)
    if not METRIC.fullmatch(column.metric):
        raise ValueError(f"{place} has the malformed metric {column.metric!r}")
    _choice(column.of, ("mean", "lowest", "positive"), place, "'of'")
    try:
        format(0.0, column.format)
    except ValueError as error:
        raise ValueError(f"{place}: {column.format!r} is no number format") from error
    return column
