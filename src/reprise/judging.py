"""From records to verdicts: which runs answer a reported cell or a claim, and what the rules of `stats` make of them.

Two runs are compared only if they saw the same data: same protocol, scale and seed. A claim is judged on every data set
(and every condition of it) for which there are pairs; the overall verdict is no better than the worst of them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reprise.evidence import Record
from reprise.reported import SCALES, Cell, Claim, Part, Reported, Selector
from reprise.stats import (
    MIN_SEEDS,
    CellJudgement,
    CellVerdict,
    ClaimJudgement,
    ClaimVerdict,
    Interval,
    cell_verdict,
    claim_verdict,
    combine,
    interval,
    probability_of_improvement,
)


@dataclass(frozen=True)
class CellResult:
    """A reported cell beside our runs at one scale; ``ours`` and ``values`` (one per run) are in the cell's unit."""

    cell: Cell
    scale: str
    ours: Interval | None
    judgement: CellJudgement
    values: tuple[float, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class PartResult:
    """One part of a claim on one site. ``left`` and ``right`` are over the paired seeds.

    ``groups`` are the configurations that were compared; for ``improvement`` see
    `reprise.stats.probability_of_improvement`.
    """

    part: Part
    judgement: ClaimJudgement
    left: Interval | None
    right: Interval | None
    groups: tuple[str, ...] = ()
    improvement: float | None = None


@dataclass(frozen=True)
class SiteResult:
    """A claim on one data set and condition; ``counted`` tells whether it bears on the whole (see `judge_claim`)."""

    dataset: str
    protocol: str
    condition: Mapping[str, Any]
    verdict: ClaimVerdict
    parts: tuple[PartResult, ...]
    counted: bool = True


@dataclass(frozen=True)
class ClaimResult:
    """A claim at one scale, overall and per site."""

    claim: Claim
    scale: str
    verdict: ClaimVerdict
    reason: str
    sites: tuple[SiteResult, ...] = ()


def matches(where: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether a record's facts have every wanted value; a list of wanted values means any of them."""
    return all(key in facts and _equal(wanted, facts[key]) for key, wanted in where.items())


def _equal(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, list | tuple):
        return any(_equal(one, value) for one in wanted)
    numbers = [x for x in (wanted, value) if isinstance(x, int | float) and not isinstance(x, bool)]
    return math.isclose(*numbers, rel_tol=1e-9, abs_tol=1e-12) if len(numbers) == 2 else wanted == value


def select(records: Iterable[Record], selector: Selector, scale: str, dataset: str | None = None) -> list[Record]:
    """The records that a selector names at one scale (``dataset`` overrides the selector's); never a variant."""
    dataset = dataset or selector.dataset
    return [
        r
        for r in records
        if not r.variant
        and (r.method, r.dataset, r.scale) == (selector.method, dataset, scale)
        and matches(selector.where, r.facts)
    ]


def unknown_conditions(reported: Reported, records: Collection[Record]) -> list[str]:
    """Conditions and settings that the reported file selects on but no record has: nothing would ever match them."""
    selectors = [c.experiment for c in reported.cells if c.experiment]
    sides = [side for c in reported.claims for p in c.parts for side in (p.left, p.right)]
    selectors += [side for side in sides if isinstance(side, Selector)]
    wanted = {key for selector in selectors for key in selector.where}
    return sorted(wanted - {key for r in records for key in r.facts}) if records else []


def groups(records: Iterable[Record]) -> list[list[Record]]:
    """Runs split by configuration, the one that stands for the method first.

    That is the one with most seeds; among equals the one that finished last. The choice looks at no metric.
    """
    split: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.order):
        split.setdefault(record.group, []).append(record)
    ordered = sorted(split.values(), key=lambda runs: runs[0].group)
    ordered.sort(key=lambda runs: max(r.finished for r in runs), reverse=True)
    return sorted(ordered, key=lambda runs: -len({r.seed for r in runs}))


def values(records: Iterable[Record], metric: str) -> list[float]:
    """The metric of every record that has it."""
    return [v for r in records if (v := r.metric(metric)) is not None]


def judge_cell(cell: Cell, records: Collection[Record]) -> list[CellResult]:
    """The cell at each scale at which it was run, or once as NOT RUN (N/A where nothing can be compared)."""
    experiment = cell.experiment
    if experiment is None:
        return [CellResult(cell, "", None, _excused(cell_verdict(None, None, None, None, False), cell))]
    results = []
    for scale in SCALES:
        chosen = groups(select(records, experiment, scale))
        ours = values(chosen[0], experiment.metric) if chosen else []
        if ours:
            unit = 100.0 if cell.unit == "percent" else 1.0
            scaled, each = interval(ours).scaled(unit), tuple(unit * value for value in ours)
            full = scale in (experiment.scale, "paper")
            judged = cell_verdict(scaled, cell.value, cell.tolerance, cell.higher_is_better, full)
            judged = _with_broken(judged, len(chosen[0]) - len(ours))
            results.append(CellResult(cell, scale, scaled, judged, each, chosen[0][0].group))
    nothing = cell_verdict(None, cell.value, cell.tolerance, cell.higher_is_better, False)
    return results or [CellResult(cell, "", None, nothing)]


def _with_broken(judged: CellJudgement, broken: int) -> CellJudgement:
    """Runs without a finite value are told, and keep a cell from counting as a success."""
    if not broken:
        return judged
    good = judged.verdict in (CellVerdict.REPRODUCED, CellVerdict.BETTER, CellVerdict.CLOSE)
    reason = f"{judged.reason}; {broken} runs without a finite value"
    return CellJudgement(CellVerdict.PARTIAL if good else judged.verdict, reason)


def _excused(judgement: CellJudgement, cell: Cell) -> CellJudgement:
    return CellJudgement(judgement.verdict, cell.reason)


def judge_claim(claim: Claim, records: Collection[Record], scale: str) -> ClaimResult:
    """The claim at one scale: every site with runs, and the whole.

    Two kinds of site are listed but do not count: one where only the suite's own checks have pairs, and one with fewer
    than 3 pairs when another site of the same data set has 3 or more (a stray run must not undo a verdict).
    """
    if not claim.parts:
        return ClaimResult(claim, scale, ClaimVerdict.NOT_RUN, claim.reason)
    sites = [site for dataset in claim.datasets for site in _sites(claim, records, scale, dataset)]
    counted = [site for site in sites if site.counted]
    verdict = combine([site.verdict for site in counted])
    if not counted:
        return ClaimResult(claim, scale, ClaimVerdict.NOT_RUN, claim.reason or "no paired runs", tuple(sites))
    if len(counted) == 1:
        return ClaimResult(claim, scale, verdict, _why(counted[0]), tuple(sites))
    names = {v: list(dict.fromkeys(_place(claim, s, counted) for s in counted if s.verdict is v)) for v in ClaimVerdict}
    told = "; ".join(f"{v.value.lower()} on {', '.join(data)}" for v, data in names.items() if data)
    return ClaimResult(claim, scale, verdict, told, tuple(sites))


def _place(claim: Claim, site: SiteResult, sites: Collection[SiteResult]) -> str:
    """The site's data set; where its verdicts differ, also the conditions of which the claim allows several."""
    if len({other.verdict for other in sites if other.dataset == site.dataset}) == 1:
        return site.dataset
    told = [f"{key} {site.condition[key]}" for key, wanted in claim.where.items() if isinstance(wanted, list | tuple)]
    return f"{site.dataset} with {', '.join(told)}" if told else site.dataset


def _why(site: SiteResult) -> str:
    """The reason of the part that decided a site's verdict."""
    own = [p for p in site.parts if not p.part.ours]
    decided = [p for p in own if p.judgement.verdict is site.verdict] or [
        p for p in own if p.judgement.verdict is not ClaimVerdict.SUPPORTED
    ]
    return "; ".join(dict.fromkeys(p.judgement.reason for p in decided))


def _sites(claim: Claim, records: Collection[Record], scale: str, dataset: str) -> list[SiteResult]:
    """The claim on each condition of one data set for which at least one part has a pair."""
    relevant = [r for part in claim.parts for r in select(records, part.left, scale, dataset)]
    conditions = {r.protocol: r.condition for r in relevant}
    sites = []
    for protocol in sorted(conditions, key=lambda p: (_sortable(conditions[p]), p)):
        there = [r for r in records if r.protocol == protocol]
        parts = tuple(judge_part(part, there, scale, dataset) for part in claim.parts)
        verdict = combine([p.judgement.verdict for p in parts if not p.part.ours])
        if any(p.judgement.n for p in parts):
            sites.append(SiteResult(dataset, protocol, conditions[protocol], verdict, parts))
    most = {site.protocol: max(p.judgement.n for p in site.parts if not p.part.ours) for site in sites}
    needed = MIN_SEEDS if any(n >= MIN_SEEDS for n in most.values()) else 1
    return [replace(site, counted=most[site.protocol] >= needed) for site in sites]


def _sortable(condition: Mapping[str, Any]) -> str:
    return repr(sorted((str(k), str(v)) for k, v in condition.items()))


def judge_part(part: Part, records: Collection[Record], scale: str, dataset: str) -> PartResult:
    """One relation on the runs of one protocol, paired by seed.

    A seed whose value is missing or not finite on one side leaves no pair. Seeds that broke must not be argued away, so
    such a part is never better than INCONCLUSIVE.
    """
    pairs, broken = pair(part, records, scale, dataset)
    left, right = [a for _, a, _ in pairs], [b for _, _, b in pairs]
    judged = claim_verdict(left, right, part.relation, part.tolerance)
    if broken:
        seeds = ", ".join(map(str, broken))
        verdict = ClaimVerdict.INCONCLUSIVE if judged.verdict is ClaimVerdict.SUPPORTED else judged.verdict
        reason = f"{judged.reason}; no finite value on seed {seeds}"
        judged = ClaimJudgement(verdict, reason, judged.n, judged.difference)
    sides = [side for side in (part.left, part.right) if isinstance(side, Selector)]
    chosen = [groups(select(records, side, scale, dataset))[:1] for side in sides]
    compared = tuple(dict.fromkeys(runs[0].group for first in chosen for runs in first))
    better = probability_of_improvement(left, right, part.relation)
    return PartResult(part, judged, *((interval(x) if x else None) for x in (left, right)), compared, better)


def pair(
    part: Part, records: Collection[Record], scale: str, dataset: str
) -> tuple[list[tuple[int, float, float]], list[int]]:
    """``(seed, left, right)`` for every seed of both sides, and the seeds where a value is missing or not finite."""
    lefts = _by_seed(select(records, part.left, scale, dataset))
    if isinstance(part.right, Selector):
        same = (part.right.method, part.right.where) == (part.left.method, part.left.where)
        rights = lefts if same else _by_seed(select(records, part.right, scale, dataset))
    pairs, broken = [], []
    for seed in sorted(lefts):
        a = lefts[seed].metric(part.left.metric)
        if not isinstance(part.right, Selector):
            b: float | None = part.right
        elif seed in rights:
            b = rights[seed].metric(part.right.metric)
        else:
            continue
        if a is None or b is None:
            broken.append(seed)
        else:
            pairs.append((seed, a, b))
    return pairs, broken


def _by_seed(records: Sequence[Record]) -> dict[int, Record]:
    chosen = groups(records)
    return {r.seed: r for r in chosen[0]} if chosen else {}
