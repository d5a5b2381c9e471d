"""From a resolved config to the objects of a run, with mistakes turned into one sentence each."""

from __future__ import annotations

import logging
import math
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import hydra
import lightning.pytorch as pl
import pydantic
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from reprise import processes
from reprise.data.base import Source
from reprise.data.store import FileStore
from reprise.errors import UserError

PATIENCE = timedelta(minutes=5)  # that several processes of a run wait for each other
KINDS = ("image", "table")  # that a method works on when it does not say
# Not said in their configs, because all that is in a config is part of a run's identity.
CLOUDS = ("point_clouds",)
TABLES = ("adult", "blog", "breast_cancer", "csv", "email_to_sms", "rossmann", "sms_spam")


def instantiate(node: dict[str, Any], where: str, **extra: Any) -> Any:
    """Build a config node's object; a wrong or missing argument becomes a sentence that names its key.

    The call is Hydra's partial, completed here: given ``extra`` directly, Hydra would turn dataclasses into dicts.
    """
    try:
        return hydra.utils.instantiate(node, _convert_="all", _partial_=True)(**extra)
    except pydantic.ValidationError as error:
        raise UserError(_validation_sentence(error, where)) from error
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise UserError(f"{where}: {' '.join(str(error).split())}.") from error
    except InstantiationException as error:
        if isinstance(error.__cause__, pydantic.ValidationError):
            inner = str(error).split("full_key: ")[-1].strip()
            raise UserError(_validation_sentence(error.__cause__, f"{where}.{inner}")) from error
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise


def _validation_sentence(error: pydantic.ValidationError, where: str) -> str:
    parts = []
    for problem in error.errors(include_url=False):
        key = ".".join([where, *(str(step) for step in problem["loc"])])
        if problem["type"] == "unexpected_keyword_argument":
            parts.append(f"{key} cannot be used: this method does not take it")
            continue
        parts.append(f"{key}={problem['input']!r} cannot be used: {problem['msg'].lower()}")
    return "; ".join(parts) + "."


def source(config: dict[str, Any]) -> Source:
    """Load the data set."""
    return instantiate(config["dataset"], "dataset", store=FileStore(Path(config["paths"]["data_dir"])))


def datamodule(config: dict[str, Any], data: Source) -> pl.LightningDataModule:
    """Turn the data into the paper's protocol."""
    return instantiate(config["method"]["datamodule"], "method.datamodule", source=data, seed=config["seed"])


def module(config: dict[str, Any], data: pl.LightningDataModule) -> pl.LightningModule:
    """Build the method, and refuse a data set or hardware that it cannot work with."""
    built = instantiate(config["method"]["module"], "method.module", spec=data.spec, seed=config["seed"])
    name, spec = config["method"]["name"], data.spec
    kinds = getattr(built, "kinds", KINDS)
    if spec.kind not in kinds:
        raise UserError(
            f"method={name} works on {' or '.join(kinds)} data, dataset={spec.name} has {spec.kind} data; "
            f"suitable data sets: {', '.join(suitable(built.tasks, kinds))}."
        )
    if spec.task not in built.tasks:
        raise UserError(
            f"method={name} needs a {' or '.join(built.tasks)} target, dataset={spec.name} has a {spec.task} one; "
            f"suitable data sets: {', '.join(suitable(built.tasks, kinds))}."
        )
    devices = processes.count(config)
    if devices > 1 and built.single_device:
        raise UserError(
            f"method={name} trains on one device, the hardware asks for {devices}: use hardware=cpu or hardware=gpu, "
            "and run seeds side by side with `-m hydra/launcher=local`."
        )
    if devices > 1:
        built.check_devices(devices, config["hardware"]["accelerator"])
    return built


def suitable(tasks: tuple[str, ...], kinds: tuple[str, ...] = KINDS) -> list[str]:
    """Names of the data sets of these kinds whose config declares one of these tasks (when silent, classification)."""
    if not HydraConfig.initialized():
        return []
    loader = hydra.core.global_hydra.GlobalHydra.instance().config_loader()
    names = []
    for name in loader.get_group_options("dataset"):
        declared = loader.load_configuration(f"dataset/{name}", [], hydra.types.RunMode.RUN).dataset.get("task")
        kind = "table" if name in TABLES else "cloud" if name in CLOUDS else "image"
        if kind in kinds and (declared or "classification") in (*tasks, "auto"):
            names.append(name)
    return names


def trainer(config: dict[str, Any], built: pl.LightningModule, callbacks: list[pl.Callback]) -> pl.Trainer:
    """Lightning's Trainer for this hardware; an accelerator that is not there is a sentence."""
    quiet_lightning()
    hardware, options = config["hardware"], config["trainer"]
    try:
        return pl.Trainer(
            accelerator=hardware["accelerator"],
            devices=hardware["devices"],
            strategy=DDPStrategy(timeout=PATIENCE) if hardware["strategy"] == "ddp" else hardware["strategy"],
            precision=options["precision"],
            limit_train_batches=options["limit_batches"],
            max_epochs=options["max_epochs"] or built.epochs,
            logger=False,
            callbacks=callbacks,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            sync_batchnorm=hardware["devices"] > 1 and torch.cuda.is_available(),
            plugins=[LightningEnvironment()] if hardware["devices"] > 1 else None,  # whatever Slurm says
        )
    except (pl.utilities.exceptions.MisconfigurationException, ValueError) as error:
        raise UserError(f"this machine or configuration cannot run it: {' '.join(str(error).split())}") from error


def quiet_lightning() -> None:
    """Silence Lightning's remarks about hardware, loaders and steps; what matters is said by the suite."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")


def number(name: str, value: Any) -> float:
    """A metric as a plain finite number.

    Raises:
        FloatingPointError: the metric is NaN or infinite.
    """
    value = value.item() if isinstance(value, torch.Tensor) else value
    if not math.isfinite(value):
        raise FloatingPointError(f"the metric {name} is {value}")
    return value if isinstance(value, int) else float(value)
