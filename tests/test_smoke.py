"""Moments of every method in many settings: does everything fit together? On their own data: see test_run.py."""

from __future__ import annotations

import math

import harness
import pytest
from harness import ALWAYS, CUT, METHODS, PAPERS, PREDICTORS, SIZES, SMALL, VALUATION, methods_of, options

from reprise.errors import UserError

NETWORKS = ("cnn", "resnet32", "wrn28_10")
REFUSED = {
    ("dvrl_paper", "boosted_trees"): "batch_size=256 cannot be used",
    ("l2rw", "boosted_trees"): "differentiates the predictor",
    **{("g_shapley", predictor): "single-sample steps" for predictor in (*NETWORKS, "boosted_trees")},
}


@pytest.mark.parametrize("method", [m for m in METHODS if "trainer=debug" not in CUT[PAPERS[m]]])
def test_two_batches_are_enough(tmp_path, method):
    """`trainer=debug` stops before the last task, and what is there by then is judged."""
    folder = harness.run(harness.small(method, tmp_path, "trainer=debug"))
    assert harness.read(folder / "status.json")["state"] == "done"


def test_every_paper_has_sizes_for_the_tests():
    assert set(SIZES) == set(CUT) == set(PAPERS.values())


def test_every_predictor_has_sizes_for_the_smoke_tests():
    assert sorted(PREDICTORS) == options("predictor")


@pytest.mark.parametrize("method", VALUATION)
@pytest.mark.parametrize("predictor", [name for name in PREDICTORS if name != "linear"])  # the methods' own
def test_every_method_runs_with_every_predictor(tmp_path, method, predictor):
    """Or says in a sentence why it cannot."""
    table = predictor in ("mlp", "boosted_trees")
    data = ["dataset=breast_cancer"] if table else ["dataset=digits", "method.datamodule.removal_curves=false"]
    if method == "l2rw" and predictor in NETWORKS:
        data.append("method.module.batch_size=4")  # its step is one of the network's
    cfg = harness.small(method, tmp_path, "trainer=debug", *data, predictor=predictor)
    if (method, predictor) in REFUSED:
        with pytest.raises(UserError, match=REFUSED[method, predictor]):
            harness.run(cfg)
        return
    metrics = harness.read(harness.run(cfg) / "metrics.json")
    assert 0 <= metrics["discovery/auroc"] <= 1


NUMBERS = [m for m in VALUATION if m != "knn_shapley"]


@pytest.mark.parametrize("method", VALUATION)
def test_every_method_values_a_users_table(train, tmp_path, method):
    """Text and holes among the inputs; numbers as the target where the method can."""
    path = tmp_path / "my.csv"
    target = (lambda i: i * 0.37) if method in NUMBERS else (lambda i: "yes" if i % 3 else "no")
    rows = [f"{i % 11},{'red' if i % 2 else ''},{'' if i % 17 == 0 else i / 7},{target(i)}" for i in range(120)]
    path.write_text("\n".join(["size,colour,weight,y", *rows]) + "\n")
    sizes = [option for option in SMALL if "_size" not in option]
    outcome = train(
        f"method={method}", *sizes, "trainer=debug", "dataset=csv", f"dataset.path={path}", "dataset.target=y"
    )
    assert outcome.code == 0, outcome.err
    (folder,) = (tmp_path / "out").glob(f"runs/{method}/csv/*")
    metrics = harness.read(folder / "metrics.json")
    assert ("weighted/test_rmse" in metrics) == (method in NUMBERS)
    assert not any(name.startswith("discovery/") for name in metrics), (
        "nobody knows which of the user's labels are wrong"
    )
    assert not (folder / "discovery_curve.csv").exists()


@pytest.mark.parametrize("method", methods_of("supsup", "crvae"))
def test_a_method_for_images_refuses_a_table(train, method):
    sentence = train(f"method={method}", *ALWAYS, "dataset=breast_cancer").sentence()
    assert "dataset=breast_cancer" in sentence
    assert "digits, mnist" in sentence, "it says what to use instead"
    assert "adult" not in sentence


# Each scenario with what it needs; a network with BatchNorm must be told the task.
SCENARIOS = [f"scenario={name}" for name in options("scenario")]
STREAMS = ["stream=rotated", "stream=split", "stream=split_mnist"]  # the others need data of their own
SEARCHES = ["search=edge_popup"]


@pytest.mark.parametrize("choice", [*SCENARIOS, *STREAMS, *SEARCHES])
def test_every_scenario_stream_and_search_runs(tmp_path, choice):
    folder = harness.run(harness.small("supsup", tmp_path, choice))
    metrics = harness.read(folder / "metrics.json")
    assert all(math.isfinite(value) for value in metrics.values())
    assert ("accuracy/inferred" in metrics) == (choice != "scenario=gg")


@pytest.fixture
def photos(tmp_path):
    """Forty images without labels."""
    import numpy as np
    from PIL import Image

    for row in range(40):
        pixels = np.random.default_rng(row).integers(0, 255, (12, 12, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{row:02d}.png")
    return tmp_path / "photos"


def test_an_autoencoder_needs_no_labels(train, tmp_path, photos):
    sizes = [option for option in SIZES["crvae"] if "_size" not in option]
    data = ("dataset=image_folder", f"dataset.path={photos}", "likelihood=discretised_logistic")
    outcome = train("method=crvae", *ALWAYS, *sizes, *data)
    assert outcome.code == 0, outcome.err
    (folder,) = (tmp_path / "out").glob("runs/crvae/image_folder/*")
    metrics = harness.read(folder / "metrics.json")
    assert {"nll", "bits_per_dim"} <= set(metrics)
    assert not any(name.startswith(("probe", "frechet")) for name in metrics), "nothing to tell apart"


@pytest.mark.parametrize("method", ["dvrl", "supsup"])
def test_methods_that_need_labels_say_so(train, photos, method):
    sentence = train(f"method={method}", *ALWAYS, "dataset=image_folder", f"dataset.path={photos}").sentence()
    assert "class" in sentence
