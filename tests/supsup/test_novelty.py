"""Tasks that are never given: the rule, who is trained by it, what it costs, and that nothing else is remembered."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path

import harness
import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from image_sources import images, source_of
from pydantic import ValidationError

from reprise.callbacks import LastCheckpoint, steps_loader
from reprise.errors import UserError
from reprise.papers.supsup.candidates import Candidates
from reprise.papers.supsup.datamodule import StreamData
from reprise.papers.supsup.evaluation import Judge
from reprise.papers.supsup.masks import Threshold
from reprise.papers.supsup.networks import FullyConnected
from reprise.papers.supsup.novelty import NewTasks

SOURCE = source_of(images(40), images(24, seed=1))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def data(tasks=3, source=SOURCE):
    return StreamData(source, seed=3, kind="permuted", num_tasks=tasks)


def learner(stream_data, **changes):
    arguments = {
        "spec": stream_data.spec,
        "seed": 3,
        "network": FullyConnected(hidden=[7]),
        "outputs": 6,
        "steps": 8,
        "batch_size": 5,
        "optimizer": functools.partial(torch.optim.RMSprop, lr=1e-3),
        "schedule": "constant",
        "evaluation": Judge(matrix_tasks=5),
        "search": Threshold(),
        "scenario": "nns",
        "inference": "oneshot",
        "objective": "H",
        "epsilon": 0.125,
        "min_candidates": 5,
        "decide_every": 4,
    }
    return NewTasks(**arguments | changes)


def trained(module, stream_data, epochs=None, resume=None, callbacks=()):
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=epochs or module.epochs,
    )
    trainer.fit(module, datamodule=stream_data, ckpt_path=resume, weights_only=True)
    return module


def scripted(monkeypatch, *rows):
    """Gradients by hand, one row per decision; the last one stays. Returns how many candidates each decision had."""
    seen = []

    def gradients(self, x, objective):
        row = rows[min(len(seen), len(rows) - 1)]
        seen.append(self.size)
        return torch.tensor((list(row) + [0.0] * self.size)[: self.size])

    monkeypatch.setattr(Candidates, "gradients", gradients)
    return seen


def outstanding(mask):
    """Gradients that let one of six masks stand out: 6 exp(2) / (exp(2) + 5) = 3.6."""
    return [-2.0 if i == mask else 0.0 for i in range(6)]


SAME = [0.0] * 6


def path_of(module):
    return [decision.mask for decision in module.decisions]


def test_the_rule_as_printed_gives_the_first_task_two_masks(monkeypatch):
    asked = scripted(monkeypatch, SAME, SAME, outstanding(1), outstanding(0))
    module = trained(learner(data(1), min_candidates=1, steps=16, max_masks=9), data(1))
    assert asked == [1, 1, 2, 2]
    assert path_of(module) == [0, 1, 1, 0]
    assert [d.ratio for d in module.decisions[:2]] == [1, 1]
    assert module.masks == 2


def test_without_hand_made_gradients_a_single_mask_never_stands_out():
    stream = data(1)
    module = trained(learner(stream, min_candidates=1, steps=8, max_masks=9), stream)
    assert path_of(module) == [0, 1]
    assert [d.ratio for d in module.decisions] == [1, 1]


def test_distractors_save_the_second_mask(monkeypatch):
    asked = scripted(monkeypatch, SAME, outstanding(0))
    module = trained(learner(data(1), steps=16), data(1))
    assert asked == [5, 5, 5, 5]
    assert path_of(module) == [0, 0, 0, 0]
    assert module.masks == 1


def test_a_distractor_that_stands_out_becomes_the_next_mask(monkeypatch):
    scripted(monkeypatch, SAME, outstanding(3), outstanding(1))
    stream = data(1)
    module = learner(stream, steps=12, max_masks=9, optimizer=functools.partial(torch.optim.SGD, lr=0.0))
    started = [torch.cat([s.flatten() for s in module._random_scores(mask)]) for mask in range(5)]
    kept = []
    monkeypatch.setattr(NewTasks, "on_train_end", lambda self: kept.extend(self.candidates.scores))
    trained(module, stream)
    assert path_of(module) == [0, 1, 1]
    assert module.masks == 2
    for place, mask in enumerate([0, 3, 2, 1, 4]):  # nothing is lost: it changed places with mask 1
        assert torch.equal(kept[place], started[mask])


def test_more_masks_than_distractors(monkeypatch):
    asked = scripted(monkeypatch, SAME)
    stream = data(2)
    module = trained(learner(stream, min_candidates=2, steps=12, max_masks=9), stream)
    assert asked == [2, 2, 2, 3, 4, 5]
    assert path_of(module) == [0, 1, 2, 3, 4, 5]
    assert module.bank.size == 6
    assert len(module.packed) == 6  # no room for more than all decisions could allocate


def test_a_budget_of_one_skips_what_would_need_another(monkeypatch):
    scripted(monkeypatch, SAME, outstanding(0), SAME, outstanding(0), outstanding(4), outstanding(4))
    stream = data(3)
    module, changed = learner(stream, max_masks=1), []
    decide = NewTasks._decide

    def watched(self, task, x):
        changed.append(self.candidates.scores[0].clone())
        decide(self, task, x)

    monkeypatch.setattr(NewTasks, "_decide", watched)
    trained(module, stream)
    assert path_of(module) == [0, 0, -1, 0, -1, -1]
    assert module.skipped.tolist() == [0, 4, 8]
    assert [module.mask_of(task) for task in range(3)] == [0, 0, 0]
    assert not torch.equal(changed[1], changed[2])
    assert torch.equal(changed[2], changed[3])  # skipped batches change nothing
    metrics = module.final_metrics(stream)
    assert metrics["train/skipped"] == 12
    assert metrics["masks/allocated"] == 1
    assert [d.known for d in module.decisions] == [False, True, False, False, False, False]


def test_a_task_without_a_mask_is_judged_by_the_nearest(monkeypatch):
    scripted(monkeypatch, SAME, SAME, [0.05, 0.04, 0.0, 0.0, 0.0])
    stream = data(2)
    module = trained(learner(stream, max_masks=2), stream)
    assert path_of(module) == [0, 1, -1, -1]
    assert module.mask_of(1) == 1


def optimizers(module):
    """The step of the optimiser's state at each decision, before it is made."""
    made = module.make_optimizer
    module.made = []

    def make(parameters):
        module.made.append(made(parameters))
        return module.made[-1]

    module.make_optimizer = make
    return module


def test_the_optimiser_belongs_to_the_mask(monkeypatch):
    scripted(monkeypatch, SAME, outstanding(0), outstanding(0), SAME, outstanding(0), outstanding(0))
    stream = data(3)
    module = optimizers(learner(stream, max_masks=9))
    trained(module, stream)
    assert path_of(module) == [0, 0, 0, 1, 0, 0]
    steps = [int(one.state_dict()["state"][0]["step"]) for one in module.made]
    assert steps == [12, 4, 8]  # through the boundary after 8 batches; anew with every other mask


def test_decisions_do_not_wait_for_a_task():
    stream = data(2)
    module = trained(learner(stream, steps=6, decide_every=4), stream)
    assert [d.task for d in module.decisions] == [0, 0, 1]


def digits(tasks, **options):
    source = harness_source("digits")
    return StreamData(source, seed=100, kind="permuted", num_tasks=tasks, **options)


def harness_source(name):
    from reprise import building

    config = harness.compose("method=supsup", f"dataset={name}")
    from omegaconf import OmegaConf

    return building.source(OmegaConf.to_container(config, resolve=True))


LARGE = {"network": FullyConnected(hidden=[60]), "outputs": 40, "steps": 60, "batch_size": 64, "decide_every": 20}


def with_tasks(stream_data, *order):
    """The same tasks in another order, some of them again."""
    columns = stream_data.stream.columns[list(order)]
    stream_data.stream = replace(stream_data.stream, columns=columns, num_tasks=len(order))
    return stream_data


def test_a_revisited_task_takes_up_its_old_mask_and_what_it_forgets_is_measured():
    stream = with_tasks(digits(2), 0, 1, 0)
    module = trained(learner(stream, **LARGE), stream)
    assert module.masks == 2
    assert module.owner.tolist() == [0, 1, 0]
    metrics = module.final_metrics(stream)
    # the first task is judged by a mask that went on being trained
    after, given = module.accuracy_after, [row["accuracy"] for row in module.evaluation.per_task]
    assert given[0] == given[2] > after[0]
    assert metrics["forgetting"] == pytest.approx(float(after.mean()) - sum(given) / 3, abs=1e-6)
    assert given[1] == pytest.approx(float(after[1]))
    assert metrics["masks/per_task"] == pytest.approx(2 / 3)
    assert metrics["task_id/accuracy"] > 0.9
    assert metrics["novelty/at_known_tasks"] > 1.125 > metrics["novelty/at_new_tasks"] - 1


def interrupted_after(epochs, folder, stream, **options):
    module = learner(stream, **options)
    trained(module, stream, epochs, callbacks=[LastCheckpoint(folder / "last.ckpt")])
    return folder / "last.ckpt"


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize("budget", [None, 1])
def test_resumed_training_ends_with_the_same_bits(tmp_path, epochs, budget):
    options = {"max_masks": budget, "min_candidates": 3}
    straight = trained(learner(data(3), **options), data(3))
    stream = data(3)
    checkpoint = interrupted_after(epochs, tmp_path, stream, **options)
    resumed = trained(learner(stream, **options), stream, resume=checkpoint)
    assert resumed.decisions == straight.decisions
    ours, theirs = resumed.state_dict(), straight.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_a_checkpoint_holds_scores_and_the_optimiser(tmp_path):
    stream = data(2)
    checkpoint = torch.load(interrupted_after(1, tmp_path, stream), weights_only=True)
    state = checkpoint["block"]
    assert len(state["scores"]) == 5
    assert int(state["optimizer"]["state"][0]["step"]) == state["optimizer"]["state"][1]["step"] > 0
    assert state["decisions"][0][:1] + state["decisions"][0][2:] == [0, False, 0, 1]


def test_many_tasks_have_fewer_epochs_and_lose_none(monkeypatch):
    monkeypatch.setattr("reprise.papers.supsup.novelty.CHECKPOINTS", 3)
    stream = data(7)
    module = learner(stream, steps=60, batch_size=2, decide_every=30)
    assert (module.epochs, module.steps_per_epoch) == (3, 6)
    trained(module, stream)
    assert int(module.learned) == 7
    assert [d.task for d in module.decisions] == [task for task in range(7) for _ in range(2)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": "cosine"}, ("schedule=cosine", "constant")),
        ({"optimizer": functools.partial(torch.optim.SGD, lr=-1.0)}, ("method.module.optimizer",)),
    ],
)
def test_refused(options, words):
    stream = data(1)
    with pytest.raises(UserError) as error:
        trained(learner(stream, **options), stream)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "options",
    [{"epsilon": 0}, {"min_candidates": 0}, {"decide_every": 0}, {"max_masks": 0}, {"scenario": "gnu"}],
)
def test_refused_by_type(options):
    with pytest.raises(ValidationError):
        learner(data(1), **options)


def test_a_task_cut_short_is_followed_by_the_next(monkeypatch):
    monkeypatch.setattr("reprise.papers.supsup.novelty.CHECKPOINTS", 2)
    stream = data(4)
    module = learner(stream, steps=60, batch_size=2, decide_every=50)
    monkeypatch.setattr(stream, "train_dataloader", lambda: steps_loader(1))  # 50 batches an epoch
    trained(module, stream)
    assert int(module.learned) == 2
    assert [d.task for d in module.decisions] == [0, 1]


def from_the_command_line(tmp_path, monkeypatch, *options):
    monkeypatch.setattr("reprise.run._report", lambda *_: None)
    sizes = ("logger=csv", "hardware.threads=1", "seed=100", "scale=smoke", f"paths.output_dir={tmp_path}")
    folder = harness.run(harness.compose("method=supsup", "scenario=nns", *sizes, *options))
    return harness.read(folder / "metrics.json"), pd.read_csv(folder / "allocation.csv"), folder


def test_on_digits_from_the_command_line(tmp_path, monkeypatch):
    options = ("steps=40", "decide_every=20", "optimizer.lr=1e-3", "network.hidden=[40]", "evaluation.test_images=50")
    metrics, table, folder = from_the_command_line(
        tmp_path, monkeypatch, "dataset=digits", *(f"method.module.{option}" for option in options)
    )
    assert table["task"].tolist() == [0, 1, 2, 3, 4]
    assert set(table["decisions"]) == {2}
    assert metrics["masks/allocated"] == table["masks_after"].max() == len(set(table["mask"]))
    assert metrics["masks/per_task"] == metrics["masks/allocated"] / 5
    assert metrics["train/skipped"] == table["skipped"].sum()
    found = [[float(ratio) for ratio in text.split()] for text in table["ratios"]]
    assert metrics["novelty/at_new_tasks"] == pytest.approx(sum(first for first, _ in found) / 5, rel=1e-5)
    assert metrics["novelty/at_known_tasks"] == pytest.approx(sum(second for _, second in found) / 5, rel=1e-5)
    assert metrics["accuracy/inferred"] > 3 * metrics["accuracy/chance"]
    assert metrics["bytes/scores_kept"] == 4 * (64 * 40 + 40 * 100) * metrics["masks/allocated"]
    assert (folder / "allocation.png").exists()
    logged = pd.read_csv(folder / "metrics.csv")
    assert logged["train/masks"].tolist() == table["masks_after"].tolist()


def test_mnist_gets_one_mask_per_permutation(tmp_path, monkeypatch):
    if not (Path(os.environ.get("REPRISE_DATA", "")) / "MNIST").is_dir():
        pytest.skip("REPRISE_DATA has no MNIST")
    options = ("steps=100", "decide_every=50", "optimizer.lr=1e-3", "evaluation.test_images=500")
    metrics, table, _ = from_the_command_line(
        tmp_path,
        monkeypatch,
        "dataset=mnist",
        "method.datamodule.num_tasks=3",
        *(f"method.module.{option}" for option in options),
    )
    assert table["mask"].tolist() == [0, 1, 2]
    assert metrics["task_id/accuracy"] > 0.95
    assert metrics["accuracy/inferred"] > 0.8
    assert metrics["forgetting"] == pytest.approx(0, abs=1e-6)
    assert metrics["novelty/at_new_tasks"] < 1.06 < 1.125 < metrics["novelty/at_known_tasks"]
