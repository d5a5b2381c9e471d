"""The committed records alone, and the report on them, built once for all tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reprise.report import page
from reprise.report.content import PaperView, gather
from reprise.reported import PAPERS_DIR, available_papers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with nothing but the committed records."""
    out = tmp_path_factory.mktemp("committed")
    shutil.copytree(ROOT / "outputs" / "records", out / "records")
    return out


@pytest.fixture(scope="session")
def views(committed: Path) -> list[PaperView]:
    """What the report says of every paper."""
    return gather(committed, PAPERS_DIR, available_papers())


@pytest.fixture(scope="session")
def whole(views: list[PaperView]) -> str:
    """The page."""
    return page.html(views)
