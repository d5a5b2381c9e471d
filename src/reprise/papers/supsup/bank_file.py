"""The file of a mask bank: what can be wrong with it, one sentence each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from reprise.errors import UserError
from reprise.papers.supsup.networks import Network

FORMAT = "reprise-mask-bank-1"


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a bank's file.

    Raises:
        UserError: no such file, a damaged one, or no bank.
    """
    if not path.is_file():
        raise UserError(f"there is no mask bank {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # clones, because the originals are the file itself, whatever becomes of it
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or no safetensors file: {error}.") from error
    try:
        about = json.loads(metadata[FORMAT])
    except (KeyError, ValueError):
        about = None
    wanted = {"network", "arguments", "inputs", "outputs", "weight_seed", "weights", "classes", "mean", "std"}
    known = isinstance(about, dict) and set(about) - {"tasks"} == wanted
    if not known or set(tensors) not in ({"masks"}, {"masks", "mean", "var"}):
        raise UserError(f"{path} is not a mask bank of this version ({FORMAT}).")
    return tensors, about


def check_same(built: Network, wanted: Network | None) -> None:
    """Whether a stored network is the wanted one, if any is; an unbound one asks for the architecture alone.

    Raises:
        UserError: it is another.
    """
    if wanted is None:
        return
    about = (built.name, built.describe(), *([built.inputs, built.outputs] if wanted.shapes else ()))
    if about != (wanted.name, wanted.describe(), *([wanted.inputs, wanted.outputs] if wanted.shapes else ())):
        raise UserError(
            f"it was saved for {_named(built)}, and {_named(wanted)} is asked for: the masks of one do not fit the "
            "other."
        )


def _named(network: Network) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in network.describe().items())
    shapes = f" with inputs {list(network.inputs)} and {network.outputs} outputs" if network.shapes else ""
    return f"{network.name}({arguments}){shapes}"
