"""Filling holes and scaling features: fitted once, so that rows which come later are treated alike."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

Scaling = Literal["standard", "minmax", "minmax_all", "none"]


@dataclass(frozen=True)
class Scaler:
    """A fitted scaling of table rows with d columns, h of which get an indicator that says where a cell was missing.

    Attributes:
        medians: ``[d]``, which fill missing cells.
        holes: bool ``[d]``, the columns with a missing cell anywhere in the data that this was fitted on. A column
            without one gets no indicator, though its median fills what is missing in later rows.
        subtract, divide, multiply, add, centre: ``[d + h]``, applied in this order; clipping to 0..1 comes before
            ``centre`` where ``clip`` is set. Min-max scaling multiplies and adds, standardising subtracts and divides.
        clip: bool ``[]``.
    """

    medians: np.ndarray
    holes: np.ndarray
    subtract: np.ndarray
    divide: np.ndarray
    multiply: np.ndarray
    add: np.ndarray
    clip: np.ndarray
    centre: np.ndarray

    @classmethod
    def fit(cls, parts: list[np.ndarray], scaling: Scaling) -> Scaler:
        """Fit on the first part alone (``minmax_all``: on all); a hole in any part gives its column an indicator.

        Args:
            parts: train, validation and test inputs ``[rows, d]``; NaN marks a missing cell.
            scaling: ``minmax`` (clipped to the training range, then centred), ``standard``, ``minmax_all``, ``none``.
        """
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import MinMaxScaler, StandardScaler

        train = parts[0]
        medians = SimpleImputer(strategy="median", keep_empty_features=True).fit(train).statistics_
        holes = np.any([np.isnan(part).any(axis=0) for part in parts], axis=0)
        width = train.shape[1] + holes.sum()
        zero, one = np.zeros(width, train.dtype), np.ones(width, train.dtype)
        state = dict.fromkeys(("subtract", "add", "centre"), zero) | {"divide": one, "multiply": one}
        unscaled = cls(medians.astype(train.dtype), holes, clip=np.array(scaling.startswith("minmax")), **state)
        filled = [unscaled._fill(part) for part in parts]
        if scaling == "standard":
            found = StandardScaler().fit(filled[0])
            state |= {"subtract": found.mean_.astype(train.dtype), "divide": found.scale_.astype(train.dtype)}
        elif scaling != "none":
            found = MinMaxScaler().fit(np.concatenate(filled) if scaling == "minmax_all" else filled[0])
            state |= {"multiply": found.scale_, "add": found.min_}
        fitted = cls(unscaled.medians, holes, clip=unscaled.clip, **state)
        if scaling != "minmax":
            return fitted
        # centred inputs leave the intercepts little to do, and fits converge in fewer steps
        centre = fitted._scaled(filled[0]).mean(axis=0)
        return cls(unscaled.medians, holes, clip=unscaled.clip, **(state | {"centre": centre}))

    @property
    def columns(self) -> int:
        """d, the width of the rows that ``transform`` takes."""
        return len(self.medians)

    def transform(self, rows: np.ndarray) -> np.ndarray:
        """Rows ``[N, d]``, NaN where missing, to float32 ``[N, d + h]``."""
        return np.ascontiguousarray(self._scaled(self._fill(rows)), dtype=np.float32)

    def _fill(self, rows: np.ndarray) -> np.ndarray:
        missing = np.isnan(rows)
        filled = np.where(missing, self.medians.astype(rows.dtype), rows)
        return np.hstack([filled, missing[:, self.holes]]) if self.holes.any() else filled

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        rows = (rows - self.subtract) / self.divide * self.multiply + self.add
        if self.clip:
            rows = rows.clip(0, 1)
        return rows - self.centre

    def state(self) -> dict[str, np.ndarray]:
        """All that ``from_state`` needs."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> Scaler:
        """The scaler that gave this ``state()``."""
        return cls(**state)
