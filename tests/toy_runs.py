"""A made-up paper and runs of it, for the tests of collecting, judging and rendering: no training."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from reprise.evidence import Record

YAML = """
paper: toy
title: A toy paper
citation: Nobody, nowhere
pdf: none
code: {address: none, commit: none}
display:
  methods: {ours: Ours, base: Base}
  columns:
    - {metric: test/accuracy, label: accuracy, beside: [reference/all], chance: rate}
    - {metric: test/unused, label: unused}
  references: [{metric: reference/all, label: all rows}]
  counts: [{metric: health/collapsed, label: collapsed}]
  cost: [{metric: time/fit_seconds, label: seconds, format: ".1f"}]
tables:
  - {id: t1, title: Table 1, metric: accuracy, unit: percent, higher_is_better: true, tolerance: 1.0,
     confidence: exact, source: the paper, reason: not built}
cells:
  - {id: a, table: t1, row: Ours, column: Toy, value: 90.0, std: 0.5, confidence: secondary,
     experiment: {method: ours, dataset: toy, metric: test/accuracy, where: {rate: 0.2}}}
  - {id: b, table: t1, row: Base, column: Toy, value: 80.0, confidence: recalled}
  - {id: c, table: t1, row: Curve, column: "-", confidence: not_recovered}
claims:
  - id: C1
    sentence: Ours is better than a | base.
    datasets: [toy, other]
    where: {rate: 0.2}
    parts:
      - {left: {method: ours, metric: test/accuracy}, relation: ">", right: {method: base}}
      - {left: {method: ours, metric: test/accuracy}, relation: ">", right: {metric: reference/all}, ours: true}
  - {id: C2, sentence: It is cheap., reason: needs a sweep}
"""


def write_paper(root: Path) -> Path:
    """A papers folder that holds the toy paper only."""
    folder = root / "papers" / "toy"
    folder.mkdir(parents=True)
    (folder / "reported.yaml").write_text(YAML)
    return folder.parent


def raw(method="ours", seed=0, accuracy=0.9, **changes) -> dict:
    value = {
        "paper": "toy",
        "method": method,
        "dataset": "toy",
        "seed": seed,
        "scale": "cpu",
        "condition": {"rate": 0.2},
        "metrics": {"test/accuracy": accuracy, "reference/all": 0.85, "health/collapsed": 0, "time/fit_seconds": 3.0},
        "env": {
            "commit": "abc",
            "dirty": False,
            "device": "cpu",
            "finished": f"2026-01-01T00:00:{seed:02d}",
            "torch": "2",
        },
    } | changes
    value.setdefault("protocol", f"p-{value['dataset']}-{value['condition']}-{value['scale']}")
    value.setdefault("group", f"g-{method}-{value['protocol']}")
    value.setdefault("run_key", f"{value['group']}-{seed}")
    return value


def rec(*args, **kwargs) -> Record:
    return Record.of(raw(*args, **kwargs))


def seeds(method: str, numbers: list[float], **changes) -> list[Record]:
    return [rec(method, seed, number, **changes) for seed, number in enumerate(numbers)]


def write(out: Path, value: dict, state="done", error=None) -> Path:
    name = f"s{value['seed']}-{abs(hash(value['run_key'])):x}"
    folder = out / "runs" / value["method"] / value["dataset"] / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").write_text(json.dumps({"state": state, "error": error}))
    if state == "done":
        (folder / "record.json").write_text(json.dumps(value))
    else:
        (folder / "config.yaml").write_text(yaml.safe_dump({"method": {"paper": value["paper"]}}))
    return folder
