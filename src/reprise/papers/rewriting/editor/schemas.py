"""What the page may send."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from reprise.papers.rewriting.request_json import Number, Url

Place = Annotated[int, Field(ge=0, le=10_000, strict=True)]
What = Literal["copy", "paste", "context", "query"]


class Body(BaseModel):
    """Nothing but what is named is taken."""

    model_config = ConfigDict(extra="forbid")


class Nothing(Body):
    """No content."""


class Show(Body):
    """Images to show, as in ``0-31, 200``."""

    numbers: Annotated[str, Field(min_length=1, max_length=1000)]


class NewMark(Body):
    """A mask on an image."""

    what: What
    number: Number
    mask: Url


class OldMark(Body):
    """A mark that is taken back."""

    what: What
    number: Number


class Original(Body):
    """Whether images are shown as they were."""

    on: Annotated[bool, Field(strict=True)]


class Name(Body):
    """What an edit is called."""

    name: Annotated[str, Field(max_length=80)] = ""


class Strength(Body):
    """An edit's strength."""

    place: Place
    strength: Annotated[float, Field(ge=-3, le=3, allow_inf_nan=False)]


class Move(Body):
    """An edit's new place."""

    place: Place
    to: Place


class Remove(Body):
    """An edit that is taken off."""

    place: Place
