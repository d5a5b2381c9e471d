"""What the tests of all sources share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reprise.data.base import Source
from reprise.data.store import FileStore


def check_contract(source: Source) -> None:
    """What every source owes, see :mod:`reprise.data.base`."""
    spec = source.spec
    assert len(spec.checksum) == 64
    assert spec.licence
    assert spec.source
    assert spec.features == () or len(spec.features) == spec.shape[0] == len(set(spec.features))
    for split in (source.train, source.test, source.validation):
        if split is None:
            continue
        assert split.x.dtype == torch.float32
        assert split.x.shape == (len(split), *spec.shape)
        assert split.y.shape == (len(split),)
        assert split.y.dtype == (torch.int64 if spec.task == "classification" else torch.float32)
        assert split.names == () or len(split.names) == len(split)
        assert spec.task == "regression" or set(split.y.unique().tolist()) <= set(range(spec.num_classes))


def no_store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "data", cache_dir=tmp_path / "cache", download=False)


def sentence(error: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    """The message is one line that holds all parts."""
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text, (part, text)
