"""A run's files: what was found per input and per latent, the weights, and the figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reprise.canvas import (
    BLUE,
    COLOURS,
    GREY,
    MORE_COLOURS,
    ORANGE,
    PALE,
    SMALL,
    TEXT,
    VERMILION,
    canvas,
    gallery,
    label,
    save,
)
from reprise.papers.crvae.assessment import Assessed
from reprise.papers.crvae.datamodule import ROUND
from reprise.papers.crvae.metrics import ACTIVE
from reprise.records import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

JOINED = 250  # inputs that are drawn beside their transformations
CLASSES = 12  # that have a colour
FLOOR = 1e-3  # nats: where a logarithmic axis has what is less, inputs that a transformation leaves as they are


def write(run_dir: Path, assessed: Assessed, model: nn.Module) -> list[Path]:
    """Write tables as CSV, the weights, and figures as PNG; returns the files.

    ``inputs.csv``: one line per test input, its negative log-likelihood where it was taken and its consistency KL, in
    nats. ``units.csv``: variances of the posterior means, largest first. ``latents.csv``: some test inputs and their
    transformations in the plane of the two largest principal components. ``model.safetensors``: the judged weights.
    """
    nll = torch.full((len(assessed.labels),), torch.nan)
    nll[: len(assessed.nll)] = assessed.nll.cpu().float()
    tables = {
        "inputs": {"label": assessed.labels.numpy(), "nll": nll, "consistency_kl": assessed.consistency.cpu()},
        "units": {"variance": assessed.variances.cpu()},
        "latents": plane(assessed),
    }
    paths = []
    for name, columns in tables.items():
        frame = pd.DataFrame({key: np.asarray(value) for key, value in columns.items()})
        paths.append(run_dir / f"{name}.csv")
        write_text(paths[-1], frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    paths.append(run_dir / "model.safetensors")
    save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, paths[-1])
    return paths + [save(figure, run_dir / f"{name}.png") for name, figure in figures(assessed, run_dir).items()]


def figures(assessed: Assessed, run_dir: Path) -> dict[str, Figure]:
    """All figures of a run, by name."""
    drawn = {
        "latents": latents(assessed),
        "consistency": consistency(assessed.consistency, assessed.metrics["consistency_kl"]),
        "units": units(assessed.variances),
    }
    pictures = assessed.pictures
    if pictures["inputs"].ndim == 4:
        names = ("inputs", "reconstructed", "transformed", "transformed_reconstructed")
        drawn["reconstructions"] = gallery(
            torch.stack([pictures[name] for name in names]), ["x", "of x", "T(x)", "of T(x)"], "Reconstructions"
        )
        side = int(len(pictures["samples"]) ** 0.5)
        grid = pictures["samples"][: side * side].unflatten(0, (side, side))
        drawn["samples"] = gallery(grid, [], "Samples from the prior, expected images")
        rows = [f"unit {i + 1}" for i in range(len(pictures["traversals"]))]
        drawn["traversals"] = gallery(
            pictures["traversals"],
            rows,
            "One unit at a time, most active first, 2.5 standard deviations to either side",
        )
    else:
        drawn["clouds"] = clouds(pictures)
    history = run_dir / "metrics.csv"
    if history.exists():
        drawn["training"] = training(pd.read_csv(history))
    return drawn


def latents(assessed: Assessed) -> Figure:
    """Posterior means of inputs (dots) and of their transformations (crosses), joined by a line (paper, Figure 1)."""
    figure, axes = canvas(1, 1, height=5.2, width=6.4)
    ax = axes[0, 0]
    draw_latents(ax, pd.DataFrame(plane(assessed)))
    ratio = assessed.metrics["consistency_w2_ratio"]
    title = f"Inputs (dots) and their transformations (crosses): apart by {ratio:.2f} of the variance"
    label(ax, title, "first principal component", "second")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=SMALL, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def plane(assessed: Assessed) -> dict[str, np.ndarray]:
    """Some inputs in the plane of the two largest principal components of all means of x: places of x and of T(x)."""
    clean, moved = (part.mean.cpu().double() for part in (assessed.clean, assessed.augmented))
    centre, n = clean.mean(0), min(JOINED, len(clean))
    axes = torch.linalg.svd(clean - centre, full_matrices=False).Vh[:2]
    axes = axes * axes.sum(1, keepdim=True).sign()  # a sign of their own, the same on every machine
    if len(axes) < 2:
        axes = torch.cat([axes, torch.zeros_like(axes)])
    places = [((part[:n] - centre) @ axes.T).T.numpy() for part in (clean, moved)]
    names = np.array([assessed.classes[label] if assessed.classes else "" for label in assessed.labels[:n].tolist()])
    (x, y), (moved_x, moved_y) = places
    return {"class": names, "x": x, "y": y, "moved_x": moved_x, "moved_y": moved_y}


def draw_latents(ax: Axes, frame: pd.DataFrame) -> None:
    """The columns of `plane`, a colour per class where there are not too many."""
    names = sorted(frame["class"].unique())
    colours = (*COLOURS, *MORE_COLOURS)[:CLASSES]
    for number, name in enumerate(names):
        rows = frame[frame["class"] == name]
        colour = colours[number % len(colours)] if len(names) <= CLASSES else BLUE
        ax.plot([rows["x"], rows["moved_x"]], [rows["y"], rows["moved_y"]], "-", color=colour, linewidth=0.5, alpha=0.5)
        named = name if 1 < len(names) <= CLASSES else None
        ax.plot(rows["x"], rows["y"], "o", color=colour, ms=3, label=named)
        ax.plot(rows["moved_x"], rows["moved_y"], "x", color=colour, ms=3)


def consistency(kl: Tensor, mean: float) -> Figure:
    """KL(q(z | x~) || q(z | x)) of all test inputs ``[N]`` in nats; those below `FLOOR` stand at it and are counted."""
    figure, axes = canvas(1, 1, height=3.4, width=5.2)
    ax = axes[0, 0]
    below = int((kl < FLOOR).sum())
    values = kl.cpu().double().clamp_min(FLOOR).numpy()
    ax.hist(values, bins=np.geomspace(values.min(), max(values.max(), 10 * FLOOR) * 1.001, 50), color=BLUE, alpha=0.8)
    ax.set_xscale("log")
    place = max(mean, FLOOR)
    ax.axvline(place, color=VERMILION, linewidth=1)
    ax.annotate(f" mean {mean:.3g}", (place, ax.get_ylim()[1]), va="top", fontsize=SMALL, color=VERMILION)
    unit = f"nats; {below} below {FLOOR:g} at the left" if below else "nats"
    label(ax, "How far a transformation moves the posterior", f"KL(q(z|x~) || q(z|x)) ({unit})", "test inputs")
    return figure


def units(variances: Tensor) -> Figure:
    """Variance of each unit's posterior mean, largest first, and the line above which a unit is active."""
    figure, axes = canvas(1, 1, height=3.4, width=5.2)
    ax = axes[0, 0]
    values = variances.cpu().numpy().clip(1e-8)
    ax.bar(range(1, len(values) + 1), values, color=[BLUE if v >= ACTIVE else PALE for v in values], width=0.9)
    ax.axhline(ACTIVE, color=VERMILION, linewidth=1)
    ax.set_yscale("log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    active = int((values >= ACTIVE).sum())
    label(ax, f"{active} of {len(values)} units are active", "unit", "variance of the posterior mean")
    return figure


def clouds(pictures: dict[str, Tensor]) -> Figure:
    """Some clouds from the side, and the centres that the model gives back, of inputs and of their transformations."""
    names = {
        "inputs": "x",
        "reconstructed": "of x",
        "transformed": "T(x)",
        "transformed_reconstructed": "of T(x)",
    }
    columns = min(6, len(pictures["inputs"]))
    figure, axes = canvas(len(names), columns, height=1.2 * len(names), width=1.2 * columns + 0.4)
    for line, (name, title) in zip(axes, names.items(), strict=True):
        for ax, cloud in zip(line, pictures[name][:columns], strict=True):
            # seen from a little above, as the upright axis and one that is turned by 30 degrees
            across = cloud[:, 0] * 0.87 + cloud[:, 1] * 0.5
            up = cloud[:, 2] * 0.94 + (cloud[:, 1] * 0.87 - cloud[:, 0] * 0.5) * 0.34
            ax.plot(across, up, ".", ms=2.5, color=BLUE if "reconstructed" in name else GREY)
            ax.set_aspect("equal")
            ax.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(title, fontsize=TEXT)
    return figure


def training(history: pd.DataFrame) -> Figure:
    """The bound on training and validation inputs, and the penalty where there is one."""
    penalised = "train/penalty" in history
    figure, axes = canvas(1, 1 + penalised, height=3.4, width=5.2 * (1 + penalised))
    ax = axes[0, 0]
    steps = history["step"] * ROUND
    ax.plot(steps, history["train/elbo"], color=GREY, linewidth=0.8, label="training, first view")
    if "validation/elbo" in history:
        kept = history["validation/elbo"].ne(history["validation/elbo"].shift())
        ax.plot(steps[kept], history["validation/elbo"][kept], color=BLUE, linewidth=1.2, label="validation")
    low = history["train/elbo"].quantile(0.1)
    ax.set_ylim(bottom=low - 0.1 * abs(low))
    label(ax, "Evidence lower bound", "optimiser steps", "nats per input")
    ax.legend(frameon=False, fontsize=SMALL)
    if penalised:
        axes[0, 1].plot(steps, history["train/penalty"], color=ORANGE, linewidth=0.8)
        label(axes[0, 1], "What ties the views", "optimiser steps", "penalty per input")
    return figure
