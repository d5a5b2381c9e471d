"""What goes into a figure over many runs: which data, which runs, which numbers, and how each method looks.

Nothing here draws, so that pictures and the report's charts show the same. A method has the same colour and marker in
all figures of its paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reprise.canvas import COLOURS, MORE_COLOURS
from reprise.evidence import Record
from reprise.judging import groups, judge_claim, matches, values
from reprise.layout import describe, varying
from reprise.reported import Claim, Column, Curve, Reported, Selector
from reprise.results import curve_records
from reprise.stats import Interval, interval

MARKERS = ("o", "D", "s", "v")
LOG_FROM = 10  # an axis that spans more than this factor is logarithmic

Methods = dict[str, list[Record]]  # runs by name of the row or line


@dataclass(frozen=True)
class Style:
    """How a method is drawn."""

    colour: str
    marker: str


@dataclass(frozen=True)
class Site:
    """Data on which runs can be compared: one panel."""

    dataset: str
    protocol: str
    condition: Mapping[str, Any]


def styles(reported: Reported) -> dict[str, Style]:
    """A style for every method of ``display``, all different.

    The methods that the claims compare come first, in the order in which they are named, and so have the clearest
    colours. Those that come later also have another marker, so that colours can come again when they are used up.
    """
    sides = [side for claim in reported.claims for part in claim.parts for side in (part.left, part.right)]
    compared = [side.method for side in sides if isinstance(side, Selector)]
    ordered = list(dict.fromkeys([*compared, *reported.display.methods]))
    colours, n = (*COLOURS, *MORE_COLOURS), len(COLOURS)
    return {m: Style(colours[i % len(colours)], MARKERS[i // n % len(MARKERS)]) for i, m in enumerate(ordered)}


def standing(reported: Reported, records: Sequence[Record], free: str = "") -> dict[str, list[Record]]:
    """The runs that stand for each method of ``display`` in claims, in its order; never a variant.

    Of several settings of a method those stand for it that the first claim to name any of them selects, whatever it
    says of the ``free`` one.
    """
    found = {m: groups(r for r in records if r.method == m and not r.variant) for m in reported.display.methods}
    return {method: _selected(reported, method, split, free) for method, split in found.items() if split}


def _selected(reported: Reported, method: str, split: list[list[Record]], free: str) -> list[Record]:
    sides = [side for claim in reported.claims for part in claim.parts for side in (part.left, part.right)]
    for where in [side.where for side in sides if isinstance(side, Selector) and side.method == method]:
        for runs in split:
            wanted = {k: v for k, v in where.items() if k not in runs[0].condition and k != free}
            if wanted and matches(wanted, runs[0].settings):
                return runs
    return split[0]


def claims_on(reported: Reported, metric: str) -> list[Claim]:
    """The claims that judge ``metric``, in the file's order."""
    return [claim for claim in reported.claims if any(part.left.metric == metric for part in claim.parts)]


def sites(claim: Claim, records: Sequence[Record], scale: str) -> list[Site]:
    """The data sets and conditions on which a claim is judged at a scale."""
    judged = judge_claim(claim, records, scale).sites if scale in claim.scales else ()
    return [Site(s.dataset, s.protocol, s.condition) for s in judged if s.counted]


def at(records: Sequence[Record], scale: str, site: Site) -> list[Record]:
    """All runs on a site's data."""
    return [r for r in records if (r.scale, r.dataset, r.protocol) == (scale, site.dataset, site.protocol)]


def site_name(site: Site, among: Sequence[Site]) -> str:
    """The data set, and where there are several sites of it what differs between them."""
    keys = varying([other.condition for other in among if other.dataset == site.dataset])
    return ", ".join(filter(None, [site.dataset, describe(site.condition, keys)]))


def shared(among: Sequence[Site]) -> str:
    """The conditions that hold on all sites."""
    first = among[0].condition
    return describe(first, set(first) - set(varying([site.condition for site in among])))


def seeds_of(lists: Sequence[Sequence[Any]]) -> str:
    """How many seeds are behind each mean of a figure, ``5 seeds`` or ``3 to 5 seeds``; empty lists are not drawn."""
    counts = [len(some) for some in lists if some]
    low, high = min(counts), max(counts)
    return f"{low} to {high} seeds" if low < high else f"{low} seed{'s' * (low != 1)}"


def ends(found: Interval, level: float | None) -> tuple[float, float]:
    """The ends to draw of an interval, the mean for a single value.

    Student's t knows no limits: where guessing gives a number between 0 and 1, a fraction is measured, so that the
    interval is cut at 0 and 1.
    """
    if found.low is None or found.high is None:
        return found.mean, found.mean
    fraction = level is not None and 0 < level < 1 and 0 <= found.mean <= 1
    return (max(found.low, 0.0), min(found.high, 1.0)) if fraction else (found.low, found.high)


def chance(column: Column, condition: Mapping[str, Any]) -> float | None:
    """What guessing gives in a column under a condition; ``None`` where it is not known."""
    level = condition.get(column.chance) if isinstance(column.chance, str) else column.chance
    return float(level) if isinstance(level, int | float) else None


# --- methods side by side ---------------------------------------------------------------------------------------------


def compared(
    reported: Reported, records: Sequence[Record], scale: str
) -> tuple[list[tuple[Site, Methods]], list[tuple[Column, str]]]:
    """Methods on the sites of the first claim with runs about the first column of ``display``; what to show of them.

    That is the first column, and the first one that has a reference, less that reference on the same seed. Both lists
    are empty where there is no run.
    """
    first = reported.display.columns[0]
    judged = (sites(claim, records, scale) for claim in claims_on(reported, first.metric))
    where = next(filter(None, judged), [])
    there = [(site, standing(reported, at(records, scale, site))) for site in where]
    runs = [r for _, methods in there for some in methods.values() for r in some]
    if not values(runs, first.metric):
        return [], []
    columns = reported.display.columns
    second = next((c for c in columns if c.beside and c != first and values(runs, c.metric)), None)
    return there, [(first, ""), *([(second, second.beside[0])] if second else [])]


def less(runs: Sequence[Record], column: Column, reference: str) -> dict[int, float]:
    """A column's number by seed, less another metric of the same run where one is named."""
    pairs = [(r.seed, r.metric(column.metric), r.metric(reference) if reference else 0.0) for r in runs]
    return {seed: a - b for seed, a, b in pairs if a is not None and b is not None}


# --- recipes ----------------------------------------------------------------------------------------------------------


def recipe_panels(reported: Reported, records: Sequence[Record], scale: str) -> list[tuple[Site, Methods]]:
    """Recipes on the data where a variant was run; only runs with the first column of the recipes' table count."""
    if not reported.display.variants:
        return []
    metric = reported.display.variants[0].metric
    tried = [r for r in records if r.scale == scale and r.variant and r.metric(metric) is not None]
    places = {(r.dataset, r.protocol): Site(r.dataset, r.protocol, r.condition) for r in tried}
    where = sorted(places.values(), key=lambda site: (site.dataset, describe(site.condition), site.protocol))
    return [(site, recipes(reported, at(records, scale, site), metric)) for site in where]


def recipes(reported: Reported, records: Sequence[Record], metric: str) -> dict[str, list[Record]]:
    """Rows by name: for each method with variants the method itself, then its variants by name."""
    rows: dict[str, list[Record]] = {}
    for method, name in reported.display.methods.items():
        variants = sorted({r.variant for r in records if r.method == method and r.variant})
        for variant in ["", *variants] if variants else []:
            split = groups(r for r in records if (r.method, r.variant) == (method, variant))
            rows |= {", ".join(filter(None, [name, variant])): split[0]} if split else {}
    return {name: runs for name, runs in rows.items() if values(runs, metric)}


def mark_of(record: Record, kinds: Mapping[str, Any]) -> str:
    """The first of ``display.counts`` that is true of a run; empty if none is."""
    return next((metric for metric in kinds if (record.metric(metric) or 0.0) > 0.5), "")


# --- sweeps over one condition ----------------------------------------------------------------------------------------


def swept(
    reported: Reported, curve: Curve, records: Sequence[Record], scale: str, kind: Any = int | float
) -> tuple[dict[str, list[Record]], list[Column]]:
    """The runs of a sweep over one numeric condition by data set, and the columns that were measured.

    ``kind`` is the type of the condition: ``str`` for a sweep over names. Data sets with a single value of it are left
    out, and so are columns that give another one its meaning.
    """
    known = [r for r in records if isinstance(r.facts.get(curve.by), kind)]
    found = {d: runs for (s, d), runs in sorted(curve_records(curve, known).items()) if s == scale}
    found = {d: runs for d, runs in found.items() if len({r.facts[curve.by] for r in runs}) > 1}
    metrics = reported.display.metrics
    everything = [r for runs in found.values() for r in runs]
    beside = {name for shown in curve.columns for name in metrics[shown].beside}
    return found, [metrics[c] for c in curve.columns if c not in beside and values(everything, c)]


def curve_points(reported: Reported, curve: Curve, records: Sequence[Record]) -> dict[tuple[str, float], list[Record]]:
    """The runs behind each point, by method and value of the condition."""
    steps = sorted({r.facts[curve.by] for r in records})
    return {
        (method, step): runs
        for step in steps
        for method, runs in standing(reported, [r for r in records if r.facts[curve.by] == step], curve.by).items()
    }


def reference_line(metric: str, curve: Curve, points: Mapping[tuple[str, float], list[Record]]) -> tuple[list, list]:
    """Mean of a number that no method has a part in, over the seeds of all methods, at each value of the condition."""
    steps, means = [], []
    for step in sorted({step for _, step in points}):
        by_seed = {
            r.seed: v
            for (_, s), runs in points.items()
            if s == step
            for r in runs
            if (v := r.metric(metric)) is not None
        }
        if by_seed:
            steps.append(step)
            means.append(interval(list(by_seed.values())).mean)
    return steps, means


def level_scale(numbers: Sequence[float], lows: Sequence[float]) -> str:
    """The scale of what is measured: ``log`` where the numbers call for it and no interval reaches down to 0."""
    return "log" if axis_scale(numbers) == "log" and min(lows, default=1.0) > 0 else "linear"


def axis_scale(numbers: Sequence[float]) -> str:
    """``log`` where the numbers call for it, ``symlog`` where one of them is 0 and needs a place, else ``linear``."""
    positive = [number for number in numbers if number > 0]
    if not positive or max(positive) <= LOG_FROM * min(positive) or min(numbers) < 0:
        return "linear"
    return "log" if min(numbers) > 0 else "symlog"
