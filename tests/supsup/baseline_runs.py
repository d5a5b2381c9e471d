"""Baselines on a toy stream, trained without Lightning."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from reprise.data.base import DataSpec
from reprise.papers.supsup.batche import BatchE
from reprise.papers.supsup.continual import ContinualLearner
from reprise.papers.supsup.evaluation import Judge
from reprise.papers.supsup.networks import FullyConnected, Network
from reprise.papers.supsup.psp import PSP
from reprise.papers.supsup.residual import GemResNet18
from reprise.papers.supsup.shared import SharedWeights
from reprise.papers.supsup.streams import Images, TaskStream
from reprise.papers.supsup.trunks import LowerBound, SeparateHeads
from reprise.papers.supsup.upper_bound import UpperBound

SHAPE, TASKS, CLASSES = (1, 4, 4), 4, 3
FLAT, CONV = partial(FullyConnected, [5, 6]), partial(GemResNet18, 2)
SGD = partial(torch.optim.SGD, lr=0.1)
MOMENTUM = partial(torch.optim.SGD, lr=0.05, momentum=0.9)

BASELINES: dict[str, tuple[type[SharedWeights], dict[str, Any]]] = {
    "psp": (PSP, {"context": "rotation"}),
    "psp_binary": (PSP, {"context": "binary"}),
    "batche": (BatchE, {"trained": "first_task", "first_optimizer": SGD}),
    "batche_random": (BatchE, {"trained": "never"}),
    "separate_heads": (SeparateHeads, {"trained": "first_task", "first_optimizer": SGD}),
    "separate_heads_random": (SeparateHeads, {"trained": "never"}),
    "lower_bound": (LowerBound, {}),
    "upper_bound": (UpperBound, {}),
    "fine_tuning": (UpperBound, {"sequential_finetune": True}),
}


def stream(tasks: int = TASKS) -> TaskStream:
    """Permuted noise."""
    generator = torch.Generator().manual_seed(1)
    images = Images(torch.randn(12, 17, generator=generator), torch.arange(12) % CLASSES)
    columns = torch.stack([torch.randperm(16, generator=generator) for _ in range(tasks)])
    return TaskStream("permuted", images, images, SHAPE, tasks, CLASSES, columns)


def learner(method: str, network: Network | None = None, tasks: int = TASKS, **changes: Any) -> Any:
    """A baseline that has seen nothing yet."""
    kind, options = BASELINES[method]
    settings: dict[str, Any] = {
        "spec": DataSpec("toy", "classification", "image", SHAPE, ("a", "b", "c"), num_tasks=tasks),
        "seed": 3,
        "network": network or FLAT(),
        "steps": 4,
        "batch_size": 4,
        "optimizer": MOMENTUM,
        "schedule": "constant",
        "evaluation": Judge(),
    }
    made = kind(**(settings | options | changes))
    made.stream = stream(tasks)
    return made


def train(made: ContinualLearner, blocks: slice = slice(None)) -> Any:
    """Train some of the blocks, from first to last."""
    for tasks in made.blocks[blocks]:
        made.open_block(tasks)
        made.train_steps(tasks, 0, made.steps)
        made._close()
    return made


def batches(made: ContinualLearner, task: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What a task sees, step by step: images ``[B, C, H, W]`` and labels."""
    order = made._order(task).view(1, made.steps, made.batch_size)
    pairs = (made.stream.train_batch([task], order[:, step], []) for step in range(made.steps))
    return [(x[0], y[0]) for x, y in pairs]


def answers(made: ContinualLearner) -> list[torch.Tensor]:
    """Stored logits of every task learned so far, on its own test images."""
    with torch.no_grad():
        return [made.logits(task, made.stream.test_set(task)[0]) for task in range(int(made.learned))]
