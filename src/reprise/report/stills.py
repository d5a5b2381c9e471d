"""Pictures drawn by scripts/figures.py, for figures that records alone cannot give."""

from __future__ import annotations

from pathlib import Path

from reprise.report.charts import Picture


def still(output_dir: Path, paper: str, name: str, title: str, told: str) -> Picture | None:
    """``<output_dir>/figures/<paper>_<name>.png``, or ``None`` where it was not drawn."""
    path = output_dir / "figures" / f"{paper}_{name}.png"
    return Picture(name, title, told, path.read_bytes()) if path.exists() else None
