"""What all tests share: a process without the user's dashboard settings, one small run of every method."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import pytest


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No account, no ledger of another sweep, no files outside the tests' folders, and one thread for tiny tensors."""
    import torch

    torch.set_num_threads(1)
    scratch = tmp_path_factory.mktemp("dashboard")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_DIR", "REPRISE_LEDGER"):
            patch.delenv(name, raising=False)
        patch.setenv("HYDRA_FULL_ERROR", "0")
        for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(scratch))
        yield


@pytest.fixture
def train(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., harness.Outcome]:
    """``python train.py`` in this process, writing below ``tmp_path``."""

    def call(*argv: str) -> harness.Outcome:
        mine = any(argument.startswith("paths.output_dir") for argument in argv)
        return harness.train(capfd, *argv, *([] if mine else [f"paths.output_dir={tmp_path / 'out'}"]))

    return call


@pytest.fixture(autouse=True)
def nothing_shared() -> None:
    """What one run keeps for the next ones of its process (see `reprise.papers.rewriting.datamodule`) is forgotten."""
    if module := sys.modules.get("reprise.papers.rewriting.datamodule"):
        module._prepared.clear()


@pytest.fixture(scope="session")
def debug_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """Config and folder of a run that was cut short, made once per method."""
    made: dict[str, tuple[Any, Path]] = {}

    def get(method: str) -> tuple[Any, Path]:
        if method not in made:
            cfg = harness.cut(method, tmp_path_factory.mktemp(method))
            made[method] = cfg, harness.run(cfg)
        return made[method]

    return get
