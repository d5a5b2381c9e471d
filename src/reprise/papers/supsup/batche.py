"""BatchE (Wen et al. 2020): shared weights, and for each task a matrix of rank one that they are multiplied by.

W^t = W * (s_t r_t^T), so that y = ((x * r_t) W) * s_t. A task stores C_in + C_out numbers per layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from reprise.checks import checked
from reprise.papers.supsup.continual import Purpose
from reprise.papers.supsup.networks import Shape
from reprise.papers.supsup.objectives import entropy
from reprise.papers.supsup.shared import SharedWeights


def rank_one(weight: Tensor, s: Tensor, r: Tensor) -> Tensor:
    """W * (s r^T) ``[T, out, in, ...]`` of W ``[out, in, ...]``, s ``[T, out]`` and r ``[T, in]``."""
    rest = [1] * (weight.dim() - 2)
    return weight * s.view(*s.shape, 1, *rest) * r.view(len(r), 1, -1, *rest)


class BatchE(SharedWeights):
    """W is trained with the first task's s and r, or stays random; later tasks train s and r alone, from random signs.

    Args:
        trained: ``first_task``, or ``never`` (the paper's Rand W).
        inference: ``given``, or ``exhaustive``: the task under which the outputs have the least entropy (the paper's
            appendix), which costs a forward pass per task and image.
        common: see `SharedWeights`; ``first_optimizer`` trains W, s and r.
    """

    title = "BatchE"

    @checked
    def __init__(
        self,
        *,
        trained: Literal["first_task", "never"],
        inference: Literal["given", "exhaustive"] = "given",
        **common: Any,
    ) -> None:
        super().__init__(**common, trained=trained)
        self.inference = inference

    @property
    def own_shapes(self) -> list[Shape]:
        """s and r of each layer."""
        return [part for shape in self.network.shapes for part in ((shape[0],), (shape[1],))]

    def start(self, task: int) -> list[Tensor]:
        """+1 and -1 with equal probability."""
        generator = self.generator(Purpose.START, task)
        return [torch.randint(2, shape, generator=generator).float() * 2 - 1 for shape in self.own_shapes]

    def networks(self, shared: Sequence[Tensor], own: Sequence[Tensor]) -> list[Tensor]:
        """W^t of every layer."""
        return [rank_one(w, s, r) for w, s, r in zip(shared, own[::2], own[1::2], strict=True)]

    def infer(self, x: Tensor, per_image: bool, among: int) -> Tensor | None:
        """The task of least entropy."""
        if self.inference == "given":
            return None
        found = self.entropies(x, among)
        return (found if per_image else found.mean(1, keepdim=True)).argmin(0)

    def entropies(self, x: Tensor, among: int) -> Tensor:
        """Of the outputs for each image under each of the first so many tasks ``[k, n]``, in nats."""
        groups = (range(at, min(at + self.parallel, among)) for at in range(0, among, self.parallel))
        return torch.cat([entropy(self.stored_answers(tasks, x.expand(len(tasks), *x.shape))) for tasks in groups])
