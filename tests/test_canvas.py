"""The sheet that figures are drawn on: what it writes, and where."""

from __future__ import annotations

import pytest
from PIL import Image

from reprise.canvas import DPI, LETTERS, WIDTH, canvas, headline, label, legend, save


def drawn():
    figure, axes = canvas(2, 1, 3.0)
    for ax, name in zip(axes[:, 0], ("a line", "another"), strict=True):
        ax.plot([0, 1], label=name)
        ax.plot([1, 0], label="both")
        label(ax, "title", "x", "y")
    headline(figure, "what it shows")
    legend(figure, axes)
    return figure


def test_the_same_figure_gives_the_same_bytes_without_date_or_program(tmp_path):
    one, two = (save(drawn(), tmp_path / "new" / f"{i}.png") for i in range(2))
    assert one.read_bytes() == two.read_bytes()
    with Image.open(one) as image:
        assert set(image.info) == {"dpi"}
        assert image.width == int(WIDTH * DPI)
    assert sorted(p.name for p in one.parent.iterdir()) == ["0.png", "1.png"]


def test_a_figure_that_cannot_be_drawn_leaves_the_old_file(tmp_path):
    path = save(drawn(), tmp_path / "it.png")
    before = path.read_bytes()
    broken = drawn()
    broken.axes[0].set_title("$\\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        save(broken, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_legend_names_each_line_once():
    (found,) = drawn().legends
    assert [text.get_text() for text in found.texts] == ["a line", "both", "another"]


def test_a_long_headline_is_broken_and_the_figure_grows():
    short, long = canvas(1, 1, 2.0)[0], canvas(1, 1, 2.0)[0]
    headline(short, "word")
    headline(long, "word " * LETTERS, "")
    lines = long.get_suptitle().split("\n")
    assert len(lines) > 1
    assert max(map(len, lines)) <= LETTERS
    assert long.get_figheight() > short.get_figheight() > 2.0
