"""What the editor's server refuses, each in one sentence."""

from __future__ import annotations

import contextlib
import json
import threading
import time

import httpx
import pytest
from studio import ROOF, error, new_client, url

pytest.importorskip("uvicorn", reason="the extra [editor] is not installed")
from reprise.papers.rewriting.editor import guard
from reprise.papers.rewriting.session import RewriteSession


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1", "10.0.0.1", "a@evil.org:80"],
)
def test_other_hosts_names_are_refused(client, host):
    assert "does not answer to the host" in error(client.get("/", headers={"host": host}), 403)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "127.8.8.8"])
def test_the_loopbacks_names_are_good(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(("host", "status"), [("10.0.0.1:8000", 200), ("evil.example", 403), ("localhost", 200)])
def test_beyond_the_loopback_addresses_are_good_and_names_are_not(editable, host, status):
    with new_client(editable, local=False) as client:
        assert client.get("/", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "http://127.0.0.1:PORT.evil.example",
        "https://localhost:PORT",
        "",
    ],
)
def test_pages_of_other_sites_are_refused(client, tab, origin):
    answer = client.post(
        f"{tab.base}/undo", json={}, headers={"origin": origin.replace("PORT", str(client.base_url.port))}
    )
    assert "may not use the editor" in error(answer, 403)


def test_its_own_page_is_not(client, tab):
    here = str(client.base_url).rstrip("/")
    assert client.post(f"{tab.base}/clear", json={}, headers={"origin": here}).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/../pyproject.toml", "/..%2f..%2fapp.py", "/static/../app.py", "/%2e%2e/app.py", "/etc/passwd", "/editor.py"],
)
def test_no_other_file_is_served(client, path):
    assert "is nothing the editor knows" in error(client.get(path), 404)


@pytest.mark.parametrize(
    ("path", "content", "status", "why"),
    [
        ("show", {"numbers": "0-1000000"}, 422, "images that are not there"),
        ("show", {"numbers": "0-999"}, 422, "too many images at once: choose 1 to 64"),
        ("show", {"numbers": "0," * 600}, 422, "numbers: String should have at most"),
        ("show", {"numbers": [1, 2]}, 422, "numbers: Input should be a valid string"),
        ("show", {}, 422, "numbers: Field required"),
        ("show", {"numbers": "1", "more": 1}, 422, "more: Extra inputs are not permitted"),
        ("mark", {"what": "copy", "number": 5000, "mask": url(ROOF)}, 422, "There is no image 5000"),
        ("mark", {"what": "copy", "number": True, "mask": url(ROOF)}, 422, "number: Input should be a valid integer"),
        ("mark", {"what": "copy", "number": 1, "mask": url()}, 422, "The copy mask is empty"),
        ("mark", {"what": "copy", "number": 1, "mask": "x" * 3_100_000}, 422, "mask: String should have at most"),
        ("mark", {"what": "all", "number": 1, "mask": url(ROOF)}, 422, "what: Input should be"),
        ("unmark", {"what": "context", "number": 1}, 422, "Image 1 has no context mark"),
        ("settings", {"layer": 30}, 422, "Layer=30 cannot be edited"),
        ("settings", {"layer": 5, "steps": 10**9}, 422, "steps: Input should be less than or equal to 5000"),
        ("settings", {"layer": 5, "ridge": "lots"}, 422, "ridge: Input should be a valid number"),
        ("original", {"on": "yes"}, 422, "on: Input should be a valid boolean"),
        ("strength", {"place": 0, "strength": 1}, 422, "There is no edit 0: there are 0"),
        ("strength", {"place": 0, "strength": 10**400}, 422, "strength: "),
        ("strength", {"place": -1, "strength": 1}, 422, "place: "),
        ("move", {"place": 0, "to": 1}, 422, "There is no edit 0"),
        ("remove", {"place": 3}, 422, "There is no edit 3"),
        ("execute", {"name": "x" * 81}, 422, "name: String should have at most 80"),
        ("fly", {}, 404, "is nothing the editor knows"),
    ],
    ids=range(23),
)
def test_wrong_content_is_refused_in_a_sentence(tab, path, content, status, why):
    assert why in error(tab.post(path, **content), status)
    assert tab.get().status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "why"),
    [
        (b"", 400, "no JSON"),
        (b"{", 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        (b'{"numbers": NaN}', 422, "numbers: Input should be"),
        (b"[" * 1_000_000, 400, "no JSON"),
        (b'{"a":' * 500_000, 400, "no JSON"),
        (b"[]", 422, "the request: Input should be"),
        (b"null", 422, "the request: Input should be"),
        (b'{"numbers": "' + b"1" * 5_000_000 + b'"}', 413, "too large: at most 4 MB"),
    ],
    ids=range(9),
)
def test_malformed_bodies_are_refused(tab, content, status, why):
    headers = {"content-type": "application/json"}
    assert why in error(tab.client.post(f"{tab.base}/show", content=content, headers=headers), status)
    assert tab.get().status_code == 200


def test_bodies_without_end_are_given_up(tab, monkeypatch):
    monkeypatch.setattr(guard, "DRAINED", 1_000_000)

    def endless():
        for _ in range(1000):
            yield b" " * 1_000_000
        pytest.fail("the server reads on and on")

    with contextlib.suppress(httpx.NetworkError):  # who goes on sending may miss the answer
        assert tab.client.post(f"{tab.base}/show", content=endless()).status_code == 413
    assert tab.get().status_code == 200


def test_bodies_that_do_not_come_to_their_end_are_given_up(tab, monkeypatch):
    monkeypatch.setattr(guard, "PATIENCE", 0.2)
    go = threading.Event()

    def slow():
        yield b"{"
        go.wait(5)

    began = time.monotonic()
    headers = {"content-type": "application/json"}
    with contextlib.suppress(httpx.NetworkError, httpx.RemoteProtocolError):
        answer = tab.client.post(f"{tab.base}/show", content=slow(), headers=headers)
        assert "did not arrive within" in error(answer, 408)
    assert time.monotonic() - began < 20
    go.set()
    assert tab.get().status_code == 200


def test_bodies_that_do_not_say_how_long_they_are_are_bounded_too(tab):
    def endless():
        for _ in range(100):
            yield b" " * 1_000_000

    headers = {"content-type": "application/json"}
    assert "too large" in error(tab.client.post(f"{tab.base}/show", content=endless(), headers=headers), 413)


def test_forms_of_other_sites_are_no_json(tab):
    answer = tab.client.post(f"{tab.base}/show", data={"numbers": "1"})
    assert "application/json" in error(answer, 415)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_are_refused(tab, method):
    assert "nothing the editor knows" in error(tab.client.request(method, f"{tab.base}/show"), 405)


@pytest.mark.parametrize(
    ("path", "content", "why"),
    [
        ("edits", b"", "The file is no file of edits"),
        ("edits", b"\xff" * 1000, "The file is no file of edits"),
        ("edits", b"\x00\x00\x00\x00\x00\x00\x00\x80{}", "The file is no file of edits"),
        ("edits", b"\x80\x04cos\nsystem\n.", "The file is no file of edits"),
        ("request", b"", "This is no edit request"),
        ("request", b"[" * 100_000, "This is no edit request"),
        ("request", json.dumps({"paste": [1, "file:///etc/passwd"]}).encode(), "The paste mask is no PNG data URL"),
        ("request", json.dumps({"paste": [10**9, url(ROOF)]}).encode(), "There is no image 1000000000"),
    ],
    ids=range(8),
)
def test_wrong_files_are_refused(tab, path, content, why):
    before = tab.get().json()
    assert why in error(tab.client.put(f"{tab.base}/{path}", content=content), 422)
    after = tab.get().json()
    assert (after["marks"], after["edits"]) == (before["marks"], before["edits"])


def test_large_files_are_refused(tab):
    assert "at most 32 MB" in error(tab.client.put(f"{tab.base}/edits", content=b"x" * 33_000_000), 413)


def test_a_defect_is_no_traceback(tab, monkeypatch):
    monkeypatch.setattr(RewriteSession, "images", lambda session, numbers: 1 / 0)
    assert "terminal shows" in error(tab.get("/images?numbers=0"), 500)
    monkeypatch.undo()
    assert tab.get("/images?numbers=0").status_code == 200
