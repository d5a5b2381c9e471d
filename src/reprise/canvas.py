"""What all figures share: the sheet, its headline and legend, and how it is written."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

DPI = 130
WIDTH = 7.8  # inches: about 1,000 pixels, the width of a README
TEXT, SMALL = 9, 8  # points
LINE = 0.17  # inches from one line of text to the next
LETTERS = 116  # that fit in a line of the headline
GREY, PALE = "#6b6b6b", "#bdbdbd"
BLUE, ORANGE, VERMILION = "#0072b2", "#e69f00", "#d55e00"
# Okabe and Ito's colours, which people with any common colour blindness tell apart, with grey in place of yellow; then
# those of Tol's muted ones that are far enough from them.
COLOURS = (BLUE, GREY, ORANGE, "#009e73", VERMILION, "#cc79a7", "#56b4e9")
MORE_COLOURS = ("#000000", "#882255", "#999933", "#332288", "#44aa99")
DASHED, DOTTED = (0, (5, 2)), (0, (1, 1.5))
DASHES = (DASHED, DOTTED, (0, (5, 1.5, 1, 1.5)), (0, (9, 2)))


def canvas(
    rows: int, columns: int, height: float, ratios: Sequence[float] | None = None, width: float = WIDTH, **share: Any
) -> tuple[Figure, np.ndarray]:
    """A figure outside pyplot's global state, ``height`` by ``width`` inches, and its axes ``[rows, columns]``.

    ``ratios`` are the relative heights of the rows of axes. A figure outside pyplot does not leak from job to job.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=ratios, **share)
    for ax in axes.ravel():
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="#e6e6e6", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.tick_params(labelsize=SMALL, labelbottom=True, labelleft=True)
    return figure, axes


def gallery(images: Tensor, rows: Sequence[str], title: str, side: float = 0.62, names: float = 0.7) -> Figure:
    """Pictures ``[rows, columns, C, H, W]`` in 0..1, a name before each row.

    ``side`` is that of a picture in inches, ``names`` the room for the names of the rows.
    """
    from torch.nn.functional import pad

    count, columns = images.shape[:2]
    figure, axes = canvas(1, 1, height=0.3 + side * count, width=names + side * columns)
    ax = axes[0, 0]
    gap = max(1, images.shape[-1] // 14)
    tiles = pad(images.clamp(0, 1).float(), (0, gap, 0, gap), value=1.0)
    sheet = tiles.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)[:-gap, :-gap]
    ax.imshow(sheet.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    step = images.shape[-2] + gap
    ax.set_yticks([(i + 0.5) * step - gap / 2 for i in range(len(rows))], rows, fontsize=SMALL)
    ax.tick_params(length=0)
    ax.set_title(title, loc="left", fontsize=TEXT)
    return figure


def label(ax: Axes, title: str, x: str = "", y: str = "") -> None:
    """Title on the left, names of the axes."""
    ax.set_title(title, loc="left", fontsize=TEXT)
    ax.set_xlabel(x, fontsize=TEXT)
    ax.set_ylabel(y, fontsize=TEXT)


def headline(figure: Figure, *lines: str) -> None:
    """What the whole figure shows, above its panels; the figure grows by what this takes."""
    text = [part for line in lines if line for part in textwrap.wrap(line, LETTERS)]
    _grow(figure, len(text))
    figure.suptitle("\n".join(text), x=0.01, ha="left", fontsize=TEXT)


def legend(figure: Figure, axes: np.ndarray, columns: int = 4) -> None:
    """One legend for all panels, below them; each name once. The figure grows by what this takes."""
    named: dict[str, Any] = {}
    for ax in axes.ravel():
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    _grow(figure, -(-len(named) // columns) + 0.5)
    figure.legend(
        named.values(), named.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=SMALL
    )


def _grow(figure: Figure, lines: float) -> None:
    figure.set_figheight(figure.get_figheight() + lines * LINE)


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG that holds neither a date nor the name of a program; a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(scratch, format="png", dpi=DPI, metadata={"Software": None})
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    return path
