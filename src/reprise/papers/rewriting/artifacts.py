"""A run's files: the edit, what it was asked for and what it did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from reprise.canvas import BLUE, GREY, ORANGE, SMALL, canvas, gallery, label, save
from reprise.data import scenes
from reprise.papers.rewriting.edits import save_edits
from reprise.papers.rewriting.request import Marked
from reprise.records import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from reprise.papers.rewriting.datamodule import EditData
    from reprise.papers.rewriting.generator import SceneGenerator
    from reprise.papers.rewriting.module import Result, SceneEdit

SHOWN = 10  # scenes in a figure
TINT = torch.tensor([1.0, 0.1, 0.6]).view(3, 1, 1)  # of what a mask marks


def write(run_dir: Path, run: SceneEdit) -> list[Path]:
    """Write the edit, tables as CSV and figures as PNG; returns the files.

    ``edit.safetensors``: Lambda and D, where the change is of low rank, of each edit of a stack. ``path.csv``: success
    and collateral after so many steps. ``layers.csv``: what each layer could do, where the suite chose one.
    """
    data: EditData = run.trainer.datamodule
    edits, paths = run.edits(data), []
    if edits:
        paths.append(save_edits(run_dir / "edit.safetensors", edits))
    tables = {"path": run.result.path, "layers": getattr(run, "scan", [])}
    for name, rows in tables.items():
        if rows:
            paths.append(run_dir / f"{name}.csv")
            write_text(paths[-1], pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    figures = {"edit": before_and_after(run.result, data.rule.title), "request": requested(data)}
    if len(run.result.path) > 1 and run.result.trial.target is None:
        figures["path"] = path(run.result)
    return paths + [save(figure, run_dir / f"{name}.png") for name, figure in figures.items()]


def before_and_after(result: Result, title: str) -> Figure:
    """Unseen scenes that have what is to change: before, after, as they would be, and what the edit changed."""
    asked = result.trial
    rows = asked.without.long().argsort(stable=True)[:SHOWN]
    if asked.target is None:  # no more is shown than what was to change
        rows = rows[~asked.without[rows]]
    names, shown = ["before", "after"], [asked.before.images, result.images]
    if asked.truth is not None:
        names, shown = [*names, "had it been so"], [*shown, asked.truth]
    if asked.target is not None:
        names, shown = [*names, "as pasted"], [*shown, asked.target]
    sheet = [(images[rows].cpu() + 1) / 2 for images in shown]
    sheet.append(1 - 2 * (sheet[1] - sheet[0]).abs().mean(1, keepdim=True).expand_as(sheet[0]).clamp(0, 0.5))
    return gallery(torch.stack(sheet), [*names, "difference"], title, 0.9, 1.1)


def requested(data: EditData) -> Figure:
    """The images of the first request, what is copied, pasted and taken as context marked in them."""
    request = data.requests[0]
    marked = [part for part in (request.copy, request.paste, *request.context) if part is not None][:SHOWN]
    names = ["copy"] * bool(request.copy) + ["paste" if request.copy else "erase"]
    names += ["context"] * (len(marked) - len(names))
    images = torch.stack([tinted(data, part) for part in marked])
    title = ", ".join(dict.fromkeys(names)) + ", from left to right"
    return gallery(images.unsqueeze(0), [data.rule.title], title[0].upper() + title[1:], 0.9, 1.3)


@torch.no_grad()
def tinted(data: EditData, part: Marked) -> Tensor:
    """An image ``[3, s, s]`` in 0..1 with what its mask marks."""
    image = ((data.generator.synthesis(part.ws.unsqueeze(0))[0] + 1) / 2).clamp(0, 1).cpu()
    share = 0.55 * part.mask.cpu()
    return (1 - share) * image + share * TINT


def path(result: Result) -> Figure:
    """Success against collateral on the way of the search, beside what can be reached at all."""
    figure, axes = canvas(1, 1, height=3.6, width=5.6)
    ax, rows = axes[0, 0], pd.DataFrame(result.path)
    if "edit/success" not in rows:  # the segmenter found nothing of the source
        rows["edit/success"] = 0.0
    ax.plot(rows["collateral/l1_outside"], rows["edit/success"], "-o", color=BLUE, ms=4)
    for _, row in rows.iterrows():
        place = (row["collateral/l1_outside"], row["edit/success"])
        ax.annotate(f"{row['step']:.0f}", place, (4, -9), textcoords="offset points", fontsize=SMALL, color=GREY)
    for name, color, text in (
        ("ceiling/success", GREY, "counterfactual"),
        ("oracle/success", ORANGE, "layer's oracle"),
    ):
        if name in result.metrics:
            ax.axhline(result.metrics[name], color=color, linewidth=1, linestyle="--", label=text)
    ax.legend(frameon=False, fontsize=SMALL)
    label(ax, "After so many steps", "collateral: L1 outside of what was to change", "success")
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    return figure


def drawn_and_rendered(run_dir: Path, model: SceneGenerator, title: str = "The same scenes") -> list[Path]:
    """A figure of unseen scenes as the generator and as the renderer draw them."""
    factors = scenes.sample(SHOWN, model.plan.buildings, torch.Generator().manual_seed(0))
    with torch.no_grad():
        drawn = (model(factors.to(model.device)).cpu() + 1) / 2
    sheet = torch.stack([drawn, scenes.render(factors, model.size)[0]])
    return [save(gallery(sheet, ["generator", "renderer"], title, 0.9, 1.1), run_dir / "scenes.png")]
