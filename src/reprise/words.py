"""``key=value`` words of the scripts that are not composed by Hydra."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from reprise.data.store import did_you_mean
from reprise.errors import UserError

GENERATOR = {"generator.path": "", "generator.psi": "0.5", "generator.trust": "false"}


def asked(doc: str | None) -> list[str] | None:
    """The words of the command line; where they ask for help, it is printed and there are none."""
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print((doc or "").strip())
        return None
    return words


def options_of(words: Sequence[str], defaults: Mapping[str, str], group: str = "") -> dict[str, str]:
    """What the words say, and the defaults of what they do not.

    Args:
        group: an option that has keys below it, which are all taken (``dataset`` for ``dataset.path=my.csv``).

    Raises:
        UserError: a word that is no option, one that is said twice, or one without a value.
    """
    names = [*defaults, *([group] if group else [])]
    found: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        below = bool(group) and key.startswith(f"{group}.")
        if not (key in names or below) or "=" not in word:
            known = ", ".join([*(f"{name}=" for name in names), *([f"{group}.KEY="] if group else [])])
            raise UserError(f"{word!r} is no option{did_you_mean(key, names)}; known are {known} (see --help).")
        if key in found:
            raise UserError(f"{key}= is given twice: keep one.")
        if not value:
            raise UserError(f"{key}= has no value: give one, or leave it out (see --help).")
        found[key] = value
    return {**defaults, **found}


def whole(options: Mapping[str, str], key: str, least: int, most: int) -> int:
    """An option's value as a whole number.

    Raises:
        UserError: it is none, or out of its range.
    """
    text = options[key]
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise UserError(f"{key}={text} cannot be: give a whole number from {least} to {most}.")
    return int(text)


def switch(options: Mapping[str, str], key: str) -> bool:
    """An option's value as yes or no.

    Raises:
        UserError: it is neither.
    """
    if options[key] not in ("true", "false"):
        raise UserError(f"{key}={options[key]} cannot be: give true or false.")
    return options[key] == "true"


def share(options: Mapping[str, str], key: str) -> float:
    """An option's value as a number from 0 to 1.

    Raises:
        UserError: it is none.
    """
    try:
        value = float(options[key])
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"{key}={options[key]} cannot be: give a number from 0 to 1.")
    return value


def generator_of(options: Mapping[str, str]) -> tuple[Path | None, float, bool]:
    """What `GENERATOR` says: the file (``None`` = the suite's own), truncation, and whether the file is trusted.

    Raises:
        UserError: a value that cannot be.
    """
    path = options["generator.path"]
    chosen = Path(path).expanduser() if path else None
    return chosen, share(options, "generator.psi"), switch(options, "generator.trust")
