"""An editing session: what has been marked, what has been edited, and what the images look like. No user interface.

    session = RewriteSession(editable.load())
    session.copy(3, mask), session.paste(17, mask), session.add_context(21, mask)
    session.execute()
    before, after = session.images(range(16))

Masks are PNG data URLs as the paper's tool writes them. New edits are looked for on the network as edited so far, which
is what the images show; the second moment of its keys stays that of the unedited one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from PIL import Image
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor

from reprise.errors import UserError
from reprise.papers.rewriting import request_json
from reprise.papers.rewriting.choosing import RANKS, Candidate, choose, tries
from reprise.papers.rewriting.editable import Editable
from reprise.papers.rewriting.edits import Edit, EditStack, load_edits, save_edits
from reprise.papers.rewriting.masks import Painted, painted
from reprise.papers.rewriting.matching import match_maps, query_direction
from reprise.papers.rewriting.network import Network
from reprise.papers.rewriting.pictures import sheet
from reprise.papers.rewriting.request import Marked, Request
from reprise.papers.rewriting.request_json import MOST, Mark, Marks
from reprise.papers.rewriting.rewriter import Recipe, Rewriter

AT_ONCE = 16  # images drawn at once, fewer where they are large
PIXELS = 2**21  # drawn at once
SHOWN = 64  # images shown at once, at most
EDITS = 100  # of a session, at most
WHOLE = ("context", "query")  # masks that may have several pieces
UNITS = 64  # switched off in a removal, or half of a layer's channels


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Settings:
    """How edits are made.

    Attributes:
        layer: number, or ``auto``: short searches choose it.
        rank: of the change, or ``auto``.
        steps: of the search.
        ridge: see `reprise.papers.rewriting.rewriter.Recipe`.
    """

    layer: Annotated[int, Field(ge=2, le=40)] | Literal["auto"] = "auto"
    rank: Annotated[int, Field(ge=1, le=100)] | Literal["auto"] = 1
    steps: Annotated[int, Field(ge=1, le=5000)] = 400
    ridge: Annotated[float, Field(ge=0, le=10)] = 0.1


@dataclass(frozen=True)
class Progress:
    """How far something is: ``phase`` in words, ``step`` of ``steps``, and the objective where there is one."""

    phase: str
    step: int
    steps: int
    loss: float | None = None


Watch = Callable[[Progress], None]


class Cancelled(Exception):  # noqa: N818 - no error
    """Raised by who watches, to give up; the session is then as it was."""


def unwatched(progress: Progress) -> None:
    """Nobody looks."""


class RewriteSession:
    """Edits one generator.

    Args:
        editable: the generator.
        rewriter: of the same generator; sessions that share one share the second moments of its layers' keys.
        shown: how many images are shown at first.
    """

    def __init__(self, editable: Editable, rewriter: Rewriter | None = None, shown: int = 24) -> None:
        self.editable, self.rewriter = editable, rewriter or editable.rewriter()
        self.stack = EditStack(editable.synthesis, editable.fingerprint)
        self.marks, self.settings = Marks(), Settings()
        self.shown = list(range(min(shown, editable.images)))
        self.original = False
        self.candidates: list[Candidate] = []

    @property
    def size(self) -> int:
        """Pixels of an image's side."""
        return self.editable.synthesis.size

    def as_asked(self) -> RewriteSession:
        """A session of the same edits whose marks, settings and view stay as they are now: for work in the back."""
        return copy.copy(self)

    def as_shown(self) -> RewriteSession:
        """The same with the edits as they are now: for looking at it while it goes on."""
        other = self.as_asked()
        other.stack = self.stack.copy()
        return other

    @property
    def at_once(self) -> int:
        """Images drawn at once, and looked at to see what harm a layer does."""
        return max(1, min(AT_ONCE, PIXELS // self.size**2))

    # What is marked

    def copy(self, number: int, url: str) -> None:
        """Mark what is to be copied.

        Raises:
            UserError: no such image, or no mask.
        """
        self.marks = self.marks.but(copy=self._mark(number, url, "copy"))

    def paste(self, number: int, url: str) -> None:
        """Mark where it is to be pasted; only the middle of the mask counts."""
        self.marks = self.marks.but(paste=self._mark(number, url, "paste"))

    def query(self, number: int, url: str) -> None:
        """Mark what is to be searched for in place of the context."""
        self.marks = self.marks.but(query=self._mark(number, url, "query"))

    def add_context(self, number: int, url: str) -> None:
        """Mark where the rule is to hold, too; a second mark on an image takes the place of the first."""
        others = tuple(mark for mark in self.marks.context if mark.number != number)
        if len(others) >= MOST:
            raise UserError(f"there are {MOST} contexts already: remove one.")
        self.marks = self.marks.but(context=(*others, self._mark(number, url, "context")))

    def unmark(self, what: str, number: int) -> None:
        """Take an image's mark back."""
        if what == "context":
            left = self.marks.but(context=tuple(mark for mark in self.marks.context if mark.number != number))
        else:
            left = self.marks.but(**{what: None})
        if left == self.marks:
            raise UserError(f"image {number} has no {what} mark.")
        self.marks = left

    def clear(self) -> None:
        """Take back all marks."""
        self.marks = Marks()

    def mark(self, marks: Marks) -> None:
        """Take over all marks of a request, if they all can be used."""
        for what, mark in marks.named():
            self._mark(mark.number, mark.url, what)
        self.marks = marks

    def masks(self) -> list[tuple[str, Mark, Painted]]:
        """All marks with their masks, cleaned and on the images' grid, and what was noticed about them."""
        return [(what, mark, painted(mark.url, self.size, what, what in WHOLE)) for what, mark in self.marks.named()]

    def _mark(self, number: int, url: str, what: str) -> Mark:
        self._check([number])
        painted(url, self.size, what, what in WHOLE)
        return Mark(number, url)

    def _check(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if not 0 <= number < self.editable.images:
                raise UserError(f"there is no image {number}: they are 0 to {self.editable.images - 1}.")

    def _marked(self, marks: Sequence[Mark], what: str) -> tuple[Marked, ...]:
        if not marks:
            return ()
        ws = self.editable.sample([mark.number for mark in marks])
        masks = [painted(mark.url, self.size, what, what in WHOLE).mask.to(ws.device) for mark in marks]
        return tuple(Marked(*pair) for pair in zip(ws, masks, strict=True))

    def request(self) -> Request:
        """Copy, paste and context.

        Raises:
            UserError: nothing to copy, or no place for it.
        """
        for what, mark in (("copy", self.marks.copy), ("paste", self.marks.paste)):
            if mark is None:
                raise UserError(f"there is nothing to {what} yet: paint on an image and press {what.capitalize()}.")
        (source,), (place,) = self._marked([self.marks.copy], "copy"), self._marked([self.marks.paste], "paste")
        return Request(source, place, self._marked(self.marks.context, "context"))

    def removals(self) -> list[Request]:
        """The same for a removal, one for each mark: what is marked as context or as place of the paste is to go.

        Raises:
            UserError: nothing is marked.
        """
        marks = [mark for what, mark in self.marks.named() if what in ("paste", "context")]
        if not marks:
            raise UserError("nothing is marked that could go: paint it on some images and press Add context.")
        return [Request(None, marked) for marked in self._marked(marks, "context")]

    # What is shown

    def show(self, numbers: Sequence[int]) -> None:
        """Choose the images that are shown."""
        if not 1 <= len(numbers) <= SHOWN:
            raise UserError(f"{len(numbers)} images cannot be shown at once: choose 1 to {SHOWN}.")
        self._check(numbers)
        self.shown = list(dict.fromkeys(numbers))

    @torch.no_grad()
    def images(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images ``[n, 3, size, size]``, about -1..1, as they were and as they are."""
        self._check(numbers)
        parts = [self.stack.before_and_after(ws) for ws in self.editable.sample(numbers).split(self.at_once)]
        before, after = zip(*parts, strict=True)
        return torch.cat(before), torch.cat(after)

    def grid(self, numbers: Sequence[int]) -> Image.Image:
        """A sheet of images as they were, above as they are."""
        return sheet(*self.images(numbers))

    # What is searched for

    @property
    def layer(self) -> int:
        """The layer whose keys are compared: the one chosen, or that of the last edit, or one of middle resolution."""
        if self.settings.layer != "auto":
            return self.settings.layer
        numbers = self.editable.synthesis.numbers
        edits = self.stack.edits
        return edits[-1].layer if edits else numbers[2 * len(numbers) // 3]

    @torch.no_grad()
    def matches(self, numbers: Sequence[int]) -> Tensor:
        """Where images match the query ``[n, h, w]``: 1 as well as it does itself, 0 not at all."""
        self._check(numbers)
        net = self.edited()
        return self._maps(net, self._direction(net), self.editable.sample(numbers))

    @torch.no_grad()
    def search(self, limit: int, watch: Watch = unwatched) -> list[tuple[int, float]]:
        """The images that match best, with how well they do at their best place; the first ones are shown then.

        Args:
            limit: how many.

        Raises:
            UserError: see `sought`.
        """
        net, found = self.edited(), []
        direction = self._direction(net, watch)
        for first in range(0, self.editable.images, AT_ONCE):
            watch(Progress("looking through the images", first, self.editable.images))
            numbers = range(first, min(first + AT_ONCE, self.editable.images))
            found.append(self._maps(net, direction, self.editable.sample(numbers)).flatten(1).amax(1))
        best = torch.cat(found).topk(min(limit, self.editable.images))
        ranked = [(int(number), float(score)) for number, score in zip(best.indices, best.values, strict=True)]
        self.show([number for number, _ in ranked][:SHOWN])
        return ranked

    def sought(self) -> tuple[Marked, ...]:
        """What is looked for: the query, or else the context, or else the place of the paste.

        Raises:
            UserError: nothing is marked that could be looked for.
        """
        marks = (self.marks.query,) if self.marks.query else self.marks.context
        marks = marks or ((self.marks.paste,) if self.marks.paste else ())
        if not marks:
            raise UserError("there is nothing to look for yet: paint on an image and press Search.")
        return self._marked(marks, "context")

    def _maps(self, net: Network, direction: Tensor, ws: Tensor) -> Tensor:
        return torch.cat([match_maps(net, self.layer, part, direction) for part in ws.split(AT_ONCE)])

    def _direction(self, net: Network, watch: Watch = unwatched) -> Tensor:
        marked, rewriter, layer = self.sought(), self.rewriter.on(net), self.layer
        c = self._moment(layer, watch).matrix(self.settings.ridge)
        return query_direction(c, *rewriter.rows(marked, layer))

    def _moment(self, layer: int, watch: Watch):
        return self.rewriter.moment(layer, lambda n, of: watch(Progress(f"seeing the keys of layer {layer}", n, of)))

    # What is edited

    def edited(self) -> Network:
        """The network with all edits in its weights; the unedited one itself where there are none."""
        weights = self.stack.weights()
        if not weights:
            return self.editable.synthesis
        net = copy.deepcopy(self.editable.synthesis)
        with torch.no_grad():
            for number, weight in weights.items():
                net.layers[str(number)].weight.copy_(weight)
        return net

    def execute(self, name: str = "", watch: Watch = unwatched) -> Edit:
        """Look for the change that answers the request, and add it to the edits."""
        words = (
            f"image {self.marks.copy and self.marks.copy.number} into {self.marks.paste and self.marks.paste.number}"
        )
        return self._add([self.request()], name or words, watch)

    def erase(self, name: str = "", watch: Watch = unwatched) -> Edit:
        """Look for the change by which what is marked goes, and add it to the edits."""
        return self._add(self.removals(), name or "erased what was marked", watch)

    def _add(self, requests: Sequence[Request], name: str, watch: Watch) -> Edit:
        self._check_room(1)
        rewriter, settings = self.rewriter.on(self.edited()), self.settings
        recipe, self.candidates = self._recipe(rewriter, requests, watch)
        self._moment(recipe.layer, watch)
        for found in rewriter.search(requests, recipe):
            step = len(found.losses)
            total = settings.steps * (1 if requests[0].copy else recipe.repeats)
            watch(Progress(f"changing layer {recipe.layer}", step, total, found.losses[-1]))
        edit = Edit(recipe.layer, found.lam, found.directions, self.editable.fingerprint, name)
        self.stack.push(edit)
        return edit

    def _recipe(self, rewriter: Rewriter, requests: Sequence[Request], watch: Watch) -> tuple[Recipe, list[Candidate]]:
        """The settings as a recipe, with layer and rank chosen where that was asked for."""
        layer, rank, numbers = self.settings.layer, self.settings.rank, self.editable.synthesis.numbers
        recipe = Recipe(
            numbers[0] if layer == "auto" else layer, ridge=self.settings.ridge, steps=self.settings.steps, rank=1
        )
        rewriter.check_layer(recipe.layer)
        layers = numbers if layer == "auto" else [layer]
        ranks = RANKS if rank == "auto" else [rank]
        recipe.units = min(UNITS, *(rewriter.channels(n) // 2 for n in layers))
        if layer != "auto" and rank != "auto":
            return recipe.at(layer, rank), []
        for number in layers:
            self._moment(number, watch)
        marked = {mark.number for _, mark in self.marks.named()}
        others = [n for n in range(self.editable.images) if n not in marked][: self.at_once]
        found = choose(
            rewriter,
            requests,
            list(tries(recipe, layers, ranks)),
            self.editable.sample(others),
            lambda n, of: watch(Progress("choosing a layer", n, of)),
        )
        return recipe.at(found[0].layer, found[0].rank), found

    def _check_room(self, more: int) -> None:
        if len(self.stack.edits) + more > EDITS:
            raise UserError(f"a session has room for {EDITS} edits: take some off first.")

    def undo(self) -> Edit:
        """Take the last edit off."""
        return self.stack.undo()

    def strengthen(self, place: int, strength: float) -> None:
        """Set an edit's strength; places count from 0, the first edit."""
        self._place(place)
        self.stack.strengthen(place, strength)

    def move(self, place: int, to: int) -> None:
        """Give an edit another place."""
        self._place(place), self._place(to)
        self.stack.move(place, to)

    def remove(self, place: int) -> Edit:
        """Take any edit off."""
        self.move(place, len(self.stack.edits) - 1)
        return self.stack.undo()

    def _place(self, place: int) -> None:
        if not 0 <= place < len(self.stack.edits):
            raise UserError(f"there is no edit {place}: there are {len(self.stack.edits)}.")

    # What is kept

    def save_edits(self, path: Path) -> Path:
        """Write all edits."""
        return save_edits(path, self.stack.edits)

    def load_edits(self, path: Path) -> None:
        """Put the edits of a file on top, all or none.

        Raises:
            UserError: no such file, or edits of another generator.
        """
        before, found = self.stack.edits, load_edits(path)
        self._check_room(len(found))
        try:
            for edit in found:
                self.stack.push(edit)
        except UserError:
            self.stack.edits = before
            raise

    def save_request(self) -> str:
        """The marks as JSON."""
        return request_json.text(self.marks)

    def load_request(self, content: str | bytes) -> None:
        """Marks from JSON, all or none."""
        self.mark(request_json.parse(content))
