"""Where files come from: the user's data folder, then the cache, then a download; always checked.

Nothing here imports torch: the resolver ``${sha256:...}`` and ``scripts/fetch_data.py --list`` must stay quick.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprise.errors import UserError

Fetch = Callable[[Sequence["PublicFile"], Path], None]

# What a failing download can raise: sockets, requests and full disks are OSError; torchvision raises RuntimeError,
# pooch ValueError on a wrong checksum, zipfile BadZipFile or (for an absent member) KeyError.
_DOWNLOAD_ERRORS = (OSError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class PublicFile:
    """One file that anybody can obtain.

    Attributes:
        path: place below the data folder or the cache, with ``/`` as separator.
        checksum: ``algorithm:hex``, e.g. ``sha256:5b00…`` or ``md5:6bbc…``; ``""`` where the loader checks what it
            decodes instead.
        size: bytes; names a truncated file as such. 0 is unknown.
        url: direct address, or ``""`` when the file set brings its own downloader.
        member: when ``url`` serves a zip archive, the name of this file inside it.
        also: further places in which users keep this file.
    """

    path: str
    checksum: str
    size: int
    url: str = ""
    member: str = ""
    also: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class FileSet:
    """The files of one data set, the address for people, and the way to download them into a scratch folder.

    ``instead`` is the same data in another layout that people may hold (see ``FileStore.choose``); ``hint`` ends the
    sentence that says that the files are absent.
    """

    files: tuple[PublicFile, ...]
    home: str
    fetch: Fetch | None = None  # None: ``retrieve``
    instead: FileSet | None = None
    hint: str = ""


@dataclass(frozen=True)
class FileStore:
    """Finds public files, and downloads what is missing.

    Attributes:
        data_dir: the user's own folder (``REPRISE_DATA``, else ``data/``); searched first and never written to.
        cache_dir: where downloads go; ``None`` means ``REPRISE_CACHE``, else the system's cache folder for reprise.
        download: whether a missing file may be downloaded.
    """

    data_dir: Path
    cache_dir: Path | None = None
    download: bool = True

    @property
    def cache(self) -> Path:
        """The cache folder in use."""
        chosen = self.cache_dir or os.environ.get("REPRISE_CACHE")
        if chosen:
            return Path(chosen).expanduser()
        import pooch

        return Path(pooch.os_cache("reprise"))

    def find(self, file: PublicFile) -> Path | None:
        """Return the verified path of ``file``, or ``None`` where it is absent.

        Raises:
            UserError: a file lies there but is truncated, altered or unreadable. It is not skipped: a run on the
                next copy would hide that the user's folder is damaged.
        """
        data_dir = Path(self.data_dir).expanduser()
        for folder, places in ((data_dir, (file.path, *file.also)), (self.cache, (file.path,))):
            for place in places:
                path = folder / place
                if _exists(path):
                    remedy = "delete it and run again to download it anew"
                    if folder == data_dir:
                        remedy = "delete it, or point REPRISE_DATA at another folder, and run again"
                    verify(path, file, remedy)
                    return path
        return None

    def choose(self, wanted: FileSet) -> FileSet:
        """The layout to read: ``wanted`` if it is complete, else ``wanted.instead`` if that is, else ``wanted``.

        Raises:
            UserError: a file of a layout is damaged.
        """
        for layout in (wanted, wanted.instead):
            if layout and all(self.find(file) for file in layout.files):
                return layout
        return wanted

    def get(self, wanted: FileSet) -> tuple[Path, ...]:
        """Return the verified paths of all files, in order; download what is missing.

        Raises:
            UserError: a file is damaged, or is absent and cannot be downloaded.
        """
        paths = [self.find(file) for file in wanted.files]
        if None in paths:
            self._download(wanted)
            paths = [self.find(file) for file in wanted.files]
        return tuple(path for path in paths if path is not None)

    def _download(self, wanted: FileSet) -> None:
        from filelock import FileLock

        if not self.download:
            raise UserError(self._absent(wanted, "downloading is switched off"))
        tag = wanted.files[0].path.replace("/", "-")
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.cache / f".{tag}.lock")
            lock.acquire()
        except OSError as error:
            raise UserError(
                f"The cache folder {self.cache} cannot be written ({reason(error)}): set REPRISE_CACHE to another one."
            ) from error
        try:
            # Another process may have delivered while this one waited.
            missing = [file for file in wanted.files if self.find(file) is None]
            if missing:
                self._deliver(wanted, missing, scratch=self.cache / f".incoming-{tag}")
        finally:
            lock.release()

    def _deliver(self, wanted: FileSet, missing: Sequence[PublicFile], scratch: Path) -> None:
        """Download into ``scratch``, verify, then move each file into place in one step, so that no half file shows."""
        shutil.rmtree(scratch, ignore_errors=True)  # left by a killed process; the lock says that nobody uses it now
        try:
            scratch.mkdir()
            (wanted.fetch or retrieve)(missing, scratch)
            for file in missing:
                verify(scratch / file.path, file, f"{wanted.home} served another file than the expected one; try later")
                target = self.cache / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(scratch / file.path, target)
        except _DOWNLOAD_ERRORS as error:
            raise UserError(self._absent(wanted, f"the download failed ({reason(error)})")) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _absent(self, wanted: FileSet, why: str) -> str:
        missing = [file.path for file in wanted.files if self.find(file) is None]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        return (
            f"Data file {missing[0]}{more} is neither in {Path(self.data_dir).expanduser()} nor in the cache "
            f"{self.cache}, and {why}: get it from {wanted.home} and set REPRISE_DATA to the folder that then holds "
            f"{missing[0]}{wanted.hint}."
        )


def retrieve(files: Sequence[PublicFile], scratch: Path) -> None:
    """Download each file from its ``url`` to ``scratch / file.path``; an archive that serves several comes once."""
    import pooch

    pooch.get_logger().setLevel("WARNING")  # else it advises on checksums that this module already checks
    for file in files:
        served = pooch.retrieve(
            file.url,
            known_hash=None if file.member else file.checksum,  # archives are repacked; what counts is the member
            fname=file.url.rsplit("/", 1)[-1],
            path=scratch / "served",
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=30),
        )
        target = scratch / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not file.member:
            os.replace(served, target)
            continue
        with zipfile.ZipFile(served) as archive, archive.open(file.member) as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)


def verify(path: Path, file: PublicFile, remedy: str) -> None:
    """Raise :class:`UserError` unless ``path`` holds exactly ``file``; the message ends in ``remedy``."""
    if not file.checksum:
        return
    algorithm, expected = file.checksum.split(":")
    found = digest(path, algorithm)
    if found == expected:
        return
    size = path.stat().st_size
    state = f"{size:,} bytes instead of {file.size:,}" if file.size not in (0, size) else "altered content"
    state = f"truncated, {state}" if size < file.size else state
    raise UserError(f"{path} is damaged ({state}; {algorithm} expected {expected}, found {found}): {remedy}.")


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file, streamed.

    Raises:
        UserError: the path is a folder or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, algorithm).hexdigest()
    except IsADirectoryError:
        raise UserError(f"{path} is a folder where a file is expected: remove or rename it.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason(error)}): check its permissions.") from error


def sha256_of(*paths: str | Path | None) -> str:
    """Checksum of the user's files; behind ``${sha256:${dataset.path}}`` in configs. Nulls are skipped.

    One file gives what ``sha256sum`` prints. Several give the sha256 over their positions and digests, so that
    swapping a test and a validation file changes the result.

    Raises:
        UserError: nothing is set, or a file is missing, a folder or unreadable.
    """
    options = dict(enumerate(("dataset.path", "dataset.test_path", "dataset.validation_path", "dataset.store_path")))
    given = {
        place: user_file(path, options.get(place, "dataset.path"))
        for place, path in enumerate(paths)
        if path is not None and path != ""
    }
    if not given:
        raise UserError("No data file is set: name one with dataset.path=FILE.")
    digests = {place: digest(path) for place, path in given.items()}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256("".join(f"{place} {hexed}\n" for place, hexed in digests.items()).encode()).hexdigest()


def sha256_given(*paths: str | Path | None) -> str | None:
    """:func:`sha256_of`, but ``None`` where no path is set, so that the loader can say how the data is obtained."""
    return sha256_of(*paths) if any(path not in (None, "") for path in paths) else None


def check_unchanged(found: str, expected: str | None, path: str | Path) -> str:
    """Return the checksum ``found`` of the user's data at ``path``.

    Raises:
        UserError: the data is not what it was when the run was configured.
    """
    if expected and expected != found:
        raise UserError(
            f"{path} (or a file that belongs to it) changed since the run was configured: checksum {found}, expected "
            f"{expected}; start the command again."
        )
    return found


def sha256_of_arrays(*arrays: Any) -> str:
    """sha256 over NumPy arrays: type, shape and bytes of each, in order."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def user_file(path: str | Path, option: str = "dataset.path") -> Path:
    """Return ``path`` with ``~`` expanded if it is a file of the user's.

    Raises:
        UserError: it is unset, absent (similar names are offered) or a folder; ``option`` names the setting at fault.
    """
    if str(path) == "???":
        raise UserError(f"{option} is not set: name your file with {option}=FILE.")
    place = Path(path).expanduser()
    if not _exists(place):
        siblings = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
        where = f" (looked in {place.parent.resolve()})"
        raise UserError(f"File {place} does not exist{did_you_mean(place.name, siblings) or where}: correct {option}.")
    if place.is_dir():
        raise UserError(f"{place} is a folder, not a file: correct {option}.")
    return place


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the closest option, whatever its case, or ``""``."""
    folded = {option.casefold(): option for option in options}
    close = difflib.get_close_matches(word.casefold(), folded, n=1)
    return f" (did you mean {folded[close[0]]!r}?)" if close else ""


def reason(error: BaseException) -> str:
    """The error in one short line, for use inside a sentence."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 120 else f"{text[:117]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # e.g. a parent folder without permission, or an impossible name
        raise UserError(f"{path} cannot be read ({reason(error)}): check the path and its permissions.") from error
