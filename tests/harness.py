"""How the tests start the suite: composed configs in this process, `train.py` in this process, or a real one."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from reprise.config import register

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
DATASETS = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))


def config_of(method: str) -> dict[str, Any]:
    """What a method's file says, and where it builds on another method's, that too."""
    own = yaml.safe_load((CONF / "method" / f"{method}.yaml").read_text())
    bases = [base for base in own.get("defaults", ()) if isinstance(base, str) and base in METHODS]
    return {key: value for base in bases for key, value in config_of(base).items()} | own.get("method", {})


PAPERS = {method: config_of(method)["paper"] for method in METHODS}  # method -> paper


def methods_of(*papers: str) -> list[str]:
    """The methods of some papers."""
    return [method for method in METHODS if PAPERS[method] in papers]


VALUATION = methods_of("dvrl")

# Per paper, sizes at which a run takes less than a second.
STEPS = ("method.module.predictor.steps=3", "method.module.predictor.final_steps=5")
SIZES = {
    "dvrl": (
        "method.datamodule.train_size=60",
        "method.datamodule.validation_size=40",
        "method.datamodule.test_size=50",
        *STEPS,
    ),
    "supsup": (
        "method.datamodule.num_tasks=3",
        "method.datamodule.train_size=80",
        "method.datamodule.test_size=60",
        "method.module.steps=3",
        "method.module.batch_size=16",
        "method.module.network.hidden=[16,12]",
        "method.module.evaluation.images=16",
        "method.module.evaluation.matrix_images=8",
    ),
    "crvae": (
        "method.datamodule.train_size=80",
        "method.datamodule.validation_size=20",
        "method.datamodule.test_size=70",
        "method.module.latent=3",
        "method.module.epochs=3",
        "method.module.batch_size=16",
        "method.module.network.hidden=[8]",
        "method.module.evaluation.samples=4",
        "method.module.evaluation.probes.hidden=0",
        "method.module.evaluation.probes.draws=1",
        "method.module.evaluation.frechet.samples=40",
        "method.module.evaluation.frechet.epochs=1",
    ),
    "rewriting": (
        "scale=smoke",
        "dataset.train=40",
        "dataset.test=20",
        "generator.channels=[24,24,24,24]",
        "generator.steps=2",
        "generator.pool=16",
    ),
}
# How a run is cut short so that it still has everything that a whole one has.
CUT = {
    "dvrl": ("trainer=debug",),
    "supsup": ("trainer.limit_batches=2",),
    "crvae": ("trainer.limit_batches=1",),
    "rewriting": ("trainer.limit_batches=1",),
}
ALWAYS = ("logger=csv", "hardware.threads=1")  # one thread, so that two processes compute the same bits
SMALL = (*ALWAYS, *SIZES["dvrl"])
FEW = (
    "method.module.predictor.steps=1",
    "method.module.predictor.final_steps=1",
    "method.module.predictor.batch_size=4",
)
PREDICTORS = {  # what makes each one small, in place of STEPS
    "linear": STEPS,
    "mlp": STEPS,
    "cnn": (*FEW, "method.module.predictor.architecture.channels=2"),
    "resnet32": (*FEW, "method.module.predictor.architecture.depth=8"),
    "wrn28_10": (
        *FEW,
        "method.module.predictor.architecture.depth=10",
        "method.module.predictor.architecture.width=1",
    ),
    "boosted_trees": ("method.module.predictor.classifier.max_iter=2",),
}


def options(group: str) -> list[str]:
    """Every choice of a config group, in its sub-folders too."""
    folder = CONF / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def compose(*overrides: str) -> Any:
    """The config of ``python train.py *overrides``."""
    register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", list(overrides))


def small(method: str, out: Path, *overrides: str, predictor: str | None = None) -> Any:
    """The config of a run that takes less than a second; with another predictor than the method's own where asked."""
    sizes = SIZES[PAPERS[method]]
    if predictor:
        shared = [option for option in sizes if option not in STEPS]
        sizes = (f"predictor={predictor}", *shared, *PREDICTORS[predictor])
    return compose(f"method={method}", *ALWAYS, *sizes, f"paths.output_dir={out}", *overrides)


def cut(method: str, out: Path, *overrides: str) -> Any:
    """The same, of a run that is no evidence because the trainer cuts it short."""
    return small(method, out, *CUT[PAPERS[method]], *overrides)


def folder_of(cfg: Any) -> Path:
    """The one run folder of this config."""
    pattern = f"runs/{cfg.method.name}/{cfg.dataset.name}/s{cfg.seed}-*"
    (folder,) = Path(cfg.paths.output_dir).glob(pattern)
    return folder


@contextlib.contextmanager
def unchanged_process() -> Iterator[None]:
    """Give back what a run changes for the whole process: threads, the interrupt handler, log handlers, Hydra."""
    root = logging.getLogger()
    handlers, level, interrupt = root.handlers[:], root.level, signal.getsignal(signal.SIGINT)
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        signal.signal(signal.SIGINT, interrupt)
        if threads:
            torch.set_num_threads(threads)
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None


def run(cfg: Any) -> Path:
    """Do the run in this process; returns its folder."""
    from reprise.run import run as do

    with unchanged_process(), contextlib.redirect_stdout(io.StringIO()):
        do(cfg)
    return folder_of(cfg)


@dataclass
class Outcome:
    """What a command left: exit code, both streams."""

    code: int
    out: str
    err: str

    def sentence(self) -> str:
        """The error of wrong input: exit code 2 and one line on stderr, which is returned."""
        assert self.code == 2, (self.code, self.err)
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("reprise: ")
        assert "Traceback" not in self.out + self.err
        return lines[0]


def train(capfd: pytest.CaptureFixture[str], *argv: str) -> Outcome:
    """``python train.py *argv`` in this process."""
    capfd.readouterr()
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch, unchanged_process():
        patch.setattr(sys, "argv", ["train.py", *argv])
        patch.setenv("HYDRA_FULL_ERROR", "0")
        patch.setenv("REPRISE_LEDGER", "")  # so that it is restored, whatever the command does to it
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    captured = capfd.readouterr()
    return Outcome(int(stopped.value.code or 0), captured.out, captured.err)


def real(*argv: str) -> Outcome:
    """``python train.py *argv`` as a process of its own."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *argv], capture_output=True, text=True, timeout=120, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def start(*argv: str) -> subprocess.Popen[str]:
    """``python train.py *argv``, not waited for."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())


def numbers(folder: Path) -> dict[str, float]:
    """A run's metrics without its times."""
    return {
        name: value
        for name, value in read(folder / "metrics.json").items()
        if not name.startswith(("time/", "memory/"))
    }
