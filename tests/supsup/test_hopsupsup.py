"""HopSupSup: what is written after each task, what is found again, and what it is held against."""

from __future__ import annotations

from functools import partial

import harness
import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from image_sources import images, source_of
from pydantic import ValidationError

from reprise.data import digits
from reprise.data.store import FileStore
from reprise.errors import UserError
from reprise.papers.supsup.datamodule import StreamData
from reprise.papers.supsup.evaluation import Judge
from reprise.papers.supsup.hopfield import WRITE
from reprise.papers.supsup.hopsupsup import HopSupSup
from reprise.papers.supsup.networks import FullyConnected
from reprise.papers.supsup.objectives import entropy
from reprise.papers.supsup.unit_masks import UnitMasked

WIDTHS = [24, 16]
TOY = source_of(images(90, classes=6), images(60, classes=6, seed=1), classes=6)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def data(source=TOY, **changes):
    return StreamData(source, seed=3, kind="split", class_order="given", remap_labels=False, **changes)


def learner(stream_data, **changes):
    arguments = {
        "spec": stream_data.spec,
        "seed": 3,
        "network": UnitMasked(hidden=WIDTHS),
        "outputs": None,
        "steps": 9,
        "batch_size": 8,
        "optimizer": partial(torch.optim.SGD, lr=0.5, momentum=0.9, weight_decay=1e-4),
        "schedule": "cosine",
        "evaluation": Judge(),
        "write": "storkey",
        "gamma": 1.5e-3,
        "recovery_optimizer": partial(torch.optim.SGD, lr=50.0, momentum=0.9, weight_decay=1e-4),
        "recovery_batch": 8,
        "recovery_steps": None,
    }
    return HopSupSup(**arguments | changes)


def trained(module, stream_data):
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=module.epochs,
    )
    trainer.fit(module, datamodule=stream_data)
    return module


def test_all_units_are_on_at_first_and_training_turns_some_off():
    stream = data()
    module = learner(stream)
    module.stream = stream.stream
    module.frozen = [torch.randn(*shape) for shape in module.network.shapes]
    module.open_block(range(1))
    x, _ = stream.stream.test_set(0)
    assert torch.equal(module.outputs(x[None], training=True), module.network(module.frozen, x[None]))
    module.train_steps(range(1), 0, 9)
    kept = torch.cat(module.learning, 1) >= 0
    assert 0 < int(kept.sum()) < sum(WIDTHS)


@pytest.mark.parametrize("write", list(WRITE))
def test_after_each_task_its_mask_is_written_and_the_mean_moves(write):
    stream = data()
    module = trained(learner(stream, write=write), stream)
    z = 2 * module.written.float() - 1
    assert len(z.unique(dim=0)) == 3, "tasks learn masks of their own"
    torch.testing.assert_close(module.mean, z.mean(0))
    for layer, part in enumerate(z.split(WIDTHS, dim=1)):
        expected = torch.zeros(WIDTHS[layer], WIDTHS[layer])
        for one in part:
            expected = WRITE[write](expected, one)
        torch.testing.assert_close(module.psi[layer], expected)


def test_tasks_side_by_side_leave_the_same_store():
    stream = data()
    alone = trained(learner(stream), stream)
    together = trained(learner(stream, parallel=3), stream)
    assert torch.equal(together.written, alone.written)
    assert torch.equal(together.accuracy_after, alone.accuracy_after)
    for mine, other in zip(together.psi, alone.psi, strict=True):
        assert torch.equal(mine, other)


def test_bytes_do_not_grow_with_tasks():
    few, many = data(num_tasks=1), data()
    small, large = (trained(learner(stream), stream).cost() for stream in (few, many))
    expected = 4 * (24 * 24 + 24 + 16 * 16 + 16) + 8
    assert small["bytes/bank"] == large["bytes/bank"] == expected
    assert (small["bytes/per_task"], large["bytes/per_task"]) == (expected, expected / 3)
    assert (small["bytes/as_bits"], large["bytes/as_bits"]) == (5 + 8, 15 + 8)
    assert (small["masks/allocated"], large["masks/allocated"]) == (1, 3)


def test_the_numbers_are_those_of_the_recovered_masks():
    stream = data()
    module = trained(learner(stream), stream)
    metrics = module.final_metrics(stream)
    accuracy, exact, nearest, distances, steps = [], [], [], [], []
    for task in range(3):
        x, y = stream.stream.test_set(task)
        assert len(module.batches(x)) == 3  # 20 images
        again = module.recover(x)
        assert len(again.masks) == 4
        right = [
            module.network.masked(module.frozen, [m[None].float() for m in again.mask.split(WIDTHS)], part[None])[0]
            for part in x.tensor_split(3)
        ]
        accuracy.append(float((torch.cat(right).argmax(1) == y).float().mean()))
        far = (again.mask != module.written).sum(1)
        distances.append(int(far[task]))
        exact.append(distances[-1] == 0)
        nearest.append(int(far.argmin()))
        steps.append(again.steps)
    assert metrics["accuracy/inferred"] == pytest.approx(sum(accuracy) / 3)
    assert metrics["hopfield/exact"] == pytest.approx(sum(exact) / 3)
    assert metrics["hopfield/distance"] == pytest.approx(sum(distances) / 3)
    assert metrics["hopfield/steps"] == pytest.approx(sum(steps) / 3)
    assert metrics["task_id/accuracy"] == pytest.approx(sum(n == t for t, n in enumerate(nearest)) / 3)
    assert module.evaluation.confusion.argmax(1).tolist() == nearest
    assert [row["accuracy_recovered"] for row in module.evaluation.per_task] == pytest.approx(accuracy)
    assert metrics["accuracy/chance"] == pytest.approx(1 / 6)


def test_the_control_compares_the_masks_before_they_were_written():
    stream = data()
    module = trained(learner(stream, recovery_batch=16), stream)
    metrics = module.final_metrics(stream)
    table = torch.zeros(3, 3)
    for task in range(3):
        x, y = stream.stream.test_set(task)
        for mask in range(3):
            units = [m[None].float() for m in module.written[mask].split(WIDTHS)]
            logits = torch.cat([module.network.masked(module.frozen, units, part[None])[0] for part in x.split(10)])
            table[task, mask] = entropy(logits).mean()
            if mask == task:
                assert float(module.evaluation.matrix[task, task]) == pytest.approx(
                    float((logits.argmax(1) == y).float().mean())
                )
    torch.testing.assert_close(module.evaluation.entropies, table)
    hits = table.argmin(1) == torch.arange(3)
    assert float(metrics["task_id/exhaustive"]) == pytest.approx(float(hits.float().mean()))
    assert float(metrics["entropy/right"]) == pytest.approx(float(table.diagonal().mean()))
    assert float(metrics["accuracy/given"]) == pytest.approx(float(module.evaluation.matrix.diagonal().mean()))
    assert float(metrics["forgetting/worst"]) == 0, "the same batches at the end as right after training"


def test_masks_of_digits_are_found_to_the_bit_and_with_them_their_accuracy(tmp_path):
    """Two tasks of three at this width, which is too narrow for the third."""
    stream = data(digits.load(name="digits", store=FileStore(tmp_path, download=False)), num_tasks=3)
    wide = {"network": UnitMasked(hidden=[256, 256]), "steps": 40, "batch_size": 64}
    descent = partial(torch.optim.SGD, lr=50.0, momentum=0.9)
    search = {"recovery_optimizer": descent, "recovery_steps": 40, "recovery_batch": 64, "gamma": 0.03}
    module = trained(learner(stream, **wide, **search), stream)
    metrics = module.final_metrics(stream)
    rows = module.evaluation.per_task
    exact = [row for row in rows if row["distance"] == 0]
    assert len(exact) >= 2
    assert all(row["task_id"] == 1 and 0 < row["steps"] < 40 for row in exact)
    assert [row["accuracy_recovered"] for row in exact] == pytest.approx([row["accuracy"] for row in exact])
    assert min(row["accuracy"] for row in rows) > 0.9
    assert float(metrics["hopfield/exact"]) == pytest.approx(len(exact) / 3)
    names = {path.name for path in module.artifacts(tmp_path)}
    assert {"tasks.csv", "recovery.csv", "recovery.png", "entropy.png", "task_confusion.csv"} <= names
    frame = pd.read_csv(tmp_path / "recovery.csv")
    assert len(frame) == 3 * 41
    last = frame[frame["step"] == 40]
    assert [last[f"to_task_{row['task']}"].iloc[row["task"]] for row in rows] == [row["distance"] for row in rows]


def test_a_single_task_is_found_among_one():
    stream = data(num_tasks=1)
    metrics = trained(module := learner(stream), stream).final_metrics(stream)
    assert metrics["task_id/accuracy"] == metrics["task_id/exhaustive"] == 1
    assert "entropy/wrong" not in metrics
    assert module.evaluation.wrong is None


def test_a_step_count_of_its_own_takes_batches_again():
    stream = data(num_tasks=1)
    module = trained(learner(stream, recovery_steps=7), stream)
    assert len(module.recover(stream.stream.test_set(0)[0]).masks) == 8


def test_what_cannot_work_is_refused_before_training():
    stream = data()
    with pytest.raises(UserError, match=r"method\.module\.recovery_optimizer: Invalid learning rate"):
        learner(stream, recovery_optimizer=partial(torch.optim.SGD, lr=-1.0))
    with pytest.raises(UserError, match=r"method\.module\.outputs=4 are fewer than the 6 classes"):
        learner(stream, outputs=4)
    for wrong in ({"write": "hebb"}, {"gamma": -1}, {"network": FullyConnected(hidden=[3])}, {"recovery_batch": 0}):
        with pytest.raises(ValidationError):
            learner(stream, **wrong)


def test_the_experiment_has_the_papers_setting():
    module = harness.compose("experiment=supsup/hopfield_splitmnist").method.module
    assert module.network.hidden == [2048, 2048]
    assert (module.steps, module.batch_size, module.gamma, module.recovery_batch) == (94, 128, 1.5e-3, 64)
    assert (module.optimizer.lr, module.recovery_optimizer.lr, module.recovery_optimizer.weight_decay) == (
        0.1,
        500,
        1e-4,
    )
