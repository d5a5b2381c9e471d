"""The command that draws figures over many runs."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from toy_runs import raw, write, write_paper

ROOT = Path(__file__).resolve().parents[1]


def script():
    spec = importlib.util.spec_from_file_location("figures_script", ROOT / "scripts" / "figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_written_and_their_paths_printed(tmp_path, capsys):
    papers, out = write_paper(tmp_path), tmp_path / "out"
    for method in ("ours", "base"):
        for seed in range(3):
            write(out, raw(method, seed, 0.8 + seed / 100))
    assert script().main(["all", "--output-dir", str(out)], papers_dir=papers) == 0
    path = out / "figures" / "toy_methods_cpu.png"
    assert capsys.readouterr().out == f"{path}\n"
    first = path.read_bytes()
    assert script().main(["toy", "--output-dir", str(out)], papers_dir=papers) == 0
    assert path.read_bytes() == first


def test_smoke_and_damaged_runs_draw_nothing(tmp_path, capsys):
    papers, out = write_paper(tmp_path), tmp_path / "out"
    write(out, raw("ours", scale="smoke"))
    damaged = write(out, raw("base", 1))
    (damaged / "record.json").write_text('{"paper": "toy"}')
    (damaged / "config.yaml").write_text("method: {paper: toy}")
    assert script().main(["toy", "--output-dir", str(out)], papers_dir=papers) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("toy: left out runs/base/toy/")
    assert told[1] == f"toy: nothing to draw in {out} (0 finished runs, smoke runs apart)."
    assert not (out / "figures").exists()


def test_an_unknown_paper_is_one_sentence_and_code_two(tmp_path, capsys):
    assert script().main(["tyo"], papers_dir=write_paper(tmp_path)) == 2
    assert capsys.readouterr().err == "reprise: there is no paper 'tyo'; choose one of: toy, all.\n"


def test_the_committed_records_give_figures_and_say_what_needs_the_runs(tmp_path, capsys):
    (tmp_path / "records").mkdir()
    shutil.copy(ROOT / "outputs" / "records" / "dvrl.jsonl", tmp_path / "records")
    assert script().main(["dvrl", "--output-dir", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert f"{tmp_path / 'figures' / 'dvrl_methods_cpu.png'}\n" in told
    assert "dvrl: discovery curves, cpu scale: no figure; " in told
