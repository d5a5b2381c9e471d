"""Speed, as ratios measured in one run: ``python scripts/bench.py dvrl`` (or another paper, ``startup`` or ``sweep``).

Absolute times depend on the machine and its load; a ratio to a plain implementation, taken in turns, hardly does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from torch import Tensor

    from reprise.papers.dvrl.datamodule import ValuationData, ValuationTask
    from reprise.papers.dvrl.module import DVRL
    from reprise.papers.dvrl.predictors import Linear

ROOT = Path(__file__).parents[1]
GROUPS = (1, 8, 16, 32)
WARM_UP = 5  # outer steps that are not counted
OFFICIAL_STEPS_PER_SECOND = 50.9  # progress bar stored in the official notebook on Adult
AUROC = 0.9
OPENDATAVAL = {  # arguments of bench_opendataval.py: predictor and rows per outer step
    "OpenDataVal, scikit-learn logistic regression, its 32 rows": ("sklearn", "32"),
    "OpenDataVal, scikit-learn logistic regression, all rows": ("sklearn", "1000"),
    "OpenDataVal, its torch logistic regression, all rows": ("torch", "1000"),
}


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


JOBS = 20
SWEEPS = {
    "dvrl, scale=smoke": ("method=dvrl", f"seed=range(0,{JOBS})", "scale=smoke"),
    "four papers, scale=smoke": ("method=dvrl,supsup,crvae,rewriting", f"seed=range(0,{JOBS // 4})", "scale=smoke"),
    "dvrl, trainer=debug": ("method=dvrl", f"seed=range(0,{JOBS})", "trainer=debug"),
}


def sweep() -> None:
    """Wall time of sweeps of twenty jobs against what the jobs themselves compute: data and model, fit, evaluation.

    The rest is the start of Python and its imports, composing configs, and the tables. It is the same however long a
    job takes, so that sweeps of several sizes are shown.
    """
    launchers = {"one process": (), "two workers (joblib)": ("hydra/launcher=local",)}
    for (size, words), (name, launcher) in itertools.product(SWEEPS.items(), launchers.items()):
        with tempfile.TemporaryDirectory() as folder:
            options = ("logger=csv", "hardware.threads=1", f"paths.output_dir={folder}")
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "train.py", "-m", *launcher, *words, *options],
                cwd=ROOT,
                capture_output=True,
                check=True,
            )
            wall = time.perf_counter() - began
            found = [json.loads(path.read_text()) for path in Path(folder).glob("runs/*/*/*/metrics.json")]
        parts = {part: sum(run[f"time/{part}_seconds"] for run in found) for part in ("setup", "fit", "evaluation")}
        own = sum(parts.values())
        shares = ", ".join(f"{part} {seconds:.1f}" for part, seconds in parts.items())
        times = f"{wall:6.1f} s, {own:6.1f} s of it the jobs' own ({shares}): {wall / own:.2f} x"
        print(f"{len(found)} jobs, {size:24} {name:22} {times}", flush=True)


def dvrl(rounds: int, threads: int, opendataval: str | None, budget: float) -> None:
    """Inner fits against a plain loop and against bare matrix products, outer steps, and time to find the damage."""
    import torch

    torch.set_num_threads(threads)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{threads} threads, {os.cpu_count()} cores, load average {load:.1f} before the start")
    inner_fits(5 * rounds)  # they take milliseconds
    outer_steps(rounds)
    time_to_discovery(threads, opendataval, budget)


def prepared(*overrides: str) -> tuple[dict[str, Any], ValuationData, DVRL]:
    """Config, data and module of ``python train.py method=dvrl OVERRIDES``."""
    from hydra import compose, initialize_config_dir

    from reprise import building
    from reprise.config import register, resolved

    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = resolved(compose("train", ["method=dvrl", *overrides]))
    data = building.datamodule(config, building.source(config))
    return config, data, building.module(config, data)


def plain_fit(x: Tensor, target: Tensor, weights: Tensor, predictor: Linear) -> tuple[Tensor, Tensor]:
    """The same fit for one selection, as one writes it down: ``x [N, d]``, ``target [N, C]``, ``weights [N]``."""
    import torch

    from reprise.papers.dvrl.predictors import row_size

    size, share = predictor.learning_rate / row_size(x), (weights / weights.sum()).unsqueeze(1)
    theta = (torch.zeros(x.shape[1], target.shape[1]), torch.zeros(target.shape[1]))
    means, squares = ([torch.zeros_like(p) for p in theta] for _ in range(2))
    slope, intercept = theta
    for step in range(1, predictor.steps + 1):
        delta = ((x @ slope + intercept).softmax(1) - target) * share
        gradients = (x.T @ delta + predictor.l2 * slope, delta.sum(0))
        for p, g, m, v in zip(theta, gradients, means, squares, strict=True):
            m.mul_(0.9).add_(g, alpha=0.1)
            v.mul_(0.999).addcmul_(g, g, value=0.001)
            p.addcdiv_(m, v.sqrt() + 1e-8, value=-size * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step))
    return theta


def inner_fits(rounds: int) -> None:
    """Selections per second: plain loop, G at once, and nothing but the two matrix products of every step."""
    import torch

    from reprise.papers.dvrl.predictors import one_hot

    _, data, module = prepared("dataset=digits")
    x, predictor = data.task.x_train, module.predictor
    target, generator = one_hot(data.task.y_train, data.task.num_classes), torch.Generator().manual_seed(0)
    drawn = {groups: (torch.rand(groups, len(x), generator=generator) < 0.5).float() for groups in GROUPS}
    inputs = torch.cat([x, torch.ones(len(x), 1)], 1)

    def together(groups: int) -> Tensor:
        start = predictor.initial(x.shape[1], target.shape[1], groups, generator)
        return predictor.fit(x, target, drawn[groups], start, predictor.steps, generator)[0]

    def one_by_one() -> list[tuple[Tensor, Tensor]]:
        return [plain_fit(x, target, weights, predictor) for weights in drawn[8]]

    def products(groups: int) -> None:
        theta = torch.zeros(groups * target.shape[1], inputs.shape[1])
        for _ in range(predictor.steps):
            theta = (theta @ inputs.T) @ inputs

    plain = "plain loop, G = 8"
    contestants: dict[str, Callable[[], object]] = {plain: one_by_one}
    contestants |= {f"together, G = {g}": lambda g=g: together(g) for g in GROUPS}
    contestants |= {f"two matrix products per step, G = {g}": lambda g=g: products(g) for g in GROUPS}
    with torch.no_grad():
        slopes, ours = torch.stack([slope for slope, _ in one_by_one()]), together(8)[..., :-1]
        difference = ((x @ slopes) - torch.einsum("nd,cgd->gnc", x, ours)).abs().max().item()
        medians = in_turns(contestants, rounds)
    rows = f"{len(x):,} x {x.shape[1]} x {target.shape[1]}"
    print(f"\nInner fit, {rows}, {predictor.steps} full-batch Adam steps; medians of {rounds} rounds in turns")
    print(f"Largest difference of an output between the plain loop and G = 8 together: {difference:.1e}")
    rates = {name: (8 if name == plain else int(name.split()[-1])) / value for name, value in medians.items()}
    for name, rate in rates.items():
        print(f"{name:45} {rate:10.0f} selections/s   {rate / rates[plain]:6.2f} x {plain}")
    for g in GROUPS:
        floor = medians[f"together, G = {g}"] / medians[f"two matrix products per step, G = {g}"]
        print(f"{f'G = {g}':45} {floor:10.2f} x the time of its matrix products")


def random_table(rows: int, features: int) -> Any:
    """Two classes of random rows, for where Adult is absent."""
    import torch

    from reprise.data.base import DataSpec, Source, Split

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, features, generator=generator)
    y = (x[:, :5].sum(1) + torch.randn(rows, generator=generator) > 0).long()
    spec = DataSpec("random", "classification", "table", (features,), ("no", "yes"))
    return Source(spec, Split(x, y))


def outer_steps(rounds: int) -> None:
    """Outer steps per second of method=dvrl on 1,000 rows of Adult, or of its size."""
    from reprise import building
    from reprise.data import adult
    from reprise.data.store import FileStore

    found = all(map(FileStore(Path(os.environ.get("REPRISE_DATA", "data"))).find, adult.files().files))
    runs = {}
    for groups in (1, 8, 16):
        # one selection has no other to be compared with
        alone = ["method.module.baseline=moving_average", "method.module.advantage_scale=none"] if groups == 1 else []
        dataset = f"dataset={'adult' if found else 'digits'}"
        config, data, module = prepared(dataset, f"method.module.selections={groups}", "trainer.max_epochs=2", *alone)
        if not found:
            data = building.datamodule(config, random_table(3000, 108))
            module = building.module(config, data)
        runs[groups] = (config, data, module)
    seconds: dict[int, list[float]] = {groups: [] for groups in runs}
    for _ in range(rounds):
        for groups, (config, data, module) in runs.items():
            times: list[float] = []
            building.trainer(
                config, module, [after_steps(lambda _, times=times: times.append(time.perf_counter()))]
            ).fit(module, datamodule=data)
            seconds[groups] += [b - a for a, b in zip(times[WARM_UP:], times[WARM_UP + 1 :], strict=False)]
    task = data.task
    what = "rows of Adult" if found else "random rows of Adult's size (REPRISE_DATA has no Adult)"
    print(f"\nOuter steps of method=dvrl, {len(task.x_train):,} {what}, {task.x_train.shape[1]} inputs; median step")
    for groups, values in seconds.items():
        rate = 1 / statistics.median(values)
        print(f"{f'G = {groups}':45} {rate:10.1f} outer steps/s {rate * groups:10.1f} selections/s")
    print(
        f"{'official code, one selection per step':45} {OFFICIAL_STEPS_PER_SECOND:10.1f} outer steps/s   from its "
        "notebook's stored output:\nanother machine, and lbfgs to convergence in place of 20 steps; for context only"
    )


def after_steps(do: Callable[[int], None]) -> pl.Callback:
    """Lightning callback that calls ``do`` with the number of outer steps taken."""
    import lightning.pytorch as pl

    class AfterSteps(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            do(trainer.global_step)

    return AfterSteps()


def time_to_discovery(threads: int, opendataval: str | None, budget: float) -> None:
    """Seconds until the values tell flipped labels of digits apart with AUROC 0.9: ours, and OpenDataVal's DVRL."""
    config, data, module = prepared("dataset=digits", "seed=0")
    task = data.task
    print(
        f"\nTime to AUROC {AUROC} on digits, {len(task.x_train):,} rows, {len(task.x_valid)} validation rows, "
        f"{task.corrupted.float().mean():.0%} flipped, seed 0"
    )
    show_discovery(f"ours, G = {module.selections}", discovery_of_ours(config, data, module))
    if opendataval is None:
        print(
            "OpenDataVal beside it: python3 -m venv odv && odv/bin/pip install opendataval 'transformers<4.40' && "
            "python scripts/bench.py dvrl --opendataval odv/bin/python"
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.npz"
        save_task(task, path)
        for name, arguments in OPENDATAVAL.items():
            command = [opendataval, ROOT / "scripts" / "bench_opendataval.py", path, *arguments, str(budget)]
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                print(f"{name}: failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
                continue
            show_discovery(name, json.loads(done.stdout.splitlines()[-1]))


def discovery_of_ours(config: dict[str, Any], data: ValuationData, module: DVRL) -> list[list[float]]:
    """Outer steps, seconds and AUROC after every step; the clock stands still while the values are judged."""
    from reprise import building
    from reprise.papers.dvrl.evaluation import discovery_metrics

    corrupted, history, paused = data.task.corrupted.numpy(), [], 0.0

    def judge(step: int) -> None:
        nonlocal paused
        now = time.perf_counter()
        auroc = discovery_metrics(module.ranking().double().numpy(), corrupted)["discovery/auroc"]
        history.append([step, now - began - paused, auroc])
        paused += time.perf_counter() - now

    trainer = building.trainer(config, module, [after_steps(judge)])
    began = time.perf_counter()
    trainer.fit(module, datamodule=data)
    return history


def save_task(task: ValuationTask, path: Path) -> None:
    """The rows as OpenDataVal takes them: float inputs and one-hot classes."""
    import numpy as np

    from reprise.papers.dvrl.predictors import one_hot, row_size

    np.savez(
        path,
        x_train=task.x_train,
        y_train=one_hot(task.y_train, task.num_classes),
        x_valid=task.x_valid,
        y_valid=one_hot(task.y_valid, task.num_classes),
        corrupted=task.corrupted,
        row_size=row_size(task.x_train),
    )


def show_discovery(name: str, history: list[list[float]]) -> None:
    """When the AUROC was reached, and how far it went."""
    steps, seconds, last = history[-1]
    reached = next((f"{at:.2f} s (step {step:.0f})" for step, at, auroc in history if auroc >= AUROC), "never")
    best = max(auroc for *_, auroc in history)
    print(f"{name:60} {reached:18} best {best:.3f}, last {last:.3f} after {steps:.0f} steps in {seconds:.1f} s")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["startup", "sweep", "dvrl", "supsup", "crvae", "rewriting"])
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each contestant (default 7)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--opendataval", metavar="PYTHON", help="dvrl: a Python that has opendataval installed")
    parser.add_argument("--pythae", metavar="PYTHON", help="crvae: a Python that has pythae installed")
    parser.add_argument("--generator", metavar="FILE", help="rewriting: a generator of scenes (else random weights)")
    parser.add_argument(
        "--budget", type=float, default=60, help="dvrl: most seconds for an OpenDataVal run (default 60)"
    )
    options = parser.parse_args()
    if options.what == "startup":
        startup(options.rounds)
    elif options.what == "supsup":
        from bench_supsup import supsup

        supsup(options.rounds, options.threads)
    elif options.what == "sweep":
        sweep()
    elif options.what == "crvae":
        from bench_crvae import crvae

        crvae(options.rounds, options.threads, options.pythae)
    elif options.what == "rewriting":
        from bench_rewriting import rewriting

        rewriting(options.rounds, options.threads, options.generator)
    else:
        dvrl(options.rounds, options.threads, options.opendataval, options.budget)


if __name__ == "__main__":
    main()
