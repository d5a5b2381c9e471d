"""Tiny made-up data sets, and DVRL with small layers, for the tests of this folder."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import torch
from hypothesis import settings

from reprise.data.base import DataSpec, Source, Split
from reprise.papers.dvrl.datamodule import ValuationData
from reprise.papers.dvrl.module import DVRL
from reprise.papers.dvrl.predictors import Linear

quick = settings(max_examples=50, deadline=None, derandomize=True)


def table(rows, classes=3, features=4, seed=0, origin="public", spread=0.7):
    """A split of ``classes`` Gaussian clouds, or with 0 classes of a noisy linear function."""
    rng = np.random.default_rng(seed)
    if classes:
        y = np.arange(rows) % classes
        centres = np.random.default_rng(99).normal(size=(classes, features))
        x = centres[y] + spread * rng.normal(size=(rows, features))
        return Split(torch.tensor(x, dtype=torch.float32), torch.tensor(y))
    x = rng.normal(size=(rows, features))
    y = 50 + 10 * (x @ np.linspace(1, 2, features)) + rng.normal(size=rows)
    return Split(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32))


def source_of(train, classes=3, origin="public", test=None, validation=None):
    """A source by hand."""
    spec = DataSpec(
        name="toy",
        task="classification" if classes else "regression",
        kind="table",
        shape=tuple(train.x.shape[1:]),
        classes=tuple("abcdefghij"[:classes]),
        origin=origin,
    )
    return Source(spec, train, test, validation)


def numbered(rows, classes=3, origin="public", start=0):
    """A split whose first feature is the row's own number, so that a row can be recognised after any split."""
    drawn = table(rows, classes, seed=start)
    x = drawn.x.clone()
    x[:, 0] = torch.arange(start, start + rows)
    return Split(x, drawn.y)


def small_data(classes=3, rows=80, train=30, validation=20, noise=0.2, seed=0, **options):
    """A data module with as few rows as still mean something."""
    source = source_of(table(rows, classes), classes)
    return ValuationData(
        source, seed=seed, train_size=train, validation_size=validation, noise_rate=noise, scaling="standard", **options
    )


def small_dvrl(data, seed=0, predictor=None, **changes):
    """DVRL on that data with small layers, the plainest options, and ``changes``."""
    options = {
        "outer_steps": 4,
        "selections": 4,
        "outer_batch": None,
        "learning_rate": 0.01,
        "schedule": "constant",
        "weight_decay": 0.0,
        "reward": "neg_log_loss",
        "baseline": "leave_one_out",
        "baseline_window": 20,
        "advantage_scale": "none",
        "predictor_init": "reset",
        "penalty_weight": 0.0,
        "penalty_on": "probability",
        "entropy_weight": 0.0,
        "marginal": True,
        "standardise": True,
        "activation": "tanh",
        "hidden": 8,
        "combined": 4,
        "layers": 4,
        "shortcut": False,
        "label_branch": 0.0,
    }
    predictor = predictor or Linear(steps=3, final_steps=6, learning_rate=1.0, l2=1e-3)
    return DVRL(spec=data.spec, seed=seed, predictor=predictor, **(options | changes))


def silent(module):
    """Let a module be stepped without a trainer."""
    module.log_dict = lambda *args, **kwargs: None
    return module


def fit(module, data):
    """Train with Lightning as the suite does; returns the module on its data."""
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=module.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=data)
    return module


def generator(seed=0):
    """Seeded randomness."""
    return torch.Generator().manual_seed(seed)
