"""The learned function by itself: what the estimator sees, values of unseen rows, and saving without pickle."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

import harness
import numpy as np
import pytest
import torch
import yaml
from dvrl_tasks import fit, small_data, small_dvrl, source_of, table
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from reprise.data.base import Split
from reprise.errors import UserError
from reprise.papers.dvrl.datamodule import ValuationData
from reprise.papers.dvrl.estimators import Estimator
from reprise.papers.dvrl.predictors import MLP, Linear
from reprise.papers.dvrl.valuer import FILE, OWN_PREDICTORS, OWN_SOURCES, Valuer, View, check_own

LINEAR = {
    "_target_": "reprise.papers.dvrl.predictors.Linear",
    "steps": 3,
    "final_steps": 6,
    "learning_rate": 1.0,
    "l2": 1e-3,
}
MLP_CONFIG = {"_target_": "reprise.papers.dvrl.predictors.MLP", "steps": 3, "final_steps": 6, "learning_rate": 0.01}
MLP_CONFIG |= {"l2": 1e-3, "hidden": [5]}


@pytest.fixture(scope="module", params=[3, 0], ids=["classes", "numbers"])
def trained(request):
    """A data module with holes and rows kept aside, and DVRL trained on it."""
    whole = table(200, request.param, seed=4)
    whole.x[::9, 1] = torch.nan
    data = ValuationData(
        source_of(whole, request.param), seed=3, train_size=60, validation_size=40, test_size=30, noise_rate=0.3
    )
    return data, ended(fit(small_dvrl(data, shortcut=True, label_branch=0.5, learning_rate=0.05), data), data)


def ended(module, data):
    module.metrics = module.final_metrics(data)
    return module


def run_folder(tmp_path, module, predictor=None, **changes):
    """A finished run as far as a valuer is concerned."""
    config = {"method": {"name": "dvrl", "module": {"_target_": "reprise.papers.dvrl.module.DVRL"}}}
    config["method"]["module"] |= {"predictor": predictor or LINEAR}
    config |= {"dataset": {"name": "toy"}, "paths": {"data_dir": "data"}}
    tmp_path.joinpath("config.yaml").write_text(json.dumps(config | changes))  # JSON is YAML
    tmp_path.joinpath("status.json").write_text('{"state": "done", "error": null}')
    if module is not None:
        module.valuer.save(tmp_path)
    return tmp_path


def given(data, rows):
    """Rows of the source and their given targets in the target's own unit."""
    task = data.task
    y = task.y_train.numpy()
    return data.source.train.x[rows].numpy(), y if task.num_classes else task.y_mean + task.y_scale * y


def test_the_view_by_hand():
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    target, predicted = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]])  # m = 1, 2
    view = View.fit(x, target, predicted, standardise=True)
    half = 0.5**0.5
    seen = view(x, target, predicted)
    for found, expected in zip(seen, ([[-half, 0], [half, 0]], target, [[-half], [half]]), strict=True):
        torch.testing.assert_close(found, torch.as_tensor(expected))
    later = view(torch.tensor([[2.0, 6.0]]), torch.tensor([[7.0]]), torch.tensor([[5.5]]))  # m = 1.5; x[1] was constant
    torch.testing.assert_close(later[0], torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(later[2], torch.tensor([[0.0]]))
    raw = View.fit(x, target, predicted, standardise=False)(x, target, predicted)
    assert torch.equal(raw[0], x)
    assert torch.equal(raw[2], torch.tensor([[1.0], [2.0]]))


def test_many_inputs_are_shrunk_to_the_size_of_64():
    x = torch.randn(500, 256, generator=torch.Generator().manual_seed(0))
    view = View.fit(x, torch.zeros(500, 1), torch.rand(500, 1), standardise=True)
    torch.testing.assert_close(view(x, torch.zeros(500, 1), torch.rand(500, 1))[0].std(0), torch.full((256,), 0.25))


def test_training_rows_get_the_values_they_had(trained):
    data, module = trained
    value, logit = module.valuer.values(*given(data, data.task.rows))
    np.testing.assert_allclose(logit, module.ranking().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value, module.weights().numpy(), rtol=1e-4)
    assert value.std() > 1e-3, "else all of this shows nothing"


def test_rows_kept_aside_are_seen_as_the_training_rows_are(trained):
    """By hand from the training rows' statistics; and the metric follows."""
    data, module = trained
    task = data.task
    (theta,) = [module.validation_model]
    outputs, mine = (module.predictor.outputs(theta, x)[:, 0] for x in (task.x_unseen, task.x_train))
    y, y_train = task.y_unseen.unsqueeze(1), task.y_train.unsqueeze(1)
    if task.num_classes:
        outputs, mine = outputs.softmax(1), mine.softmax(1)
        y, y_train = (torch.eye(3)[labels.squeeze(1)] for labels in (y, y_train))
    m, m_train = (y - outputs).abs(), (y_train - mine).abs()
    x = (task.x_unseen - task.x_train.mean(0)) / task.x_train.std(0)
    expected = module.estimator(x, y, (m - m_train.mean(0)) / m_train.std(0))
    found = module.valuer.logits(task.x_unseen, task.y_unseen)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert module.metrics["unseen/rows"] == len(task.y_unseen) == 70
    auroc = roc_auc_score(task.corrupted_unseen, -expected.detach())
    assert module.metrics["unseen/auroc"] == pytest.approx(auroc, abs=1e-3)


@pytest.mark.parametrize("options", [{"noise": 0.0}, {"unseen_size": 0}])
def test_without_damage_or_without_rows_nothing_is_said_of_unseen_ones(options):
    data = small_data(**options)
    module = small_dvrl(data)
    assert not [name for name in module.final_metrics(data) if name.startswith("unseen/")]


def test_values_do_not_depend_on_how_many_rows_come_together(trained, monkeypatch):
    data, module = trained
    x, y = given(data, data.task.rows)
    whole = module.valuer.values(x, y)[1]
    monkeypatch.setattr("reprise.papers.dvrl.valuer.AT_ONCE", 7)
    np.testing.assert_allclose(module.valuer.values(x, y)[1], whole, rtol=1e-4, atol=1e-5)


def test_rows_of_another_width_are_refused(trained):
    with pytest.raises(UserError, match="the rows have 9 inputs, the run was trained on 4"):
        trained[1].valuer.values(np.zeros((2, 9)), np.zeros(2, dtype=int))


def test_a_saved_valuer_is_the_same_function(trained, tmp_path):
    data, module = trained
    loaded = Valuer.load(run_folder(tmp_path, module))
    x, y = given(data, data.task.rows)
    np.testing.assert_array_equal(loaded.values(x, y)[1], module.valuer.values(x, y)[1])
    assert loaded.spec == data.spec
    assert all(isinstance(t, torch.Tensor) for t in load_file(tmp_path / FILE).values())
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("marginal", [True, False])
def test_a_valuer_of_the_other_predictor_and_without_m(tmp_path, marginal):
    data = small_data()
    predictor = MLP(3, 6, 0.01, 1e-3, [5])
    module = ended(fit(small_dvrl(data, predictor=predictor, marginal=marginal, standardise=False), data), data)
    loaded = Valuer.load(run_folder(tmp_path, module, MLP_CONFIG))
    found = loaded.logits(data.task.x_train, data.task.y_train)
    torch.testing.assert_close(found, module.ranking())


def test_images_come_in_their_own_shape():
    flat = table(80, 3, features=4)
    whole = Split(flat.x.view(80, 1, 2, 2), flat.y)
    data = ValuationData(source_of(whole), seed=0, train_size=30, validation_size=20, noise_rate=0.2)
    module = fit(small_dvrl(data), data)
    _, logit = module.valuer.values(whole.x[data.task.rows].numpy(), data.task.y_train.numpy())
    np.testing.assert_allclose(logit, module.ranking().detach(), rtol=1e-4, atol=1e-5)


def test_a_predictor_without_tensors_keeps_no_valuer_and_says_so(tmp_path, caplog):
    data = small_data()
    module = ended(small_dvrl(data, predictor=Estimator(LogisticRegression())), data)
    assert 0 <= module.metrics["unseen/auroc"] <= 1, "while it is in memory it can value"
    with caplog.at_level(logging.INFO, "reprise"):
        module.artifacts(tmp_path)
    assert not (tmp_path / FILE).exists()
    assert "No valuer is kept" in caplog.text
    assert "LogisticRegression" in caplog.text
    target = {"_target_": "reprise.papers.dvrl.estimators.Estimator"}
    with pytest.raises(
        UserError, match="a scikit-learn estimator could only be kept as a pickle; train with predictor=linear"
    ):
        Valuer.load(run_folder(tmp_path, None, target))


def spoil_text(folder):
    (folder / FILE).write_text("nothing of the kind")


def spoil_cut(folder):
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[: len(whole) // 2])


def spoil_tensor(folder):
    tensors = load_file(folder / FILE)
    save_file({name: t for name, t in tensors.items() if name != "scaler.medians"}, folder / FILE)


def spoil_metadata(folder):
    save_file(load_file(folder / FILE), folder / FILE, {"valuer": "{}"})


@pytest.mark.parametrize("spoil", [spoil_text, spoil_cut, spoil_tensor, spoil_metadata])
def test_a_damaged_file_is_one_sentence(tmp_path, spoil):
    data = small_data()
    folder = run_folder(tmp_path, ended(small_dvrl(data), data))
    spoil(folder)
    with pytest.raises(UserError, match=r"valuer\.safetensors is damaged: repeat the run with force=true"):
        Valuer.load(folder)


def test_a_strangers_folder_never_chooses_what_is_executed(tmp_path):
    data = small_data()
    mark = tmp_path / "mark"
    evil = LINEAR | {
        "l2": {"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": [str(mark)]}]}
    }
    folder = run_folder(tmp_path, ended(small_dvrl(data), data), predictor=evil)
    with pytest.raises(UserError, match=r"pathlib\.Path\.touch, which is not the suite's own"):
        Valuer.load(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("reprise.papers.dvrl.networks.Network", True),
        ("reprise.records.os.system", False),
        ("reprise.papers.dvrl.predictors.torch.load", False),
        ("reprise.papers.dvrl.predictors.MLP.fit", False),
        ("reprise.records.write_text", False),
    ],
)
def test_only_classes_of_predictors_count_as_own_wherever_they_stand(tmp_path, name, own):
    for node in ({"_target_": name}, {"hidden": [{"deep": {"_target_": name}}]}):
        with contextlib.nullcontext() if own else pytest.raises(UserError, match="not the suite's own"):
            check_own(node, OWN_PREDICTORS, tmp_path)


def test_every_data_set_of_the_suite_may_be_named_by_a_run(tmp_path):
    for path in sorted((Path(__file__).parents[2] / "conf" / "dataset").glob("*.yaml")):
        check_own(yaml.safe_load(path.read_text()), OWN_SOURCES, tmp_path)
    with pytest.raises(UserError, match="not the suite's own"):
        check_own({"_target_": "reprise.data.store.shutil.rmtree"}, OWN_SOURCES, tmp_path)


def test_folders_that_hold_no_valuer(tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        Valuer.load(tmp_path / "absent")
    with pytest.raises(UserError, match="is no run folder"):
        Valuer.load(tmp_path)
    folder = run_folder(tmp_path, None)
    with pytest.raises(UserError, match="made before runs kept one, or the file was deleted"):
        Valuer.load(folder)
    (folder / "status.json").write_text('{"state": "running"}')
    with pytest.raises(UserError, match=r"is not finished \(it is running\)"):
        Valuer.load(folder)
    module = {"_target_": "reprise.papers.dvrl.baselines.LeaveOneOut", "predictor": LINEAR}
    run_folder(tmp_path, None, method={"name": "loo", "module": module})
    with pytest.raises(UserError, match="method=loo learns no function"):
        Valuer.load(folder)
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"config\.yaml is damaged"):
        Valuer.load(folder)


@pytest.mark.parametrize("predictor", ["linear", "mlp"])
def test_every_run_of_the_suite_keeps_one(tmp_path, predictor):
    folder = harness.run(harness.small("dvrl", tmp_path, "trainer=debug", f"predictor={predictor}"))
    valuer = Valuer.load(folder)
    assert isinstance(valuer.predictor, Linear if predictor == "linear" else MLP)
    assert valuer.spec.classes == tuple("0123456789")
    assert (valuer.spec.image, valuer.scaler.columns) == ((1, 8, 8), 64)
