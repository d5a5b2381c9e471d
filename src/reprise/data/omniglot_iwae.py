"""OMNIGLOT at 28x28 as the authors of the IWAE prepared it: the pixels that likelihoods in the literature are for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reprise.data.base import Source, Split
from reprise.data.omniglot import SMALL, TEST, TRAIN, spec_of
from reprise.data.store import FileSet, FileStore, PublicFile, reason, sha256_of
from reprise.errors import UserError

ALPHABETS = 50


def files() -> FileSet:
    """``chardata.mat``; no published checksum is known, so that what it holds is checked instead."""
    address = "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat"
    file = PublicFile("omniglot/chardata.mat", "", 0, url=address, also=("OMNIGLOT/chardata.mat", "chardata.mat"))
    return FileSet((file,), home=address)


def load(*, name: str, store: FileStore) -> Source:
    """Load ``chardata.mat``: 24,345 train and 8,070 test images ``[N, 1, 28, 28]`` in 0..1 with 50 alphabets as labels.

    Source: Burda, Grosse, Salakhutdinov, Importance weighted autoencoders, ICLR 2016 (repository yburda/iwae).

    Raises:
        UserError: the file is absent and cannot be downloaded, or is another one.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    (path,) = store.get(files())
    try:
        content = loadmat(path)
        parts = [(content[f"{part}data"], content[f"{part}target"]) for part in ("", "test")]
        train, test = (Split(_upright(pixels), torch.from_numpy(targets.argmax(0)).long()) for pixels, targets in parts)
        sizes = [len(part) for part in (train.x, train.y, test.x, test.y)]
        if sizes != [TRAIN, TRAIN, TEST, TEST]:
            raise ValueError(f"{sizes[0]} and {sizes[2]} images, {sizes[1]} and {sizes[3]} labels")
    except (KeyError, ValueError, NotImplementedError, MatReadError) as error:
        raise UserError(
            f"{path} cannot be read as chardata.mat of yburda/iwae ({reason(error)}): delete it and get it again from "
            f"{files().home}."
        ) from error
    names = tuple(f"alphabet {i + 1}" for i in range(ALPHABETS))
    return Source(spec_of(name, names, sha256_of(path)), train=train, test=test)


def _upright(pixels: np.ndarray) -> Tensor:
    """Columns ``[784, N]`` in Matlab's order as images ``[N, 1, 28, 28]``; read in C's order they lie on their side."""
    images = pixels.reshape(SMALL, SMALL, -1, order="F").transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(images)).float().unsqueeze(1)
