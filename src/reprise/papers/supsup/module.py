"""SupSup itself: one frozen random network, one mask per task, and a superposition of masks that tells the task."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from reprise.checks import PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.memory import peak_bytes
from reprise.papers.supsup.accounting import account
from reprise.papers.supsup.bank import MaskBank, pack
from reprise.papers.supsup.continual import ContinualLearner, Optimizer, Purpose
from reprise.papers.supsup.evaluation import Judge
from reprise.papers.supsup.inference import INFERENCE
from reprise.papers.supsup.masks import MaskSearch, initial_scores
from reprise.papers.supsup.networks import Network, Statistics, fan_in, signed_constants
from reprise.papers.supsup.objectives import check_objective
from reprise.randomness import derived_seed

log = logging.getLogger("reprise")

Transfer = Literal["none", "mean_scores", "mean_masks", "previous"]
Inference = Literal["given", "oneshot", "binary", "exhaustive", "gradient"]


class SupSup(ContinualLearner):
    """Scenarios GG, GNs and GNu: the task is given while training.

    Args:
        spec, seed, network, outputs, steps, batch_size, optimizer, schedule, evaluation, parallel: see
            `ContinualLearner`.
        search: how a mask is found.
        scenario: ``gg`` task given at test time too, ``gns`` not given and labels shared between tasks, ``gnu`` not
            given and every task has labels of its own.
        inference: how the task is found: ``oneshot`` (equation 4), ``binary``, ``exhaustive`` (the control),
            ``gradient`` (equation 3), or ``given``.
        objective: what the right mask makes small, ``H`` the entropy of the outputs or ``G``, the log-sum-exp with
            gradients through superfluous outputs alone.
        transfer: where the scores of a new mask start: at random (``none``), at the ``mean_scores`` (official code) or
            the ``mean_masks`` (paper) of earlier tasks, or at the ``previous`` task's.

    Raises:
        UserError: a combination of arguments that cannot work.
    """

    title = "SupSup"

    @checked
    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        network: Network,
        outputs: PositiveInt,
        steps: PositiveInt,
        batch_size: PositiveInt,
        optimizer: Optimizer,
        schedule: Literal["constant", "cosine"],
        evaluation: Judge,
        parallel: PositiveInt,
        search: MaskSearch,
        scenario: Literal["gg", "gns", "gnu", "nns"],
        inference: Inference,
        objective: Literal["H", "G"],
        transfer: Transfer,
    ) -> None:
        if transfer != "none":
            parallel = 1  # a mask that starts from the last one's cannot be trained beside it
        super().__init__(spec, seed, network, outputs, steps, batch_size, optimizer, schedule, evaluation, parallel)
        _check_scenario(scenario, inference, self.network)
        if inference != "given":
            check_objective(objective, outputs, spec.num_classes)
        self.search, self.scenario, self.inference = search, scenario, inference
        self.objective, self.transfer = objective, transfer
        self.labels = "unshared" if scenario in ("gg", "gnu") else "shared"
        self.weight_seed = derived_seed(seed, Purpose.WEIGHTS)
        self.frozen: list[Tensor] = []
        self.register_buffer("packed", torch.zeros(self.room, -(-self.network.size // 8), dtype=torch.uint8))
        channels = self.network.channels
        self.register_buffer("mean", torch.zeros(self.room, channels))
        self.register_buffer("var", torch.ones(self.room, channels))
        if transfer != "none":
            self.register_buffer("past", torch.zeros(self.network.size))  # sum over tasks, or the last one
        self._bank: MaskBank | None = None

    @property
    def room(self) -> int:
        """Masks that can be stored."""
        return self.spec.num_tasks

    def on_fit_start(self) -> None:
        """Also put the frozen network on the device."""
        super().on_fit_start()
        self.frozen = [w.to(self.device) for w in signed_constants(self.network.shapes, self.weight_seed)]

    def begin(self, tasks: range) -> list[Parameter]:
        """Scores for each task of the block, ``[T, *shape]`` per layer."""
        starts = [self._start(task) for task in tasks]
        if self.network.channels:
            self.statistics = Statistics.fresh(len(tasks), self.network.channels, self.device)
        return [Parameter(torch.stack(layer).to(self.device)) for layer in zip(*starts, strict=True)]

    def _start(self, task: int) -> list[Tensor]:
        shapes = self.network.shapes
        if self.transfer == "none" or not int(self.learned):
            return initial_scores(shapes, self.generator(Purpose.START, task))
        past = self.past if self.transfer == "previous" else self.past / int(self.learned)
        layers = [
            part.view(shape) for part, shape in zip(past.split([s.numel() for s in self.frozen]), shapes, strict=True)
        ]
        if self.transfer != "mean_masks":
            return layers
        # a mean mask as scores, within the range of random ones
        return [self.search.as_scores(m) / fan_in(shape) ** 0.5 for m, shape in zip(layers, shapes, strict=True)]

    def outputs(self, x: Tensor, training: bool) -> Tensor:
        """The network under the block's masks."""
        if self.statistics is not None:
            self.statistics.training = training
        return self.network(self.search.weights(self.learning, self.frozen), x, self.statistics)

    def keep(self, tasks: range) -> None:
        """Pack the masks into the bank, and remember what later tasks start from."""
        rows = slice(tasks.start, tasks.stop)
        kept = [self.search.kept(s) for s in self.learning]
        self.packed[rows] = pack(kept)
        if self.statistics is not None:
            self.mean[rows], self.var[rows] = self.statistics.mean, self.statistics.var
        self._bank = None
        if self.transfer != "none":
            parts = kept if self.transfer == "mean_masks" else self.learning
            past = torch.cat([p.detach().flatten().float() for p in parts])
            self.past.copy_(past if self.transfer == "previous" else self.past + past)

    @property
    def bank(self) -> MaskBank:
        """What is stored so far."""
        if self._bank is None or self._bank.size != self.masks or self._bank.packed.device != self.packed.device:
            k = self.masks
            statistics = Statistics(self.mean[:k], self.var[:k]) if self.network.channels else None
            data = self.trainer.datamodule
            self._bank = MaskBank(
                self.network, self.weight_seed, self.packed[:k], self.spec.num_classes, statistics, data.mean, data.std
            )
        return self._bank

    def logits(self, task: int, x: Tensor) -> Tensor:
        """From the stored bits."""
        return self.bank.logits(task, x)

    def infer(self, x: Tensor, per_image: bool, among: int) -> Tensor | None:
        """Which of the first masks an image belongs to."""
        if self.inference == "given":
            return None
        candidates = None if among == self.masks else torch.arange(among, device=x.device)
        return INFERENCE[self.inference](self.bank, x, self.objective, candidates=candidates, per_image=per_image)

    def cost(self) -> dict[str, float]:
        """Bytes of the bank beside those of other codes."""
        return account(self.bank) | {"masks/allocated": self.masks}

    def artifacts(self, run_dir: Path) -> list[Path]:
        """Also save the bank, which works on its own."""
        path = self.bank.save(run_dir / "masks.safetensors")
        size, memory = path.stat().st_size / 1e6, peak_bytes() / 2**30
        log.info("%s: %d tasks in %.2f MB. Peak memory of the process: %.2f GiB.", path.name, self.masks, size, memory)
        return super().artifacts(run_dir)


def _check_scenario(scenario: str, inference: str, network: Network) -> None:
    if scenario == "gg" and inference != "given":
        raise UserError(
            f"scenario=gg gives the task at test time, so there is nothing for inference={inference} to find: set "
            "method.module.inference=given, or scenario=gnu."
        )
    if scenario != "gg" and inference == "given":
        raise UserError(
            f"scenario={scenario} does not give the task at test time: set method.module.inference to oneshot, binary, "
            "exhaustive or gradient, or scenario=gg."
        )
    if scenario != "gg" and network.channels:
        raise UserError(
            f"network={network.name} keeps BatchNorm statistics per task, which cannot be superposed, so it "
            "cannot find the task of an image: use scenario=gg, or network=lenet or fc."
        )
