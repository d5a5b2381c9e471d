"""What stands behind a row of a table: the runs of one configuration, and the command that repeats them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reprise.evidence import Record
from reprise.judging import groups
from reprise.layout import scales_of, told
from reprise.reported import Reported


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in their seed only, by seed.

    ``command`` repeats all of them; where it was not kept, ``exact`` is false and it only comes near.
    """

    name: str
    records: tuple[Record, ...]
    command: str
    exact: bool

    @property
    def first(self) -> Record:
        """One of the runs, for what they share."""
        return self.records[0]

    @property
    def key(self) -> str:
        """The key of the configuration without its seed."""
        return self.first.group

    @property
    def settings(self) -> dict[str, Any]:
        """The method's own hyper-parameters."""
        return dict(sorted(told(self.first.settings).items()))

    @property
    def condition(self) -> dict[str, Any]:
        """What the method was given."""
        return dict(sorted(self.first.condition.items()))

    def noted(self, name: str) -> str:
        """What the runs' environments say of ``name``, each value once."""
        return ", ".join(sorted({str(r.env[name]) for r in self.records if r.env.get(name)})) or "not recorded"


def run_groups(reported: Reported, records: Sequence[Record]) -> list[RunGroup]:
    """Every configuration of a paper, the largest scale first."""
    found = [
        _group(reported, runs)
        for scale in scales_of(records)
        for runs in groups(r for r in records if r.scale == scale)
    ]
    known = list(reported.display.methods)
    place = {name: i for i, name in enumerate(known)}
    scales = {scale: i for i, scale in enumerate(scales_of(records))}
    return sorted(
        found,
        key=lambda g: (
            scales[g.first.scale],
            g.first.dataset,
            place.get(g.first.method, len(known)),
            g.first.method,
            g.first.variant,
            g.key,
        ),
    )


def _group(reported: Reported, runs: Iterable[Record]) -> RunGroup:
    ordered = tuple(sorted(runs, key=lambda r: (r.seed, r.run_key)))
    first = ordered[0]
    label = reported.display.methods.get(first.method, first.method)
    name = ", ".join(filter(None, [label, first.variant, first.dataset, f"{first.scale} scale"]))
    return RunGroup(name, ordered, command(ordered), bool(first.overrides))


def command(runs: Sequence[Record]) -> str:
    """The shell command that repeats runs of one configuration; a rough one where none was kept."""
    first, seeds = runs[0], sorted({r.seed for r in runs})
    kept = [given for given in first.overrides if not given.startswith("seed=")]
    rough = [f"method={first.method}", f"dataset={first.dataset}", f"scale={first.scale}"]
    many = ["-m"] if len(seeds) > 1 else []
    words = ["python", "train.py", *many, *(kept or rough), f"seed={','.join(map(str, seeds))}"]
    return shlex.join(words)
