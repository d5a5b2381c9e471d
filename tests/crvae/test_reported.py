"""What is typed in ``reported.yaml`` agrees with its sources, with the configs, and with what runs measure."""

import re

import pytest
import yaml
from harness import CONF, ROOT

from reprise.evidence import collect
from reprise.judging import matches
from reprise.reported import Selector, load_reported

REPORTED = load_reported("crvae")
PARTS = [(claim, part) for claim in REPORTED.claims for part in claim.parts]
SIDES = [(c, side) for c, part in PARTS for side in (part.left, part.right) if isinstance(side, Selector)]
BETTER_WHEN_LOWER = {"nll", "consistency_kl", "consistency_w2_ratio"}


@pytest.fixture(scope="module")
def records():
    return collect(ROOT / "outputs", "crvae", runs=False).records


def config(path):
    return yaml.safe_load(path.read_text())


def test_all_claims_stand_in_order():
    assert [claim.id for claim in REPORTED.claims] == [f"C{i}" for i in range(1, 10)]
    (unjudged,) = [claim.id for claim in REPORTED.claims if not claim.parts]
    assert unjudged == "C6", "the state of the art, which takes GPU-weeks"


def test_two_numbers_of_the_paper_are_known_and_none_at_first_hand():
    papers = [cell for cell in REPORTED.cells if cell.table != "references"]
    known = {cell.id: (cell.value, cell.unit, cell.confidence) for cell in papers if cell.value is not None}
    assert known == {
        "crnvae_mnist": (76.93, "nats", "secondary"),
        "crnvae_cifar10": (2.51, "bits/dim", "secondary"),
    }
    assert all(cell.seeds is None for cell in papers), "the number of seeds is not known"
    references = {cell.row: (cell.value, cell.confidence) for cell in REPORTED.cells if cell.table == "references"}
    assert references == {"VAE": (89.78, "exact"), "IWAE, K = 50": (86.82, "exact")}


def test_methods_are_all_base_models_in_all_regimes():
    names = set()
    for base in map(config, (CONF / "base").glob("*.yaml")):
        for regime in map(config, (CONF / "regime").glob("*.yaml")):
            name = regime["method"]["name"]
            names.add(
                name.replace("${method.base}", base["method"]["base"]).replace(
                    "${method.consistent}", base["method"]["consistent"]
                )
            )
    assert set(REPORTED.display.methods) == names


def test_consistency_is_claimed_to_be_better():
    """In each part the consistent model stands at the left, and on the better side; C1 is about the plain one."""
    for claim, part in PARTS:
        if claim.id == "C1":
            continue
        assert part.left.method in ("crvae", "cr_beta_vae", "cr_iwae", "cr_hierarchical")
        assert part.relation == ("<" if part.left.metric in BETTER_WHEN_LOWER else ">"), (claim.id, part.left.metric)
        assert part.right.metric == part.left.metric
        assert not part.right.method.startswith("cr")


def test_every_base_model_is_compared_with_its_own_plain_form():
    (claim,) = [claim for claim in REPORTED.claims if claim.id == "C5"]
    pairs = {(part.left.method, part.right.method) for part in claim.parts}
    bases = [config(path)["method"] for path in (CONF / "base").glob("*.yaml")]
    assert pairs == {(base["consistent"], base["base"]) for base in bases if base["base"] != "vae"}


def test_lambda_and_direction_are_the_tables_ones_wherever_consistency_is_judged():
    for claim, side in SIDES:
        if side.method.startswith("cr"):
            wanted = {"weight": 0.1, "penalty.direction": "paper", "objective": "paper"}
            assert dict(side.where) == wanted, (claim.id, side.method)


def test_runs_can_answer_to_every_selector(records):
    """A typing error in a setting or a metric would only ever look like a claim that was not run."""
    for claim, side in SIDES:
        there = [r for r in records if r.method == side.method and r.dataset in claim.datasets]
        if there:
            found = [r for r in there if matches(side.where, r.facts)]
            assert found, (claim.id, side)
            assert any(side.metric in r.metrics for r in found), (claim.id, side.metric)
    assert {side.method for _, side in SIDES} & {r.method for r in records} >= {"vae", "vae_aug", "crvae"}


def test_what_is_named_can_be_run():
    text = (ROOT / "src/reprise/papers/crvae/reported.yaml").read_text()
    named = re.findall(r"(sweep|experiment)=(crvae/\w+)", text)
    assert named
    for group, name in named + [("sweep", curve.table) for curve in REPORTED.display.curves]:
        assert (CONF / group / f"{name}.yaml").exists(), name
    for curve in REPORTED.display.curves:
        assert config(CONF / "sweep" / f"{curve.table}.yaml")["table"] == curve.table
