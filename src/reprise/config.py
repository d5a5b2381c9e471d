"""Configuration: the root schema, the resolvers that YAML files use, and the key that makes a run its content.

Imports neither torch nor Lightning, so that ``--help``, ``--cfg job`` and typing errors answer at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from reprise.errors import UserError

Scale = Enum("Scale", ["smoke", "cpu", "paper"])

# What may differ between two runs that are the same experiment: where it ran, where it was written, how it was shown. A
# generator counts where a method has it, which it does by reference.
VOLATILE = ("hardware", "logger", "paths", "force", "table", "generator")
PASSING = ("hardware", "logger", "paths", "force")  # of these, those that say how and where one command runs
# A user's file is known by its checksum, which the config holds too: moving or renaming it is no new experiment.
VOLATILE_PATHS = ("path", "test_path", "validation_path", "store_path")
# Whole numbers of at least 1, or null for the default.
COUNTS = ("hardware.threads", "trainer.limit_batches", "trainer.max_epochs")


@dataclass
class Paths:
    """Where data is searched (read-only) and where runs are written."""

    data_dir: str = "${oc.env:REPRISE_DATA,data}"
    output_dir: str = "outputs"


@dataclass
class Root:
    """Types of the root keys; Hydra refuses other keys and other types before anything heavy is imported."""

    dataset: Any = MISSING
    method: Any = MISSING
    trainer: Any = MISSING
    hardware: Any = MISSING
    logger: Any = MISSING
    seed: int = 0
    scale: Scale = Scale.cpu  # type: ignore[valid-type]
    force: bool = False
    table: str | None = None
    variant: str | None = None
    generator: Any = None
    paths: Paths = field(default_factory=Paths)


def scaled(smoke: Any, cpu: Any, paper: Any, *, _root_: DictConfig) -> Any:
    """``${scaled:60,250,5000}``: the value for the root key ``scale``, all three side by side in the YAML file."""
    return {"smoke": smoke, "cpu": cpu, "paper": paper}[_root_.scale.name]


def _sha256(*paths: str | None) -> str:
    from reprise.data.store import sha256_of

    return sha256_of(*paths)


def _sha256_given(*paths: str | None) -> str | None:
    from reprise.data.store import sha256_given

    return sha256_given(*paths)


def _sha256_images(*paths: str | None) -> str | None:
    from reprise.data.folders import sha256_of_images

    return sha256_of_images(*paths)


def _sha256_clouds(path: str | None) -> str | None:
    from reprise.data.folders import sha256_of_clouds

    return sha256_of_clouds(path)


def register() -> None:
    """Register the schema and the resolvers; harmless when called again."""
    ConfigStore.instance().store(name="root_schema", node=Root)
    OmegaConf.register_new_resolver("scaled", scaled, replace=True)
    OmegaConf.register_new_resolver("sha256", _sha256, replace=True)
    OmegaConf.register_new_resolver("sha256_given", _sha256_given, replace=True)
    OmegaConf.register_new_resolver("sha256_images", _sha256_images, replace=True)
    OmegaConf.register_new_resolver("sha256_clouds", _sha256_clouds, replace=True)


def given_overrides() -> list[str]:
    """The command line of this job as far as it can change a number: ``train.py`` with these repeats the run.

    Empty outside a Hydra job.
    """
    if not HydraConfig.initialized():
        return []
    given = HydraConfig.get().overrides.task
    return [override for override in given if re.split(r"[./@=]", override.lstrip("+~"))[0] not in PASSING]


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain values, every interpolation resolved.

    Raises:
        UserError: a mandatory value (``???``) was not given, or a number cannot be used.
    """
    try:
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True, enum_to_str=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise UserError(f"{key} has no value: give one, for example `{key}=...` on the command line.") from error
    _check_ranges(config)  # type: ignore[arg-type]
    return config  # type: ignore[return-value]


def _check_ranges(config: dict[str, Any]) -> None:
    """Refuse numbers that torch or Lightning would refuse without naming the key, or take for another meaning."""
    if not 0 <= config["seed"] < 2**32:
        raise UserError(f"seed={config['seed']} cannot be used: a seed lies between 0 and {2**32 - 1}.")
    for key in COUNTS:
        group, name = key.split(".")
        value = config[group][name]
        if value is not None and (type(value) is not int or value < 1):
            raise UserError(f"{key}={value!r} cannot be used: give a whole number of at least 1, or null.")


def content(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that determines the numbers: all of it, less the volatile groups."""
    kept = {key: value for key, value in config.items() if key not in VOLATILE}
    dataset = kept["dataset"]
    if "checksum" in dataset:
        dataset = {key: value for key, value in dataset.items() if key not in VOLATILE_PATHS}
    return kept | {"dataset": dataset}


def fingerprint(value: Any) -> str:
    """Twelve hexadecimal digits of sha256 over the value as sorted JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def run_key(config: dict[str, Any]) -> str:
    """Identity of a run: equal configs give equal keys whatever the machine, folder or logger."""
    return fingerprint(content(config))


def group_key(config: dict[str, Any]) -> str:
    """Identity of a run's configuration without its seed: the runs that are repetitions of each other."""
    return fingerprint({key: value for key, value in content(config).items() if key != "seed"})


def protocol_key(config: dict[str, Any], condition: dict[str, Any]) -> str:
    """Identity of what a method is given: with equal protocol, scale and seed two methods can be compared.

    ``condition`` is what was actually done, for example which predictor was judged.
    """
    return fingerprint([content(config)["dataset"], config["method"]["datamodule"], condition])
