"""Speed, as ratios measured in one run: ``python scripts/bench.py startup`` or ``selections``.

Absolute times depend on the machine and its load; a ratio to a plain implementation, taken in turns, hardly does.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]


def in_turns(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each contestant; they take turns, so that a busy machine slows all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(medians: dict[str, float], baseline: str) -> None:
    """Print the medians and their ratios to the baseline."""
    for name, value in medians.items():
        print(f"{name:45} {value:8.3f} s   {value / medians[baseline]:6.2f} x {baseline}")


def startup(rounds: int) -> None:
    """How long help and a mistyped key take, against importing Hydra alone and against importing Lightning."""

    def command(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=False)

    contestants = {
        "import hydra": command("-c", "import hydra"),
        "train.py --help": command("train.py", "--help"),
        "train.py with a mistyped key": command("train.py", "method.module.selektions=3"),
        "import lightning.pytorch": command("-c", "import lightning.pytorch"),
    }
    report(in_turns(contestants, rounds), "import hydra")


def selections(rounds: int) -> None:
    """16 selections of 1,000 digits fitted together, against one after the other by the same mathematics."""
    import torch
    from sklearn.datasets import load_digits

    from reprise.papers.dvrl.predictors import Linear, one_hot

    digits = load_digits()
    x = torch.tensor(digits.data[:1000] / 16, dtype=torch.float32)
    x, target = x - x.mean(0), one_hot(torch.tensor(digits.target[:1000]), 10)
    predictor = Linear(steps=20, final_steps=20, learning_rate=1.0, l2=1e-3)
    generator = torch.Generator().manual_seed(0)
    weights = (torch.rand(16, 1000, generator=generator) < 0.5).float()

    def fit(chosen: torch.Tensor) -> list[torch.Tensor]:
        start = predictor.initial(x.shape[1], 10, len(chosen), generator)
        return predictor.fit(x, target, chosen, start, predictor.steps, generator)

    together, alone = fit(weights), [fit(row) for row in weights.split(1)]
    difference = (together[0] - torch.cat([theta[0] for theta in alone], 1)).abs().max().item()
    print(f"largest difference between the two ways: {difference:.1e}; threads: {torch.get_num_threads()}")
    contestants = {"together": lambda: fit(weights), "one at a time": lambda: [fit(row) for row in weights.split(1)]}
    report(in_turns(contestants, rounds), "together")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["startup", "selections"])
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each contestant (default 7)")
    options = parser.parse_args()
    {"startup": startup, "selections": selections}[options.what](options.rounds)


if __name__ == "__main__":
    main()
