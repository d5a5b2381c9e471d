"""The committed records and the verdicts drawn from them, made again: ``make reproduce``, some minutes."""

from __future__ import annotations

from pathlib import Path

import harness
import numpy as np
import pytest

from reprise.evidence import collect
from reprise.judging import judge_claim
from reprise.reported import load_reported
from reprise.run import run

pytestmark = pytest.mark.reproduction

# Another processor may add in another order; over 250 policy steps that can move single rows.
SAME = {"discovery/auroc": 0.01, "weighted/test_accuracy": 0.01, "reference/all": 0.01, "reference/clean_only": 0.01}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of DVRL and of the two baselines that its claims name, on digits."""
    out = tmp_path_factory.mktemp("outputs")
    for method in ("dvrl", "loo", "random"):
        for seed in range(3):
            run(harness.compose(f"method={method}", f"seed={seed}", "logger=csv", f"paths.output_dir={out}"))
    return out


def test_the_records_come_out_again(fresh: Path) -> None:
    committed = {r.run_key: r for r in collect(harness.ROOT / "outputs", "dvrl", runs=False).records}
    again = collect(fresh, "dvrl").records
    assert len(again) == 9
    for record in again:
        for metric, tolerance in SAME.items():
            before = committed[record.run_key].metrics[metric]
            assert np.isclose(record.metrics[metric], before, atol=tolerance, rtol=0), (record.run_key, metric)


@pytest.mark.parametrize("claim", ["C3", "C4"])
def test_the_claims_hold_on_digits(fresh: Path, claim: str) -> None:
    (asked,) = (c for c in load_reported("dvrl").claims if c.id == claim)
    result = judge_claim(asked, collect(fresh, "dvrl").records, "cpu")
    assert result.verdict.value != "REFUTED"
    assert all(part.judgement.n in (0, 3) for site in result.sites for part in site.parts)
    assert all(
        part.judgement.difference.mean > 0
        for site in result.sites
        for part in site.parts
        if part.judgement.n and part.part.relation == ">" and not part.part.ours
    )
