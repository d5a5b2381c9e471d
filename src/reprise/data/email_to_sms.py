"""A domain pair: learn spam from the user's e-mails, be judged on text messages."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from reprise.checks import PositiveInt, checked
from reprise.data import sms_spam
from reprise.data.base import Source, Split
from reprise.data.store import (
    FileSet,
    FileStore,
    check_unchanged,
    did_you_mean,
    sha256_of,
    sha256_of_arrays,
    user_file,
)
from reprise.data.table import Table, read_table
from reprise.data.targets import spellings
from reprise.data.text import hashed, message_spec
from reprise.errors import UserError


def files() -> FileSet:
    """The public half: the text messages."""
    return sms_spam.files()


@checked
def load(
    *,
    name: str,
    store: FileStore,
    path: str | None = None,
    text: str = "text",
    target: str = "label",
    spam: str | int | Sequence[str | int] = ("spam", "1", "true"),
    features: PositiveInt = 1024,
    checksum: str | None = None,
) -> Source:
    """Load the user's e-mails as ``train`` and the SMS Spam Collection as ``test``, both ``[N, features]``; 1 is spam.

    Args:
        name: name shown in results.
        store: where the text messages are.
        path: a UTF-8 CSV file with a header; e-mail ``i`` is its data row ``i``.
        text: its column of message text.
        target: its column of labels.
        spam: the labels that mean spam, in any letter case; every other one means ham.
        features: number of inputs, see :func:`reprise.data.text.hashed`.
        checksum: expected sha256 of the file; refused if it changed since.

    Raises:
        UserError: no or a bad file, a column it lacks, one class only, or e-mails that are the text messages.
    """
    if not path:
        raise UserError(
            "dataset=email_to_sms needs an e-mail collection of yours, a UTF-8 CSV file with one column of text and "
            "one of labels, given with dataset.path=FILE dataset.text=COLUMN dataset.target=COLUMN: Kaggle's "
            "venky73/spam-mails-dataset works as it is (text, label), jackksoncsie/spam-email-dataset with "
            "dataset.target=spam, Enron-Spam as enron_spam_data.csv with dataset.text=Message and "
            "dataset.target=Spam/Ham."
        )
    file = user_file(path)
    found = check_unchanged(sha256_of(file), checksum, file)
    with _long_cells():
        table = read_table(file)
    emails = _column(table, text, "dataset.text")
    y = _labels(table, target, [spam] if isinstance(spam, str | int) else list(spam))
    (sms_file,) = store.get(files())
    messages, labels = sms_spam.read(sms_file)
    _check_other_than(messages, emails, table)
    spec = message_spec(
        name=name,
        features=features,
        origin="user",
        licence=f"the user's own e-mails; messages: {sms_spam.LICENCE}",
        source=f"{file} and {sms_spam.SOURCE}",
        checksum=sha256_of_arrays(np.array([found, sha256_of(sms_file)])),
    )
    return Source(spec, Split(hashed(emails, features), y), Split(hashed(messages, features), torch.tensor(labels)))


def _column(table: Table, column: str, option: str) -> list[str]:
    if column not in table.columns:
        known = list(table.columns)
        hint = did_you_mean(column, known)
        raise UserError(f"{option}: {table.path} has no column {column!r}{hint}; its columns are {', '.join(known)}.")
    return table.columns[column]


def _labels(table: Table, target: str, spam: list[str | int]) -> torch.Tensor:
    """int64 ``[N]``, 1 for spam."""
    cells = _column(table, target, "dataset.target")
    if "" in cells:
        raise UserError(f"Target {target!r} is missing in {table.where(cells.index(''))}: fill or remove that row.")
    values = [cell.casefold() for cell in spellings(cells)]
    meant = {str(value).casefold() for value in spam}
    y = torch.tensor([value in meant for value in values]).long()
    if y.sum() in (0, len(y)):
        shown = ", ".join(sorted({cell[:40] for cell in cells})[:10])
        raise UserError(
            f"Target {target!r} of {table.path} marks {'every' if y.sum() else 'no'} row as spam (its values are "
            f"{shown}; dataset.spam={list(spam)}): set dataset.target to the label column and dataset.spam to the "
            "values that mean spam."
        )
    return y


def _check_other_than(messages: list[str], emails: list[str], table: Table) -> None:
    """Some collections that are passed around as e-mails are the text messages, which would test on training rows."""
    known = {message.strip() for message in messages}
    same = sum(email in known for email in emails)
    if 2 * same > len(emails):
        raise UserError(
            f"{same} of the {len(emails)} rows of {table.path} are messages of the SMS Spam Collection, on which the "
            "values are tested: give a collection of e-mails with dataset.path."
        )


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let the csv module read cells beyond 128 KiB, as e-mails with attachments are."""
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(limit)
