"""SupSup's protocol: a stream of tasks made from any data set of labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader

from reprise.callbacks import steps_loader
from reprise.checks import PositiveFloat, PositiveInt, checked
from reprise.data.base import DataSpec, Source, Split
from reprise.data.image_files import ImageFiles
from reprise.errors import UserError
from reprise.papers.supsup.file_stream import FileStream
from reprise.papers.supsup.streams import Images, Stream, TaskStream
from reprise.papers.supsup.tasks import (
    ClassOrder,
    Seeds,
    class_groups,
    fair_order,
    labels_within,
    permutations,
    rotations,
    rows_of,
)

Kind = Literal["permuted", "rotated", "split"]
LegacySeed = Annotated[int, Field(ge=0, lt=2**32)]

# Mean and standard deviation per channel, as in the official code, which takes CIFAR-10's for CIFAR-100 too.
_CIFAR = ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262))
CONSTANTS = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": _CIFAR,
    "cifar10_subset": _CIFAR,
    "cifar100": _CIFAR,
    "image_files": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class StreamData(pl.LightningDataModule):
    """Turns a data set into tasks.

    Without official test images a part is held out. Whatever is drawn has the classes in their proportions, and test
    images stand in a random order of which that is true for the first few, too.

    Args:
        source: the data set.
        seed: decides what is held out, the order of test images, permutations and the order of classes.
        kind: ``permuted`` pixels, ``rotated`` images or a ``split`` of the classes.
        num_tasks: K; ``None`` = as many as there are, which permuted pixels cannot say.
        train_size: training images of the whole data set, drawn at random; ``None`` = all.
        test_size: test images of the whole data set; ``None`` = all official ones, else a fifth of the data.
        augment: ``none``, or ``crop_mirror``: padded by 4 black pixels, cropped and mirrored at random; of images in
            files random parts are resized in place of that.
        seeds: of permutations, see `tasks.permutations`.
        angle: between two rotated tasks, in degrees.
        classes_per_task: of a split.
        class_order: of a split: ``shuffled`` by ``class_seed``, or as ``given``.
        class_seed: ``None`` = the seed of the run.
        remap_labels: whether the labels of a split task are 0, 1, ...; else they stay those of the data set, whose
            classes are then all classes of every task.

    Attributes:
        stream: the tasks.
        task_classes: names of the classes of each task ``[K]``.
        mean, std: that images were normalised with, per channel.

    Raises:
        UserError: no images, no classes, or sizes or numbers of tasks that the data cannot give.
    """

    @checked
    def __init__(
        self,
        source: Source,
        seed: int,
        kind: Kind,
        num_tasks: PositiveInt | None = None,
        train_size: PositiveInt | None = None,
        test_size: PositiveInt | None = None,
        augment: Literal["none", "crop_mirror"] = "none",
        seeds: Seeds = "official",
        angle: PositiveFloat = 10.0,
        classes_per_task: PositiveInt = 2,
        class_order: ClassOrder = "shuffled",
        class_seed: LegacySeed | None = None,
        remap_labels: bool = True,
    ) -> None:
        super().__init__()
        self.source, self.seed, self.kind, self.augment = source, seed, kind, augment
        self._check_source()
        self.options: dict[str, Any] = {  # what a kind of stream needs to know
            "permuted": {"seeds": seeds},
            "rotated": {"angle": angle},
            "split": {
                "classes_per_task": classes_per_task,
                "class_order": class_order,
                "class_seed": class_seed,
                "remap_labels": remap_labels,
            },
        }[kind]
        train, test = self._rows(train_size, test_size)
        self.train_size, self.test_size = len(train), len(test)
        self.mean, self.std = self._normalisation(train)
        self.stream, self.task_classes = self._stream(num_tasks, train, test)

    @property
    def spec(self) -> DataSpec:
        """One task: its classes, and the training images of all tasks together (of one, where tasks share them)."""
        given, stream = self.source.spec, self.stream
        shared = len(self.task_classes[0]) == given.num_classes or not self.options.get("remap_labels", True)
        # split tasks have different classes, and what they share is their number
        classes = given.classes if shared else tuple(str(label) for label in range(stream.num_classes))
        rows = sum(map(stream.size, range(stream.num_tasks))) if self.kind == "split" else self.train_size
        return replace(given, classes=classes, rows=rows, num_tasks=stream.num_tasks)

    @property
    def protocol(self) -> dict[str, Any]:
        """What was actually done, for the record."""
        done = {"kind": self.kind, "num_tasks": self.stream.num_tasks, "classes": self.stream.num_classes}
        sizes = {"train_size": self.train_size, "test_size": self.test_size}
        return done | sizes | {"augment": self.augment} | self.options

    def train_dataloader(self) -> DataLoader:
        """Numbers of rounds; the images lie on the device."""
        return steps_loader(self.trainer.lightning_module.steps_per_epoch)

    def _check_source(self) -> None:
        spec = self.source.spec
        if spec.kind != "image" or spec.task != "classification":
            what = f"{spec.kind} data" if spec.kind != "image" else "numbers to predict"
            raise UserError(
                f"dataset={spec.name} has {what}, and a stream of tasks is made of images with classes: use digits, "
                "mnist, fashion_mnist, cifar10, cifar100 or image_folder."
            )
        if spec.num_classes < 2:
            raise UserError(
                f"dataset={spec.name} has images of one class, and a task tells classes apart: put the images of each "
                "class in a sub-folder of its own."
            )
        if self.source.validation is not None:
            raise UserError("a stream of tasks has no use for validation images: leave out dataset.validation_path.")
        if isinstance(self.source.train, ImageFiles) and self.kind != "split":
            raise UserError(
                f"dataset={spec.name} is read task by task, which kind={self.kind} cannot do: use "
                "stream=split_imagenet, or dataset=image_folder for images that fit into memory."
            )
        if self.kind == "permuted" and self.augment != "none":
            raise UserError("method.datamodule.augment=crop_mirror makes no sense on permuted pixels: set it to none.")

    def _rows(self, train: int | None, test: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Training rows, and test rows in random order, each within its part of the source."""
        rng = np.random.default_rng((self.seed, 0))
        pool = fair_order(self.source.train.y.numpy(), rng)
        if self.source.test is not None:
            held = fair_order(self.source.test.y.numpy(), rng)
            self._check("test_size", test, len(held))
            held = held[:test]
        else:
            self._check("test_size", test, len(pool) - 1)
            taken = test or max(1, len(pool) // 5)
            held, pool = pool[:taken], pool[taken:]
        self._check("train_size", train, len(pool))
        return np.sort(pool[:train]), held

    @property
    def _held(self) -> Split:
        """The part of the source that test rows are rows of."""
        return self.source.train if self.source.test is None else self.source.test

    def _check(self, what: str, asked: int | None, available: int) -> None:
        if (asked or 1) > available:
            raise UserError(
                f"method.datamodule.{what}={asked or 1} is more than the {available} images that "
                f"dataset={self.source.spec.name} has for it: lower it, or use more data."
            )

    def _normalisation(self, rows: np.ndarray) -> tuple[list[float], list[float]]:
        """Known constants, else those of the training pixels, rounded so that no machine's sums matter."""
        spec = self.source.spec
        known = CONSTANTS.get(spec.name)
        if known is None and isinstance(self.source.train, ImageFiles):
            known = CONSTANTS["image_files"]
        if known is not None and len(known[0]) == spec.shape[0]:
            return list(known[0]), list(known[1])
        pixels = self.source.train.x[torch.from_numpy(rows)].double()
        std, mean = torch.std_mean(pixels, dim=(0, 2, 3), correction=0)
        return [round(m, 6) for m in mean.tolist()], [round(s, 6) or 1.0 for s in std.tolist()]

    def _stream(
        self, asked: int | None, train: np.ndarray, test: np.ndarray
    ) -> tuple[Stream, tuple[tuple[str, ...], ...]]:
        spec = self.source.spec
        if self.kind == "split":
            return self._split(asked, train, test)
        if self.kind == "permuted":
            if asked is None:
                raise UserError("method.datamodule.num_tasks has no value, and permuted pixels have no end: give one.")
            columns = permutations(asked, spec.shape, self.seed, self.options["seeds"])
        else:
            columns = self._rotations(asked)
        parts = self._images(self.source.train, train), self._images(self._held, test)
        k, augmented = len(columns), self.augment != "none"
        stream = TaskStream(self.kind, *parts, spec.shape, k, spec.num_classes, columns=columns, augment=augmented)
        return stream, (spec.classes,) * k

    def _rotations(self, asked: int | None) -> Tensor:
        angle, spec = self.options["angle"], self.source.spec
        most = max(1, int(np.ceil(round(360 / angle, 9))))
        if asked is not None and asked > most:
            raise UserError(
                f"method.datamodule.num_tasks={asked} rotations by {angle:g} degrees go beyond a full turn: set it to "
                f"at most {most}, or lower method.datamodule.angle."
            )
        columns = rotations(asked or most, spec.shape, angle)
        if len(columns.unique(dim=0)) < len(columns):
            raise UserError(
                f"method.datamodule.angle={angle:g} leaves some rotations of {spec.shape[1]}x{spec.shape[2]} pixels "
                "equal: give a larger angle, or larger images."
            )
        return columns

    def _split(
        self, asked: int | None, train: np.ndarray, test: np.ndarray
    ) -> tuple[Stream, tuple[tuple[str, ...], ...]]:
        source, spec, options = self.source, self.source.spec, self.options
        class_seed = self.seed if options["class_seed"] is None else options["class_seed"]
        groups = class_groups(spec.classes, options["classes_per_task"], options["class_order"], class_seed, spec.name)
        if asked is not None and asked > len(groups):
            raise UserError(
                f"method.datamodule.num_tasks={asked} is more than the {len(groups)} tasks that dataset={spec.name} "
                f"gives at {options['classes_per_task']} classes each: lower it, or set it to null for all."
            )
        groups = groups[:asked]
        y_train, y_test = source.train.y.numpy()[train], self._held.y.numpy()[test]
        rows = rows_of(groups, y_train), rows_of(groups, y_test)
        self._check_groups(groups, y_train, y_test)
        remap = options["remap_labels"]
        shared = {
            "shape": spec.shape,
            "num_tasks": len(groups),
            "num_classes": groups.shape[1] if remap else spec.num_classes,
            "labels": labels_within(groups, spec.num_classes) if remap else None,
            "augment": self.augment != "none",
        }
        names = tuple(tuple(spec.classes[c] for c in group) for group in groups)
        if isinstance(source.train, ImageFiles):
            files = _chosen(source.train, train), _chosen(self._held, test)
            return FileStream(*files, *rows, mean=self.mean, std=self.std, **shared), names
        parts = self._images(source.train, train), self._images(self._held, test)
        return TaskStream("split", *parts, train_rows=rows[0], test_rows=rows[1], **shared), names

    def _check_groups(self, groups: np.ndarray, y_train: np.ndarray, y_test: np.ndarray) -> None:
        for what, y in (("training", y_train), ("test", y_test)):
            absent = np.setdiff1d(groups, y)
            if len(absent):
                spec = self.source.spec
                raise UserError(
                    f"class {spec.classes[absent[0]]} of dataset={spec.name} has no {what} image: raise "
                    f"method.datamodule.{what.removesuffix('ing')}_size, or use more data."
                )

    def _images(self, part: Split, rows: np.ndarray) -> Images:
        """Normalised, one row per image, with what a black pixel becomes at the end."""
        channels, height, width = self.source.spec.shape
        chosen, pixels = torch.from_numpy(rows), height * width
        x = torch.zeros(len(rows), channels * (pixels + 1))
        for c, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            place = slice(c * pixels, (c + 1) * pixels)
            x[:, place] = part.x[chosen, c].flatten(1)
            for columns in (x[:, place], x[:, channels * pixels + c]):
                columns.sub_(mean).div_(std)
        return Images(x, part.y[chosen])


def _chosen(files: ImageFiles, rows: Sequence[int]) -> ImageFiles:
    return ImageFiles(files.root, tuple(files.names[row] for row in rows), files.y[torch.as_tensor(rows)])
