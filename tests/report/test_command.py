"""`python scripts/table.py report`, and what `all` adds to it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from toy_runs import raw, write, write_paper

ROOT = Path(__file__).resolve().parents[2]


def command(*argv: str, papers: Path, out: Path) -> int:
    spec = importlib.util.spec_from_file_location("table_script", ROOT / "scripts" / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([*argv, "--output-dir", str(out)], root=papers.parent, papers_dir=papers)


@pytest.fixture
def folders(tmp_path):
    papers, out = write_paper(tmp_path), tmp_path / "out"
    for seed in range(3):
        write(out, raw("ours", seed))
    return papers, out


def test_report_writes_the_page_and_its_twin_and_nothing_else(folders, capsys):
    papers, out = folders
    before = {path for path in out.rglob("*") if path.is_file()}
    assert command("report", papers=papers, out=out) == 0
    written = [out / "report" / "index.html", out / "report" / "report.md"]
    assert capsys.readouterr().out == "".join(f"wrote {path}\n" for path in written)
    assert {path for path in out.rglob("*") if path.is_file()} - before == set(written)


def test_all_writes_it_beside_the_tables_but_not_for_a_status(folders):
    papers, out = folders
    assert command("all", "--status", papers=papers, out=out) == 0
    assert not (out / "report").exists()
    assert command("toy", papers=papers, out=out) == 0
    assert not (out / "report").exists()
    assert command("all", papers=papers, out=out) == 0
    assert (out / "tables" / "toy.md").exists()
    page = (out / "report" / "index.html").read_bytes()
    assert command("report", papers=papers, out=out) == 0
    assert (out / "report" / "index.html").read_bytes() == page


@pytest.mark.parametrize("option", ["--record", "--readme", "--check", "--status"])
def test_report_takes_no_other_option(folders, option, capsys):
    papers, out = folders
    with pytest.raises(SystemExit) as stopped:
        command("report", option, papers=papers, out=out)
    assert stopped.value.code == 2
    assert "report takes no option but --output-dir" in capsys.readouterr().err
