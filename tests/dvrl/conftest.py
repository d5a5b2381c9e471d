from __future__ import annotations

import warnings

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """The tensors are tiny: threads would cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def without_lightning_hints():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield
