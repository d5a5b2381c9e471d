"""Edit requests as the paper's tool writes them: ``object``, ``paste``, ``key`` and ``query``, read and written alike.

Each mark is ``[image number, mask]``, the mask a PNG as a data URL. ``key`` (the context) is a list of marks, the
others are one mark each; all may be missing. Numbers count the images of a generator, so that a file belongs to one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reprise.errors import UserError

LONGEST = 3_000_000  # characters of a mask
MOST = 200  # contexts

Number = Annotated[int, Field(ge=0, strict=True)]
Url = Annotated[str, Field(max_length=LONGEST, strict=True)]


@dataclass(frozen=True)
class Mark:
    """A mask, as a data URL, on the image with a number."""

    number: int
    url: str


@dataclass(frozen=True)
class Marks:
    """What was marked so far; see `reprise.papers.rewriting.request.Request` for what it becomes."""

    copy: Mark | None = None
    paste: Mark | None = None
    context: tuple[Mark, ...] = ()
    query: Mark | None = None

    def but(self, **changes: Any) -> Marks:
        """The same with some marks replaced."""
        return replace(self, **changes)

    def named(self) -> list[tuple[str, Mark]]:
        """All there are, with what each is for."""
        one = (("copy", self.copy), ("paste", self.paste), ("query", self.query))
        return [(what, mark) for what, mark in one if mark] + [("context", mark) for mark in self.context]


class _File(BaseModel):
    """The file's content; keys that are not known are refused, so that a mistyped one is not passed over."""

    model_config = ConfigDict(extra="forbid")
    object: tuple[Number, Url] | None = None
    paste: tuple[Number, Url] | None = None
    key: Annotated[list[tuple[Number, Url]], Field(max_length=MOST)] | None = None
    query: tuple[Number, Url] | None = None


def parse(text: str | bytes) -> Marks:
    """Marks from the JSON of a request.

    Raises:
        UserError: no JSON, or JSON of something else; in one sentence.
    """
    try:
        found = _File.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"this is no edit request: {place}: {first['msg']}.") from error
    one = {name: mark and Mark(*mark) for name, mark in (("copy", found.object), ("paste", found.paste))}
    return Marks(**one, context=tuple(Mark(*m) for m in found.key or ()), query=found.query and Mark(*found.query))


def text(marks: Marks) -> str:
    """The JSON of a request."""
    known = {"object": marks.copy, "paste": marks.paste, "query": marks.query}
    content: dict[str, Any] = {name: [m.number, m.url] for name, m in known.items() if m}
    if marks.context:
        content["key"] = [[m.number, m.url] for m in marks.context]
    return json.dumps(content, indent=1)


def read(path: Path) -> Marks:
    """The request in a file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the name.") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
