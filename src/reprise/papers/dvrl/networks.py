"""Image networks as predictors: G copies trained side by side on G weighted selections, all their state in theta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from reprise.checks import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.dvrl.architectures import initialise
from reprise.papers.dvrl.predictors import Parameters, batches

MOMENTS = {"sgd": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq")}  # torch's names for an optimiser's state
DECAY = 0.1  # of the learning rate at every milestone
SHIFT = 4  # pixels of padding that a random crop may move into
ROWS_AT_ONCE = 1024  # images times copies in one forward pass without training
Mode = Literal["train", "eval", "free"]


class Network:
    """Mini-batch training of an image network under weights.

    Theta is a list of tensors whose first axis is the selection: the parameters, the running statistics of batch
    normalisation, the optimiser's moments (all in the order of the network's own lists) and the number of optimiser
    steps so far. So a fit that starts from the result of another one continues it: momentum, statistics and the place
    in the learning-rate schedule carry over.

    A step's loss is ``weighted_losses``. Batch normalisation, where a network has it, knows no weights: while training,
    rows of weight 0 enter the statistics of their batch like all others, also where G = 1, which keeps the shapes of a
    step fixed.
    On a CUDA device passes run in bfloat16 where that is safe, with parameters and moments in single precision.

    Args:
        architecture: a class of ``architectures`` with its own arguments filled in.
        steps: optimiser steps of a fit inside the valuation loop.
        final_steps: steps of the fits that are reported.
        optimizer: ``sgd`` or ``adam``.
        learning_rate: at the start.
        weight_decay: times the parameter is added to its gradient, for all parameters.
        batch_size: images per step, drawn afresh and alike for all selections; ``None`` = all.
        momentum: of ``sgd``.
        nesterov: of ``sgd``.
        milestones: numbers of steps after which the learning rate falls to a tenth.
        augment: mirror images at random, and cut them at random out of themselves with 4 pixels of padding, 0, which is
            the mean of scaled inputs.
        copies_at_once: selections trained together, which bounds memory; ``None`` = all.

    Raises:
        UserError: Nesterov without momentum, or a network that cannot be built.
    """

    tensors = True

    @checked
    def __init__(
        self,
        architecture: Callable[..., nn.Module],
        steps: PositiveInt,
        final_steps: PositiveInt,
        optimizer: Literal["sgd", "adam"],
        learning_rate: PositiveFloat,
        weight_decay: NonNegativeFloat,
        batch_size: PositiveInt | None = None,
        momentum: Fraction = 0.9,
        nesterov: bool = False,
        milestones: list[PositiveInt] | None = None,
        augment: bool = False,
        copies_at_once: PositiveInt | None = None,
    ) -> None:
        if nesterov and not momentum:
            raise UserError("method.module.predictor.nesterov=true needs method.module.predictor.momentum above 0.")
        self.architecture, self.steps, self.final_steps = architecture, steps, final_steps
        self.optimizer, self.learning_rate, self.weight_decay = optimizer, learning_rate, weight_decay
        self.batch_size, self.momentum, self.nesterov = batch_size, momentum, nesterov
        self.milestones, self.augment, self.copies_at_once = milestones or [], augment, copies_at_once
        self._modules: dict[tuple[int, Mode], nn.Module] = {}
        try:
            self.name: str = self._build(1, (1, 8, 8), 1).name
        except ValidationError as error:
            problem = error.errors()[0]
            raise UserError(
                f"method.module.predictor.architecture.{problem['loc'][-1]}={problem['input']!r} cannot be used: "
                f"{problem['msg'].lower()}."
            ) from error

    def bind(self, spec: DataSpec) -> None:
        """See ``Predictor.bind``.

        Raises:
            UserError: the rows are no images.
        """
        if not spec.image:
            raise UserError(
                f"the predictor {self.name} reads images and dataset={spec.name} is a table: use predictor=linear, "
                "predictor=mlp or predictor=boosted_trees, or a data set of images."
            )
        self.image, self.width = spec.image, spec.num_classes or 1
        self._modules.clear()
        module = self._module(1, "train")
        self.parameter_names = [name for name, _ in module.named_parameters()]
        self.names = self.parameter_names + [name for name, _ in module.named_buffers()]

    def initial(self, features: int, outputs: int, copies: int, generator: torch.Generator) -> Parameters:
        """See ``Predictor.initial`` and the class; nothing is averaged and no step is taken yet."""
        module = self._build(1, self.image, outputs).to_empty(device=generator.device)
        with torch.no_grad():
            initialise(module, generator)
        parameters, statistics = [p.detach() for p in module.parameters()], list(module.buffers())
        moments = [torch.zeros_like(p) for _ in MOMENTS[self.optimizer] for p in parameters]
        theta = [p.repeat(copies, *[1] * p.dim()).view(copies, *p.shape) for p in parameters + statistics + moments]
        return [*theta, torch.zeros(copies, dtype=torch.int64, device=generator.device)]

    def fit(
        self, x: Tensor, target: Tensor, weights: Tensor, theta: Parameters, steps: int, generator: torch.Generator
    ) -> Parameters:
        """See ``Predictor.fit``; ``copies_at_once`` does not change the batches, nor what is done to their images."""
        state, parts = generator.get_state(), []
        for some in self._chunks(len(weights)):
            generator.set_state(state)
            parts.append(self._fit(x, target, weights[some], [p[some] for p in theta], steps, generator))
        return [torch.cat(same) for same in zip(*parts, strict=True)]

    def _fit(
        self, x: Tensor, target: Tensor, weights: Tensor, theta: Parameters, steps: int, generator: torch.Generator
    ) -> Parameters:
        copies, done = len(weights), int(theta[-1][0])
        work = [flat(p).clone() for p in theta[:-1]]
        parameters = [p.requires_grad_() for p in work[: len(self.parameter_names)]]
        optimizer = self._optimizer(parameters, work[len(self.names) :], done)
        for step in range(done, done + steps):
            (rows,) = batches(len(x), self.batch_size, 1, generator)
            xb, tb, wb = (x, target, weights) if rows is None else (x[rows], target[rows], weights[:, rows])
            with torch.enable_grad():
                outputs = self._forward(copies, work, self.augmented(xb, generator), "train")
                # copies share no parameter, so the gradient of the sum holds every copy's own
                gradients = torch.autograd.grad(weighted_losses(outputs, tb, wb).sum(), parameters)
            for p, gradient in zip(parameters, gradients, strict=True):
                p.grad = gradient
            optimizer.param_groups[0]["lr"] = self.learning_rate_at(step)
            optimizer.step()
        return [p.detach().contiguous().unflatten(0, (copies, -1)) for p in work] + [theta[-1] + steps]

    def _optimizer(self, parameters: list[Tensor], moments: list[Tensor], done: int) -> torch.optim.Optimizer:
        """Torch's optimiser as it was after ``done`` steps; it works on ``parameters`` and ``moments`` in place."""
        if self.optimizer == "adam":
            optimizer = torch.optim.Adam(parameters, self.learning_rate, weight_decay=self.weight_decay)
        else:
            options = {"momentum": self.momentum, "nesterov": self.nesterov, "weight_decay": self.weight_decay}
            optimizer = torch.optim.SGD(parameters, self.learning_rate, **options)
        count = len(parameters)
        for number, p in enumerate(parameters):
            kept = moments[number::count]
            optimizer.state[p] = dict(zip(MOMENTS[self.optimizer], kept, strict=True))
            if self.optimizer == "adam":
                optimizer.state[p]["step"] = torch.tensor(float(done))
        return optimizer

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the step after ``step`` ones."""
        return self.learning_rate * DECAY ** sum(step >= milestone for milestone in self.milestones)

    def outputs(self, theta: Parameters, x: Tensor) -> Tensor:
        """See ``Predictor.outputs``; batch normalisation by its running statistics."""
        columns = []
        for some in self._chunks(len(theta[0])):
            state = [flat(p[some]) for p in theta[: len(self.names)]]
            copies = len(theta[0][some])
            parts = x.split(max(1, ROWS_AT_ONCE // copies))
            columns.append(torch.cat([self._forward(copies, state, part, "eval") for part in parts]))
        return torch.cat(columns, 1)

    def trainable(self, theta: Parameters) -> list[Tensor]:
        """The part of theta that gradients are for."""
        return theta[: len(self.parameter_names)]

    def training_outputs(self, parameters: list[Tensor], x: Tensor) -> Tensor:
        """Outputs ``[M, G, C]`` as a training step sees them, batch normalisation by the statistics of ``x [M, d]``.

        A function of ``trainable(theta)`` and ``x`` alone that changes nothing: for gradients of gradients, and for
        ``torch.func``.
        """
        return self._forward(len(parameters[0]), [flat(p) for p in self.trainable(parameters)], x, "free")

    def augmented(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Rows ``[B, d]`` mirrored and moved at random where ``augment`` is on.

        A fit of one step on all rows draws nothing else, so from a generator in the same state it sees the same images.
        """
        return flip_and_crop(x.view(-1, *self.image), generator).flatten(1) if self.augment else x

    def _forward(self, copies: int, state: list[Tensor], x: Tensor, mode: Mode) -> Tensor:
        """Outputs ``[M, G, C]``; ``state`` in the order of ``names``; training updates its statistics in place."""
        images = x.view(-1, *self.image).contiguous(memory_format=torch.channels_last)
        tensors = dict(zip(self.names, state, strict=False))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
            outputs = functional_call(self._module(copies, mode), tensors, (images,))
        return outputs.to(x.dtype)

    def _module(self, copies: int, mode: Mode) -> nn.Module:
        """The network without tensors of its own."""
        if (copies, mode) not in self._modules:
            module = self._build(copies, self.image, self.width).train(mode != "eval")
            if mode == "free":
                for layer in module.modules():
                    if isinstance(layer, nn.BatchNorm2d):
                        layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
            self._modules[copies, mode] = module
        return self._modules[copies, mode]

    def _build(self, copies: int, image: tuple[int, ...], outputs: int) -> nn.Module:
        with torch.device("meta"):
            return self.architecture(copies=copies, image=image, outputs=outputs)

    def _chunks(self, copies: int) -> list[slice]:
        size = self.copies_at_once or copies
        return [slice(first, first + size) for first in range(0, copies, size)]


def weighted_losses(outputs: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Each selection's loss ``[G]``: the mean over the selected weight, of at least 1, as for all predictors.

    Args:
        outputs: ``[N, G, C]``.
        target: one-hot classes ``[N, C]`` (cross entropy), or numbers ``[N, 1]`` (half the squared error).
        weights: ``[G, N]``.
    """
    given = target.unsqueeze(1)
    if target.shape[1] > 1:
        losses = -(given * F.log_softmax(outputs, -1)).sum(-1)
    else:
        losses = (outputs - given).square().sum(-1) / 2
    return (losses.T * weights).sum(1) / weights.sum(1).clamp_min(1)


def flat(p: Tensor) -> Tensor:
    """``[G, n, ...]`` as the networks hold it: ``[G*n, ...]``; kernels in the memory order that convolutions like."""
    joined = p.flatten(0, 1)
    return joined.contiguous(memory_format=torch.channels_last) if joined.dim() == 4 else joined


def flip_and_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images ``[B, C, H, W]``, pad all by 4 and cut each at a place of its own; same shape."""
    count, _, height, width = images.shape
    device = images.device

    def draw(below: int) -> Tensor:
        return torch.randint(below, (count, 1), generator=generator, device=device)

    rows = draw(2 * SHIFT + 1) + torch.arange(height, device=device)
    columns = draw(2 * SHIFT + 1) + torch.arange(width, device=device)
    columns = torch.where(draw(2) == 1, columns.flip(1), columns)
    padded = F.pad(images, (SHIFT, SHIFT, SHIFT, SHIFT))
    which = torch.arange(count, device=device).view(-1, 1, 1)
    cut = padded.movedim(1, -1)[which, rows.unsqueeze(2), columns.unsqueeze(1)]  # [B, H, W, C]
    return cut.movedim(-1, 1).contiguous()
