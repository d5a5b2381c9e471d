"""Users' generators: StyleGAN2 as rosinality's and NVlabs' code saves it, ProGAN as the paper's does.

Weights carry over unchanged from one layout of StyleGAN2 to the other. Sizes are read off the tensors. Images are made
as the paper's code makes them: image n from row n of a fixed matrix of normal latents, truncated.

    rosinality   torch.save of {"g_ema": ..., "latent_avg": ...}
    NVlabs       pickle of {"G_ema": ..., ...}, stylegan2-ada-pytorch
    ProGAN       torch.save of a state dict with layer1.conv.weight, ..., output_256x256.conv.weight
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reprise.errors import UserError
from reprise.papers.rewriting.network import Network
from reprise.papers.rewriting.progan import ProGAN, normalised
from reprise.papers.rewriting.stylegan2 import GAIN, TAPS, Mapping8, Synthesis
from reprise.papers.rewriting.unpickling import Inert, Reader, Trusting, Unknown, attribute_of, state_of

LATENTS = 1000  # rows of the paper's matrix
SEED = 1  # it is made from
TORCH = (b"PK", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")  # how files of torch.save begin

State = Mapping[str, Tensor]


class Checkpoint:
    """A generator of others.

    Attributes:
        synthesis: the network.
        ws: styles ``[1000, slots, style]`` of the numbered images.
        title: for people.
    """

    def __init__(self, synthesis: Network, w: Tensor, title: str) -> None:
        self.synthesis = synthesis.eval().requires_grad_(False)
        self.ws = w.unsqueeze(1).expand(-1, synthesis.slots, -1)
        self.title = title

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with any weight of the network."""
        state = hashlib.sha256(type(self.synthesis).__name__.encode())
        for name, value in sorted(self.synthesis.state_dict().items()):
            state.update(name.encode() + value.contiguous().numpy().tobytes())
        return state.hexdigest()[:16]


def read(path: Path, psi: float = 0.5, trust: bool = False) -> Checkpoint:
    """The generator in a file.

    Args:
        psi: truncation: 1 = none, 0 = all images alike; 0.5 in the paper.
        trust: let a pickle import and call whatever it names.

    Raises:
        UserError: no such file, one of another kind, or one that is damaged or does more than hold a generator.
    """
    if not path.is_file():
        raise UserError(f"there is no generator {path}: check the name.")
    content = path.read_bytes()
    if content.startswith(TORCH):
        return _of_torch(path, psi)
    if not content.startswith(pickle.PROTO):
        raise UserError(f"{path} is no generator: it is neither safetensors, nor of torch.save, nor a pickle.")
    try:
        found = (Trusting if trust else Reader)(content).load()
    except Unknown as error:
        raise UserError(
            f"{path} names {str(error)[:120]!r}, which no generator of StyleGAN2-ADA needs, and was not read on: if "
            "you know who made the file, generator.trust=true lets it do whatever it wants."
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path} is no checkpoint of a generator ({_short(error)}).") from error
    if not isinstance(found, dict) or not isinstance(found.get("G_ema"), Inert):
        raise UserError(f"{path} is a pickle without G_ema: name one that stylegan2-ada-pytorch wrote.")
    return _built(path, lambda: nvlabs(found["G_ema"], psi))


def _of_torch(path: Path, psi: float) -> Checkpoint:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything here, too
        raise UserError(f"{path} is no checkpoint of a generator ({_short(error)}).") from error
    found = found if isinstance(found, dict) else {}
    if isinstance(state := found.get("g_ema", found), dict) and "conv1.conv.weight" in state:
        return _built(path, lambda: rosinality(state, found.get("latent_avg"), psi))
    if isinstance(state := found.get("state_dict", found), dict) and "layer1.conv.weight" in state:
        return _built(path, lambda: progan(state))
    raise UserError(
        f"{path} holds {', '.join(map(str, list(found)[:5])) or 'nothing that is known'}: a generator of rosinality "
        "has g_ema, one of ProGAN layer1.conv.weight."
    )


def _built(path: Path, build: Callable[[], Checkpoint]) -> Checkpoint:
    try:
        return build()
    except KeyError as error:
        raise UserError(f"{path} is incomplete: it has no {error.args[0]}.") from error
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path} holds tensors that make no generator ({_short(error)}).") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def latents(size: int) -> Tensor:
    """The paper's matrix of latents ``[1000, size]``."""
    return torch.from_numpy(np.random.RandomState(SEED).standard_normal((LATENTS, size))).float()


def rosinality(state: State, average: Tensor | None, psi: float = 0.5) -> Checkpoint:
    """StyleGAN2 of rosinality's state dict; without an average of styles nothing is truncated."""
    convs = sum(1 for name in state if name.startswith("convs.") and name.endswith(".conv.weight"))
    names = {2: "conv1"} | {number: f"convs.{number - 3}" for number in range(3, convs + 3)}
    new: dict[str, Tensor] = {"constant": state["input.input"]}
    for number, name in names.items():
        key = f"layers.{number}."
        new[key + "weight"] = state[f"{name}.conv.weight"].squeeze(0)
        new[key + "bias"] = state[f"{name}.activate.bias"]
        new[key + "noise_strength"] = state[f"{name}.noise.weight"].reshape(())
        new[key + "noise"] = state[f"noises.noise_{number - 2}"]
        for part in ("weight", "bias"):
            new[f"{key}affine.{part}"] = state[f"{name}.conv.modulation.{part}"]
        if number > 2 and number % 2:
            check_filter(state[f"{name}.conv.blur.kernel"])
        else:
            rgb = "to_rgb1" if number == 2 else f"to_rgbs.{number // 2 - 2}"
            new |= _rgb(state, number, f"{rgb}.conv.weight", f"{rgb}.bias", f"{rgb}.conv.modulation")
    mapping = [(state[f"style.{i}.weight"], state[f"style.{i}.bias"]) for i in range(1, _count(state, "style.") + 1)]
    return stylegan2(new, mapping, average, psi, "rosinality")


def nvlabs(module: Inert, psi: float = 0.5) -> Checkpoint:
    """StyleGAN2 of a module of stylegan2-ada-pytorch."""
    state = state_of(module)
    if "mapping.embed.weight" in state:
        raise UserError("the generator draws classes on demand, which cannot be edited here: use one without labels.")
    new: dict[str, Tensor] = {"constant": state["synthesis.b4.const"].unsqueeze(0)}
    size, clamp = 4, attribute_of(module, "synthesis.b4.conv1", "conv_clamp")
    while f"synthesis.b{size}.conv1.weight" in state:
        level = size.bit_length() - 3
        for number in ([] if size == 4 else [2 * level + 1]) + [2 * level + 2]:
            name, key = f"synthesis.b{size}.conv{1 - number % 2}", f"layers.{number}."
            new[key + "weight"], new[key + "bias"] = state[f"{name}.weight"], state[f"{name}.bias"]
            new[key + "noise_strength"] = state[f"{name}.noise_strength"]
            new[key + "noise"] = state[f"{name}.noise_const"][None, None]
            for part in ("weight", "bias"):
                new[f"{key}affine.{part}"] = state[f"{name}.affine.{part}"]
            check_filter(state[f"{name}.resample_filter"])
        rgb = f"synthesis.b{size}.torgb"
        new |= _rgb(state, 2 * level + 2, f"{rgb}.weight", f"{rgb}.bias", f"{rgb}.affine")
        size *= 2
    mapping = [
        (state[f"mapping.fc{i}.weight"], state[f"mapping.fc{i}.bias"]) for i in range(_count(state, "mapping.fc"))
    ]
    return stylegan2(new, mapping, state.get("mapping.w_avg"), psi, "NVlabs", clamp)


def _count(state: State, start: str) -> int:
    return sum(1 for name in state if name.startswith(start) and name.endswith(".weight"))


def _rgb(state: State, number: int, weight: str, bias: str, affine: str) -> dict[str, Tensor]:
    key = f"rgbs.{number}."
    new = {key + "weight": state[weight].reshape(3, -1, 1, 1), key + "bias": state[bias].reshape(3)}
    return new | {f"{key}affine.{part}": state[f"{affine}.{part}"] for part in ("weight", "bias")}


def check_filter(kernel: Tensor) -> None:
    """Refuse a filter that smooths otherwise than [1, 3, 3, 1] in both directions.

    Raises:
        UserError: see above.
    """
    taps = torch.tensor(TAPS)
    kernel = kernel.float()
    if kernel.shape != (4, 4) or not torch.allclose(kernel / kernel.sum(), torch.outer(taps, taps) / 64, atol=1e-3):
        raise UserError("the generator smooths with another filter than [1, 3, 3, 1], which is not supported.")


def stylegan2(
    state: State,
    mapping: list[tuple[Tensor, Tensor]],
    average: Tensor | None,
    psi: float,
    whose: str,
    clamp: float | None = None,
) -> Checkpoint:
    """The network of tensors under the suite's own names.

    Args:
        mapping: weights and biases of the perceptrons from z to w.
        average: of w, towards which styles are drawn; ``None`` = they are not.
        clamp: what values and colours are bounded by, as networks that were trained in half precision need.
    """
    channels = [state["constant"].shape[1]]
    while f"layers.{2 * len(channels) + 2}.weight" in state:
        channels.append(len(state[f"layers.{2 * len(channels) + 2}.weight"]))
    style = mapping[-1][0].shape[0]
    synthesis = Synthesis(channels, style, clamp)
    synthesis.load_state_dict({name: value.float() for name, value in state.items()})
    to_w = Mapping8(mapping[0][0].shape[1], style, len(mapping))
    for i, (weight, bias) in enumerate(mapping):
        to_w.weights[i].data.copy_(weight)
        to_w.biases[i].data.copy_(bias)
    if average is not None:
        to_w.mean.copy_(average.reshape(-1))
    with torch.no_grad():
        w = to_w(latents(mapping[0][0].shape[1]), 1.0 if average is None else psi)
    return Checkpoint(synthesis, w, f"StyleGAN2, {synthesis.size} pixels ({whose})")


def progan(state: State) -> Checkpoint:
    """ProGAN of the state dict of the paper's code; there is no truncation."""
    (colours,) = [name.removesuffix(".conv.weight") for name in state if name.startswith("output_") and "conv" in name]
    first = state["layer1.conv.weight"]  # [O, I, 4, 4], of one place with three rows of zeros around it
    channels, number = [len(first)], 4
    while f"layer{number}.conv.weight" in state:
        channels.append(len(state[f"layer{number}.conv.weight"]))
        number += 2
    network = ProGAN(channels, first.shape[1])
    new: dict[str, Tensor] = {"first": first.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2) * (GAIN / 4)}
    for layer in range(1, number - 1):
        if layer > 1:
            new[f"layers.{layer}.weight"] = state[f"layer{layer}.conv.weight"]
        new[f"biases.{layer}.bias"] = state[f"layer{layer}.wscale.b"]
        new[f"biases.{layer}.weight"] = torch.zeros_like(network.biases[str(layer)].weight)
    last = network.numbers[-1]
    new |= {f"rgbs.{last}.weight": state[f"{colours}.conv.weight"], f"rgbs.{last}.bias": state[f"{colours}.wscale.b"]}
    network.load_state_dict(new)
    z = latents(first.shape[1])
    return Checkpoint(network, normalised(z[:, :, None, None])[:, :, 0, 0], f"ProGAN, {network.size} pixels")
