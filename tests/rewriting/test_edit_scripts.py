"""``python scripts/edit.py`` and ``scripts/editor.py``: what they write, and one sentence for the rest."""

from __future__ import annotations

import json
import re
import runpy
import signal
import socket
import subprocess
import sys

import harness
import httpx
import pytest
import torch
from checkpoint_files import nvlabs_pickle, nvlabs_state
from PIL import Image
from studio import PLAN, ROOF, WALL, url

from reprise.papers.rewriting import editable
from reprise.papers.rewriting.edits import load_edits
from reprise.papers.rewriting.generator import SceneGenerator
from reprise.papers.rewriting.session import RewriteSession, Settings


@pytest.fixture
def script(capfd, tmp_path, monkeypatch):
    """``python scripts/NAME`` in this process, in a folder of its own with a small generator and a request."""
    monkeypatch.chdir(tmp_path)
    SceneGenerator(PLAN).save(tmp_path / "small.safetensors")
    request = {"object": [0, url(ROOF, (60, 60, 2, 2))], "paste": [1, url(WALL)], "key": [[2, url(WALL)]]}
    (tmp_path / "mine.json").write_text(json.dumps(request))

    def call(name, *argv):
        capfd.readouterr()
        with pytest.MonkeyPatch.context() as patch, harness.unchanged_process():
            patch.setattr(sys, "argv", [name, *argv])
            patch.setenv("HYDRA_FULL_ERROR", "0")
            patch.setenv("REPRISE_LEDGER", "")
            with pytest.raises(SystemExit) as stopped:
                runpy.run_path(str(harness.ROOT / "scripts" / name), run_name="__main__")
        captured = capfd.readouterr()
        return harness.Outcome(int(stopped.value.code or 0), captured.out, captured.err)

    return call


SMALL = ("generator.path=small.safetensors", "request=mine.json", "out=made", "steps=20")


def test_a_request_becomes_an_edit_and_a_picture(script, tmp_path):
    done = script("edit.py", *SMALL, "layer=5", "rank=2", "images=0-2,9")
    assert done.code == 0, done.err
    assert "copy in image 0: The copy mask had 1 stray piece, left out." in done.out
    assert "changed layer 5 by a rank of 2" in done.out
    session = RewriteSession(editable.load(tmp_path / "small.safetensors"))
    session.settings = Settings(layer=5, rank=2, steps=20)
    session.load_request((tmp_path / "mine.json").read_text())
    expected = session.execute()
    (edit,) = load_edits(tmp_path / "made" / "edits.safetensors")
    assert torch.equal(edit.lam, expected.lam)
    assert Image.open(tmp_path / "made" / "images.png").tobytes() == session.grid([0, 1, 2, 9]).tobytes()


def test_a_checkpoint_of_others_is_edited_too(script, tmp_path):
    (tmp_path / "mine.pkl").write_bytes(nvlabs_pickle(nvlabs_state((8, 8, 6, 4))))
    words = ("request=mine.json", "out=made", "steps=10", "layer=6", "images=0-1")
    done = script("edit.py", "generator.path=mine.pkl", "generator.psi=0.7", *words)
    assert done.code == 0, done.err
    made = editable.load(tmp_path / "mine.pkl", 0.7)
    assert load_edits(tmp_path / "made" / "edits.safetensors")[0].fingerprint == made.fingerprint
    refused = script("edit.py", "generator.path=mine.pkl", "generator.psi=2", *words)
    assert (refused.code, "generator.psi=2 cannot be: give a number from 0 to 1." in refused.err) == (2, True)


def test_a_layer_is_chosen_and_things_are_erased(script, tmp_path):
    done = script("edit.py", *SMALL, "erase=true")
    assert done.code == 0, done.err
    assert "choosing a layer ..." in done.out
    assert "left to do" in done.out
    assert load_edits(tmp_path / "made" / "edits.safetensors")[0].name == "erased what was marked"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["out=x"], "request= is missing"),
        (["request=mine.json"], "out= is missing"),
        (["request=mine.json", "out=mine.json"], "out=mine.json is a file"),
        ([*SMALL, "layers=5"], "'layers=5' is no option (did you mean 'layer'?)"),
        ([*SMALL, "layer"], "'layer' is no option"),
        ([*SMALL, "layer=5", "layer=6"], "layer= is given twice"),
        ([*SMALL, "layer="], "layer= has no value"),
        ([*SMALL, "layer=best"], "layer=best cannot be"),
        ([*SMALL, "layer=30"], "layer=30 cannot be edited"),
        ([*SMALL[:3], "steps=0"], "steps=0 cannot be"),
        ([*SMALL, "rank=50", "layer=5"], "rank=50 cannot be"),
        ([*SMALL, "erase=maybe"], "erase=maybe cannot be: give true or false"),
        ([*SMALL, "images=0-5000"], "0-5000 names images that are not there"),
        (["request=no.json", "out=x"], "no.json cannot be read"),
        (["request=small.safetensors", "out=x"], "small.safetensors: this is no edit request"),
        (["request=mine.json", "out=x", "generator.path=no.pt"], "there is no generator no.pt"),
        (["request=mine.json", "out=x", "generator.path=mine.json"], "mine.json is no generator"),
    ],
)
def test_wrong_words_are_refused_in_a_sentence(script, words, why):
    done = script("edit.py", *words)
    assert (done.code, done.out.count("Traceback")) == (2, 0)
    assert why in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["port=high"], "port=high cannot be: give a whole number from 0 to 65535"),
        (["port=70000"], "port=70000 cannot be"),
        (["open=1"], "open=1 cannot be"),
        (["prot=1"], "did you mean 'port'?"),
        (["generator.path=no.pt"], "there is no generator no.pt"),
        (["host=no.such.host.invalid", "open=false"], "the editor cannot listen on no.such.host.invalid"),
    ],
)
def test_the_editor_refuses_wrong_words(script, words, why):
    pytest.importorskip("uvicorn", reason="the extra [editor] is not installed")
    done = script("editor.py", *words)
    assert done.code == 2
    assert why in done.err


def test_a_port_that_is_taken_is_named(script):
    pytest.importorskip("uvicorn", reason="the extra [editor] is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = script("editor.py", f"port={port}", "open=false", "generator.path=small.safetensors")
    assert f"cannot listen on 127.0.0.1, port {port}" in done.err


def test_the_editor_says_where_it_is_and_ends_when_told(tmp_path):
    pytest.importorskip("uvicorn", reason="the extra [editor] is not installed")
    SceneGenerator(PLAN).save(tmp_path / "small.safetensors")
    command = [sys.executable, str(harness.ROOT / "scripts" / "editor.py"), "port=0", "open=false"]
    with subprocess.Popen(
        [*command, f"generator.path={tmp_path / 'small.safetensors'}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as editor:
        try:
            line = editor.stdout.readline().decode()
            address = re.search(r"edit it at (http://127\.0\.0\.1:\d+/) ", line)
            assert address, line
            assert httpx.get(address[1]).status_code == 200
        finally:
            editor.send_signal(signal.SIGINT)
            rest = editor.communicate(timeout=20)[0]
    assert (editor.returncode, rest) == (0, b"")


@pytest.mark.parametrize("name", ["edit.py", "editor.py"])
def test_help_names_every_option(script, name):
    done = script(name, "--help")
    options = runpy.run_path(str(harness.ROOT / "scripts" / name))["OPTIONS"]
    assert done.code == 0
    assert all(f"  {option}=" in done.out for option in options)


def test_the_suite_comes_with_a_generator():
    made = editable.load()
    assert made.synthesis.size == 32
    assert made.sample([0]).shape == (1, made.synthesis.slots, made.synthesis.style)
