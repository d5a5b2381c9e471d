"""UCI Adult (census income): does a person earn more than 50,000 dollars a year?"""

from __future__ import annotations

from pathlib import Path

import torch

from reprise.data.base import DataSpec, Source, Split
from reprise.data.columns import Column, encode, feature_names
from reprise.data.store import FileSet, FileStore, PublicFile, sha256_of
from reprise.data.table import Table

_ZIP = "https://archive.ics.uci.edu/static/public/2/adult.zip"
_COLUMNS = (
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship"),
    *("race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income"),
)
_NUMERIC = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
_CLASSES = ("<=50K", ">50K")


def files() -> FileSet:
    """``adult.data`` and ``adult.test``, byte for byte as UCI serves them."""
    known = (
        ("adult.data", "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d", 3_974_305),
        ("adult.test", "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05", 2_003_153),
    )
    return FileSet(
        files=tuple(
            PublicFile(f"adult/{name}", f"sha256:{sha}", size, url=_ZIP, member=name, also=(name,))
            for name, sha, size in known
        ),
        home="https://archive.ics.uci.edu/dataset/2/adult",
    )


def load(*, name: str, store: FileStore) -> Source:
    """Load 32,561 train and 16,281 test rows ``[N, 108]``; y is 1 for ``>50K``.

    Six numeric columns stay raw, for the paper's datamodule to scale. Eight categorical columns become 102 one-hot
    inputs over the levels of both files; ``?`` stays a level of its own. Inputs keep the files' column order.

    Source: B. Becker, R. Kohavi, Adult, UCI, 1996, doi 10.24432/C5XW20.

    Raises:
        UserError: a file is damaged, or is absent and cannot be downloaded.
    """
    train_path, test_path = store.get(files())
    train, test = _read(train_path), _read(test_path)
    columns = [
        Column(c, None if c in _NUMERIC else tuple(sorted({*train.columns[c], *test.columns[c]})))
        for c in _COLUMNS[:-1]
    ]
    features = feature_names(columns)
    spec = DataSpec(
        name=name,
        task="classification",
        kind="table",
        shape=(len(features),),
        classes=_CLASSES,
        features=features,
        origin="public",
        licence="CC BY 4.0",
        source="UCI Adult, doi 10.24432/C5XW20",
        checksum=sha256_of(train_path, test_path),
    )

    def split(table: Table) -> Split:
        y = torch.tensor([_CLASSES.index(label) for label in table.columns["income"]])
        return Split(torch.from_numpy(encode(table, columns)), y)

    return Source(spec, train=split(train), test=split(test))


def _read(path: Path) -> Table:
    """Rows of one file. ``adult.test`` opens with a comment line ``|1x3 …``, its labels end in a full stop, and both
    files end in blank lines.
    """  # fmt: skip
    text = path.read_text(encoding="ascii").splitlines()
    numbered = [(number, line) for number, line in enumerate(text, start=1) if line and not line.startswith("|")]
    rows = [line.rstrip(".").split(", ") for _, line in numbered]
    columns = {column: list(cells) for column, cells in zip(_COLUMNS, zip(*rows, strict=True), strict=True)}
    return Table(path, columns, tuple(number for number, _ in numbered))
