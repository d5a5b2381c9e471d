"""What the page is told: the state of a session, its images, its files."""

from __future__ import annotations

import io
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reprise.papers.rewriting.editor.store import Seat
from reprise.papers.rewriting.masks import png_url, to_url
from reprise.papers.rewriting.pictures import heat, picture
from reprise.papers.rewriting.session import SHOWN, RewriteSession

AT_ONCE = SHOWN
WIDEST = 256  # pixels of an image on the page


def seen(seat: Seat) -> dict[str, Any]:
    """The state, while nobody changes it."""
    with seat.lock:
        return state(seat)


def state(seat: Seat) -> dict[str, Any]:
    """All but the images; its ``serial`` is the higher the later."""
    session = seat.session
    net = session.editable.synthesis
    return {
        "id": seat.name,
        "title": session.editable.title,
        "fingerprint": session.editable.fingerprint,
        "size": session.size,
        "images": session.editable.images,
        "layers": [{"number": n, "side": net.layers[str(n)].noise.shape[-1]} for n in net.numbers],
        "settings": asdict(session.settings),
        "shown": session.shown,
        "original": session.original,
        "marks": [
            {"what": what, "number": mark.number, "mask": to_url(found.mask), "warnings": list(found.warnings)}
            for what, mark, found in session.masks()
        ],
        "edits": [
            {"name": e.name, "layer": e.layer, "rank": len(e.directions), "strength": e.strength}
            for e in session.stack.edits
        ],
        "candidates": [asdict(c) for c in session.candidates[:5]],
        "busy": busy(seat),
        "message": seat.message,
        "failed": seat.failed,
        "version": seat.version,
        "serial": seat.serial,
    }


def busy(seat: Seat) -> dict[str, Any] | None:
    """What runs, and how far it is."""
    return {"kind": seat.job.kind} | asdict(seat.job.progress) if seat.busy else None


def images(session: RewriteSession, numbers: list[int], matches: bool) -> dict[str, Any]:
    """Images as they were and as they are, and how they match where that is asked for."""
    before, after = session.images(numbers)
    maps = session.matches(numbers) if matches else [None] * len(numbers)
    side = min(session.size, WIDEST)
    return {
        str(number): {
            "before": png_url(picture(b, side)),
            "after": png_url(picture(a, side)),
            "match": None if m is None else png_url(heat(m, side)),
        }
        for number, b, a, m in zip(numbers, before, after, maps, strict=True)
    }


def grid(session: RewriteSession) -> bytes:
    """The sheet of what is shown."""
    file = io.BytesIO()
    session.grid(session.shown).save(file, "png")
    return file.getvalue()


def edits(session: RewriteSession) -> bytes:
    """The file of all edits."""
    with tempfile.TemporaryDirectory() as folder:
        return session.save_edits(Path(folder) / "edits.safetensors").read_bytes()
