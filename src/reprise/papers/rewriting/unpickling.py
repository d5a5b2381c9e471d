"""Reading pickles of generators without running anything that is in them.

StyleGAN2-ADA's pickles hold their modules with the source code that made them, which their own loader executes. Here a
module is a bag of its parameters; tensors are made from bytes; any other name ends the reading.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

LEGACY = 0x1950A86A20F9469CFC6C  # what a storage of torch begins with
PLAIN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("dnnlib.util", "EasyDict"): dict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "Size"): tuple,
}
DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
}
# Opcodes that reserve memory for what the file only claims to hold, or that make objects in outdated ways.
LEFT_OUT = (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.INST, pickle.OBJ)


class Unknown(Exception):  # noqa: N818 - the name says it
    """A name that a pickle may not use."""


class Inert:
    """A module of which only the attributes are kept."""

    def __init__(self, *args: Any) -> None:
        self.class_name = ""

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


class Trusting(pickle._Unpickler):
    """Reads modules as bags of parameters, and imports and calls whatever else the file names: it can do anything.

    It is Python's own unpickler in Python, whose memory grows with the file and not with what it claims.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))

    def find_class(self, module: str, name: str) -> Any:
        """What a name means."""
        if (module, name) in PLAIN:
            return PLAIN[module, name]
        if (module, name) in MADE:
            return MADE[module, name]
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        if module.startswith("torch.nn.modules."):
            return Inert
        return self.other(module, name)

    def other(self, module: str, name: str) -> Any:
        """What any other name means."""
        return super().find_class(module, name)


class Reader(Trusting):
    """The same, but any other name ends the reading."""

    dispatch: ClassVar = {
        code: act for code, act in pickle._Unpickler.dispatch.items() if bytes([code]) not in LEFT_OUT
    }

    def other(self, module: str, name: str) -> Any:
        """Nothing.

        Raises:
            Unknown: always.
        """
        raise Unknown(f"{module}.{name}")

    def _build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, Inert):  # or attributes of our own functions and classes could be set
            raise ValueError(f"a state for {type(made).__name__}")
        made.__setstate__(state)

    dispatch[pickle.BUILD[0]] = _build


class _Storage(pickle._Unpickler):
    """What torch writes of a storage, in several pickles one after the other."""

    dispatch: ClassVar = Reader.dispatch

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise Unknown(f"{module}.{name}")

    def persistent_load(self, saved: Any) -> Any:
        """``("storage", dtype, key, device, count, view)``."""
        return saved


def _storage(content: bytes) -> Tensor:
    """A storage as a flat tensor."""
    file = io.BytesIO(content)
    magic, _, _ = (_Storage(file).load() for _ in range(3))
    saved = _Storage(file).load()
    _Storage(file).load()
    if magic != LEGACY or saved[0] != "storage" or not isinstance(saved[1], torch.dtype):
        raise ValueError("a storage that torch did not write")
    count, rest = int.from_bytes(file.read(8), "little"), file.read()
    if len(rest) != count * saved[1].itemsize:
        raise ValueError("a storage is shorter than it claims")
    return torch.frombuffer(bytearray(rest), dtype=saved[1]) if count else torch.empty(0, dtype=saved[1])


def _tensor(flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > len(flat) or min((offset, *size, *stride)) < 0 or (math.prod(size) and last >= len(flat)):
        raise ValueError("a tensor is larger than its storage")
    return torch.as_strided(flat, size, stride, offset)


def _persistent(meta: dict[str, Any]) -> Inert:
    """A module of StyleGAN2-ADA; the source code that comes with it stays unread."""
    made = Inert()
    made.__setstate__(meta["state"])
    made.class_name = str(meta["class_name"])
    return made


MADE: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
}


def state_of(module: Inert, depth: int = 8) -> dict[str, Tensor]:
    """All parameters and buffers of a module and of those in it, by their dotted names."""
    found = {}
    for part in ("_parameters", "_buffers"):
        found |= {name: value for name, value in getattr(module, part, {}).items() if isinstance(value, Tensor)}
    for name, inner in getattr(module, "_modules", {}).items():
        if isinstance(inner, Inert) and depth:
            found |= {f"{name}.{key}": value for key, value in state_of(inner, depth - 1).items()}
    return found


def attribute_of(module: Inert, path: str, name: str) -> Any:
    """A plain attribute of a module within, ``None`` where there is none."""
    for part in path.split("."):
        module = getattr(module, "_modules", {}).get(part)
    return getattr(module, name, None)
