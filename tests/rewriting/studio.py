"""What the tests of sessions and of the editor share: a generator, masks as they are painted, a page's requests."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import time

import numpy as np
import torch
from PIL import Image

from reprise.papers.rewriting.editable import of_scenes
from reprise.papers.rewriting.generator import Plan, SceneGenerator
from reprise.papers.rewriting.masks import PREFIX, png_url

PLAN = Plan(channels=(6, 8, 6), style=8, hidden=8, object_layers=3, colours_from=4)  # 16 pixels


def small():
    """A generator with random weights as an editor sees it."""
    return of_scenes(SceneGenerator(PLAN), "small")


def url(*blocks, side=64, sides=None):
    """A mask as a browser paints it: white on transparent; blocks of (top, left, height, width)."""
    pixels = np.zeros((*(sides or (side, side)), 4), np.uint8)
    for top, left, height, width in blocks:
        pixels[top : top + height, left : left + width] = 255
    return png_url(Image.fromarray(pixels))


def png(pixels, mode=None):
    """Any picture as a data URL."""
    return png_url(Image.fromarray(np.asarray(pixels, np.uint8), mode))


def pixels_of(data_url):
    """The pixels of a data URL ``[h, w, channels]``."""
    data = base64.b64decode(data_url.removeprefix(PREFIX))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


ROOF, WALL = (8, 8, 16, 16), (32, 32, 20, 16)


def ready(session):
    """Copy, paste and two contexts."""
    session.copy(0, url(ROOF))
    session.paste(1, url(WALL))
    session.add_context(2, url(WALL))
    session.add_context(3, url(WALL))
    return session


def torch_box(top, left, height, width, side=16):
    """A mask ``[side, side]``."""
    mask = torch.zeros(side, side)
    mask[top : top + height, left : left + width] = 1
    return mask


@contextlib.contextmanager
def serving(app):
    """The address of a server that runs in this process."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextlib.contextmanager
def new_client(editable, **options):
    import httpx

    from reprise.papers.rewriting.editor.app import make_app

    with (
        serving(make_app(editable, **options)) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield client


class Tab:
    """A page's side of a session."""

    def __init__(self, client):
        self.client = client
        self.state = client.post("/api/sessions", json={}).json()
        self.base = f"/api/sessions/{self.state['id']}"

    def post(self, path, **content):
        return self.client.post(f"{self.base}/{path}", json=content)

    def do(self, path, **content):
        answer = self.post(path, **content)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, path=""):
        return self.client.get(f"{self.base}{path}")

    def ready(self):
        self.do("settings", layer=5, rank=1, steps=20, ridge=0.1)
        self.do("mark", what="copy", number=0, mask=url(ROOF))
        for what, number in (("paste", 1), ("context", 2), ("context", 3)):
            self.do("mark", what=what, number=number, mask=url(WALL))
        return self

    def events(self):
        """All events until what runs has ended."""
        lines = self.get("/events").text.split("\n\n")
        pairs = [event.split("\n", 1) for event in lines if event]
        return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]

    def wait(self):
        return self.events()[-1][1]

    def images(self, numbers="0-5"):
        return self.get(f"/images?numbers={numbers}").json()


def error(answer, status):
    """The one sentence of a refusal."""
    assert answer.status_code == status, answer.text
    sentence = answer.json()["error"]
    assert sentence.endswith(".")
    assert len(sentence) < 300
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    return sentence
