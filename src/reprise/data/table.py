"""Reading a delimited text file strictly: every row counts, and every fault is reported with its line."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from reprise.data.store import reason
from reprise.errors import UserError

# Cells that mean "no value", in any letter case. "none" is left out: it is a common category.
MISSING = frozenset({"", "?", "na", "n/a", "#n/a", "nan", "null", "<na>"})
_SEPARATORS = ",;\t|"
# Words, because on the command line the characters mean something to the shell and to Hydra.
_SEPARATOR_WORDS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "bar": "|", "space": " "}


@dataclass(frozen=True)
class Table:
    """Text cells by column; ``""`` is a missing cell. Data row ``i`` starts on line ``lines[i]`` of ``path``."""

    path: Path
    columns: dict[str, list[str]]
    lines: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """How to name a row to the user."""
        return f"data row {row} (line {self.lines[row]} of {self.path})"


def read_table(path: Path, separator: str | None = None) -> Table:
    """Read a UTF-8 table with a header line. Cells lose surrounding blanks; a nameless column k becomes ``unnamed_k``.

    Args:
        path: an existing file.
        separator: one character, or ``comma``, ``semicolon``, ``tab``, ``bar``, ``space``; ``None``
            picks the one of ``, ; tab |`` that cuts the header into most
            columns.

    Raises:
        UserError: empty file, header only, one column only, duplicate names, ragged or blank rows, bad quoting, bytes
            that are not UTF-8 text, a separator that cannot work.
    """
    text = _decode(path)
    separator = _check_separator(separator) if separator else _sniff(text)
    records = _records(path, text, separator)
    if not records:
        raise UserError(f"{path} is empty: it must hold a header line and data rows.")
    names = _names(path, records[0][1], separator)
    rows = records[1:]
    if not rows:
        raise UserError(f"{path} has a header line but no data rows.")
    for line, cells in rows:
        if len(cells) != len(names):
            state = "is blank" if not any(cells) else f"has {len(cells)} cells"
            raise UserError(
                f"Line {line} of {path} {state} where the header has {len(names)} columns (separator {separator!r}): "
                "mend or remove that line, or set dataset.separator."
            )
    columns = {name: [_clean(cells[k]) for _, cells in rows] for k, name in enumerate(names)}
    return Table(path, columns, tuple(line for line, _ in rows))


def _decode(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason(error)}): check its permissions.") from error
    if b"\0" in raw:
        raise UserError(f"{path} holds NUL bytes (a binary format or UTF-16?), not a text table: save it as UTF-8 CSV.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path} is not UTF-8 text (byte 0x{raw[error.start]:02x} in line {line}): save it as UTF-8 CSV."
        ) from None


def _check_separator(separator: str) -> str:
    separator = _SEPARATOR_WORDS.get(separator, separator)
    if len(separator) != 1 or separator in '"\r\n':
        raise UserError(
            f"dataset.separator={separator!r} cannot work: give one character, or a name among comma, semicolon, tab, "
            "bar, space."
        )
    return separator


def _sniff(text: str) -> str:
    def cells(separator: str) -> int:
        return len(next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), []))

    try:
        return max(_SEPARATORS, key=cells)  # the first wins a tie, so a comma unless something else does better
    except csv.Error:
        return ","  # the strict reader will say what is wrong, and where


def _records(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """All records with the line on which each starts; blank ones at the end of the file are left out."""
    # Blanks after a separator are dropped so that `a, "b, c"` is read as people mean it.
    stream = io.StringIO(text, newline="")
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=separator != " ", strict=True)
    records: list[tuple[int, list[str]]] = []
    start = 1
    try:
        for cells in reader:
            records.append((start, [cell.strip() for cell in cells]))
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path} cannot be parsed in the record that starts on line {start} ({error}): check the quotes there, or "
            "set dataset.separator."
        ) from None
    while records and len(records[-1][1]) <= 1 and not any(records[-1][1]):
        records.pop()
    return records


def _names(path: Path, header: list[str], separator: str) -> list[str]:
    if len(header) < 2:
        raise UserError(
            f"The first line of {path} holds one column only (separator {separator!r}): set dataset.separator, or give "
            "the table a target and at least one input column."
        )
    names = [name or f"unnamed_{place}" for place, name in enumerate(header, start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path} has more than one column named {', '.join(map(repr, twice))}: rename them.")
    return names


def _clean(cell: str) -> str:
    return "" if cell.lower() in MISSING else cell
