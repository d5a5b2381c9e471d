"""What all valuation methods share: seeded randomness, rank weights, the table and files of values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from dvrl_tasks import fit, quick, small_data, small_dvrl, source_of, table
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from reprise.data.base import Split
from reprise.papers.dvrl.baselines import RandomValues
from reprise.papers.dvrl.datamodule import ValuationData
from reprise.papers.dvrl.predictors import Linear
from reprise.papers.dvrl.valuation import Valuator, steps_in_epoch


def linear():
    return Linear(steps=3, final_steps=6, learning_rate=1.0, l2=1e-3)


class Known(Valuator):
    """A method whose values are the row numbers' cosines."""

    def ranking(self):
        return torch.cos(self.task.rows.double())


@quick
@given(st.integers(1, 5000))
def test_epochs_are_short_and_divide_the_steps(steps):
    size = steps_in_epoch(steps)
    assert steps % size == 0
    assert 1 <= size <= 25
    assert not any(steps % larger == 0 for larger in range(size + 1, 26) if larger <= steps)


def test_randomness_depends_on_seed_and_purpose_alone():
    def draw(seed, *purpose):
        return torch.rand(4, generator=Known(small_data().spec, seed, linear()).generator(*purpose)).tolist()

    assert draw(0, 1, 5) == draw(0, 1, 5)
    different = [draw(0, 1), draw(0, 2), draw(1, 1), draw(0, 1, 0), draw(0, 1, 1), draw(0, 0, 1)]
    assert len({tuple(d) for d in different}) == 5  # trailing zeros do not count
    assert draw(0, 1) == draw(0, 1, 0)


def test_weights_are_ranks_by_default():
    module = Known(small_data().spec, 0, linear())
    module.ranking = lambda: torch.tensor([0.3, -5.0, 0.3, 9.0])
    assert module.weights().tolist() == [0.5, 0.25, 0.75, 1.0]


def test_value_table_of_a_damaged_set():
    data = small_data(noise=0.3)
    module = Known(data.spec, 0, linear())
    module.prepare(data.task)
    found = module.value_table()
    task, names = data.task, np.array(["a", "b", "c"])
    assert list(found.columns) == ["row", "value", "logit", "given_label", "true_label", "corrupted"]
    assert found["row"].tolist() == task.rows.tolist()
    np.testing.assert_allclose(found["logit"], np.cos(task.rows.numpy()))
    assert found["given_label"].tolist() == names[task.y_train].tolist()
    assert found["true_label"].tolist() == names[task.y_true].tolist()
    assert found["corrupted"].tolist() == task.corrupted.int().tolist()
    assert (found["given_label"] != found["true_label"]).tolist() == task.corrupted.tolist()


def test_value_table_of_a_users_numbers_has_their_unit_and_leaves_the_truth_empty():
    whole = table(50, classes=0)
    data = ValuationData(source_of(whole, 0, "user"), seed=0)
    module = Known(data.spec, 0, linear())
    module.prepare(data.task)
    found = module.value_table()
    np.testing.assert_allclose(found["given_label"], whole.y[data.task.rows], rtol=1e-4)
    assert found["true_label"].isna().all()
    assert found["corrupted"].isna().all()


def test_rows_with_names_keep_them_in_the_value_table():
    whole = table(60)
    named = Split(whole.x, whole.y, tuple(f"{row}.png" for row in range(60)))
    data = ValuationData(source_of(named), seed=0, train_size=20, validation_size=10, noise_rate=0.2)
    module = Known(data.spec, 0, linear())
    module.prepare(data.task)
    found = module.value_table()
    assert found["name"].tolist() == [f"{row}.png" for row in found["row"]]


def test_a_run_leaves_its_values_curves_figures_and_estimator(tmp_path):
    data = small_data(noise=0.3)
    module = fit(small_dvrl(data, shortcut=True), data)
    module.final_metrics(data)
    paths = module.artifacts(tmp_path)
    assert all(path.is_file() for path in paths)
    values = pd.read_csv(tmp_path / "data_values.csv")
    assert values["row"].tolist() == sorted(data.task.rows.tolist())
    order = data.task.rows.argsort()
    np.testing.assert_allclose(values["logit"], module.ranking()[order].numpy(), rtol=1e-6)
    np.testing.assert_allclose(values["value"], 1 / (1 + np.exp(-values["logit"])), rtol=1e-5)
    assert len(pd.read_csv(tmp_path / "removal_curve.csv")) == 20
    assert len(pd.read_csv(tmp_path / "discovery_curve.csv")) == 31
    fresh = small_dvrl(data, seed=9, shortcut=True)
    fresh.prepare(data.task)
    assert not torch.equal(fresh.ranking(), module.ranking())
    stored = load_file(tmp_path / "valuer.safetensors")
    mine = {name.removeprefix("estimator."): t for name, t in stored.items() if name.startswith("estimator.")}
    fresh.estimator.load_state_dict(mine)
    torch.testing.assert_close(fresh.ranking(), module.ranking())


def test_final_metrics_work_without_training():
    data = small_data()
    metrics = RandomValues(spec=data.spec, seed=0, predictor=linear()).final_metrics(data)
    assert metrics["cost/predictor_fits"] == 0
    assert metrics["reference/all"] == pytest.approx(metrics["reference/all"])
    assert 0 <= metrics["discovery/auroc"] <= 1
