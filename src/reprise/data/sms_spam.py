"""SMS Spam Collection: text messages, wanted (ham) or not (spam)."""

from __future__ import annotations

from pathlib import Path

import torch

from reprise.checks import PositiveInt, checked
from reprise.data.base import Source, Split
from reprise.data.store import FileSet, FileStore, PublicFile, sha256_of
from reprise.data.text import CLASSES, hashed, message_spec

LICENCE = "CC BY 4.0"
SOURCE = "UCI SMS Spam Collection, doi 10.24432/C5CC84"


def files() -> FileSet:
    """``SMSSpamCollection``, byte for byte as UCI serves it."""
    file = PublicFile(
        "sms_spam/SMSSpamCollection",
        "sha256:7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
        477_907,
        url="https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
        member="SMSSpamCollection",
        also=("SMSSpamCollection",),
    )
    return FileSet((file,), home="https://archive.ics.uci.edu/dataset/228/sms+spam+collection")


@checked
def load(*, name: str, store: FileStore, features: PositiveInt = 1024) -> Source:
    """Load 5,574 messages as hashed words ``[N, features]``; y is 1 for spam. There is no official test split.

    Source: T. Almeida, J. Hidalgo, A. Yamakami, DocEng 2011; inputs: :func:`reprise.data.text.hashed`.

    Raises:
        UserError: the file is damaged, or is absent and cannot be downloaded.
    """
    (path,) = store.get(files())
    texts, labels = read(path)
    checksum = sha256_of(path)
    spec = message_spec(
        name=name, features=features, origin="public", licence=LICENCE, source=SOURCE, checksum=checksum
    )
    return Source(spec, train=Split(hashed(texts, features), torch.tensor(labels)))


def read(path: Path) -> tuple[list[str], list[int]]:
    """Messages and labels of the verified file; quotes in it are plain characters."""
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    labels, texts = zip(*(line.split("\t", maxsplit=1) for line in lines), strict=True)
    return list(texts), [CLASSES.index(label) for label in labels]
