"""The rivals, stopped half way and gone on with from a checkpoint, end with the bits of a straight run."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from dvrl_tasks import fit, small_data

from reprise.papers.dvrl import semivalues
from reprise.papers.dvrl.gradient_shapley import GShapley
from reprise.papers.dvrl.out_of_bag import DataOOB
from reprise.papers.dvrl.predictors import Linear
from reprise.papers.dvrl.semivalues import Banzhaf
from reprise.papers.dvrl.shapley import BetaShapley, TMCShapley

WALK = {"reward": "accuracy", "permutations": 10, "convergence": None}
RIVALS = {
    TMCShapley: WALK | {"together": 4, "tolerance": 0.05},
    BetaShapley: WALK | {"together": 4, "tolerance": 0.05, "alpha": 16, "beta": 1},
    GShapley: WALK | {"together": 3},
    Banzhaf: {"reward": "accuracy", "together": 3, "subsets": 30},
    DataOOB: {"bags": 10, "together": 3},
}


def part_way(module, data, epochs, checkpoint=None):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return trainer


@pytest.mark.parametrize("classes", [3, 0])
@pytest.mark.parametrize("kind", RIVALS)
def test_a_resumed_run_equals_a_straight_one(tmp_path, monkeypatch, kind, classes):
    monkeypatch.setattr(semivalues, "SUBSETS_PER_EPOCH", 10)

    def made():
        f = Linear(steps=4, final_steps=6, learning_rate=1.0, l2=1e-3)
        return kind(spec=small_data(classes).spec, seed=2, predictor=f, **RIVALS[kind])

    def data():
        made_ = small_data(classes)
        made_.cache_dir = tmp_path / "cache"
        return made_

    straight = fit(made(), small_data(classes))
    assert straight.epochs >= 3
    part_way(made(), data(), 2).save_checkpoint(tmp_path / "half.ckpt")
    resumed = made()
    part_way(resumed, data(), resumed.epochs, tmp_path / "half.ckpt")
    buffers = dict(straight.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in resumed.named_buffers())
    assert torch.equal(straight.ranking(), resumed.ranking())
    assert straight.ranking().std() > 0
