"""DVRL's protocol: a few training rows with damaged labels, a small clean validation set, a clean test set.

Rows of the training pool that are left over can be damaged alike and kept aside, for methods that value unseen rows.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from reprise.callbacks import steps_loader
from reprise.checks import Fraction, NonNegativeInt, PositiveInt, checked
from reprise.data.base import DataSpec, Source
from reprise.errors import UserError
from reprise.papers.dvrl.noise import FEATURE_GAUSS, Kind, corrupt, corrupt_inputs, kind_for
from reprise.papers.dvrl.predictors import Predictor
from reprise.papers.dvrl.scaling import Scaler, Scaling

log = logging.getLogger("reprise")

PAPER_TRAIN, PAPER_VALIDATION = 1000, 400
UNSEEN = 1000


@dataclass(frozen=True)
class ValuationTask:
    """What a valuation method works on, as tensors on one device.

    ``x_*`` float32 ``[rows, d]``; ``y_*`` int64 (classes) or standardised float32 (numbers) ``[rows]``. ``y_train`` are
    the given targets, ``y_true`` the ones before damage, ``corrupted`` ``[N]`` their difference, ``rows`` ``[N]`` each
    row's number in the source. A number in the target's own unit is ``y_mean + y_scale * y`` (0 and 1 for classes).
    ``knows_truth``: some damage was done, and by us, so that discovery can be scored. ``x_true`` are the training
    inputs before damage where inputs were damaged. ``*_unseen`` ``[U]`` are further rows, damaged like the training
    rows but never trained on; U may be 0. ``scaler`` made ``x_*`` from the source's rows.
    """

    x_train: Tensor
    y_train: Tensor
    y_true: Tensor
    corrupted: Tensor
    rows: Tensor
    x_valid: Tensor
    y_valid: Tensor
    x_test: Tensor
    y_test: Tensor
    num_classes: int
    y_mean: float
    y_scale: float
    knows_truth: bool
    x_true: Tensor | None = None
    x_unseen: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    y_unseen: Tensor = field(default_factory=lambda: torch.empty(0))
    corrupted_unseen: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    scaler: Scaler | None = None
    names: tuple[str, ...] = ()  # of the training rows, for people; none where the source has none

    def to(self, device: torch.device) -> ValuationTask:
        """The same task on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: v.to(device) for name, v in moved.items() if isinstance(v, Tensor)})


class ValuationData(pl.LightningDataModule):
    """Splits, damages and scales any source of labelled rows.

    Args:
        source: the data set.
        seed: decides the split and the damage.
        train_size: training rows; ``None`` = 1,000 as in the paper where there are as many, all remaining rows of a
            user's own data.
        validation_size: clean validation rows; ``None`` = 400 as in the paper, at most a fifth of the data.
        test_size: test rows; ``None`` = what is left of the official test set, else of the data.
        noise_rate: fraction of training labels to damage; ``None`` = 0.2, and 0 on a user's own data.
        noise_kind: how (``noise.Kind``); ``None`` = ``flip_other`` for classes, ``shuffle`` for numbers.
        scaling: ``minmax`` (then centred; unseen values are clipped to the range) and ``standard`` are fitted on the
            training rows; ``minmax_all`` on all rows, as the official release does, which leaks; ``none``.
        unseen_size: further rows of the training pool, damaged alike but not trained on; ``None`` = up to 1,000 of
            those that are left, and 0 on a user's own data.
        removal_curves: whether values are also judged by removing rows, which takes 40 fits.
        final_predictor: a predictor that judges the values in place of the one that made them (the official release
            uses gradient-boosted trees there).
        validation_from: the official part that clean validation rows are drawn from: the ``test`` file (the official
            release, for its tables) or the ``train`` file before damage (for CIFAR). Of no account without a test file.

    Raises:
        UserError: sizes that the data cannot give, or a noise kind that does not fit the target.
    """

    @checked
    def __init__(
        self,
        source: Source,
        seed: int,
        train_size: PositiveInt | None = None,
        validation_size: PositiveInt | None = None,
        test_size: PositiveInt | None = None,
        noise_rate: Fraction | None = None,
        noise_kind: Kind | None = None,
        scaling: Scaling = "minmax",
        unseen_size: NonNegativeInt | None = None,
        removal_curves: bool = True,
        final_predictor: Predictor | None = None,
        validation_from: Literal["test", "train"] = "test",
    ) -> None:
        super().__init__()
        self.removal_curves, self.final_predictor = removal_curves, final_predictor
        self.validation_from = validation_from
        self.source, self.seed, self.scaling = source, seed, scaling
        mine = source.spec.origin == "user"
        self.noise_rate = noise_rate if noise_rate is not None else (0.0 if mine else 0.2)
        self.noise_kind = kind_for(noise_kind, source.spec.task, source.spec.name)
        rng = np.random.default_rng(seed)
        train, valid, test, left = self._split(rng, train_size, validation_size, test_size)
        self.task = self._prepare(train, valid, test, self._unseen(left, unseen_size), rng)
        if final_predictor is not None:
            final_predictor.bind(self.spec)

    def setup(self, stage: str) -> None:
        """Say what the values of a user's own rows rest on; here, once the input is known to be good."""
        if self.source.spec.origin == "user" and self.source.validation is None and not self.noise_rate:
            log.warning(
                "The validation rows are drawn from your data and taken to be right; values that follow from their "
                "score are only as good as they are. Rows you know to be clean: dataset.validation_path=..."
            )

    @property
    def spec(self) -> DataSpec:
        """The prepared data: every row is a vector; images are flattened and keep their shape in ``image``."""
        given = self.source.spec
        image = given.shape if given.kind == "image" else ()
        return replace(
            given,
            shape=tuple(self.task.x_train.shape[1:]),
            image=image,
            rows=len(self.task.y_train),
            target_mean=self.task.y_mean,
            target_scale=self.task.y_scale,
        )

    @property
    def protocol(self) -> dict[str, Any]:
        """What was actually done, for the record."""
        return {
            "train_size": len(self.task.y_train),
            "validation_size": len(self.task.y_valid),
            "test_size": len(self.task.y_test),
            "noise_rate": self.noise_rate,
            "noise_kind": self.noise_kind,
            "scaling": self.scaling,
        } | ({"predictor": self.final_predictor.name} if self.final_predictor else {})

    def train_dataloader(self) -> DataLoader:
        """Step numbers; the data itself lies on the device."""
        return steps_loader(self.trainer.lightning_module.steps_per_epoch)

    def _split(
        self, rng: np.random.Generator, train: int | None, valid: int | None, test: int | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Row numbers of the training, validation, test and left-over rows in ``_pool``: source train, then test, then
        validation.

        Without official test rows all three parts are drawn from the same rows.
        """
        source, mine = self.source, self.source.spec.origin == "user"
        if source.validation is not None and valid:
            raise UserError(
                "method.datamodule.validation_size cannot be chosen where dataset.validation_path gives the rows."
            )
        n_train, n_test, n_given = len(source.train), len(source.test or ()), len(source.validation or ())
        pool = rng.permutation(n_train)
        clean = n_train + rng.permutation(n_test) if n_test else pool
        paper_sized = not mine and len(clean) >= PAPER_TRAIN + PAPER_VALIDATION + 200
        valid = n_given or valid or (PAPER_VALIDATION if paper_sized else max(1, len(clean) // 5))
        drawn = 0 if n_given else valid
        held = clean[:drawn]
        if n_test and self.validation_from == "train":
            self._check(validation_size=(drawn, n_train - 1))
            held, pool, drawn = pool[:drawn], pool[drawn:], 0
        if n_test:
            test, left = test or len(clean) - drawn, len(pool)
        else:
            rest = len(clean) - drawn
            test = test or (max(1, rest - (train or PAPER_TRAIN)) if paper_sized else max(1, len(clean) // 5))
            left = rest - test
        train = train or (left if mine else min(PAPER_TRAIN, left))
        asked = {"validation_size": (drawn, len(clean) - 1)} if drawn else {}
        self._check(**asked, test_size=(test, len(clean) - drawn), train_size=(train, left))
        mixed = pool if n_test else pool[drawn + test :]
        valid_rows = n_train + n_test + np.arange(n_given) if n_given else held
        # a user reads data_values.csv beside the file, so the rows keep the file's order
        train_rows = np.sort(mixed[:train]) if mine else mixed[:train]
        return train_rows, valid_rows, clean[drawn : drawn + test], mixed[train:]

    def _unseen(self, left: np.ndarray, asked: int | None) -> np.ndarray:
        if asked is None:
            asked = 0 if self.source.spec.origin == "user" else min(UNSEEN, len(left))
        if asked:
            self._check(unseen_size=(asked, len(left)))
        return left[:asked]

    def _check(self, **sizes: tuple[int, int]) -> None:
        for what, (asked, available) in sizes.items():
            if not 0 < max(asked, 1) <= available:
                raise UserError(
                    f"dataset={self.source.spec.name} cannot give these sizes: method.datamodule.{what}={asked} is "
                    f"more than the {max(available, 0)} rows that are left for it; lower it, or use more data."
                )

    def _pool(self) -> tuple[np.ndarray, np.ndarray]:
        parts = [part for part in (self.source.train, self.source.test, self.source.validation) if part is not None]
        return np.concatenate([p.x.flatten(1).numpy() for p in parts]), np.concatenate([p.y.numpy() for p in parts])

    def _damaged(
        self, x: np.ndarray, y: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Given inputs, given targets, and a mask of the damaged rows."""
        if not len(y):
            return x, y, np.zeros(0, dtype=bool)
        if self.noise_kind == FEATURE_GAUSS:
            given, corrupted = corrupt_inputs(x, self.noise_rate, rng)
            return given, y, corrupted
        return x, *corrupt(y, self.noise_rate, self.noise_kind, self.source.spec.num_classes, rng)

    def _prepare(
        self, train: np.ndarray, valid: np.ndarray, test: np.ndarray, unseen: np.ndarray, rng: np.random.Generator
    ) -> ValuationTask:
        x, y = self._pool()
        regression = self.source.spec.task == "regression"
        if not regression and len(np.unique(y[train])) < 2:
            raise UserError(
                f"the {len(train)} training rows of dataset={self.source.spec.name} hold a single class: use more "
                "data, or raise method.datamodule.train_size."
            )
        x_given, y_given, corrupted = self._damaged(x[train], y[train], rng)
        # a stream of its own: how many rows are kept aside must not change what happens to the others
        x_unseen, y_unseen, corrupted_unseen = self._damaged(
            x[unseen], y[unseen], np.random.default_rng((self.seed, 1))
        )
        scaler = Scaler.fit([x_given, x[valid], x[test]], self.scaling)
        mean, std = (float(y_given.mean()), float(y_given.std()) or 1.0) if regression else (0.0, 1.0)

        def as_input(rows: np.ndarray) -> Tensor:
            return torch.as_tensor(scaler.transform(rows))

        def as_target(values: np.ndarray) -> Tensor:
            return torch.as_tensor(((values - mean) / std).astype(np.float32) if regression else values)

        return ValuationTask(
            x_train=as_input(x_given),
            y_train=as_target(y_given),
            y_true=as_target(y[train]),
            corrupted=torch.as_tensor(corrupted),
            rows=torch.as_tensor(train),
            x_valid=as_input(x[valid]),
            y_valid=as_target(y[valid]),
            x_test=as_input(x[test]),
            y_test=as_target(y[test]),
            num_classes=self.source.spec.num_classes,
            y_mean=mean,
            y_scale=std,
            knows_truth=bool(corrupted.any()),
            x_true=as_input(x[train]) if self.noise_kind == FEATURE_GAUSS else None,
            x_unseen=as_input(x_unseen),
            y_unseen=as_target(y_unseen),
            corrupted_unseen=torch.as_tensor(corrupted_unseen),
            scaler=scaler,
            names=tuple(self.source.train.names[row] for row in train) if self.source.train.names else (),
        )
