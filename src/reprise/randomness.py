"""Randomness that depends on a seed and a purpose alone, not on what was drawn before."""

from __future__ import annotations

import numpy as np
import torch


def derived_seed(seed: int, *purpose: int) -> int:
    """A seed of 63 bits for one purpose, independent of those for other purposes."""
    state = np.random.SeedSequence((seed, *purpose)).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


def generator(seed: int, *purpose: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device`` for one purpose of a run's seed."""
    return torch.Generator(device).manual_seed(derived_seed(seed, *purpose))
