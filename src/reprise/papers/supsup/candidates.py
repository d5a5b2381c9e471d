"""The masks that a batch chooses among when nobody says which task it belongs to (scenario NNs).

Real scores are needed to go on training a mask, bits to superpose and to compare masks. Between two decisions one mask
changes at most, so the number of masks that keep a weight is corrected, not counted anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reprise.papers.supsup.bank import in_layers, pack, unpack
from reprise.papers.supsup.inference import alpha_gradients
from reprise.papers.supsup.masks import MaskSearch
from reprise.papers.supsup.networks import Network


class Candidates:
    """Masks of one frozen network, as scores and as bits. To task inference it looks like a bank.

    Args:
        network: the architecture.
        frozen: its weights, one tensor per layer.
        search: how scores become a mask.
        store: where the bits go ``[room, bytes]``, in the layout of the bank.
        classes: of a task.

    Attributes:
        scores: of each mask, all layers in a row ``[N]``.
        counts: by how many masks each weight is kept ``[N]``.
    """

    def __init__(
        self, network: Network, frozen: Sequence[Tensor], search: MaskSearch, store: Tensor, classes: int
    ) -> None:
        self.network, self.frozen, self.search, self.classes = network, list(frozen), search, classes
        self.store = store
        self.scores: list[Tensor] = []
        self.counts = torch.zeros(network.size, dtype=torch.int32, device=store.device)

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.scores)

    @property
    def packed(self) -> Tensor:
        """Their bits ``[n, bytes]``."""
        return self.store[: self.size]

    def add(self, layers: Sequence[Tensor]) -> None:
        """One more mask, from the scores of each layer (or of all in a row)."""
        row = torch.cat([layer.detach().flatten() for layer in layers]).to(self.store.device)
        self.scores.append(row)
        self.store[self.size - 1] = 0
        self.refresh(self.size - 1)

    def layers(self, mask: int) -> list[Tensor]:
        """The scores of one mask, ``[1, *shape]`` per layer; they share its memory."""
        return in_layers(self.scores[mask][None], self.network.shapes)

    @torch.no_grad()
    def refresh(self, mask: int) -> None:
        """Bring the bits up to what the scores have become."""
        bits = pack([self.search.kept(s) for s in self.layers(mask)])
        self.counts += unpack(bits, self.network.size)[0]
        self.counts -= unpack(self.store[mask : mask + 1], self.network.size)[0]
        self.store[mask] = bits[0]

    def swap(self, one: int, other: int) -> None:
        """Two masks change places."""
        self.scores[one], self.scores[other] = self.scores[other], self.scores[one]
        self.store[[one, other]] = self.store[[other, one]]

    def mean_weights(self, candidates: None = None) -> list[Tensor]:
        """W * (mean mask) per layer, ``[1, *shape]``; of all masks."""
        shares = in_layers((self.counts.to(self.frozen[0].dtype) / self.size)[None], self.network.shapes)
        return [share.mul_(w) for share, w in zip(shares, self.frozen, strict=True)]

    def gradients(self, x: Tensor, objective: str) -> Tensor:
        """dO/dalpha_i ``[n]`` of the mean objective over images ``[B, C, H, W]``, at alpha_i = 1 / n."""
        return alpha_gradients(self, x, objective, per_image=False)[0]
