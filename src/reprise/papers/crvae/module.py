"""Any variational auto-encoder, trained on one view or two, with or without a term that ties the two posteriors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor

from reprise import randomness
from reprise.checks import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.crvae import artifacts
from reprise.papers.crvae.assessment import Assessed, Assessment
from reprise.papers.crvae.datamodule import ROUND
from reprise.papers.crvae.likelihoods import binarise
from reprise.papers.crvae.objective import Batching, Views, consistent_loss, look
from reprise.papers.crvae.official import literal_loss
from reprise.schedules import cosine

EPOCH = 200  # at least so many between two checkpoints, where a pass over the data has fewer
VALIDATION_BATCH = 1000


class Purpose(IntEnum):
    """What randomness is for; keeps the streams of one seed apart."""

    WEIGHTS = 1
    ORDER = 2
    STEPS = 3
    BINARY = 4
    VALIDATION = 5


class ConsistentVAE(pl.LightningModule):
    """The wrapper around every base model and every regime.

    Args:
        spec: the data.
        seed: of weights, order, views and samples.
        network: the architecture.
        likelihood: p(x | z).
        latent: d, numbers per level of latents.
        bound: what is maximised for each view, `ELBO` or `IWAE`.
        views: which views are trained on: the ``clean`` input, ``both``, or the ``augmented`` one alone.
        penalty: what ties two views together; ``None`` = nothing.
        weight: lambda, weight of the penalty in nats per input.
        warmup: passes over which lambda grows linearly from 0.
        epochs: passes over the training inputs.
        compute: how many times as many passes are made (2 = as many views as ``both`` in the same number of epochs).
        batch_size: inputs per step.
        optimizer: called with the parameters.
        schedule: of the learning rate, ``constant`` or ``cosine`` down to 0.
        clip: largest norm of the gradient; ``None`` = as it comes.
        objective: the ``paper``'s, or ``official_literal``: the released code's sum of terms of different scales.
        view_batching: both views in one pass, ``concat``, or in one each, ``separate``.
        shared_noise: the same epsilon for both views.
        matmul: of matrix products in training, ``highest``, or ``high`` or ``medium`` as torch has them, which round
            what is multiplied on hardware that gains by it. Whatever it says, the end is judged at the highest.
        keep: the epoch of the ``best`` validation ELBO, or the ``last``.
        evaluation: how the end is judged.

    Raises:
        UserError: arguments that do not fit each other or the data.
    """

    tasks = ("classification", "regression")
    single_device = False
    title = "CR-VAE"
    progress_metrics: tuple[str, ...] = ("train/loss", "train/penalty", "validation/elbo")

    @checked
    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        network: Any,
        likelihood: Any,
        latent: PositiveInt,
        bound: Any,
        views: Views,
        penalty: Any,
        weight: NonNegativeFloat,
        warmup: NonNegativeInt,
        epochs: PositiveInt,
        compute: PositiveInt,
        batch_size: PositiveInt,
        optimizer: Any,
        schedule: Literal["constant", "cosine"],
        clip: PositiveFloat | None,
        objective: Literal["paper", "official_literal"],
        view_batching: Batching,
        shared_noise: bool,
        matmul: Literal["highest", "high", "medium"],
        keep: Literal["best", "last"],
        evaluation: Assessment,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        _check_views(views, penalty, objective)
        if not hasattr(network, "build"):
            raise UserError(
                "method.module.network is no auto-encoder: choose network=vae_mlp, vae_conv, vae_conv_narrow or "
                "vae_ladder_mlp."
            )
        self.spec, self.seed, self.architecture, self.likelihood = spec, seed, network, likelihood
        self.latent, self.bound, self.views, self.penalty = latent, bound, views, penalty
        self.weight, self.warmup, self.passes, self.nominal = weight, warmup, epochs * compute, epochs
        self.batch_size = min(batch_size, spec.rows)
        self.make_optimizer, self.schedule, self.clip, self.objective = optimizer, schedule, clip, objective
        self.view_batching, self.shared_noise, self.matmul, self.keep = view_batching, shared_noise, matmul, keep
        self.judge = evaluation
        self.kinds = tuple(likelihood.kinds)
        if spec.kind in self.kinds:  # else the suite refuses the pair in its own words
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(randomness.derived_seed(seed, Purpose.WEIGHTS))
                self.model = network.build(spec.shape, latent, likelihood.parameters)
        self.steps_per_pass = max(1, spec.rows // self.batch_size)  # what does not fill a batch waits for the next pass
        per_epoch = min(self.passes, math.ceil(EPOCH / self.steps_per_pass))
        self.passes_per_epoch, self.epochs = per_epoch, math.ceil(self.passes / per_epoch)
        self.steps_per_epoch = math.ceil(per_epoch * self.steps_per_pass / ROUND)  # rounds, one batch of Lightning's
        self.steps = self.passes * self.steps_per_pass
        self.mine = slice(None)  # inputs of a batch that this process answers for
        self.best: dict[str, Any] | None = None
        self.assessed: Assessed | None = None

    @property
    def condition(self) -> dict[str, Any]:
        """Beside the data, what must be equal for two runs to be compared."""
        return {
            "network": self.architecture.title,
            "latent": self.latent,
            "likelihood": self.likelihood.density,
            "epochs": self.nominal,
            "batch_size": self.batch_size,
            "matmul": self.matmul,
            "samples": self.judge.samples,
        }

    def check_devices(self, devices: int, accelerator: str) -> None:
        """Refuse what several processes cannot do as one does it.

        Raises:
            UserError: a batch that cannot be shared out, or a loss or a layer that needs all of it.
        """
        if self.batch_size % devices:
            raise UserError(
                f"method.module.batch_size={self.batch_size} cannot be shared out between hardware.devices={devices} "
                "processes: make it a multiple."
            )
        if self.objective == "official_literal" or getattr(self.penalty, "across_batch", False):
            raise UserError(
                "this objective compares or sums over the inputs of a batch, which several processes share out: use "
                "hardware=cpu or hardware=gpu."
            )
        normalised = any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in self.modules())
        if normalised and (accelerator == "cpu" or not torch.cuda.is_available()):
            raise UserError(
                "this network normalises over the batch, which several processes on the processor cannot do together: "
                "use hardware=cpu, or GPUs."
            )

    def generator(self, *purpose: int) -> torch.Generator:
        """Randomness on the module's device."""
        return randomness.generator(self.seed, *purpose, device=self.device)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The one that the config names."""
        try:
            optimizer = self.make_optimizer(self.model.parameters())
        except (TypeError, ValueError) as error:
            raise UserError(f"method.module.optimizer: {' '.join(str(error).split())}.") from error
        self.rates = [group["lr"] for group in optimizer.param_groups]
        return optimizer

    def on_fit_start(self) -> None:
        """Put the inputs on the device."""
        data = self.trainer.datamodule
        share = self.batch_size // self.trainer.world_size
        self.mine = slice(self.trainer.global_rank * share, (self.trainer.global_rank + 1) * share)
        for part in (data.train, data.validation, data.test):
            self.likelihood.check(part.x)
        self.x = data.train.x.to(self.device)
        self.held = self._seen_by_likelihood(data.validation.x.to(self.device), Purpose.VALIDATION)
        self.fixed: Tensor | None = None
        if self.likelihood.binary and self.likelihood.static:
            self.fixed = self._seen_by_likelihood(self.x, Purpose.BINARY)
        self._order: tuple[int, Tensor] | None = None

    def _seen_by_likelihood(self, x: Tensor, purpose: Purpose) -> Tensor:
        """Inputs binarised once and for all runs alike, where the likelihood is one of binary pixels."""
        if not self.likelihood.binary:
            return x
        fixed = randomness.generator(self.trainer.datamodule.data_seed, purpose, device=x.device)
        return binarise(x, fixed)

    def training_step(self, round_of_epoch: int) -> None:
        """Some steps."""
        first_of_epoch = self.current_epoch * self.passes_per_epoch * self.steps_per_pass
        end = min(first_of_epoch + self.passes_per_epoch * self.steps_per_pass, self.steps)
        first = min(first_of_epoch + round_of_epoch * ROUND, end)
        last = min(first + ROUND, end)
        if first == last:
            return
        self.model.train()
        optimizer = self.optimizers(use_pl_optimizer=False)
        draw = self.generator(Purpose.STEPS, first)
        told = torch.zeros(last - first, 5, device=self.device)
        with _matrix_products(self.matmul):
            for step in range(first, last):
                told[step - first] = self._step(step, optimizer, draw)
        told = self.trainer.strategy.reduce(told, reduce_op="mean")
        self._check_finite(told[:, 0], first)
        names = ("train/loss", "train/elbo", "train/reconstruction", "train/kl", "train/penalty")
        means = dict(zip(names, told.mean(0), strict=True))
        if self.penalty is None:
            del means["train/penalty"]
        self.log_dict(means, batch_size=1)
        if last == end:
            self._validate()

    def _step(self, step: int, optimizer: torch.optim.Optimizer, draw: torch.Generator) -> Tensor:
        """One step; returns loss, and of the first view ELBO, reconstruction and KL, and the penalty ``[5]``."""
        seen = look(
            self.model,
            self.likelihood,
            self.bound,
            self.bound.samples,
            self._views(self._rows(step), draw),
            draw,
            self.view_batching,
            self.shared_noise,
            self.mine,
        )
        if self.objective == "official_literal":
            loss, apart = literal_loss(seen, self.weight)
        else:
            loss, apart = consistent_loss(seen, self.penalty, self.weight_at(step))
        self._set_rate(optimizer, step)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)  # with several processes, the mean of their gradients
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        optimizer.step()
        with torch.no_grad():
            bound = seen[0].bound
            penalty = loss.new_zeros(()) if apart is None else apart
            parts = [loss, bound.elbo.mean(), bound.reconstruction.mean(), bound.kl.mean(), penalty]
            return torch.stack([part.detach().float() for part in parts])

    def _set_rate(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        if self.schedule == "cosine":
            for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * cosine(step, self.steps)

    def weight_at(self, step: int) -> float:
        """lambda at a step: linear from 0 over the warm-up."""
        ramp = self.warmup * self.steps_per_pass
        return self.weight * min(1.0, (step + 1) / ramp) if ramp else self.weight

    def _rows(self, step: int) -> Tensor:
        """Rows of a step's batch ``[B]``; every pass has an order of its own."""
        number, place = divmod(step, self.steps_per_pass)
        if self._order is None or self._order[0] != number:
            order = torch.randperm(self.spec.rows, generator=randomness.generator(self.seed, Purpose.ORDER, number))
            self._order = number, order.to(self.device)
        return self._order[1][place * self.batch_size : (place + 1) * self.batch_size]

    def _views(self, rows: Tensor, draw: torch.Generator) -> list[Tensor]:
        """The views of a batch, each as the likelihood sees it: transformed as grey values first, binarised then."""
        x = self.x[rows] if self.fixed is None or self.views != "clean" else None
        views = []
        if self.views != "augmented":
            views.append(self._binary(x, draw) if self.fixed is None else self.fixed[rows])
        if self.views != "clean":
            views.append(self._binary(self.trainer.datamodule.transformation(x, draw), draw))
        return views

    def _binary(self, x: Tensor, draw: torch.Generator) -> Tensor:
        return binarise(x, draw) if self.likelihood.binary else x

    @staticmethod
    def _check_finite(losses: Tensor, first: int) -> None:
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            at = int(bad[0])
            raise FloatingPointError(
                f"the loss became {float(losses[at])} at step {first + at + 1}: lower "
                "method.module.optimizer.lr or method.module.weight, or set method.module.clip=5"
            )

    def _validate(self) -> None:
        """Measure the validation ELBO and remember the best weights so far."""
        elbo = self._validation_elbo()
        self.log("validation/elbo", elbo)
        if self.keep == "best" and (self.best is None or elbo > self.best["elbo"]):
            state = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
            self.best = {"elbo": elbo, "epoch": self.current_epoch, "state": state}

    @torch.no_grad()
    def _validation_elbo(self) -> float:
        """Mean over the validation inputs of the ELBO of one sample, with the same noise at every epoch."""
        self.model.eval()
        draw, total = self.generator(Purpose.VALIDATION), 0.0
        for x in self.held.split(VALIDATION_BATCH):
            (seen,) = look(self.model, self.likelihood, self.bound, 1, [x], draw)
            total += float(seen.bound.elbo.sum())
        return total / len(self.held)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also keep the best weights so far."""
        checkpoint["best"] = self.best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them up again."""
        self.best = checkpoint.get("best")

    @torch.no_grad()
    def final_metrics(self, datamodule: pl.LightningDataModule) -> dict[str, float]:
        """Judge the weights that are kept."""
        self.to(self.trainer.strategy.root_device)  # Lightning moves a module to the processor when training ends
        if self.best is not None:
            self.model.load_state_dict(self.best["state"])
        self.model.eval()
        self.assessed = self.judge(self.model, self.likelihood, datamodule, self.device)
        kept = {} if self.best is None else {"validation/elbo": self.best["elbo"]}
        return self.assessed.metrics | kept

    def artifacts(self, run_dir: Path) -> list[Path]:
        """Write what was found per input and per latent, the weights, and the figures."""
        return artifacts.write(run_dir, self.assessed, self.model)


@contextmanager
def _matrix_products(precision: str) -> Iterator[None]:
    """Matrix products of float32 at another precision, inside."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _check_views(views: str, penalty: Any, objective: str) -> None:
    if penalty is not None and views != "both":
        raise UserError(
            f"method.module.views={views} has one view, and a penalty ties two together: set it to both, or choose "
            "regime=plain or regime=aug_only."
        )
    if objective == "official_literal" and views != "both":
        raise UserError("method.module.objective=official_literal is a loss of two views: choose regime=cr.")
