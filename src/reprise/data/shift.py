"""A domain pair: learn on one data set, be judged on another one with the same classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from reprise.checks import PositiveInt, checked
from reprise.data.base import DataSpec, Source, Split
from reprise.data.store import FileStore, sha256_of_arrays
from reprise.errors import UserError

Loader = Callable[..., Source]


@checked
def load(*, name: str, store: FileStore, source: Loader, target: Loader, size: PositiveInt | None = None) -> Source:
    """Load the source's training rows as ``train`` and all rows of the target, train before test, as ``test``.

    Args:
        name: name shown in results.
        store: where both data sets are.
        source: loader of the source domain, called with ``store``; in a config a ``_partial_: true`` node.
        target: loader of the target domain, likewise.
        size: height and width to which images of both are resized (bilinear, antialiased); ``None`` leaves them.

    Returns:
        Images ``[N, C, size, size]``, or rows of a table as they are; a datamodule draws validation and test rows
        from ``test``. Rows keep the order of their data set.

    Raises:
        UserError: the two differ in task, kind, classes or inputs; ``size`` with tables; and what the loaders raise.
    """
    first, second = source(store=store), target(store=store)
    _check(name, first.spec, second.spec, size)
    rows = [part for part in (second.train, second.test, second.validation) if part is not None]
    train, test = _resized(first.train, size), _joined([_resized(part, size) for part in rows])
    a, b = first.spec, second.spec
    spec = DataSpec(
        name=name,
        task=a.task,
        kind=a.kind,
        shape=tuple(train.x.shape[1:]),
        classes=a.classes,
        features=a.features,
        origin="user" if "user" in (a.origin, b.origin) else "public",
        licence=f"{a.name}: {a.licence}; {b.name}: {b.licence}",
        source=f"{a.source}; {b.source}",
        checksum=sha256_of_arrays(np.array([a.checksum, b.checksum])),
    )
    return Source(spec, train, test)


def _check(name: str, a: DataSpec, b: DataSpec, size: int | None) -> None:
    def refuse(what: str, first: object, second: object) -> UserError:
        return UserError(
            f"dataset={name} cannot pair {a.name} with {b.name}, because their {what} differ ({first} and {second}): "
            "choose another dataset.source or dataset.target."
        )

    if a.kind != b.kind:
        raise refuse("kinds", a.kind, b.kind)
    if a.task != b.task:
        raise refuse("tasks", a.task, b.task)
    if a.classes != b.classes:
        raise refuse("classes", *(", ".join(spec.classes[:12]) or "none" for spec in (a, b)))
    if a.kind == "table" and size is not None:
        raise UserError(f"dataset.size={size} is for images, {a.name} and {b.name} are tables: set dataset.size=null.")
    if a.features != b.features:
        raise refuse("columns", f"{len(a.features)} of them", f"{len(b.features)} of them or others")
    if a.shape[:1] != b.shape[:1] or (size is None and a.shape != b.shape):
        if a.shape[:1] == b.shape[:1]:
            sizes = f"{a.name} has images of {a.shape[1:]} pixels and {b.name} of {b.shape[1:]}"
            raise UserError(f"dataset={name} needs one size, {sizes}: set dataset.size, for example dataset.size=16.")
        raise refuse("shapes", a.shape, b.shape)


def _resized(part: Split, size: int | None) -> Split:
    if size is None or tuple(part.x.shape[2:]) == (size, size):
        return part
    chunks = [
        functional.interpolate(chunk, (size, size), mode="bilinear", antialias=True).clamp_(0, 1)
        for chunk in part.x.split(4096)  # so that the intermediate results stay small
    ]
    return Split(torch.cat(chunks), part.y, part.names)


def _joined(parts: Sequence[Split]) -> Split:
    named = all(part.names for part in parts)
    return Split(
        torch.cat([part.x for part in parts]),
        torch.cat([part.y for part in parts]),
        tuple(name for part in parts for name in part.names) if named else (),
    )
