"""Rewriting's speed: routes to the same objective, and images before and after an edit from a shared beginning."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench import in_turns, report

if TYPE_CHECKING:
    from torch import Tensor

    from reprise.papers.rewriting.solvers import Goal, Solution

OFFICIAL_STEPS, RATE, PERIOD = 2001, 0.05, 10
TRIED = (25, 50, 100, 200, 400, 800, 1600)  # steps of Adam on Lambda, each with a schedule of its own
WIDE = 512  # channels of the paper's generator at 32 pixels
LAYER, IMAGES = 6, 200


def rewriting(rounds: int, threads: int, generator: str | None) -> None:
    """Solvers on the suite's generator of scenes and on a layer of the paper's size, then sampling."""
    import torch

    torch.set_num_threads(threads)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{threads} threads, {os.cpu_count()} cores, load average {load:.1f} before the start")
    for title, (goal, directions) in {
        f"generator of scenes, layer {LAYER}": scene_goal(generator),
        f"{WIDE} channels at 32 pixels, as the paper's layer 8, random weights": wide_goal(),
    }.items():
        print(f"\n{title}: box of {goal.boxes[0].height}x{goal.boxes[0].width}")
        routes(goal, directions, rounds)
    sampling(rounds, generator)


def scene_goal(path: str | None) -> tuple[Goal, Tensor]:
    """Domes to spires, one request."""
    import torch

    from reprise.papers.rewriting.request import Marked, Request
    from reprise.papers.rewriting.rewriter import Recipe
    from reprise.papers.rewriting.scene_requests import RULES, draw_request
    from reprise.papers.rewriting.solvers import cropped

    model, rewriter = editor(path)
    asked = draw_request(RULES["dome_to_spire"], 2, model.size, 10, torch.Generator().manual_seed(0))
    marks = [Marked(model.ws(part.factors)[0], part.mask) for part in (asked.copy, asked.paste, *asked.context)]
    request = Request(marks[0], marks[1], tuple(marks[2:]))
    return cropped(rewriter.goal([request], LAYER)), rewriter.directions(request.contexts, Recipe(LAYER))


def editor(path: str | None) -> tuple:
    """A generator of scenes (one of random weights where no file is given) and its `Rewriter`."""
    import torch

    from reprise.data import scenes
    from reprise.papers.rewriting.generator import Plan, SceneGenerator
    from reprise.papers.rewriting.rewriter import Rewriter

    model = SceneGenerator.load(Path(path))[0] if path else SceneGenerator(Plan())
    model.requires_grad_(False)
    factors = scenes.sample(IMAGES, 2, torch.Generator().manual_seed(1))
    return model, Rewriter(model.synthesis, lambda count: model.ws(factors.rows(slice(count))), IMAGES)


def wide_goal() -> tuple[Goal, Tensor]:
    """A layer of the paper's width with a random target in a box of 8x8."""
    import torch

    from reprise.papers.rewriting.memory import orthonormal
    from reprise.papers.rewriting.request import Box
    from reprise.papers.rewriting.solvers import Goal, cropped
    from reprise.papers.rewriting.stylegan2 import StyledLayer

    draw = torch.Generator().manual_seed(0)
    layer = StyledLayer(WIDE, WIDE, WIDE, 32, upsample=False).requires_grad_(False)
    key = torch.randn(1, WIDE, 32, 32, generator=draw)
    scales = torch.ones(1, WIDE)
    target = layer.value_of(key, scales) + 0.1 * torch.randn(1, WIDE, 32, 32, generator=draw)
    goal = Goal(layer, key, scales, target, (Box(12, 12, 20, 20),))
    return cropped(goal), orthonormal(torch.randn(1, WIDE, generator=draw))


def routes(goal: Goal, directions: Tensor, rounds: int) -> None:
    """Seconds to the objective that the paper's solver ends with."""
    from reprise.papers.rewriting.solvers import adam_project, finished, least_squares

    began = time.perf_counter()
    official = finished(adam_project(goal, directions, OFFICIAL_STEPS, RATE, PERIOD))
    seconds, reached = time.perf_counter() - began, objective(goal, official)
    print(f"the paper's solver, {OFFICIAL_STEPS} steps: objective {reached:.5f} in {seconds:.2f} s")
    for steps in TRIED:
        run = partial(solved, goal, directions, steps)
        if objective(goal, run()) <= reached:
            break
    contestants = {f"Lambda, {steps} steps": run, "least squares": lambda: finished(least_squares(goal, directions))}
    for name, run in contestants.items():
        ended = objective(goal, run())
        median = statistics.median(timed(run) for _ in range(rounds))
        verdict = "as low or lower" if ended <= reached else "not as low"
        print(f"{name:22} objective {ended:.5f} ({verdict}) in {median:.4f} s: {seconds / median:7.1f} x as fast")


def solved(goal: Goal, directions: Tensor, steps: int) -> Solution:
    """Adam on Lambda alone."""
    from reprise.papers.rewriting.solvers import finished, solve_lambda

    return finished(solve_lambda(goal, directions, steps, RATE))


def objective(goal: Goal, found: Solution) -> float:
    """Where a solution ends, taken anew."""
    return float(goal.loss(goal.layer.weight + found.dw))


def timed(run: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def sampling(rounds: int, path: str | None) -> None:
    """Images before and after an edit: from a shared beginning, and by two passes."""
    import torch

    from reprise.papers.rewriting.edits import Edit, EditStack

    model, rewriter = editor(path)
    ws = rewriter.sample(IMAGES)
    outputs, inputs = model.synthesis.layers[str(LAYER)].weight.shape[:2]
    stack = EditStack(model.synthesis)
    stack.push(Edit(LAYER, 0.1 * torch.randn(outputs, 1, 3, 3), torch.randn(1, inputs)))
    print(f"\n{IMAGES} images before and after an edit of layer {LAYER}")
    both = "two passes"
    with torch.no_grad():
        contestants = {
            both: lambda: (model.synthesis(ws), stack.images(ws)),
            "shared beginning": lambda: stack.before_and_after(ws),
        }
        report(in_turns(contestants, rounds), both)
