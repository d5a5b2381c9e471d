"""Sessions of the editor: so many at once, the one that was not used for longest makes room, and work in the back."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reprise.errors import UserError
from reprise.papers.rewriting.editable import Editable
from reprise.papers.rewriting.editor.guard import Refused
from reprise.papers.rewriting.session import Cancelled, Progress, RewriteSession, Watch

log = logging.getLogger("reprise")

SESSIONS = 32
WORKERS = 2
REMEMBERED = 1000  # sessions that made room
SMALL = 128  # pixels of a network that is quick


class Job:
    """Something that takes a while, for one session."""

    def __init__(self, kind: str) -> None:
        self.kind, self.progress = kind, Progress("starting", 0, 1)
        self.cancelled, self.ended = threading.Event(), threading.Event()

    def watch(self, progress: Progress) -> None:
        """Take a note, or give up if that is wanted."""
        if self.cancelled.is_set():
            raise Cancelled
        self.progress = progress


class Seat:
    """A session, what it is busy with, and what happened last."""

    def __init__(self, name: str, session: RewriteSession) -> None:
        self.name, self.session = name, session
        self.lock = threading.Lock()
        self.job: Job | None = None
        self.message, self.failed = "", False
        self.version = 0  # of the edits, so that a page knows when its images are old
        self.serial = 0  # of anything, so that it knows which of two answers is the newer

    @property
    def busy(self) -> bool:
        """Whether something runs."""
        return self.job is not None and not self.job.ended.is_set()

    def say(self, message: str, failed: bool = False) -> None:
        """What happened last."""
        self.message, self.failed = message, failed


class Store:
    """All sessions.

    Args:
        editable: the generator that they edit.
        most: how many there may be.
    """

    def __init__(self, editable: Editable, most: int = SESSIONS) -> None:
        self.editable, self.most, self.rewriter = editable, most, editable.rewriter()
        self._seats: OrderedDict[str, Seat] = OrderedDict()
        self._gone: deque[str] = deque(maxlen=REMEMBERED)
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="edit")

    def open(self) -> Seat:
        """A new session.

        Raises:
            Refused: there are too many, and all are busy.
        """
        shown = 24 if self.editable.synthesis.size <= SMALL else 8
        seat = Seat(secrets.token_urlsafe(16), RewriteSession(self.editable, self.rewriter, shown))
        with self._lock:
            if len(self._seats) >= self.most:
                idle = next((name for name, other in self._seats.items() if not other.busy), None)
                if idle is None:
                    raise Refused(503, f"All {self.most} sessions are busy: try again in a moment.")
                del self._seats[idle]
                self._gone.append(idle)
            self._seats[seat.name] = seat
        return seat

    def seat(self, name: str) -> Seat:
        """A session by its name.

        Raises:
            Refused: there is none, or it made room for others.
        """
        with self._lock:
            if name in self._seats:
                self._seats.move_to_end(name)
                return self._seats[name]
            gone = name in self._gone
        if gone:
            raise Refused(410, f"This session was closed to make room: the editor keeps the {self.most} used last.")
        raise Refused(404, "There is no such session: it ended with the editor that it belonged to.")

    def start(self, seat: Seat, kind: str, task: Callable[[Watch], str]) -> None:
        """Do something in the back; it says in a sentence what came of it.

        Raises:
            Refused: the session is busy.
        """
        self.check_idle(seat)
        seat.say("")
        seat.job = Job(kind)
        self._workers.submit(_run, seat, seat.job, task)

    def check_idle(self, seat: Seat) -> None:
        """Refuse what cannot be done while something runs."""
        if seat.busy:
            raise Refused(409, f"The session is busy ({seat.job.kind}): wait for it, or cancel it.")

    def warm(self) -> None:
        """Take the second moments of all layers' keys before anybody asks, in the back, where the network is quick."""

        def go_on(seen: int, of: int) -> None:
            if self._closed.is_set():
                raise Cancelled

        def take() -> None:
            with contextlib.suppress(Cancelled):
                for layer in self.editable.synthesis.numbers:
                    self.rewriter.moment(layer, go_on)

        if self.editable.synthesis.size <= SMALL:
            self._workers.submit(take)

    def close(self) -> None:
        """Give up all work, and wait until it has ended: torch does not bear to be left in the middle of something."""
        self._closed.set()
        for seat in self._seats.values():
            if seat.job:
                seat.job.cancelled.set()
        self._workers.shutdown(cancel_futures=True)


def _run(seat: Seat, job: Job, task: Callable[[Watch], str]) -> None:
    message, failed = "", False
    try:
        job.watch(job.progress)  # it may have been given up while it waited
        message = task(job.watch)
    except Cancelled:
        message = "Cancelled; nothing was changed."
    except UserError as error:
        message, failed = sentence(error), True
    except Exception:
        log.exception("%s failed", job.kind)
        message, failed = f"{job.kind} failed for a reason that the editor's terminal shows.", True
    with seat.lock:
        seat.say(message, failed)
        seat.version += 1
        seat.serial += 1
        job.ended.set()


def sentence(error: Any) -> str:
    """A message with a capital letter, for people who did not type a command."""
    text = str(error)
    return text[:1].upper() + text[1:]
