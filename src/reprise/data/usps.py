"""USPS: digits from envelopes, in the scaling of The Elements of Statistical Learning."""

from __future__ import annotations

import torch

from reprise.data.base import DataSpec, Source, Split
from reprise.data.store import FileSet, FileStore, PublicFile, reason, sha256_of
from reprise.errors import UserError

_SITE = "niuers/Learning-From-Data-A-Short-Course"
_COMMIT = "35684e893b63bf4039bafcc6d34fe935851baf9a"


def files() -> FileSet:
    """``usps.h5``, the file of the domain-adaptation literature.

    torchvision's ``USPS`` reads another preprocessing of the same scans (LIBSVM's), so it is no substitute.
    """
    file = PublicFile(
        "USPS/usps.h5",
        "sha256:734f88c541104a956d88be2c95d03b4a463ffd74ccc2ba9c80841fb98e3fcb36",
        2_913_522,
        url=f"https://raw.githubusercontent.com/{_SITE}/{_COMMIT}/data/usps.h5",
        also=("usps.h5", "usps/usps.h5"),
    )
    return FileSet((file,), home=f"https://github.com/{_SITE} (data/usps.h5)")


def load(*, name: str, store: FileStore) -> Source:
    """Load 7,291 train and 2,007 test images ``[N, 1, 16, 16]`` in 0..1, ink bright, labels 0-9.

    Source: J. Hull, A database for handwritten text recognition research, PAMI 16(5), 1994.

    Raises:
        UserError: the file is damaged, or is absent and cannot be downloaded.
    """
    import h5py

    (path,) = store.get(files())
    try:
        with h5py.File(path, "r") as content:
            arrays = {part: (content[part]["data"][:], content[part]["target"][:]) for part in ("train", "test")}
    except (OSError, KeyError) as error:
        raise UserError(f"{path} cannot be read as usps.h5 ({reason(error)}): delete it.") from error
    spec = DataSpec(
        name=name,
        task="classification",
        kind="image",
        shape=(1, 16, 16),
        classes=tuple(str(digit) for digit in range(10)),
        origin="public",
        licence="none stated; distributed for research",
        source="Hull, PAMI 16(5), 1994, scaled as in The Elements of Statistical Learning",
        checksum=sha256_of(path),
    )

    def split(part: str) -> Split:
        pixels, labels = arrays[part]
        return Split(torch.from_numpy(pixels).float().view(-1, 1, 16, 16), torch.from_numpy(labels).long())

    return Source(spec, train=split("train"), test=split("test"))
