"""Permutations shared between runs: found only where they are exactly what the run would have computed."""

from __future__ import annotations

import json

import pytest
import torch
from dvrl_tasks import fit, small_data
from sklearn.tree import DecisionTreeClassifier

from reprise.papers.dvrl import walks
from reprise.papers.dvrl.estimators import Estimator
from reprise.papers.dvrl.predictors import MLP, Linear
from reprise.papers.dvrl.shapley import BetaShapley, TMCShapley
from reprise.papers.dvrl.walks import Walk, Walks


def linear(**changes):
    return Linear(**({"steps": 5, "final_steps": 6, "learning_rate": 1.0, "l2": 1e-3} | changes))


def trained(cache, kind=TMCShapley, data=None, seed=0, **changes):
    data = data or small_data()
    data.cache_dir = cache
    options = {
        "reward": "neg_log_loss",
        "together": 3,
        "permutations": 6,
        "tolerance": 0.05,
        "convergence": None,
        "predictor": linear(),
    }
    if kind is BetaShapley:
        options |= {"alpha": 16, "beta": 1}
    return fit(kind(spec=data.spec, seed=seed, **(options | changes)), data)


def files(cache):
    return sorted(cache.rglob("*.json"))


def same(one, other):
    return all(torch.equal(a, dict(other.named_buffers())[name]) for name, a in one.named_buffers() if name != "shared")


@pytest.mark.parametrize("kind", [TMCShapley, BetaShapley])
def test_a_second_run_takes_what_the_first_evaluated_and_gets_the_same_bits(tmp_path, kind):
    assert int(trained(tmp_path).shared) == 0
    assert len(files(tmp_path)) == 2
    alone, taken = trained(None, kind), trained(tmp_path, kind)
    assert same(alone, taken)
    assert int(alone.shared) == 0
    assert int(taken.shared) == int(taken.fits) - 1 > 6  # all but U(D)
    assert int(taken.updates) == 5 * int(taken.fits)


def test_the_metrics_tell_what_was_shared(tmp_path):
    data = small_data()
    first, second = (trained(tmp_path, data=data).final_metrics(data) for _ in range(2))
    assert first.pop("time/shared_fits") == 0
    assert second.pop("time/shared_fits") == second["cost/predictor_fits"] - 1
    assert first == second
    assert first["cost/rows_per_permutation"] <= 30


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"tolerance": 0.1},
        {"together": 4},
        {"predictor": linear(l2=1e-2)},
        {"predictor": linear(steps=6)},
        {"predictor": MLP(steps=5, final_steps=6, learning_rate=1.0, l2=1e-3, hidden=[3])},
        {"reward": "accuracy"},
        {"data": small_data(noise=0.3)},
        {"data": small_data(seed=1)},
    ],
)
def test_whatever_changes_the_scores_is_another_walk(tmp_path, changes):
    trained(tmp_path)
    assert int(trained(tmp_path, **changes).shared) == 0
    assert len({path.parent for path in files(tmp_path)}) == 2


def test_other_code_is_another_walk(tmp_path, monkeypatch):
    trained(tmp_path)
    monkeypatch.setattr(walks.inspect, "getsource", lambda module: "changed")
    assert int(trained(tmp_path).shared) == 0


def test_other_threads_are_another_walk(tmp_path, monkeypatch):
    trained(tmp_path)
    monkeypatch.setattr(walks.torch, "get_num_threads", lambda: 77)
    assert int(trained(tmp_path).shared) == 0


def test_more_permutations_share_what_is_there(tmp_path):
    trained(tmp_path, permutations=4)
    assert same(trained(tmp_path, permutations=8), trained(None, permutations=8))
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["", "half", "[]", "null", '{"walks": [], "checksum": "x"}', "digit"])
def test_a_damaged_file_is_reported_and_evaluated_again(tmp_path, caplog, damage):
    trained(tmp_path)
    path = files(tmp_path)[0]
    whole = path.read_text()
    changed = json.loads(whole)
    changed["walks"][0][0][0] += 1e-9
    path.write_text({"half": whole[: len(whole) // 2], "digit": json.dumps(changed)}.get(damage, damage))
    again = trained(tmp_path)
    assert "is damaged" in caplog.text
    assert same(again, trained(None))
    assert 0 < int(again.shared) < int(again.fits) - 1
    assert path.read_text() == whole


def test_a_file_of_other_permutations_is_not_taken(tmp_path, caplog):
    trained(tmp_path)
    first, second = files(tmp_path)
    second.write_text(first.read_text())
    assert same(trained(tmp_path), trained(None))
    assert "is damaged" in caplog.text


def test_an_estimator_shares_nothing(tmp_path):
    predictor = Estimator(DecisionTreeClassifier(max_depth=2, random_state=0))
    assert int(trained(tmp_path, predictor=predictor, permutations=1, data=small_data(train=8)).done) == 1
    assert files(tmp_path) == []


def test_a_predictor_of_other_than_plain_settings_shares_nothing(tmp_path):
    predictor = linear()
    predictor.extra = torch.ones(2)
    trained(tmp_path, predictor=predictor)
    assert files(tmp_path) == []


def test_scores_survive_to_the_last_bit(tmp_path):
    kept = [Walk([0.1 + 0.2, -1 / 3, 5e-324], 7), Walk([1.0], 1)]
    shelf = Walks(tmp_path, {"a": 1})
    shelf.save(range(2, 4), kept)
    assert shelf.load(range(2, 4)) == kept
    assert shelf.load(range(2, 5)) is None
    assert Walks(tmp_path, {"a": 2}).load(range(2, 4)) is None
    assert Walks(None).load(range(2, 4)) is None
