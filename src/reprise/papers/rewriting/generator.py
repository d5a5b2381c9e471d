"""The scenes' generator: a synthesis network, StyleGAN2's or ProGAN's, fed with what is in a scene.

What the whole scene has in common (sky, light, tint) reaches every layer. What its objects are reaches the early
layers only, so that later ones must read it from the features at its place: that is what makes a layer a memory of what
belongs where, and an edit of it possible.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from reprise.data.scenes import Factors, latents
from reprise.errors import UserError
from reprise.papers.rewriting.network import Network
from reprise.papers.rewriting.progan import ProGAN
from reprise.papers.rewriting.stylegan2 import GAIN, SLOPE, Synthesis
from reprise.randomness import derived_seed

WHOLE = 3  # latents of the whole scene
Architecture = Literal["stylegan2", "progan"]
NETWORKS: dict[str, type[Network]] = {"stylegan2": Synthesis, "progan": ProGAN}


@dataclass(frozen=True)
class Plan:
    """Sizes of a generator.

    Attributes:
        channels: of each resolution from 4x4 on.
        style: numbers of w.
        hidden: units of the mapping's two layers.
        buildings: of a scene.
        object_layers: the last layer that is told what objects there are; all are, if there are no more.
        colours_from: the coarsest resolution that adds colours. What coarser ones would add no later layer can take
            back, and an edit of one could not change it.
        seed: of the weights and the noise.
        architecture: whose synthesis network it is.
    """

    channels: tuple[int, ...] = (96, 96, 128, 64)
    style: int = 64
    hidden: int = 128
    buildings: int = 2
    object_layers: int = 4
    colours_from: int = 16
    seed: int = 0
    architecture: Architecture = "stylegan2"

    @property
    def identity(self) -> dict[str, Any]:
        """What files and fingerprints say of it: all, but for an architecture that was once the only one."""
        said = asdict(self)
        if self.architecture == "stylegan2":
            del said["architecture"]
        return said

    @property
    def objects(self) -> int:
        """Latents of the objects, see `reprise.data.scenes.latents`."""
        b = self.buildings
        return 1 + 3 * b + (b + 1) + 3 * b + 3 * b + 2 * (b + 1) + 3


class SceneGenerator(nn.Module):
    """Factors to images in -1..1."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(plan.seed, 1))
            self.synthesis = NETWORKS[plan.architecture](plan.channels, plan.style)
            self.whole = _mapping(WHOLE, plan.hidden, plan.style)
            self.objects = _mapping(WHOLE + plan.objects, plan.hidden, plan.style)
        for number, rgb in self.synthesis.rgbs.items():
            if 4 * 2 ** (int(number) // 2 - 1) < plan.colours_from:
                for parameter in (rgb.weight, rgb.bias):
                    parameter.requires_grad_(False).zero_()

    @property
    def size(self) -> int:
        """Height and width of an image."""
        return self.synthesis.size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.synthesis.device

    def ws(self, factors: Factors) -> Tensor:
        """Styles ``[n, slots, style]`` of scenes; the renderer's counterfactuals have some, too."""
        whole, objects = latents(factors)
        early = self.objects(torch.cat([whole, objects], 1))
        late = self.whole(whole)
        slots = self.synthesis.slots
        told = min(self.plan.object_layers - 1, slots)  # slots of layers 2 to object_layers
        return torch.cat([early.unsqueeze(1).expand(-1, told, -1), late.unsqueeze(1).expand(-1, slots - told, -1)], 1)

    def forward(self, factors: Factors) -> Tensor:
        """Images ``[n, 3, size, size]``, about -1..1."""
        return self.synthesis(self.ws(factors))

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with any weight: what an edit belongs to."""
        state = hashlib.sha256(json.dumps(self.plan.identity, sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            state.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return state.hexdigest()[:16]

    def save(self, path: Path, about: dict[str, Any] | None = None) -> Path:
        """Write weights, plan and what is worth knowing about them, beside and renamed.

        ``about`` becomes JSON in the file's header: seed, training log, the command that makes the file again.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {"plan": json.dumps(self.plan.identity), "about": json.dumps(about or {})}
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}, beside, header
        )
        os.replace(beside, path)
        return path

    @classmethod
    def load(cls, path: Path) -> tuple[SceneGenerator, dict[str, Any]]:
        """A saved generator, and what was written about it.

        Raises:
            UserError: the file is damaged or holds something else.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                plan = json.loads(header["plan"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            made = cls(Plan(**plan | {"channels": tuple(plan["channels"])}))
            made.load_state_dict(state)
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"{path} is no generator of scenes ({' '.join(str(error).split())[:120]}).") from error
        return made.eval(), json.loads(header.get("about", "{}"))


def _mapping(inputs: int, hidden: int, style: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), _Active(), nn.Linear(hidden, hidden), _Active(), nn.Linear(hidden, style)
    )


class _Active(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(x, SLOPE) * GAIN
