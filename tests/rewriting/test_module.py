"""Edits as runs: what is judged is what was found, and an edit's file holds it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import harness
import pandas as pd
import pytest
import torch
from contract import no_store
from harness import small

from reprise.data import scenes
from reprise.data.scenes import Label
from reprise.papers.rewriting import datamodule, evaluation, module
from reprise.papers.rewriting.baselines import Ablated, UnitAblation
from reprise.papers.rewriting.datamodule import EditData
from reprise.papers.rewriting.edits import EditStack, load_edits
from reprise.papers.rewriting.generator import SceneGenerator
from reprise.papers.rewriting.recipes import SceneRecipe
from reprise.papers.rewriting.scene_requests import RULES

NAMES = (
    *("edit/success", "edit/image_success", "collateral/l1_outside", "collateral/label_flips"),
    *("collateral/unaffected_l1", "counterfactual/psnr", "oracle/success", "ceiling/success", "generator/recall/dome"),
    *("counterfactual/frechet", "unedited/frechet", "ceiling/frechet"),
)


@pytest.fixture
def seen(monkeypatch):
    """A generator of random weights draws no domes: let the segmenter see what the renderer would have painted."""

    def truth(factors, images):
        return scenes.render(factors, images.shape[-1])[1]

    monkeypatch.setattr(scenes, "segment", truth)


def run_of(tmp_path, method="rewriting", *overrides):
    """A run, and its folder."""
    return harness.run(small(method, tmp_path, *overrides))


def generator_of(tmp_path):
    (file,) = (tmp_path / "cache/generators").glob("*.safetensors")
    return SceneGenerator.load(file)[0]


def test_a_run_has_the_metrics_that_tables_need(seen, tmp_path):
    metrics = harness.read(run_of(tmp_path / "a") / "metrics.json")
    assert set(NAMES) <= set(metrics)
    assert metrics["edit/layer"] == 7
    assert metrics["edit/loss"] < metrics["edit/first_loss"]
    removal = harness.read(run_of(tmp_path / "b", "rewriting", "edit=watermark") / "metrics.json")
    assert 0 <= removal["watermarks_per_1000"] <= 1000
    assert "unedited/watermarks_per_1000" in removal


def test_runs_of_one_process_share_what_is_the_same_and_find_what_they_find_alone(seen, tmp_path, monkeypatch):
    made = {"trial": [], "oracle": []}
    for name, calls in made.items():
        do = getattr(datamodule, name)
        monkeypatch.setattr(datamodule, name, lambda *args, do=do, calls=calls: calls.append(args) or do(*args))
    found = {}
    for methods in (("raw_key", "rewriting"), ("rewriting",)):
        datamodule._prepared.clear()
        for name in methods:
            numbers = harness.numbers(run_of(tmp_path / methods[0] / str(len(methods)), name))
            assert found.setdefault(name, numbers) == numbers
    assert (len(made["trial"]), len(made["oracle"])) == (2, 2)
    run_of(tmp_path, "raw_key", "dataset.test=21")
    assert (len(made["trial"]), len(made["oracle"])) == (3, 3), "other scenes to judge on"


def test_the_search_is_judged_on_the_way_and_at_its_end(seen, tmp_path):
    folder = run_of(tmp_path)
    path, metrics = pd.read_csv(folder / "path.csv"), harness.read(folder / "metrics.json")
    assert path["step"].tolist() == [10, 20]
    for name in ("collateral/l1_outside", "counterfactual/psnr"):
        assert path[name].iloc[-1] == pytest.approx(metrics[name], rel=1e-4)
    assert path["collateral/l1_outside"].nunique() == 2


def test_the_file_of_an_edit_makes_the_images_that_were_judged(tmp_path, monkeypatch):
    judged = []
    write = module.artifacts.write
    monkeypatch.setattr(module.artifacts, "write", lambda folder, run: judged.append(run.result) or write(folder, run))
    folder = run_of(tmp_path)
    generator = generator_of(tmp_path)
    stack = EditStack(generator.synthesis, generator.fingerprint)
    for edit in load_edits(folder / "edit.safetensors"):
        stack.push(edit)
    with torch.no_grad():
        assert torch.allclose(stack.images(judged[0].trial.ws), judged[0].images, atol=1e-5)
    assert not torch.allclose(judged[0].images, judged[0].trial.before.images)
    assert (folder / "edit.safetensors").stat().st_size < 20_000


def test_edits_of_a_stack_add_up_and_each_starts_where_the_last_one_ended(tmp_path, monkeypatch):
    runs = []
    write = module.artifacts.write
    monkeypatch.setattr(module.artifacts, "write", lambda folder, run: runs.append(run) or write(folder, run))
    folder = run_of(tmp_path / "a", "edit_stack", "method.module.edits=2")
    (run,), made = runs, load_edits(folder / "edit.safetensors")
    assert [edit.name for edit in made] == ["dome -> spire 1", "dome -> spire 2"]
    assert torch.allclose(run.found.dw, made[0].dw + made[1].dw, atol=1e-6)
    assert harness.read(folder / "metrics.json")["edit/edits"] == 2
    first = load_edits(run_of(tmp_path / "b", "edit_stack", "method.module.edits=1") / "edit.safetensors")[0]
    assert torch.allclose(first.dw, made[0].dw, atol=1e-6)
    data = run.trainer.datamodule
    own = data.generator.synthesis.layers["7"].weight.detach().clone()
    data.generator.synthesis.layers["7"].weight.copy_(own + first.dw)
    again, _ = data.rewriter.edit(data.requests[1:], run.used)
    assert torch.allclose(again.dw, made[1].dw, atol=1e-4), "the second is what the first one's network asks for"
    data.generator.synthesis.layers["7"].weight.copy_(own)
    alone, _ = data.rewriter.edit(data.requests[1:], run.used)
    assert not torch.allclose(alone.dw, made[1].dw, atol=1e-4)


def test_a_free_change_has_no_file(tmp_path):
    assert not (run_of(tmp_path, "finetune_layer") / "edit.safetensors").exists()


@pytest.mark.parametrize("method", ["rewriting", "finetune_all", "unit_ablation"])
def test_a_run_that_was_stopped_before_it_was_judged_gives_the_same(tmp_path, monkeypatch, method):
    straight = harness.numbers(run_of(tmp_path / "a", method))
    with monkeypatch.context() as patch:
        patch.setattr(module.SceneEdit, "final_metrics", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_of(tmp_path / "b", method)
    resumed = harness.numbers(run_of(tmp_path / "b", method))
    assert resumed == straight


def test_the_layer_can_be_left_to_the_suite(seen, tmp_path):
    folder = run_of(tmp_path, "rewriting", "method.layer=auto")
    scan = pd.read_csv(folder / "layers.csv")
    assert scan["layer"].tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert harness.read(folder / "metrics.json")["edit/layer"] in scan["layer"].tolist()


def test_of_layers_that_can_do_about_the_same_the_last_is_chosen():
    scan = [{"layer": n, "oracle/success": s} for n, s in ((4, 0.50), (5, 0.48), (6, 0.46), (7, 0.40))]
    assert evaluation.best_layer(scan) == 6


def test_several_requests_are_met_by_one_edit(tmp_path):
    metrics = harness.read(run_of(tmp_path, "rewriting", "method.datamodule.requests=3") / "metrics.json")
    assert metrics["edit/loss"] < metrics["edit/first_loss"]


def test_a_removal_is_repeated(tmp_path):
    history = pd.read_csv(run_of(tmp_path, "rewriting", "edit=windows") / "metrics.csv")
    assert len(history) == 4, "two removals of twenty steps, ten steps a round"


@pytest.fixture
def data(tmp_path):
    source = scenes.load(name="scenes", store=no_store(tmp_path), train=300, test=60)
    recipe = SceneRecipe([8, 8, 8, 8], 8, 8, 4, 16, 2, 4, 1e-3, 0.0, 1.0, 8, seed=0)

    def make(edit):
        made = EditData(source, 0, recipe, edit, requests=1, contexts=3, moments=20)
        made.cache_dir = tmp_path
        made.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")), precision="32-true")
        made.setup("fit")
        return made

    return make


def test_ablated_units_are_read_by_nobody(data):
    edit = data("watermark")
    ablation = UnitAblation(edit.spec, 0, layer=6, units=3, margin=2)
    (found,) = ablation.search(edit)
    assert len(set(found.units.tolist())) == 3
    every = Ablated(torch.arange(8))
    net = edit.generator.synthesis
    expected = net.finish(net.start(edit.trial.ws), edit.trial.ws, {6: torch.zeros_like(net.layers["6"].weight)})
    assert torch.allclose(ablation.drawn(edit, every, edit.trial), expected, atol=1e-6)


def test_half_of_the_counterfactual_is_nearer_to_it_than_nothing_of_it(data):
    edit = data("dome_to_spire")
    truth, idle = edit.trial.truth, 2 * scenes.render(edit.trial.factors, 32)[0] - 1
    seen = {name: replace(edit.trial.before, images=x) for name, x in (("before", idle), ("ceiling", truth))}
    edit.trial = replace(edit.trial, **seen)
    found = edit.frechet((idle + truth) / 2)
    assert found["ceiling/frechet"] == pytest.approx(0, abs=1e-4)
    assert 0.001 < found["counterfactual/frechet"] < found["unedited/frechet"]
    edit.trial = replace(edit.trial, truth=truth[:1])
    assert edit.frechet(idle[:1]) == {}, "one image has no covariance"
    assert data("watermark").frechet(idle) == {}, "the classifier need not see it"


def test_what_earlier_runs_took_for_c_is_told_apart_from_the_search(seen, tmp_path):
    first, second, raw = (
        harness.read(run_of(tmp_path, method, f"seed={seed}") / "metrics.json")
        for method, seed in (("rewriting", 0), ("rewriting", 3), ("raw_key", 0))
    )
    assert first["time/moments_seconds"] == second["time/moments_seconds"] > 0
    assert "time/moments_seconds" not in raw


def test_development_scenes_are_not_those_that_are_judged(data):
    edit = data("dome_to_spire")
    assert torch.equal(edit.trial.factors.sky, edit.source.held.sky)
    assert not torch.isin(edit.development(20).factors.sky, edit.trial.factors.sky).any()


def test_requests_of_a_removal_copy_nothing_unless_it_is_covered(data):
    for name, rule in RULES.items():
        (request,) = data(name).requests
        assert (request.copy is None) == (not rule.copies)
        assert len(request.contexts) == (1 if rule.both else 3)


def test_what_the_generator_was_never_shown_is_taken_from_the_renderer(data):
    edit = data("dome_to_tree")
    assert torch.equal(edit.trial.ceiling.images, edit.trial.truth)
    assert not torch.equal(data("dome_to_spire").trial.ceiling.images, data("dome_to_spire").trial.truth)
    assert (scenes.render(edit.trial.other, 32)[1] == Label.TREE).sum() > 0


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("method=rewriting", "method.layer=40"), "layer=40 cannot be edited: this generator's layers are 2 to 8"),
        (("method=rewriting", "method.layer=1"), "layer=1 cannot be edited"),
        (("method=rewriting", "method.layer=last"), "layer"),
        (("method=rewriting", "method.datamodule.edit=roofs"), "edit=roofs is not known"),
        (("method=rewriting", "method.module.recipe.rank=500"), "rank=500 cannot be"),
        (("method=rewriting", "method.module.recipe.rank=0"), "recipe.rank=0 cannot be used"),
        (("method=rewriting", "method.module.recipe.steps=0"), "recipe.steps=0 cannot be used"),
        (("method=rewriting", "method.module.recipe.lr=-1"), "recipe.lr=-1 cannot be used"),
        (("method=rewriting", "method.module.recipe.ridge=-0.1"), "recipe.ridge=-0.1 cannot be used"),
        (("method=rewriting", "method.module.recipe.solver=sgd"), "recipe.solver='sgd' cannot be used"),
        (("method=rewriting", "method.module.margin=-1"), "margin=-1 cannot be used"),
        (("method=rewriting", "method.module.recipe.solver=closed_form"), "is for layers that do not upsample"),
        (("method=rewriting", "method.datamodule.contexts=1000"), "contexts=1000 are more than"),
        (("method=rewriting", "method.datamodule.contexts=0"), "contexts=0 cannot be used"),
        (("method=rewriting", "edit=watermark", "method.units=99"), "units=99 cannot be"),
        (("method=rewriting", "dataset.size=48"), "dataset.size=48 cannot be used"),
        (("method=rewriting", "dataset.buildings=3"), "dataset.buildings=3 cannot be used"),
        (("method=rewriting", "generator.channels=[8]"), "generator.channels has 1 resolutions"),
        (("method=rewriting", "generator=gann"), "gann"),
        (("method=unit_ablation", "edit=dome_to_spire"), "can only take things away"),
        (("method=finetune_all", "edit=windows"), "only takes something away"),
        (("method=correspondence_blend", "edit=watermark"), "only takes something away"),
        (("method=correspondence_blend", "method.module.blend=smear"), "blend='smear' cannot be used"),
    ],
)
def test_wrong_input_gets_one_sentence(train, overrides, said):
    sizes = [option for option in harness.SIZES["rewriting"] if option.split("=")[0] not in "".join(overrides)]
    assert said in train(*overrides, *harness.ALWAYS, *sizes).sentence()
