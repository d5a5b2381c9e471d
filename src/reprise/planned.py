"""What a command asks for, without doing it: the jobs of a sweep and how far each of them is."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprise.config import register, resolved, run_key
from reprise.errors import UserError
from reprise.evidence import Collection, state_of
from reprise.layout import terminal

CONF = Path(__file__).resolve().parents[2] / "conf"
STATES = ("finished", "recorded", "running", "interrupted", "stale", "failed", "unreadable", "missing")


@dataclass(frozen=True)
class Job:
    """One run that a command asks for: its paper, its name below ``runs/``, its key and the job's own words."""

    paper: str
    name: str
    key: str
    words: tuple[str, ...]


def jobs(words: Sequence[str], conf: Path = CONF) -> Iterator[Job]:
    """The jobs of ``train.py WORDS``, in its order; one where nothing is swept over.

    Raises:
        UserError: a word that is none of the command line's, or a config that cannot be.
    """
    import hydra
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import open_dict
    from omegaconf.errors import OmegaConfBaseException

    register()
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf), version_base="1.3"):
            composer = GlobalHydra.instance().hydra
            compose = functools.partial(composer.compose_config, "train", with_log_configuration=False)
            root = compose(overrides=list(words), run_mode=RunMode.MULTIRUN)
            swept = [f"{key}={value}" for key, value in (root.hydra.sweeper.params or {}).items()]
            given = OverridesParser.create(composer.config_loader).parse_overrides([*swept, *words])
            (every,) = BasicSweeper.split_arguments(given, None)
            for own in every:
                cfg = compose(overrides=list(own), run_mode=RunMode.RUN)
                with open_dict(cfg):
                    del cfg["hydra"]
                yield _job(resolved(cfg), own)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"these words ask for nothing that can be run: {' '.join(str(error).split())[:300]}") from error


def _job(config: dict[str, Any], words: Sequence[str]) -> Job:
    key = run_key(config)
    name = f"{config['method']['name']}/{config['dataset']['name']}/s{config['seed']}-{key}"
    return Job(config["method"]["paper"], name, key, tuple(words))


def states(planned: Sequence[Job], output_dir: Path, found: dict[str, Collection]) -> list[tuple[Job, str, str]]:
    """Each job with its state, one of ``STATES``, and why it failed.

    Args:
        planned: see `jobs`.
        output_dir: where runs lie.
        found: what there is of each paper; a run that is in the records alone is ``recorded``, and counts in tables.
    """
    told, recorded = [], {paper: {record.run_key for record in there.records} for paper, there in found.items()}
    for job in planned:
        state, error = state_of(output_dir / "runs" / job.name)
        kept = state != "finished" and job.key in recorded[job.paper]
        told.append((job, "recorded", "") if kept else (job, state, error))
    return told


def show(told: Sequence[tuple[Job, str, str]]) -> int:
    """Print how many jobs are in which state, and all that count in no table; the exit code, 1 if there are any."""
    console = terminal()
    counts = {state: sum(state == other for _, other, _ in told) for state in STATES}
    console.print(f"{len(told)} jobs: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count))
    for job, state, error in told:
        if state not in STATES[:2]:
            why = f": {error}" if error else ""
            console.print(f"  {state}  {job.name}  ({' '.join(job.words)}){why}", markup=False, soft_wrap=True)
    return int(counts["finished"] + counts["recorded"] < len(told))
