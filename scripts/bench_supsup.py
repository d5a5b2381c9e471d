"""SupSup's speed: training against a plain loop and against bare matrix products, task inference against autograd."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import in_turns

if TYPE_CHECKING:
    from torch import Tensor

    from reprise.papers.supsup.bank import MaskBank
    from reprise.papers.supsup.module import SupSup

HIDDEN, OUTPUTS, BATCH = (300, 100), 500, 128
SIDE_BY_SIDE = (1, 4, 8, 16)
STEPS = 20  # optimiser steps per measurement
IMAGES = 128  # whose task is inferred together
IN_A_ROW = 16  # single decisions per measurement, as one that finds all caches empty tells little
MASKS = (100, 1000)
OFFICIAL = "official form"


def supsup(rounds: int, threads: int) -> None:
    """Training steps, decisions and bytes."""
    import torch

    from reprise.memory import keep_freed_memory

    torch.set_num_threads(threads)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{threads} threads, {os.cpu_count()} cores, load average {load:.1f} before the start")
    plain = {masks: in_turns({OFFICIAL: stacked(random_bank(masks), images())}, rounds)[OFFICIAL] for masks in MASKS}
    keep_freed_memory()  # as every run of the suite does; from here on it serves all contestants
    training(rounds)
    for masks in MASKS:
        inference(rounds, masks, plain[masks])


def learner(parallel: int, tasks: int = max(SIDE_BY_SIDE)) -> SupSup:
    """A learner of the paper's LeNet on random images of MNIST's size, ready to train its first block."""
    import torch

    from reprise.data.base import DataSpec
    from reprise.papers.supsup.evaluation import Judge
    from reprise.papers.supsup.masks import Threshold
    from reprise.papers.supsup.module import SupSup
    from reprise.papers.supsup.networks import FullyConnected, signed_constants
    from reprise.papers.supsup.streams import Images, TaskStream

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60_000, 785, generator=generator), torch.randint(0, 10, (60_000,), generator=generator)
    columns = torch.stack([torch.randperm(784, generator=generator) for _ in range(tasks)])
    images, shape = Images(x, y), (1, 28, 28)
    spec = DataSpec("random", "classification", "image", shape, tuple("0123456789"), num_tasks=tasks)
    built = SupSup(
        spec,
        seed=0,
        network=FullyConnected(list(HIDDEN)),
        outputs=OUTPUTS,
        steps=1000,
        batch_size=BATCH,
        optimizer=partial(torch.optim.RMSprop, lr=1e-4),
        schedule="constant",
        evaluation=Judge(),
        parallel=parallel,
        search=Threshold(),
        scenario="gnu",
        inference="oneshot",
        objective="H",
        transfer="none",
    )
    built.stream = TaskStream("permuted", images, images, shape, tasks, 10, columns)
    built.frozen = signed_constants(built.network.shapes, built.weight_seed)
    built.open_block(range(parallel))
    return built


def plain_steps(steps: int) -> Callable[[], None]:
    """One task after another as one writes it down: a loader's loop over permuted images, straight-through masks."""
    import torch
    from torch.nn import functional as F

    task = learner(1, 1)
    frozen, scores = task.frozen, [torch.nn.Parameter(s[0].detach().clone()) for s in task.learning]
    optimizer = torch.optim.RMSprop(scores, lr=1e-4)
    images, labels, columns = task.stream.train.x[:, :784], task.stream.train.y, task.stream.columns[0]
    data = torch.utils.data.TensorDataset(images, labels)
    loader = torch.utils.data.DataLoader(data, BATCH, shuffle=True)

    def run() -> None:
        for step, (x, y) in enumerate(loader):
            if step == steps:
                break
            h = x[:, columns]
            for layer, (score, weight) in enumerate(zip(scores, frozen, strict=True)):
                hard = (score >= 0).float()
                h = F.linear(h if layer == 0 else h.relu(), weight * (hard + score - score.detach()))
            optimizer.zero_grad()
            F.cross_entropy(h, y).backward()
            optimizer.step()

    return run


def products(parallel: int, steps: int) -> Callable[[], None]:
    """Nothing but the matrix products of a step: forward, and backward by inputs and by weights."""
    import torch

    widths = (784, *HIDDEN, OUTPUTS)
    weights = [torch.randn(parallel, out, inp) for inp, out in itertools.pairwise(widths)]
    x = torch.randn(parallel, BATCH, widths[0])

    def run() -> None:
        for _ in range(steps):
            inputs = [x]
            for weight in weights:
                inputs.append(torch.bmm(inputs[-1], weight.transpose(1, 2)))
            delta = inputs[-1]
            for layer in range(len(weights) - 1, -1, -1):
                torch.bmm(delta.transpose(1, 2), inputs[layer])
                if layer:
                    delta = torch.bmm(delta, weights[layer])

    return run


def training(rounds: int) -> None:
    """Milliseconds per task and step."""
    plain = "plain loop, one task"
    contestants: dict[str, Callable[[], Any]] = {plain: plain_steps(STEPS)}
    tasks = {plain: 1}
    for parallel in SIDE_BY_SIDE:
        one, name = learner(parallel), f"{parallel} side by side"
        contestants[name] = partial(one.train_steps, range(parallel), 0, STEPS)
        contestants[f"matrix products of {parallel}"] = products(parallel, STEPS)
        tasks |= {name: parallel, f"matrix products of {parallel}": parallel}
    medians = in_turns(contestants, rounds)
    each = {name: 1000 * seconds / STEPS / tasks[name] for name, seconds in medians.items()}
    print(f"\nTraining, 784-{'-'.join(map(str, HIDDEN))}-{OUTPUTS}, batches of {BATCH}; medians of {rounds} in turns")
    for name, value in each.items():
        print(f"{name:30} {value:8.2f} ms per task and step {each[plain] / value:6.2f} x as fast as the {plain}")
    for parallel in SIDE_BY_SIDE:
        floor = each[f"{parallel} side by side"] / each[f"matrix products of {parallel}"]
        print(f"{f'{parallel} side by side':30} {floor:8.2f} x the time of its matrix products")


def random_bank(masks: int, outputs: int = 100) -> MaskBank:
    """Masks that were never trained: speed does not depend on what they hold."""
    import torch

    from reprise.papers.supsup.bank import MaskBank
    from reprise.papers.supsup.networks import FullyConnected

    network = FullyConnected(list(HIDDEN)).bind((1, 28, 28), outputs)
    generator = torch.Generator().manual_seed(0)
    packed = torch.randint(0, 256, (masks, -(-network.size // 8)), dtype=torch.uint8, generator=generator)
    return MaskBank(network, 0, packed, classes=10)


def images() -> Tensor:
    """Random images of MNIST's size."""
    import torch

    return torch.randn(IMAGES, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def stacked(bank: MaskBank, x: Tensor, as_a_product: bool = False) -> Callable[[], Tensor]:
    """The gradient for the first image as the official code takes it: autograd through a weighted sum of float masks.

    That sum is written out, or as the one matrix product that it is.
    """
    import torch

    masks = [layer for _, layers in bank.chunks(bank.size) for layer in layers]

    def run() -> Tensor:
        alpha = torch.full((bank.size,), 1 / bank.size, requires_grad=True)
        h = x[:1].flatten(1)
        for layer, (stack, w) in enumerate(zip(masks, bank.frozen, strict=True)):
            mixed = torch.tensordot(alpha, stack, 1) if as_a_product else (alpha[:, None, None] * stack).sum(0)
            h = torch.nn.functional.linear(h if layer == 0 else h.relu(), mixed * w)
        log_p = h.log_softmax(1)
        return torch.autograd.grad(-(log_p.exp() * log_p).sum(1).mean(), alpha)[0]

    return run


def inference(rounds: int, masks: int, plain: float) -> None:
    """Decisions per second: autograd through the stack of float masks, and the mean-mask identity.

    Args:
        rounds: measurements of each contestant.
        masks: masks in the bank.
        plain: seconds of the official form before freed memory was kept.
    """
    import torch

    from reprise.papers.supsup.inference import alpha_gradients

    bank, x = random_bank(masks), images()
    single, together = "identity, one image after another", f"identity, {IMAGES} images together"
    decisions = {single: IN_A_ROW, together: IMAGES}
    contestants = {
        f"{OFFICIAL}, freed memory kept": stacked(bank, x),
        "as one matrix product, freed memory kept": stacked(bank, x, as_a_product=True),
        single: lambda: torch.cat([alpha_gradients(bank, image[None], "H") for image in x[:IN_A_ROW]]),
        together: lambda: alpha_gradients(bank, x, "H"),
    }
    theirs, _, ours, all_at_once = (run() for run in contestants.values())
    same = theirs.argmin() == ours[0].argmin() == all_at_once[0].argmin()
    medians = {OFFICIAL: plain} | in_turns(contestants, rounds)
    print(f"\nTask inference among {masks} masks, 784-300-100-100, objective H")
    apart = float((theirs - ours[0]).abs().max())
    print(f"same mask found: {bool(same)}; largest difference of a gradient {apart:.1e}")
    for name, seconds in medians.items():
        each = seconds / decisions.get(name, 1)
        print(f"{name:45} {1 / each:10.1f} decisions/s {plain / each:8.1f} x {OFFICIAL}")
    bits, floats = bank.packed.nbytes / masks, 4 * bank.network.size
    print(f"bytes per mask: {bits:,.0f} as bits, {floats:,.0f} as floats ({floats / bits:.0f} x)")
