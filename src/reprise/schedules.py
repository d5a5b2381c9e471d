"""Learning rates over the steps of a training."""

from __future__ import annotations

import math


def cosine(step: int, steps: int) -> float:
    """Share of the rate at a step: 1 at the first one, along half a cosine towards 0 after the last."""
    return (1 + math.cos(math.pi * step / steps)) / 2
