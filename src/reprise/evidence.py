"""The runs that verdicts rest on: read from run folders, merged with the records under version control.

Reading never fails on a damaged file: what cannot be read is named and left out. Smoke runs test mechanics, not claims,
so they are counted and never become evidence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reprise.errors import UserError
from reprise.records import RunFolder, write_text

REQUIRED: dict[str, type | tuple[type, ...]] = {
    "paper": str,
    "method": str,
    "dataset": str,
    "seed": int,
    "scale": str,
    "run_key": str,
    "group": str,
    "protocol": str,
    "condition": Mapping,
    "metrics": Mapping,
}


@dataclass(frozen=True)
class Record:
    """One finished run.

    ``group`` is shared by repetitions that differ in their seed only; runs with equal ``protocol``, ``scale`` and
    ``seed`` saw exactly the same data. ``settings`` (optional, flat) are the method's own hyper-parameters; where two
    groups of one method meet in a table, they tell what differs, and claims may select by them: two runs that differ in
    settings alone can still be compared. ``table`` is the sweep that asked for the run, and
    ``variant`` names a deliberate departure from the method's recipe, which never stands for the method. ``overrides``
    is the command line that asked for the run, empty where it was not kept. ``raw`` is the line as it was read.
    """

    paper: str
    method: str
    dataset: str
    seed: int
    scale: str
    run_key: str
    group: str
    protocol: str
    condition: Mapping[str, Any]
    metrics: Mapping[str, float]
    env: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    table: str = ""
    variant: str = ""
    overrides: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, raw: Any) -> Record:
        """Build a record from its JSON value; ``ValueError`` with a short sentence if it is not one."""
        if not isinstance(raw, Mapping):
            raise ValueError("is not a JSON object")
        for name, kind in REQUIRED.items():
            if not isinstance(raw.get(name), kind):
                raise ValueError(f"lacks a usable {name!r}")
        return cls(
            **{name: raw[name] for name in REQUIRED if name != "condition"},
            condition=dict(flatten(raw["condition"])),
            env=raw.get("env") or {},
            settings=dict(flatten(raw.get("settings") or {})),
            table=raw.get("table") or "",
            variant=raw.get("variant") or "",
            overrides=tuple(str(given) for given in raw.get("overrides") or ()),
            raw=raw,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What a run can be selected by: its conditions and its settings, of one name the condition."""
        return {**self.settings, **self.condition}

    @property
    def finished(self) -> str:
        """When the run ended, ISO 8601 in UTC; empty if not recorded."""
        return str(self.env.get("finished") or "")

    @property
    def order(self) -> tuple[Any, ...]:
        """A sort key that depends on content only, so that tables and record files are reproducible byte by byte."""
        return (self.dataset, self.method, self.scale, self.protocol, self.group, self.seed, self.run_key)

    def metric(self, name: str) -> float | None:
        """The metric's value; ``None`` if the run does not have it or it is not a finite number."""
        value = self.metrics.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return float(value)


@dataclass
class Collection:
    """What was found: finished runs by key, and what did not become evidence, with the reason where there is one."""

    records: list[Record] = field(default_factory=list)
    unrecorded: list[Record] = field(default_factory=list)  # finished runs that the record file does not hold yet
    running: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    smoke: int = 0


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``{"noise": {"rate": 0.2}}`` becomes ``("noise.rate", 0.2)``; flat mappings stay as they are."""
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def records_path(output_dir: Path, paper: str) -> Path:
    """The paper's record file: one compact JSON line per run."""
    return output_dir / "records" / f"{paper}.jsonl"


def collect(output_dir: Path, paper: str, runs: bool = True) -> Collection:
    """All evidence about ``paper``: the recorded lines and, unless ``runs`` is false, the finished runs on disk.

    A run that is both recorded and on disk is taken in the version that finished later.
    """
    found = Collection()
    recorded = {r.run_key: r for r in _recorded(records_path(output_dir, paper), found)}
    merged = dict(recorded)
    for record in _on_disk(output_dir, paper, found) if runs else ():
        known = merged.get(record.run_key)
        if known is None or record.finished > known.finished:
            merged[record.run_key] = record
            found.unrecorded.append(record)
    found.records = sorted(merged.values(), key=lambda r: r.order)
    found.unrecorded.sort(key=lambda r: r.order)
    return found


def save_records(output_dir: Path, paper: str) -> int:
    """Merge the finished runs on disk into the record file, atomically; return how many lines are new or changed.

    Raises:
        UserError: the record file has a line that cannot be read; rewriting it would lose that line.
    """
    path = records_path(output_dir, paper)
    found = collect(output_dir, paper)
    for place, reason in found.damaged:
        if place.startswith(f"{path}:"):
            raise UserError(f"{place} {reason}; mend or delete that line, then record again.")
    text = "".join(f"{_line(record.raw)}\n" for record in found.records)
    if found.records and (not path.exists() or path.read_text(encoding="utf-8") != text):
        write_text(path, text)
    return len(found.unrecorded)


def _line(raw: Mapping[str, Any]) -> str:
    """Compact, sorted, valid JSON: a metric that is not finite becomes null."""
    metrics = {k: v if isinstance(v, int | float) and math.isfinite(v) else None for k, v in raw["metrics"].items()}
    value = {**raw, "metrics": metrics}
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _recorded(path: Path, found: Collection) -> Iterable[Record]:
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = Record.of(json.loads(line))
        except ValueError as error:
            found.damaged.append((f"{path}:{number}", _sentence(error)))
            continue
        if record.scale == "smoke":
            found.smoke += 1
        else:
            yield record


def _on_disk(output_dir: Path, paper: str, found: Collection) -> Iterable[Record]:
    """Finished runs of the paper below ``<output_dir>/runs/<method>/<dataset>/``; the others are noted in ``found``."""
    for folder in sorted(p for p in (output_dir / "runs").glob("*/*/s*-*") if p.is_dir()):
        if all(file.name == ".lock" for file in folder.iterdir()):  # its command was refused, so nothing was run
            continue
        name = str(folder.relative_to(output_dir))
        try:
            status = _read(folder / "status.json")
            if status["state"] == "done":
                record = Record.of(_read(folder / "record.json"))
            elif _paper(folder) in (paper, None):
                _unfinished(name, folder, status, found)
                continue
            else:
                continue
        except (ValueError, KeyError, TypeError, OSError) as error:
            if _paper(folder) in (paper, None):
                found.damaged.append((name, _sentence(error)))
            continue
        if record.paper != paper:
            continue
        if record.scale == "smoke":
            found.smoke += 1
        else:
            yield record


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"has no {path.name}") from error
    except ValueError as error:
        raise ValueError(f"has an unreadable {path.name}") from error


def _state(folder: Path, state: str) -> str:
    """``stale``: it says that it runs, but no process is at work on it."""
    return "stale" if state == "running" and not RunFolder(folder).held else state


def state_of(folder: Path) -> tuple[str, str]:
    """A run's state, ``missing`` where it was never begun, and the error of a failed one."""
    if not folder.is_dir() or all(file.name == ".lock" for file in folder.iterdir()):
        return "missing", ""
    try:
        status = _read(folder / "status.json")
        if status["state"] == "done":
            Record.of(_read(folder / "record.json"))
            _read(folder / "metrics.json")
            return "finished", ""
        return _state(folder, status["state"]), " ".join(str(status.get("error") or "").split())
    except (ValueError, KeyError, TypeError, OSError) as error:
        return "unreadable", _sentence(error)


def _unfinished(name: str, folder: Path, status: Mapping[str, Any], found: Collection) -> None:
    if status["state"] == "failed":
        error = " ".join(str(status.get("error") or "no error recorded").split())
        found.failed.append((name, error))
    else:
        found.running.append(f"{name} ({_state(folder, status['state'])})")


def _paper(folder: Path) -> str | None:
    """The paper of a run that has no record, from its config; ``None`` if that cannot be told."""
    try:
        return str(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["method"]["paper"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None


def _sentence(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return "is not valid JSON"
    return f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
