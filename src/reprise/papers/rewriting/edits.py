"""Edits as things: (layer, Lambda, D) with a strength; to be stacked, undone, reordered, saved, applied elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reprise.errors import UserError
from reprise.papers.rewriting.memory import change
from reprise.papers.rewriting.network import Network

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NAME = 200  # characters that are read of an edit's name


@dataclass(frozen=True)
class Edit:
    """A change of one layer's weight of low rank.

    Attributes:
        layer: number of the layer.
        lam: Lambda ``[O, R, 3, 3]``.
        directions: D ``[R, I]``.
        fingerprint: of the generator that it was made for.
        name: what it does, for people.
        strength: 1 as it was found, 0 without effect, more beyond.
    """

    layer: int
    lam: Tensor
    directions: Tensor
    fingerprint: str = ""
    name: str = ""
    strength: float = 1.0

    @property
    def dw(self) -> Tensor:
        """The change ``[O, I, 3, 3]`` at its strength."""
        return self.strength * change(self.lam, self.directions)

    def at(self, strength: float) -> Edit:
        """The same, stronger or weaker."""
        return replace(self, strength=strength)


class EditStack:
    """Edits of one generator, in the order in which they were made; the generator itself is never written to.

    Weights are sums of the original and of the changes, taken anew whenever they are asked for: undoing all edits gives
    the original bits back. The list of edits is replaced and never written to, so that who reads it in another thread
    reads all of one state.

    Args:
        synthesis: the network.
        fingerprint: its generator's.
    """

    def __init__(self, synthesis: Network, fingerprint: str = "") -> None:
        self.synthesis, self.fingerprint = synthesis, fingerprint
        self.edits: list[Edit] = []

    def copy(self) -> EditStack:
        """The same edits, apart: what happens to one stack does not happen to the other."""
        other = EditStack(self.synthesis, self.fingerprint)
        other.edits = self.edits
        return other

    def push(self, edit: Edit) -> None:
        """Add an edit on top.

        Raises:
            UserError: it was made for another generator, or for a layer of another shape.
        """
        check_fits(edit, self.synthesis, self.fingerprint)
        self.edits = [*self.edits, edit]

    def undo(self) -> Edit:
        """Take the last one off.

        Raises:
            UserError: there is none.
        """
        if not self.edits:
            raise UserError("there is no edit to undo.")
        *self.edits, last = self.edits
        return last

    def move(self, place: int, to: int) -> None:
        """Give an edit another place in the order, counted from 0 at the bottom."""
        others = self.edits[:place] + self.edits[place + 1 :]
        self.edits = [*others[:to], self.edits[place], *others[to:]]

    def strengthen(self, place: int, strength: float) -> None:
        """Set an edit's strength."""
        self.edits = [e.at(strength) if i == place else e for i, e in enumerate(self.edits)]

    def weights(self) -> dict[int, Tensor]:
        """What stands in the place of the layers' own weights, by the number of the layer."""
        changed: dict[int, Tensor] = {}
        for edit in self.edits:
            own = self.synthesis.layers[str(edit.layer)].weight.detach()
            changed[edit.layer] = changed.get(edit.layer, own) + edit.dw.to(own)
        return changed

    def images(self, ws: Tensor) -> Tensor:
        """Images of the edited generator ``[n, 3, size, size]``."""
        return self.synthesis.finish(self.synthesis.start(ws), ws, self.weights())

    def before_and_after(self, ws: Tensor) -> tuple[Tensor, Tensor]:
        """Images of the original and of the edited generator; what lies before the first edited layer is done once."""
        weights = self.weights()
        state = self.synthesis.start(ws, min(weights, default=None))
        return self.synthesis.finish(state, ws), self.synthesis.finish(state, ws, weights)


def check_fits(edit: Edit, synthesis: Network, fingerprint: str) -> None:
    """Refuse an edit that does not belong to a network.

    Raises:
        UserError: see above.
    """
    if edit.layer not in synthesis.numbers:
        numbers = synthesis.numbers
        raise UserError(
            f"layer={edit.layer} cannot be edited: this generator's layers are {numbers[0]} to {numbers[-1]}."
        )
    if edit.fingerprint and fingerprint and edit.fingerprint != fingerprint:
        raise UserError(
            f"the edit {edit.name or 'without a name'} was made for the generator {edit.fingerprint}, this one is "
            f"{fingerprint}: make it again for this one."
        )
    weight, lam, d = synthesis.layers[str(edit.layer)].weight, edit.lam, edit.directions
    shaped = lam.dim() == 4 and d.dim() == 2 and lam.shape[1] == len(d) and lam.shape[2:] == weight.shape[2:]
    numbers = lam.dtype in FLOATS and d.dtype in FLOATS
    if not (shaped and numbers and edit.dw.float().isfinite().all()):
        raise UserError(
            f"the edit {edit.name or 'without a name'} is damaged: Lambda and D of shapes {tuple(lam.shape)} and "
            f"{tuple(d.shape)} or numbers that are not finite are no change of a layer."
        )
    found = (edit.lam.shape[0], edit.directions.shape[1])
    if found != tuple(weight.shape[:2]):
        raise UserError(
            f"the edit {edit.name or 'without a name'} changes a layer of {found[1]} to {found[0]} channels, layer "
            f"{edit.layer} has {weight.shape[1]} to {weight.shape[0]}: it belongs to another generator."
        )


def save_edits(path: Path, edits: Sequence[Edit]) -> Path:
    """Write edits as one small safetensors file, beside and renamed."""
    tensors, header = {}, {"edits": str(len(edits))}
    for i, edit in enumerate(edits):
        parts = {f"{i}.lambda": edit.lam, f"{i}.directions": edit.directions}
        tensors |= {name: part.cpu().clone(memory_format=torch.contiguous_format) for name, part in parts.items()}
        about = {"layer": edit.layer, "fingerprint": edit.fingerprint, "name": edit.name, "strength": edit.strength}
        header |= {f"{i}.{key}": str(value) for key, value in about.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, beside, header)
    os.replace(beside, path)
    return path


def load_edits(path: Path) -> list[Edit]:
    """What `save_edits` wrote.

    Raises:
        UserError: the file is damaged or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            return [
                Edit(
                    layer=int(header[f"{i}.layer"]),
                    lam=file.get_tensor(f"{i}.lambda"),
                    directions=file.get_tensor(f"{i}.directions"),
                    fingerprint=header[f"{i}.fingerprint"],
                    name=" ".join(header[f"{i}.name"].split())[:NAME],
                    strength=float(header[f"{i}.strength"]),
                )
                for i in range(int(header["edits"]))
            ]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is no file of edits ({' '.join(str(error).split())[:120]}).") from error
