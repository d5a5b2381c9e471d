"""Claim C9: a value is a learned function of a row and its target, so that rows never trained on can be valued too.

A finished run keeps that function, with everything around it, in one file of tensors and plain text; no pickle.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.dvrl.estimator import DataValueEstimator
from reprise.papers.dvrl.predictors import Parameters, Predictor, one_hot, predictions
from reprise.papers.dvrl.scaling import Scaler
from reprise.records import RunFolder

FILE = "valuer.safetensors"
KEY = "valuer"  # of the file's metadata
AT_ONCE = 8192  # rows
# what a run folder may name: classes of predictors, and loaders of data sets
OWN_PREDICTORS = re.compile(r"reprise\.papers\.dvrl\.(predictors|networks|architectures)\.[A-Z]\w*", re.ASCII)
OWN_SOURCES = re.compile(r"reprise\.data\.\w+\.load\w*", re.ASCII)


@dataclass(frozen=True)
class View:
    """How the estimator sees a row: its x, its target and m = |y - f_v(x)|, in units of the training rows.

    For classes m is ``|onehot(y) - softmax f_v(x)|``. For numbers y and f_v(x) are standardised; the official release
    divides by y there, which needs positive targets.

    Attributes:
        x_mean, x_spread: ``[d]``.
        m_mean, m_spread: ``[C]``, 1 for numbers.
        x_size: ``[]``; many inputs must not drown m and y, so their joint size stays that of 64 standardised ones.
    """

    x_mean: Tensor
    x_spread: Tensor
    m_mean: Tensor
    m_spread: Tensor
    x_size: Tensor

    @classmethod
    def fit(cls, x: Tensor, target: Tensor, predicted: Tensor, standardise: bool) -> View:
        """From the training rows ``[N, d]``, targets and predictions of f_v ``[N, C]``; or change nothing."""
        m = (target - predicted).abs()
        if not standardise:
            zero, one = torch.zeros_like, torch.ones_like
            return cls(zero(x[0]), one(x[0]), zero(m[0]), one(m[0]), torch.ones((), device=x.device))
        size = torch.tensor(min(1.0, 64 / x.shape[1]), device=x.device)
        return cls(*_statistics(x), *_statistics(m), size)

    def __call__(self, x: Tensor, target: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The estimator's inputs ``[N, d], [N, C], [N, C]``."""
        m = (target - predicted).abs()
        return (x - self.x_mean) / self.x_spread * self.x_size, target, (m - self.m_mean) / self.m_spread


def _statistics(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the columns; 1 for a constant one, which so becomes 0."""
    spread = columns.std(0)
    return columns.mean(0), torch.where(spread > 1e-6, spread, torch.ones_like(spread))


@dataclass(frozen=True)
class Valuer:
    """What a run learned.

    Attributes:
        spec: the data of the run as its methods got it.
        scaler: from rows as the source gives them to rows as ``spec`` describes them.
        predictor, theta: the validation model f_v (G = 1).
        view: from these to the estimator's inputs.
        estimator, architecture: h_phi, and the arguments that built it.
    """

    spec: DataSpec
    scaler: Scaler
    predictor: Predictor
    theta: Parameters
    view: View
    estimator: DataValueEstimator
    architecture: dict[str, Any]

    @torch.no_grad()
    def logits(self, x: Tensor, y: Tensor) -> Tensor:
        """Logits ``[N]`` for scaled rows ``[N, d]`` and their labels or standardised targets ``[N]``."""
        found = []
        for rows, given in zip(x.split(AT_ONCE), y.split(AT_ONCE), strict=True):
            target = one_hot(given, self.spec.num_classes)
            predicted = predictions(self.predictor.outputs(self.theta, rows)[:, 0], self.spec.num_classes)
            found.append(self.estimator(*self.view(rows, target, predicted)))
        return torch.cat(found)

    def values(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values in (0, 1) and their logits, float64 ``[N]``.

        Args:
            x: rows as the run's data set gives them ``[N, ...]``, NaN where a cell is missing.
            y: labels ``0..C-1``, or numbers in the target's own unit ``[N]``.

        Raises:
            UserError: the rows are not as wide as the run's.
        """
        flat = np.asarray(x, dtype=np.float32).reshape(len(x), -1)
        if flat.shape[1] != self.scaler.columns:
            raise UserError(f"the rows have {flat.shape[1]} inputs, the run was trained on {self.scaler.columns}.")
        rows = self.scaler.transform(flat)
        if self.spec.num_classes:
            given = torch.as_tensor(y)
        else:
            standardised = (np.asarray(y) - self.spec.target_mean) / self.spec.target_scale
            given = torch.as_tensor(standardised.astype(np.float32))
        logits = self.logits(torch.as_tensor(rows), given).double()
        return logits.sigmoid().numpy(), logits.numpy()

    def obstacle(self) -> str | None:
        """Why this cannot be saved, if it cannot."""
        if not self.predictor.tensors:
            return f"the validation model ({self.predictor.name}) could only be kept as a pickle"
        return None if self.scaler else "the data module keeps no scaler"

    def save(self, run_dir: Path) -> None:
        """Write ``valuer.safetensors``; on a kill the old file, or none, is left."""
        tensors = {f"theta.{k:03}": tensor for k, tensor in enumerate(self.theta)}
        tensors |= {f"estimator.{name}": tensor for name, tensor in self.estimator.state_dict().items()}
        tensors |= {f"view.{field.name}": getattr(self.view, field.name) for field in fields(View)}
        tensors |= {f"scaler.{name}": torch.as_tensor(array) for name, array in self.scaler.state().items()}
        known = {"spec": asdict(self.spec), "architecture": self.architecture}
        scratch = run_dir / f".{FILE}"
        # clones, because safetensors refuses tensors that share memory
        kept = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        save_file(kept, scratch, {KEY: json.dumps(known)})
        scratch.chmod(0o644)
        os.replace(scratch, run_dir / FILE)

    @classmethod
    def load(cls, run_dir: Path) -> Valuer:
        """The valuer of a finished run.

        Raises:
            UserError: the folder holds no finished DVRL run, or the run kept no valuer, or the file is damaged.
        """
        from reprise import building

        config = config_of(run_dir)
        if not (run_dir / FILE).is_file():
            raise UserError(f"{run_dir} holds no {FILE}: {_why_absent(config)}.")
        check_own(config["method"]["module"].get("predictor"), OWN_PREDICTORS, run_dir)
        try:
            predictor = building.instantiate(config["method"]["module"]["predictor"], "method.module.predictor")
            with safe_open(run_dir / FILE, "pt") as file:
                known = json.loads(file.metadata()[KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return cls._assembled(known, tensors, predictor)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{run_dir / FILE} is damaged: repeat the run with force=true.") from error

    @classmethod
    def _assembled(cls, known: dict[str, Any], tensors: dict[str, Tensor], predictor: Predictor) -> Valuer:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in sorted(tensors.items()) if k.startswith(prefix)}

        spec = DataSpec(**{k: tuple(v) if isinstance(v, list) else v for k, v in known["spec"].items()})
        predictor.bind(spec)
        estimator = DataValueEstimator(**known["architecture"])
        estimator.load_state_dict(part("estimator."))
        scaler = Scaler.from_state({name: tensor.numpy() for name, tensor in part("scaler.").items()})
        theta, view = list(part("theta.").values()), View(**part("view."))
        return cls(spec, scaler, predictor, theta, view, estimator.eval(), known["architecture"])


def config_of(run_dir: Path) -> dict[str, Any]:
    """The config of a finished run.

    Raises:
        UserError: the folder holds none.
    """
    if not run_dir.is_dir():
        raise UserError(f"run={run_dir} is no folder: give the folder that train.py names at the end of a run.")
    state = RunFolder(run_dir).state
    if state is None or not (run_dir / "config.yaml").is_file():
        raise UserError(f"run={run_dir} is no run folder: give the folder that train.py names at the end of a run.")
    if state != "done":
        raise UserError(f"run={run_dir} is not finished (it is {state}): start its command again.")
    try:
        config = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
        return {name: config[name] for name in ("method", "dataset", "paths")}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{run_dir / 'config.yaml'} is damaged: repeat the run with force=true.") from error


def check_own(node: Any, own: re.Pattern[str], run_dir: Path) -> None:
    """Refuse to build anything but the suite's own: a stranger's run folder must not choose what is executed.

    Args:
        node: a part of the run's config.
        own: matches the whole ``_target_``; a mere prefix would let ``reprise.records.os.system`` through.
        run_dir: for the sentence.

    Raises:
        UserError: any other target, at any depth.
    """
    if isinstance(node, dict) and "_target_" in node and not own.fullmatch(target := str(node["_target_"])):
        raise UserError(f"{run_dir}/config.yaml names {target}, which is not the suite's own: repeat the run yourself.")
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        check_own(inner, own, run_dir)


def _why_absent(config: dict[str, Any]) -> str:
    method = config["method"]
    if not str(method["module"].get("_target_")).startswith("reprise.papers.dvrl.module."):
        return f"method={method['name']} learns no function that could value other rows; method=dvrl does"
    if str(method["module"]["predictor"].get("_target_")).startswith("reprise.papers.dvrl.estimators."):
        return "a scikit-learn estimator could only be kept as a pickle; train with predictor=linear or predictor=mlp"
    return "it was made before runs kept one, or the file was deleted; repeat the run with force=true"
