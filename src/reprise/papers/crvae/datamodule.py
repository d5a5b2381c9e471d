"""CR-VAE's protocol: inputs, and transformed copies of the test inputs that are the same for every method and seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from reprise.callbacks import steps_loader
from reprise.checks import NonNegativeInt, PositiveInt, checked
from reprise.data.base import Source, Split
from reprise.errors import UserError
from reprise.papers.crvae.model import Transformation
from reprise.randomness import generator

MIN_SIDE = 16  # smaller images are enlarged to it: a transformation of 8x8 pixels moves them by less than one
ROUND = 50  # optimiser steps between two reports, what one number of the loader stands for
VALIDATION = 10_000  # of MNIST's 60,000, as VampPrior's loader holds out


class ViewData(pl.LightningDataModule):
    """Training, validation and test inputs, and a fixed transformation of the held-out ones.

    What is held out and how it is transformed follows from ``data_seed``, not from the run's seed, so that all runs of
    a table answer for the same inputs.

    Args:
        source: the data set.
        seed: of the run; decides nothing here.
        transformation: t(x~ | x), of training views as well as of held-out ones.
        size: side to which images are resized (bilinear); ``None`` = as they are, those below 16 pixels enlarged to 16.
        train_size: training inputs, drawn at random; ``None`` = all.
        validation_size: inputs held out of the training part for choosing the best epoch; ``None`` = a sixth, at most
            10,000.
        test_size: test inputs; ``None`` = all official ones, else a fifth of the data.
        data_seed: of all that is drawn here.

    Attributes:
        train, validation, test: inputs ``[N, *shape]``, images in 0..1, and their labels.
        transformed: one fixed x~ ``[N, *shape]`` of each test input.

    Raises:
        UserError: inputs that the transformation does not know, or sizes that the data cannot give.
    """

    @checked
    def __init__(
        self,
        source: Source,
        seed: int,
        transformation: Any,
        size: PositiveInt | None = None,
        train_size: PositiveInt | None = None,
        validation_size: PositiveInt | None = None,
        test_size: PositiveInt | None = None,
        data_seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        self.source, self.data_seed = source, data_seed
        self.transformation: Transformation = transformation
        self._check_kind()
        train, validation, test = self._parts(train_size, validation_size, test_size)
        self.train, self.validation, self.test = (self._resized(part, size) for part in (train, validation, test))
        self.transformed = self.transformation(self.test.x, generator(data_seed, 1))
        self.spec = replace(source.spec, shape=tuple(self.train.x.shape[1:]), rows=len(self.train))

    @property
    def protocol(self) -> dict[str, Any]:
        """What was actually done, for the record."""
        sizes = {f"{name}_size": len(part) for name, part in self._named.items()}
        return sizes | {"transformation": self.transformation.title, "shape": list(self.spec.shape)}

    @property
    def _named(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def train_dataloader(self) -> DataLoader:
        """Numbers of rounds; the inputs lie on the device."""
        return steps_loader(self.trainer.lightning_module.steps_per_epoch)

    def _check_kind(self) -> None:
        spec, kinds = self.source.spec, self.transformation.kinds
        if spec.kind == "table":
            raise UserError(
                f"dataset={spec.name} has a table, and views are made of images: use digits, mnist, fashion_mnist, "
                "omniglot, cifar10 or image_folder."
            )
        if spec.kind not in kinds:
            rigid = "experiment=crvae/point_clouds" if spec.kind == "cloud" else "transformation=simple"
            raise UserError(
                f"dataset={spec.name} has {spec.kind} data, and this transformation ({self.transformation.title}) is "
                f"made for {' or '.join(kinds)} data: use {rigid}, or another data set."
            )

    def _parts(self, train: int | None, validation: int | None, test: int | None) -> tuple[Split, Split, Split]:
        draw = generator(self.data_seed, 0)
        pool = self.source.train
        order = torch.randperm(len(pool), generator=draw)
        if self.source.test is not None:
            self._check("test_size", test, len(self.source.test))
            rows = torch.randperm(len(self.source.test), generator=draw)[:test]
            test_part = _rows(self.source.test, rows)
        else:
            taken = test or max(1, len(pool) // 5)
            self._check("test_size", taken, len(order) - 2)
            test_part, order = _rows(pool, order[:taken]), order[taken:]
        if self.source.validation is not None:
            self._check("validation_size", validation, len(self.source.validation))
            validation_part = _rows(self.source.validation, torch.arange(len(self.source.validation))[:validation])
        else:
            taken = validation or max(1, min(len(order) // 6, VALIDATION))
            self._check("validation_size", taken, len(order) - 1)
            validation_part, order = _rows(pool, order[:taken]), order[taken:]
        self._check("train_size", train, len(order))
        return _rows(pool, order[:train]), validation_part, test_part

    def _check(self, what: str, asked: int | None, available: int) -> None:
        if (asked or 1) > available:
            raise UserError(
                f"method.datamodule.{what}={asked or 1} is more than the {max(available, 0)} inputs that "
                f"dataset={self.source.spec.name} has for it: lower it, or use more data."
            )

    def _resized(self, part: Split, size: int | None) -> Split:
        if self.source.spec.kind != "image":
            return part
        height, width = part.x.shape[-2:]
        if size is None and min(height, width) < MIN_SIDE:
            size = MIN_SIDE
        if size is None or (height, width) == (size, size):
            return part
        x = F.interpolate(part.x, (size, size), mode="bilinear", antialias=size < min(height, width))
        return Split(x.clamp_(0, 1), part.y, part.names)


def _rows(part: Split, rows: Tensor) -> Split:
    names = tuple(part.names[row] for row in rows.tolist()) if part.names else ()
    return Split(part.x[rows], part.y[rows], names)
