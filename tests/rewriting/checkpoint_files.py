"""Files of generators in the layouts of others, with random weights, and plain forward passes to hold images against.

The forward passes are written from the equations, in the order in which each project's code does them.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import sys
import types
from collections import OrderedDict

import torch
from torch.nn import functional as F

BLUR = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64
STYLE = 16


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator)


def nvlabs_state(channels=(8, 6, 4), depth=3, seed=0):
    """``G_ema.state_dict()`` as stylegan2-ada-pytorch has it."""
    r, state = draw(seed), {}
    for i in range(depth):
        state[f"mapping.fc{i}.weight"], state[f"mapping.fc{i}.bias"] = 100 * r(STYLE, STYLE), 10 * r(STYLE)
    state["mapping.w_avg"] = 0.3 * r(STYLE)
    for level, out in enumerate(channels):
        size, before = 4 * 2**level, channels[max(level - 1, 0)]
        block = f"synthesis.b{size}."
        if size == 4:
            state[block + "const"] = r(out, 4, 4)
        convs = {"conv1": out} if size == 4 else {"conv0": before, "conv1": out}
        for name, inputs in convs.items():
            state |= {
                f"{block}{name}.weight": r(out, inputs, 3, 3),
                f"{block}{name}.bias": 0.1 * r(out),
                f"{block}{name}.noise_strength": 0.1 * r(),
                f"{block}{name}.noise_const": r(size, size),
                f"{block}{name}.resample_filter": BLUR.clone(),
                f"{block}{name}.affine.weight": r(inputs, STYLE),
                f"{block}{name}.affine.bias": 1 + 0.1 * r(inputs),
            }
        state |= {
            f"{block}torgb.weight": r(3, out, 1, 1),
            f"{block}torgb.bias": 0.1 * r(3),
            f"{block}torgb.affine.weight": r(out, STYLE),
            f"{block}torgb.affine.bias": 1 + 0.1 * r(out),
            f"{block}resample_filter": BLUR.clone(),
        }
    return state


def rosinality_state(nv):
    """The same weights as rosinality's ``g_ema``, and the average of styles."""
    state = {"input.input": nv["synthesis.b4.const"][None]}
    for i in range(sum(name.startswith("mapping.fc") for name in nv) // 2):
        for part in ("weight", "bias"):
            state[f"style.{i + 1}.{part}"] = nv[f"mapping.fc{i}.{part}"]
    sizes = sorted({int(name.split(".")[1][1:]) for name in nv if name.startswith("synthesis.b")})
    noise = 0
    for size in sizes:
        for conv in ("conv1",) if size == 4 else ("conv0", "conv1"):
            own = f"synthesis.b{size}.{conv}."
            name = "conv1" if size == 4 else f"convs.{2 * (size.bit_length() - 4) + (conv == 'conv1')}"
            state[f"{name}.conv.weight"] = nv[own + "weight"][None]
            state[f"{name}.activate.bias"] = nv[own + "bias"]
            state[f"{name}.noise.weight"] = nv[own + "noise_strength"].reshape(1)
            state[f"noises.noise_{noise}"] = nv[own + "noise_const"][None, None]
            noise += 1
            for part in ("weight", "bias"):
                state[f"{name}.conv.modulation.{part}"] = nv[f"{own}affine.{part}"]
            if conv == "conv0":
                state[f"{name}.conv.blur.kernel"] = 4 * BLUR
        own = f"synthesis.b{size}.torgb."
        name = "to_rgb1" if size == 4 else f"to_rgbs.{size.bit_length() - 4}"
        state[f"{name}.conv.weight"], state[f"{name}.bias"] = (
            nv[own + "weight"][None],
            nv[own + "bias"].reshape(1, 3, 1, 1),
        )
        for part in ("weight", "bias"):
            state[f"{name}.conv.modulation.{part}"] = nv[f"{own}affine.{part}"]
        if size > 4:
            state[f"{name}.upsample.kernel"] = 4 * BLUR
    return state, nv["mapping.w_avg"]


def nvlabs_images(nv, z, psi, clamp=None):
    """What stylegan2-ada-pytorch computes in single precision, modulating weights and not features."""
    w = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(sum(name.startswith("mapping.fc") for name in nv) // 2):
        weight, bias = nv[f"mapping.fc{i}.weight"] * 0.01 / math.sqrt(STYLE), nv[f"mapping.fc{i}.bias"] * 0.01
        w = F.leaky_relu(w @ weight.T + bias, 0.2) * math.sqrt(2)
    w = nv["mapping.w_avg"].lerp(w, psi)
    bound = (lambda x: x) if clamp is None else (lambda x: x.clamp(-clamp, clamp))

    def filtered(x, pad):
        return F.conv2d(F.pad(x, pad), 4 * BLUR.expand(x.shape[1], 1, 4, 4), groups=x.shape[1])

    images, size = [], 4
    for row in w:
        x, image, size = nv["synthesis.b4.const"][None], None, 4
        while f"synthesis.b{size}.conv1.weight" in nv:
            for conv in ("conv1",) if size == 4 else ("conv0", "conv1"):
                own = f"synthesis.b{size}.{conv}."
                style = nv[own + "affine.weight"] @ row / math.sqrt(STYLE) + nv[own + "affine.bias"]
                weight = nv[own + "weight"] * style[None, :, None, None]
                weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
                if conv == "conv0":
                    x = filtered(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), (1, 1, 1, 1))
                else:
                    x = F.conv2d(x, weight, padding=1)
                x = x + nv[own + "noise_strength"] * nv[own + "noise_const"]
                x = bound(F.leaky_relu(x + nv[own + "bias"][None, :, None, None], 0.2) * math.sqrt(2))
            own = f"synthesis.b{size}.torgb."
            style = nv[own + "affine.weight"] @ row / math.sqrt(STYLE) + nv[own + "affine.bias"]
            weight = nv[own + "weight"] * style[None, :, None, None] / math.sqrt(len(style))
            colours = bound(F.conv2d(x, weight) + nv[own + "bias"][None, :, None, None])
            if image is not None:
                wide = torch.zeros(1, 3, size, size)
                wide[:, :, ::2, ::2] = image
                colours = colours + filtered(wide, (2, 1, 2, 1))
            image, size = colours, 2 * size
        images.append(image)
    return torch.cat(images)


def progan_state(channels=(8, 6, 4), seed=0):
    """The paper's ProGAN."""
    r, number = draw(seed), 1
    state = {}
    for level, out in enumerate(channels):
        before = channels[max(level - 1, 0)]
        state[f"layer{number}.conv.weight"] = r(out, before if level else STYLE, *((4, 4) if level == 0 else (3, 3)))
        state[f"layer{number + 1}.conv.weight"] = r(out, out, 3, 3)
        for layer in (number, number + 1):
            state[f"layer{layer}.wscale.b"] = 0.1 * r(out)
        number += 2
    size = 4 * 2 ** (len(channels) - 1)
    state[f"output_{size}x{size}.conv.weight"] = r(3, channels[-1], 1, 1)
    state[f"output_{size}x{size}.wscale.b"] = 0.1 * r(3)
    return state


def progan_images(state, z):
    """Normalise, double where the resolution changes, convolve, scale, bias, leaky ReLU."""
    x, layers = z[:, :, None, None], sum(name.startswith("layer") for name in state) // 2
    norm = lambda x: x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()  # noqa: E731
    for layer in range(1, layers + 1):
        weight, x = state[f"layer{layer}.conv.weight"], norm(x)
        if layer > 1 and layer % 2:
            x = F.interpolate(x, scale_factor=2.0)
        x = F.conv2d(x, weight, padding=3 if layer == 1 else 1)
        x = x * math.sqrt(2) / (weight.shape[-1] * math.sqrt(weight.shape[1]))
        x = F.leaky_relu(x + state[f"layer{layer}.wscale.b"][None, :, None, None], 0.2)
    (out,) = {name.split(".")[0] for name in state if name.startswith("output")}
    weight = state[f"{out}.conv.weight"]
    return F.conv2d(norm(x), weight) / math.sqrt(weight.shape[1]) + state[f"{out}.wscale.b"][None, :, None, None]


@contextlib.contextmanager
def projects():
    """The modules that NVlabs' pickles name, while one is written; what they hold would run if it were read."""
    persistence, util = types.ModuleType("torch_utils.persistence"), types.ModuleType("dnnlib.util")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the code in the pickle was run")

    class EasyDict(dict):
        __module__, __qualname__ = "dnnlib.util", "EasyDict"

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj, util.EasyDict = _reconstruct_persistent_obj, EasyDict
    made = {"torch_utils": types.ModuleType("torch_utils"), "dnnlib": types.ModuleType("dnnlib")}
    made |= {"torch_utils.persistence": persistence, "dnnlib.util": util}
    made["torch_utils"].persistence, made["dnnlib"].util = persistence, util
    sys.modules |= made
    try:
        yield util.EasyDict, _reconstruct_persistent_obj
    finally:
        for name in made:
            del sys.modules[name]


def nvlabs_pickle(nv, clamp=None, **more):
    """The bytes that stylegan2-ada-pytorch would write."""
    with projects() as (easy, rebuild):

        class Persistent:
            def __init__(self, class_name, state):
                self.class_name, self.state = class_name, state

            def __reduce__(self):
                meta = easy(type="class", version=6, module_src="raise SystemExit", class_name=self.class_name)
                return rebuild, (easy(meta, state=self.state),)

        def module(prefix, class_name):
            names = [name.removeprefix(prefix) for name in nv if name.startswith(prefix)]
            parameters, buffers, modules = OrderedDict(), OrderedDict(), OrderedDict()
            for name in names:
                head, _, rest = name.partition(".")
                if rest and head not in modules:
                    modules[head] = module(f"{prefix}{head}.", f"Made{len(prefix)}")
                elif not rest and head in ("noise_const", "resample_filter", "w_avg"):
                    buffers[head] = nv[prefix + head]
                elif not rest:
                    parameters[head] = torch.nn.Parameter(nv[prefix + head])
            state = {"training": False, "_parameters": parameters, "_buffers": buffers, "_modules": modules}
            state |= {"_non_persistent_buffers_set": set(), "_backward_hooks": OrderedDict(), "conv_clamp": clamp}
            return Persistent(class_name, state | {"init_kwargs": easy(z_dim=STYLE), "dtype": torch.float32})

        return pickle.dumps({"G_ema": module("", "Generator"), "training_set_kwargs": easy(path="x"), **more})
