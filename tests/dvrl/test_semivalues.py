"""Data Banzhaf: against its definition over all subsets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from dvrl_tasks import fit, small_data

from reprise.papers.dvrl import semivalues
from reprise.papers.dvrl.predictors import Linear
from reprise.papers.dvrl.semivalues import Banzhaf


def method(data, seed=0, **changes):
    predictor = Linear(steps=5, final_steps=6, learning_rate=1.0, l2=1e-3)
    options = {"reward": "neg_log_loss", "together": 3, "subsets": 40} | changes
    return Banzhaf(spec=data.spec, seed=seed, predictor=predictor, **options)


@pytest.mark.parametrize("classes", [2, 0])
def test_over_all_subsets_the_estimate_is_the_banzhaf_value(classes):
    data = small_data(classes, train=5)
    sets = torch.tensor(list(itertools.product([False, True], repeat=5)))
    module = method(data, subsets=32)
    module.draw = lambda count: sets
    fit(module, data)
    worth = dict(zip(map(tuple, sets.tolist()), module.utility(sets.float()).tolist(), strict=True))

    def change(others, i):
        return worth[(*others[:i], True, *others[i:])] - worth[(*others[:i], False, *others[i:])]

    expected = [np.mean([change(s, i) for s in itertools.product([False, True], repeat=4)]) for i in range(5)]
    assert module.ranking().tolist() == pytest.approx(expected, abs=1e-6)
    assert np.abs(expected).max() > 0.01


def test_values_are_differences_of_means_over_all_epochs(monkeypatch):
    monkeypatch.setattr(semivalues, "SUBSETS_PER_EPOCH", 16)
    data = small_data(train=12)
    module, drawn = method(data), []
    draw = module.draw
    module.draw = lambda count: drawn.append(draw(count)) or drawn[-1]
    fit(module, data)
    assert [len(part) for part in drawn] == [16, 16, 8]
    sets = torch.cat(drawn)
    assert len(sets.unique(dim=0)) == 40
    scores = module.utility(sets.float())
    expected = [(scores[sets[:, i]].mean() - scores[~sets[:, i]].mean()).item() for i in range(12)]
    assert module.ranking().tolist() == pytest.approx(expected, abs=1e-5)
    assert 0.4 < sets.float().mean() < 0.6


def test_a_row_that_was_always_in_or_never_gets_nothing():
    data = small_data(train=3)
    module = method(data)
    module.totals.copy_(torch.tensor([[4.0, 1.0, 0.0], [0.0, 4.0, 3.0]]))
    module.counts.copy_(torch.tensor([[2.0, 1.0, 0.0], [0.0, 2.0, 2.0]]))
    assert module.ranking().tolist() == [0.0, -1.0, 0.0]
