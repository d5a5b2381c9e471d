"""What an edit needs of a generator, whatever its architecture: layers with keys and values, and a walk through them.

Layers are numbered as in the paper's code: 1 is what the image begins with, 2 the convolution at 4x4, then two per
resolution, odd ones upsampling.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor | None, int]  # a layer's value, the colours so far, the number of the next layer


class Layer(nn.Module):
    """A convolution whose weight can be edited, from the *key* it sees to the *value* that is compared with a target.

    Attributes:
        weight: ``[O, I, 3, 3]``.
        scale: what it is multiplied by at run time.
        ratio: side of a value over that of its key.
        linear: whether the value is a linear function of key and weight.
        noise: what is added to the value ``[1, 1, H, W]``; ``None`` = nothing ever is.
    """

    weight: nn.Parameter
    scale: float
    ratio: int
    linear: bool
    noise: Tensor | None

    @abstractmethod
    def value_of(
        self, key: Tensor, scales: Tensor, weight: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """f(k; W) ``[n, O, H, W]`` of a key ``[n, I, h, w]``, perhaps with another weight or noise."""

    @abstractmethod
    def convolved(self, key: Tensor, weight: Tensor) -> Tensor:
        """The part of f that is linear in a weight that is scaled already; for keys of any number of channels."""

    @abstractmethod
    def gains(self, scales: Tensor, directions: Tensor) -> Callable[[Tensor], Tensor]:
        """By what ``[n, O]`` the convolution is multiplied at W + Lambda D, as a function of Lambda ``[O, R, 3, 3]``.

        Args:
            scales: of the keys ``[n, I]``.
            directions: D ``[R, I]``.
        """

    @abstractmethod
    def finish(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """What follows up to the value."""

    @abstractmethod
    def undone(self, value: Tensor, noise: Tensor | None = None) -> Tensor:
        """What `finish` must have been given for a value."""


class Network(nn.Module):
    """Styles to images in about -1..1.

    Attributes:
        layers: by their numbers.
        rgbs: what adds colours, by the numbers of the layers after which it does.
        size: height and width of an image.
        modulated: whether styles scale features, which is what path length regularisation evens out.
    """

    layers: nn.ModuleDict
    rgbs: nn.ModuleDict
    size: int
    modulated: bool

    @property
    def numbers(self) -> range:
        """Numbers of the layers that can be edited."""
        return range(2, len(self.layers) + 2)

    @staticmethod
    def side(number: int) -> int:
        """Height and width of a layer's value."""
        return 4 * 2 ** ((number - 1) // 2)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many styles an image takes."""

    @abstractmethod
    def begin(self, ws: Tensor) -> Tensor:
        """Layer 1's value ``[n, C, 4, 4]``."""

    @abstractmethod
    def apply_layer(self, number: int, x: Tensor, ws: Tensor, weight: Tensor | None = None) -> Tensor:
        """One layer's value from that of the layer before it."""

    @abstractmethod
    def coloured(self, number: int, x: Tensor, colours: Tensor | None, ws: Tensor) -> Tensor | None:
        """The colours so far, with what is added after a layer, given its value."""

    @abstractmethod
    def key(self, number: int, ws: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys ``[n, I, h, h]`` and the scales ``[n, I]`` in them."""

    def forward(self, ws: Tensor) -> Tensor:
        """Images ``[n, 3, size, size]``, about -1..1, of styles ``[n, slots, style]``."""
        return self.finish(self.start(ws), ws)

    def start(self, ws: Tensor, layer: int | None = None) -> State:
        """Features and colours before a layer, ``None`` for the first one; what `finish` goes on from.

        An edit changes nothing before its layer: that part is shared by images before and after it.
        """
        state: State = (self.begin(ws), None, 2)
        return state if layer is None else self._through(state, ws, layer)

    def finish(self, state: State, ws: Tensor, weights: Mapping[int, Tensor] = {}) -> Tensor:
        """Images from a state on; ``weights`` stand in the place of some layers' own."""
        _, colours, _ = self._through(state, ws, len(self.layers) + 2, weights)
        return colours

    def _through(self, state: State, ws: Tensor, end: int, weights: Mapping[int, Tensor] = {}) -> State:
        x, colours, first = state
        for number in range(first, end):
            x = self.apply_layer(number, x, ws, weights.get(number))
            colours = self.coloured(number, x, colours, ws)
        return x, colours, end
