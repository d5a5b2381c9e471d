"""What was decided, as numbers and as files."""

from __future__ import annotations

import pandas as pd
import pytest

from reprise.papers.supsup import allocation
from reprise.papers.supsup.allocation import Decision


def test_means_of_ratios():
    made = [Decision(0, 1.0, False, 0, 1), Decision(0, 1.5, True, 0, 1), Decision(1, 1.2, False, 1, 2)]
    assert allocation.ratios(made) == pytest.approx({"novelty/at_new_tasks": 1.1, "novelty/at_known_tasks": 1.5})
    assert allocation.ratios(made[:1]) == {"novelty/at_new_tasks": 1.0}
    assert list(allocation.of_task(made, 0)) == []  # only the task at hand
    assert list(allocation.of_task(made[:2], 0)) == made[1::-1]


def test_files_of_a_run(tmp_path):
    made = [Decision(0, 1.0, False, 0, 1), Decision(0, 1.5, True, 0, 1), Decision(1, 1.2, False, 1, 2)]
    numbers = {"mask": [0, 1], "masks_after": [1, 2], "skipped": [0, 3]}
    table, figure = allocation.write(tmp_path, made, numbers, 0.125)
    frame = pd.read_csv(table)
    assert frame.columns.tolist() == ["task", "decisions", "mask", "masks_after", "skipped", "ratios"]
    assert frame["decisions"].tolist() == [2, 1]
    assert [[float(r) for r in str(text).split()] for text in frame["ratios"]] == [[1.0, 1.5], [1.2]]
    assert figure.read_bytes()[:4] == b"\x89PNG"
