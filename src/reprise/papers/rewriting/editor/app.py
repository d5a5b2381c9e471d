"""The editor's server: small JSON requests to sessions, images as data URLs, progress as server-sent events."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from reprise.errors import UserError
from reprise.papers.rewriting.editable import Editable
from reprise.papers.rewriting.editor import schemas, views
from reprise.papers.rewriting.editor.guard import Guard, Refused, answer, body
from reprise.papers.rewriting.editor.store import SESSIONS, Seat, Store, sentence
from reprise.papers.rewriting.edits import Edit
from reprise.papers.rewriting.session import RewriteSession, Settings, Watch

STATIC = Path(__file__).parent / "static"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
SMALL, LARGE = 4_000_000, 32_000_000  # bytes of a request
BEAT = 0.1  # seconds between two looks at a job

Act = Callable[[Seat, Any], None]


def make_app(editable: Editable, local: bool = True, most: int = SESSIONS) -> Starlette:
    """The server for a generator.

    Args:
        local: see `reprise.papers.rewriting.editor.guard.Guard`.
        most: sessions at once.
    """
    store = Store(editable, most)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        store.warm()
        yield
        store.close()

    app = Starlette(
        routes=[*_files(), *_reads(), *_changes(store), *_jobs(store), *_uploads(store)],
        middleware=[Middleware(Guard, local=local)],
        exception_handlers={Refused: _refused, UserError: _mistaken, HTTPException: _unknown, Exception: _broken},
        lifespan=lifespan,
    )
    app.state.store = store
    return app


# What goes wrong


async def _refused(request: Request, error: Refused) -> Response:
    return answer(error)


async def _mistaken(request: Request, error: UserError) -> Response:
    return answer(Refused(422, sentence(error)))


async def _unknown(request: Request, error: HTTPException) -> Response:
    return answer(Refused(error.status_code, f"{request.method} {request.url.path[:80]} is nothing the editor knows."))


async def _broken(request: Request, error: Exception) -> Response:
    return answer(Refused(500, "The editor failed for a reason that its terminal shows."))


# The page


def _files() -> list[Route]:
    """A route for each file of the page, read once: no path that is asked for ever reaches the disk."""

    def route(path: Path) -> Route:
        content, kind = path.read_bytes(), KINDS[path.suffix]

        async def endpoint(request: Request) -> Response:
            return Response(content, media_type=kind)

        return Route("/" if path.name == "index.html" else f"/{path.name}", endpoint)

    return [route(path) for path in sorted(STATIC.iterdir())]


# What is only looked at


def _seat(request: Request) -> Seat:
    return request.app.state.store.seat(request.path_params["session"])


def _reads() -> list[Route]:
    async def opened(request: Request) -> Response:
        await body(request, SMALL)
        return JSONResponse(views.state(request.app.state.store.open()), 201)

    async def state(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(views.seen, _seat(request)))

    async def images(request: Request) -> Response:
        session = _seat(request).session.as_shown()
        numbers = session.editable.numbers(request.query_params.get("numbers", ""), views.AT_ONCE)
        hot = request.query_params.get("matches") == "1"
        return JSONResponse(await run_in_threadpool(views.images, session, numbers, hot))

    async def grid(request: Request) -> Response:
        return _file(await run_in_threadpool(views.grid, _seat(request).session.as_shown()), "image/png", "grid.png")

    async def edits(request: Request) -> Response:
        content = await run_in_threadpool(views.edits, _seat(request).session.as_shown())
        return _file(content, "application/octet-stream", "edits.safetensors")

    async def marks(request: Request) -> Response:
        return _file(_seat(request).session.save_request().encode(), "application/json", "request.json")

    return [
        Route("/api/sessions", opened, methods=["POST"]),
        Route("/api/sessions/{session}", state),
        Route("/api/sessions/{session}/images", images),
        Route("/api/sessions/{session}/grid.png", grid),
        Route("/api/sessions/{session}/edits.safetensors", edits),
        Route("/api/sessions/{session}/request.json", marks),
        Route("/api/sessions/{session}/events", _events),
    ]


def _file(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})


async def _events(request: Request) -> Response:
    """How far the session's work is, until it ends; the state then."""
    seat = _seat(request)

    async def events() -> AsyncIterator[str]:
        last = None
        while seat.busy:
            if (now := views.busy(seat)) != last:
                yield f"event: progress\ndata: {json.dumps(now)}\n\n"
                last = now
            await asyncio.sleep(BEAT)
        yield f"event: end\ndata: {json.dumps(await run_in_threadpool(views.seen, seat))}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


# What changes a session


async def _parsed(request: Request, schema: Any) -> Any:
    content = await body(request, SMALL)
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        raise Refused(415, "The request must be of type application/json.")
    try:
        return TypeAdapter(schema).validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise Refused(400, "The request is no JSON.") from error
        place = ".".join(map(str, first["loc"]))[:80] or "the request"
        raise Refused(422, f"{place}: {first['msg']}.") from error


def _change(path: str, schema: Any, act: Act, edits: bool = False) -> Route:
    """A route that validates, changes the session and answers with its state; ``edits``: not while it is busy."""

    async def endpoint(request: Request) -> Response:
        seat, content = _seat(request), await _parsed(request, schema)

        def change() -> dict[str, Any]:
            with seat.lock:
                if edits:
                    request.app.state.store.check_idle(seat)
                    seat.version += 1
                act(seat, content)
                seat.serial += 1
                return views.state(seat)

        return JSONResponse(await run_in_threadpool(change))

    return Route(f"/api/sessions/{{session}}/{path}", endpoint, methods=["POST"])


def _changes(store: Store) -> list[Route]:
    def mark(seat: Seat, new: schemas.NewMark) -> None:
        session = seat.session
        named = {"copy": session.copy, "paste": session.paste, "context": session.add_context, "query": session.query}
        named[new.what](new.number, new.mask)
        seat.say("")

    def show(seat: Seat, wanted: schemas.Show) -> None:
        seat.session.show(seat.session.editable.numbers(wanted.numbers, views.AT_ONCE))

    def settle(seat: Seat, settings: Settings) -> None:
        if settings.layer != "auto":
            seat.session.rewriter.check_layer(settings.layer)
        seat.session.settings = settings

    def original(seat: Seat, wanted: schemas.Original) -> None:
        seat.session.original = wanted.on

    def undo(seat: Seat, _: schemas.Nothing) -> None:
        seat.say(f"Undone: {seat.session.undo().name}.")

    return [
        _change("show", schemas.Show, show),
        _change("mark", schemas.NewMark, mark),
        _change("unmark", schemas.OldMark, lambda seat, old: seat.session.unmark(old.what, old.number)),
        _change("clear", schemas.Nothing, lambda seat, _: seat.session.clear()),
        _change("settings", Settings, settle),
        _change("original", schemas.Original, original),
        _change("undo", schemas.Nothing, undo, edits=True),
        _change("strength", schemas.Strength, lambda seat, s: seat.session.strengthen(s.place, s.strength), edits=True),
        _change("move", schemas.Move, lambda seat, m: seat.session.move(m.place, m.to), edits=True),
        _change("remove", schemas.Remove, lambda seat, r: seat.session.remove(r.place) and None, edits=True),
    ]


def _jobs(store: Store) -> list[Route]:
    def execute(seat: Seat, name: schemas.Name) -> None:
        asked = seat.session.as_asked()
        asked.request()  # what is missing is said at once
        store.start(seat, "Execute", lambda watch: _made(seat, asked, asked.execute(name.name, watch)))

    def erase(seat: Seat, name: schemas.Name) -> None:
        asked = seat.session.as_asked()
        asked.removals()
        store.start(seat, "Erase", lambda watch: _made(seat, asked, asked.erase(name.name, watch)))

    def search(seat: Seat, _: schemas.Nothing) -> None:
        asked = seat.session.as_asked()
        asked.sought()
        store.start(seat, "Search", lambda watch: _found(seat, asked, watch))

    def cancel(seat: Seat, _: schemas.Nothing) -> None:
        if seat.job:
            seat.job.cancelled.set()

    return [
        _change("execute", schemas.Name, execute),
        _change("erase", schemas.Name, erase),
        _change("search", schemas.Nothing, search),
        _change("cancel", schemas.Nothing, cancel),
    ]


def _made(seat: Seat, asked: RewriteSession, edit: Edit) -> str:
    seat.session.candidates = asked.candidates
    return f"Layer {edit.layer} changed by a rank of {len(edit.directions)}: {edit.name}."


def _found(seat: Seat, asked: RewriteSession, watch: Watch) -> str:
    found = asked.search(len(asked.shown), watch)
    seat.session.shown = asked.shown
    return f"The {len(found)} images that match best; image {found[0][0]} first."


# Files


def _uploads(store: Store) -> list[Route]:
    def route(path: str, take: Callable[[Seat, bytes], Awaitable[None] | None]) -> Route:
        async def endpoint(request: Request) -> Response:
            seat, content = _seat(request), await body(request, LARGE)

            def change() -> dict[str, Any]:
                with seat.lock:
                    store.check_idle(seat)
                    take(seat, content)
                    seat.version += 1
                    seat.serial += 1
                    return views.state(seat)

            return JSONResponse(await run_in_threadpool(change))

        return Route(f"/api/sessions/{{session}}/{path}", endpoint, methods=["PUT"])

    def edits(seat: Seat, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "edits.safetensors"
            path.write_bytes(content)
            try:
                seat.session.load_edits(path)
            except UserError as error:
                raise UserError(str(error).replace(str(path), "the file")) from error
        seat.say("Edits loaded.")

    def marks(seat: Seat, content: bytes) -> None:
        seat.session.load_request(content)
        seat.say("Request loaded.")

    return [route("edits", edits), route("request", marks)]
