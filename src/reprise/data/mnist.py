"""MNIST and Fashion-MNIST: the same four idx files in two collections, read and downloaded by torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reprise.data.base import DataSpec, Source, Split
from reprise.data.store import FileSet, FileStore, PublicFile, did_you_mean, sha256_of
from reprise.errors import UserError

# (file, bytes) in the order in which ``load`` reads them; both collections have the same sizes.
_FILES = (
    ("train-images-idx3-ubyte", 47_040_016),
    ("train-labels-idx1-ubyte", 60_008),
    ("t10k-images-idx3-ubyte", 7_840_016),
    ("t10k-labels-idx1-ubyte", 10_008),
)


@dataclass(frozen=True)
class _Collection:
    sha256: tuple[str, str, str, str]  # of the unpacked files, in the order of _FILES
    classes: tuple[str, ...]
    licence: str
    source: str
    home: str


_COLLECTIONS = {
    "MNIST": _Collection(
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        classes=tuple(str(digit) for digit in range(10)),
        licence="CC BY-SA 3.0 as generally stated; copyright Y. LeCun and C. Cortes",
        source="LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86(11), 1998",
        home="https://ossci-datasets.s3.amazonaws.com/mnist/ (unpack the four .gz files)",
    ),
    "FashionMNIST": _Collection(
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        licence="MIT, copyright 2017 Zalando SE",
        source="Xiao, Rasul, Vollgraf, Fashion-MNIST, arXiv:1708.07747",
        home="https://github.com/zalandoresearch/fashion-mnist (unpack the four .gz files)",
    ),
}


def files(*, collection: str) -> FileSet:
    """The four unpacked idx files of a collection, laid out as torchvision lays them out.

    Raises:
        UserError: ``collection`` is neither ``MNIST`` nor ``FashionMNIST``.
    """
    if collection not in _COLLECTIONS:
        hint = did_you_mean(str(collection), _COLLECTIONS) or f" (one of {', '.join(_COLLECTIONS)})"
        raise UserError(f"dataset.collection={collection} is not known{hint}.")
    known = _COLLECTIONS[collection]
    listed = zip(_FILES, known.sha256, strict=True)

    def fetch(missing: Sequence[PublicFile], scratch: Path) -> None:
        import torchvision

        getattr(torchvision.datasets, collection)(scratch, download=True)  # tries its mirrors, checks md5, unpacks

    return FileSet(
        files=tuple(PublicFile(f"{collection}/raw/{file}", f"sha256:{sha}", size) for (file, size), sha in listed),
        home=known.home,
        fetch=fetch,
    )


def load(*, name: str, store: FileStore, collection: str) -> Source:
    """Load 60,000 train and 10,000 test images ``[N, 1, 28, 28]`` in 0..1, ink bright, labels 0-9.

    The idx files are read one by one: ``torchvision.datasets.MNIST(root)`` prefers an old ``processed/*.pt`` beside
    them when there is one, which nothing has verified.

    Raises:
        UserError: a file is damaged, or is absent and cannot be downloaded.
    """
    from torchvision.datasets.mnist import read_image_file, read_label_file

    paths = [str(path) for path in store.get(files(collection=collection))]
    images, labels, test_images, test_labels = paths
    known = _COLLECTIONS[collection]
    spec = DataSpec(
        name=name,
        task="classification",
        kind="image",
        shape=(1, 28, 28),
        classes=known.classes,
        origin="public",
        licence=known.licence,
        source=known.source,
        checksum=sha256_of(*paths),
    )

    def split(image_file: str, label_file: str) -> Split:
        return Split(read_image_file(image_file).unsqueeze(1).float().div_(255), read_label_file(label_file))

    return Source(spec, train=split(images, labels), test=split(test_images, test_labels))
