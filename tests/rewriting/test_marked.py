"""A generator and a request of the user's as a run: what is judged is what was marked."""

from __future__ import annotations

import json

import harness
import pandas as pd
import pytest
import torch
from checkpoint_files import nvlabs_pickle, nvlabs_state
from harness import ALWAYS, compose
from studio import url

from reprise.errors import UserError
from reprise.papers.rewriting import editable
from reprise.papers.rewriting.edits import EditStack, load_edits
from reprise.papers.rewriting.evaluation import bounds, judge, of_marks
from reprise.papers.rewriting.request import Marked, Request

BOX, PLACE, CONTEXT = url((16, 16, 16, 16)), url((30, 30, 16, 16)), url((20, 20, 10, 10))


@pytest.fixture
def mine(tmp_path):
    """A checkpoint and requests; a run of ``method=rewriting`` on one of them."""
    (tmp_path / "my.pkl").write_bytes(nvlabs_pickle(nvlabs_state((8, 8, 6, 4))))
    marks = {"object": [0, BOX], "paste": [1, PLACE], "key": [[2, CONTEXT], [3, CONTEXT]]}
    (tmp_path / "copy.json").write_text(json.dumps(marks))
    (tmp_path / "gone.json").write_text(json.dumps({key: marks[key] for key in ("paste", "key")}))

    def run(name, *overrides, method="rewriting", generator=("generator=checkpoint",)):
        request = [f"method.datamodule.request={tmp_path / name}", "scale=smoke", "dataset.train=20", "dataset.test=10"]
        file = [f"generator.path={tmp_path / 'my.pkl'}"] if generator == ("generator=checkpoint",) else []
        words = (f"method={method}", "edit=request", *generator, *file, *request, *ALWAYS)
        return harness.run(compose(*words, f"paths.output_dir={tmp_path / 'out' / name}", *overrides))

    return run


def test_a_request_on_a_checkpoint_is_a_run(mine, tmp_path):
    folder = mine("copy.json", "method.layer=6")
    metrics = harness.read(folder / "metrics.json")
    assert {"edit/left", "collateral/l1_outside", "collateral/unaffected_l1", "edit/loss", "edit/layer"} <= set(metrics)
    assert metrics["edit/loss"] < metrics["edit/first_loss"]
    (edit,) = load_edits(folder / "edit.safetensors")
    made = editable.load(tmp_path / "my.pkl")
    stack = EditStack(made.synthesis, made.fingerprint)
    stack.push(edit)
    with torch.no_grad():
        before, after = stack.before_and_after(made.sample([1]))
    left = harness.read(folder / "metrics.json")["edit/left"]
    request = Request(*(Marked(made.sample([n])[0], torch.zeros(32, 32)) for n in (0, 1)))
    for marked, (top, bottom) in ((request.copy, (8, 16)), (request.paste, (15, 23))):
        marked.mask[top:bottom, top:bottom] = 1
    trial = of_marks(made.synthesis, [request], made.sample([]))
    assert judge(trial, after, 2)["edit/left"] == pytest.approx(left, abs=1e-4)
    assert judge(trial, before, 2)["edit/left"] == 1
    assert bounds(trial, 2) == {}
    assert {"edit.png", "request.png"} <= {path.name for path in folder.iterdir()}


def test_what_is_pasted_is_all_that_is_left_to_do(mine, tmp_path):
    made = editable.load(tmp_path / "my.pkl")
    box = torch.zeros(32, 32)
    box[8:16, 8:16] = 1
    request = Request(Marked(made.sample([0])[0], box), Marked(made.sample([1])[0], box))
    trial = of_marks(made.synthesis, [request], made.sample([4, 5]))
    assert trial.there.sum() == 64
    assert trial.without.tolist() == [False, True, True]
    found = judge(trial, trial.target, 2)
    assert found == {"edit/left": 0.0, "collateral/l1_outside": 0.0, "collateral/unaffected_l1": 0.0}
    worse = trial.target.clone()
    worse[1] += 0.5
    assert judge(trial, worse, 0)["collateral/unaffected_l1"] == pytest.approx(0.25)


def test_a_removal_copies_nothing_and_a_layer_can_be_chosen(mine):
    metrics = harness.read(mine("gone.json", "method.units=3") / "metrics.json")
    assert "edit/left" not in metrics
    folder = mine("copy.json")
    scan = pd.read_csv(folder / "layers.csv")
    assert sorted(scan["layer"]) == [2, 3, 4, 5, 6, 7, 8]
    assert harness.read(folder / "metrics.json")["edit/layer"] == scan["layer"].iloc[scan["score"].argmin()]


@pytest.mark.parametrize("method", ["finetune_layer", "finetune_all", "raw_key", "rewriting_official"])
def test_other_methods_answer_it_too(mine, method):
    layer = [] if method == "finetune_all" else ["method.layer=6"]
    assert 0 < harness.read(mine("copy.json", *layer, method=method) / "metrics.json")["edit/left"] < 2


def test_without_a_file_it_is_the_generator_that_comes_with_the_suite(mine):
    folder = mine("copy.json", "method.layer=7", generator=("generator=checkpoint", "generator.psi=0.3"))
    assert harness.read(folder / "metrics.json")["edit/layer"] == 7


@pytest.mark.parametrize(
    ("name", "overrides", "why"),
    [
        ("copy.json", ("method.datamodule.request=null",), "request= is missing"),
        ("none.json", (), "cannot be read"),
        ("copy.json", ("method.layer=99",), "layer=99 cannot be edited"),
        ("copy.json", ("generator.path=nowhere.pkl",), "there is no generator nowhere.pkl"),
        ("copy.json", ("method=correspondence_blend",), "wherever the renderer says"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(mine, name, overrides, why):
    with pytest.raises(UserError, match=why):
        mine(name, *overrides)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("edit=request", "method.datamodule.request=my.json"), "add generator=checkpoint"),
        (("generator=checkpoint",), "edit=dome_to_spire is for generators of scenes"),
    ],
)
def test_a_request_and_a_checkpoint_go_together(tmp_path, words, why):
    words = ("method=rewriting", "scale=smoke", "dataset.train=20", "dataset.test=10", *ALWAYS, *words)
    with pytest.raises(UserError, match=why):
        harness.run(compose(*words, f"paths.output_dir={tmp_path}"))
