"""Permutations of the training rows, evaluated once and shared by the methods that rest on them.

TMC-Shapley and Beta Shapley of one seed need the same scores along the same permutations. They are kept in small files
beside the runs, in a folder named by a hash of everything that determines them: a run finds either exactly what it
would have computed itself, or nothing.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch

from reprise.papers.dvrl import evaluation, predictors, scores, utilities, valuation
from reprise.records import write_text

log = logging.getLogger("reprise")


class Walk(NamedTuple):
    """Scores U of a permutation's prefixes of 1, 2, ... rows, until it was cut off, and the fits they took."""

    scores: list[float]
    fits: int


class Walks:
    """A folder of evaluated permutations, a few in each file; without a folder nothing is kept.

    Args:
        cache: the folder that runs share; ``None`` = nowhere.
        identity: what determines the walks, as JSON values.
    """

    def __init__(self, cache: Path | None, identity: Any = None) -> None:
        self.name = digest(identity)
        self.folder = cache / "walks" / self.name[:24] if cache else None

    def load(self, numbers: range) -> list[Walk] | None:
        """These permutations; ``None`` where they are not kept, or, with a warning, where their file is damaged."""
        path = self._path(numbers)
        if path is None or not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            walks = [Walk(scores, fits) for scores, fits in content["walks"]]
            if content["checksum"] != self._checksum(numbers, walks):
                raise ValueError("its checksum is wrong")
            return walks
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is damaged (%s); its permutations are evaluated again", path, error)
            return None

    def save(self, numbers: range, walks: list[Walk]) -> None:
        """Keep these permutations."""
        path = self._path(numbers)
        if path is not None:
            write_text(path, json.dumps({"checksum": self._checksum(numbers, walks), "walks": walks}) + "\n")

    def _path(self, numbers: range) -> Path | None:
        return self.folder / f"{numbers.start}-{numbers.stop}.json" if self.folder else None

    def _checksum(self, numbers: range, walks: list[Walk]) -> str:
        return digest([self.name, numbers.start, numbers.stop, walks])


def digest(value: Any) -> str:
    """sha256 of a value as sorted JSON, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def identity(method: valuation.Valuator, settings: dict[str, Any], *modules: Any) -> dict[str, Any] | None:
    """All that the scores of a method's subsets depend on, to the last bit; ``None`` where that cannot be written down.

    Args:
        method: the prepared method; gives data, seed, predictor and device.
        settings: of its sampler.
        modules: whose source code matters, beside that of predictors and scores.
    """
    task, predictor = method.task, method.predictor
    kind = type(predictor)
    if not predictor.tensors:  # an estimator may draw random numbers of its own
        return None
    sources = {evaluation, predictors, scores, utilities, valuation, inspect.getmodule(kind), *modules}
    parts = (task.x_train, task.y_train, task.x_valid, task.y_valid)
    found = {
        "data": [hashlib.sha256(part.cpu().numpy().tobytes()).hexdigest() for part in parts],
        "shape": [*task.x_train.shape, task.num_classes, task.y_mean, task.y_scale],
        "seed": method.seed,
        "predictor": [kind.__module__, kind.__qualname__, vars(predictor)],
        "settings": settings,
        "code": sorted(hashlib.sha256(inspect.getsource(module).encode()).hexdigest() for module in sources),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if method.device.type == "cuda" else method.device.type,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    try:
        return json.loads(json.dumps(found))
    except TypeError:  # a predictor with settings other than plain values
        return None
