from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from reprise.data.store import (
    FileSet,
    FileStore,
    PublicFile,
    check_unchanged,
    sha256_given,
    sha256_of,
    sha256_of_arrays,
)
from reprise.errors import UserError

CONTENT = b"some data\n" * 100
SHA = hashlib.sha256(CONTENT).hexdigest()


def described(url: str = "http://nowhere.invalid/a.bin", **changes: object) -> PublicFile:
    fields = {"path": "set/a.bin", "checksum": f"sha256:{SHA}", "size": len(CONTENT), "url": url, "also": ("a.bin",)}
    return PublicFile(**fields | changes)  # type: ignore[arg-type]


def file_set(*files: PublicFile) -> FileSet:
    return FileSet(files, home="http://nowhere.invalid/about")


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def sentence(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "data", cache_dir=tmp_path / "cache")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine, and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", folder
        running.shutdown()


@pytest.mark.parametrize("place", ["set/a.bin", "a.bin"])
def test_the_data_folder_comes_first(store: FileStore, place: str) -> None:
    expected = put(store.data_dir / place)
    put(store.cache / "set/a.bin")
    assert store.get(file_set(described())) == (expected,)


def test_the_cache_comes_second(store: FileStore, offline: None) -> None:
    expected = put(store.cache / "set/a.bin")
    assert store.get(file_set(described())) == (expected,)


def test_md5_is_checked_too(store: FileStore) -> None:
    expected = put(store.data_dir / "a.bin")
    checksum = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    assert store.find(described(checksum=checksum)) == expected


@pytest.mark.parametrize(
    ("content", "state"), [(CONTENT[:-1], "truncated"), (b"x" * len(CONTENT), "altered"), (b"", "truncated, 0 bytes")]
)
def test_a_damaged_file_is_reported_and_never_skipped(store: FileStore, content: bytes, state: str) -> None:
    damaged = put(store.data_dir / "a.bin", content)
    put(store.cache / "set/a.bin")
    with pytest.raises(UserError) as error:
        store.get(file_set(described()))
    text = sentence(error)
    found = hashlib.sha256(content).hexdigest()
    assert all(part in text for part in (str(damaged), SHA, found, state, "REPRISE_DATA"))


def test_a_damaged_cache_says_to_delete_the_file(store: FileStore) -> None:
    damaged = put(store.cache / "set/a.bin", b"x")
    with pytest.raises(UserError, match="delete it and run again to download it anew") as error:
        store.get(file_set(described()))
    assert str(damaged) in sentence(error)


def test_a_folder_in_place_of_a_file(store: FileStore) -> None:
    (store.data_dir / "a.bin").mkdir(parents=True)
    with pytest.raises(UserError, match="is a folder") as error:
        store.get(file_set(described()))
    sentence(error)


@pytest.mark.parametrize("download", [True, False])
def test_absent_without_network(store: FileStore, offline: None, download: bool) -> None:
    with pytest.raises(UserError) as error:
        FileStore(store.data_dir, store.cache_dir, download=download).get(file_set(described()))
    text = sentence(error)
    for part in ("set/a.bin", str(store.data_dir), str(store.cache), "http://nowhere.invalid/about", "REPRISE_DATA"):
        assert part in text


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    put(tmp_path / "file")
    with pytest.raises(UserError, match="REPRISE_CACHE") as error:
        FileStore(tmp_path, cache_dir=tmp_path / "file" / "below").get(file_set(described()))
    sentence(error)


def test_download_leaves_the_data_folder_alone(store: FileStore, server: tuple[str, Path]) -> None:
    url, folder = server
    put(folder / "a.bin")
    (path,) = store.get(file_set(described(url=f"{url}/a.bin")))
    assert path == store.cache / "set/a.bin"
    assert path.read_bytes() == CONTENT
    assert not store.data_dir.exists()
    assert [p.name for p in store.cache.iterdir() if not p.name.endswith(".lock")] == ["set"]


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_two_members_of_one_archive(store: FileStore, server: tuple[str, Path]) -> None:
    url, folder = server
    put(folder / "both.zip", zipped(a=CONTENT, b=b"b"))
    one = described(url=f"{url}/both.zip", member="a")
    two = described(
        *(f"{url}/both.zip",), path="set/b", checksum=f"sha256:{hashlib.sha256(b'b').hexdigest()}", size=1, member="b"
    )
    paths = store.get(file_set(one, two))
    assert [p.read_bytes() for p in paths] == [CONTENT, b"b"]


@pytest.mark.parametrize(
    ("served", "member"),
    [(b"wrong", ""), (b"not a zip", "a"), (zipped(b=b""), "a"), (zipped(a=CONTENT[:-5]), "a")],
    ids=["wrong", "no archive", "not in it", "cut short"],  # a zip's bytes hold the time at which it was made
)
def test_a_wrong_download_is_refused_and_not_kept(
    store: FileStore, server: tuple[str, Path], served: bytes, member: str
) -> None:
    url, folder = server
    put(folder / "a.bin", served)
    wanted = file_set(described(url=f"{url}/a.bin", member=member))
    with pytest.raises(UserError) as error:
        store.get(wanted)
    sentence(error)
    assert store.find(wanted.files[0]) is None
    put(folder / "a.bin", zipped(a=CONTENT) if member else CONTENT)
    assert store.get(wanted)[0].read_bytes() == CONTENT


def test_the_leftovers_of_a_killed_download_do_not_matter(store: FileStore, server: tuple[str, Path]) -> None:
    url, folder = server
    put(folder / "a.bin")
    put(store.cache / ".incoming-set-a.bin" / "served" / "a.bin", b"half")
    assert store.get(file_set(described(url=f"{url}/a.bin")))[0].read_bytes() == CONTENT


def test_two_processes_share_one_download(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from reprise.data.store import FileSet, FileStore, PublicFile
def fetch(files, scratch):
    with open({str(tmp_path / "calls")!r}, "a") as log:
        log.write("x")
    (scratch / "a.bin").write_bytes(b"half")
    time.sleep(0.5)
    (scratch / "a.bin").write_bytes({CONTENT!r})
file = PublicFile("a.bin", "sha256:{SHA}", {len(CONTENT)})
FileStore(Path("none"), cache_dir=Path({str(tmp_path / "cache")!r})).get(FileSet((file,), "here", fetch))
"""
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert (tmp_path / "calls").read_text() == "x"


def test_another_layout_is_read_only_where_it_alone_is_complete(store: FileStore, offline: None) -> None:
    other = FileSet(tuple(PublicFile(f"other/{name}", "", 0) for name in "ab"), home="elsewhere")
    wanted = FileSet((described(),), home="http://nowhere.invalid/about", instead=other)
    put(store.data_dir / "other" / "a", b"anything")
    assert store.choose(wanted) is wanted, "it lacks a file"
    path = put(store.data_dir / "other" / "b", b"")
    assert store.choose(wanted) is other
    assert store.get(other)[1] == path, "files without a checksum are the loader's to check"
    put(store.data_dir / "set" / "a.bin")
    assert store.choose(wanted) is wanted
    put(store.data_dir / "set" / "a.bin", b"altered")
    with pytest.raises(UserError, match="damaged"):
        store.choose(wanted)


def test_the_hint_ends_the_sentence(store: FileStore, offline: None) -> None:
    with pytest.raises(UserError) as error:
        store.get(FileSet((described(),), home="here", hint=", or use dataset=another"))
    assert sentence(error).endswith("holds set/a.bin, or use dataset=another.")


def test_an_altered_file_of_unknown_size(store: FileStore) -> None:
    put(store.data_dir / "a.bin", b"short")
    with pytest.raises(UserError, match="altered content") as error:
        store.find(described(size=0))
    sentence(error)


def test_the_environment_chooses_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_CACHE", str(tmp_path / "mine"))
    assert FileStore(tmp_path).cache == tmp_path / "mine"
    assert FileStore(tmp_path, cache_dir=tmp_path / "other").cache == tmp_path / "other"


def test_sha256_of_one_file_is_what_sha256sum_prints(tmp_path: Path) -> None:
    path = put(tmp_path / "a b,c.csv")
    assert sha256_of(path) == sha256_of(str(path), None, None) == sha256_of(str(path), "") == SHA


def test_sha256_of_several_files_knows_their_places(tmp_path: Path) -> None:
    a, b, c = (str(put(tmp_path / name, name.encode())) for name in "abc")
    sums = {sha256_of(a), sha256_of(a, b), sha256_of(a, None, b), sha256_of(a, b, c), sha256_of(a, c, b)}
    assert len(sums) == 5


@pytest.mark.parametrize(("paths", "culprit"), [((), "dataset.path"), ((None, ""), "dataset.path"), (("???",), "path")])
def test_sha256_of_nothing(paths: tuple[str | None, ...], culprit: str) -> None:
    with pytest.raises(UserError, match=culprit) as error:
        sha256_of(*paths)
    sentence(error)


def test_sha256_given_leaves_the_sentence_to_the_loader(tmp_path: Path) -> None:
    assert sha256_given(None, "", None) is None
    path = put(tmp_path / "a")
    assert sha256_given(path) == sha256_given(path, None, None, None) == SHA
    assert sha256_given(path, None, None, path) not in (SHA, sha256_given(path, path))
    with pytest.raises(UserError, match=r"correct dataset\.store_path"):
        sha256_given(path, None, None, tmp_path / "none")


def test_check_unchanged() -> None:
    assert check_unchanged("a", "a", "f") == check_unchanged("a", None, "f") == "a"
    with pytest.raises(UserError, match="changed since") as error:
        check_unchanged("a", "b", "f")
    sentence(error)


def test_sha256_of_missing_files_and_folders(tmp_path: Path) -> None:
    put(tmp_path / "houses.csv")
    for path, part in ((tmp_path / "house.csv", "did you mean 'houses.csv'"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=part) as error:
            sha256_of(str(path))
        assert str(path) in sentence(error)
    with pytest.raises(UserError, match=r"correct dataset\.test_path"):
        sha256_of(str(tmp_path / "houses.csv"), str(tmp_path / "none.csv"))
    with pytest.raises(UserError) as error:
        sha256_of("x" * 5000)
    sentence(error)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    put(tmp_path / "a").chmod(0)
    with pytest.raises(UserError, match="permission"):
        sha256_of(tmp_path / "a")


def test_sha256_of_arrays_sees_type_shape_and_order() -> None:
    a = np.arange(6, dtype=np.float32)
    sums = {sha256_of_arrays(x) for x in (a, a.reshape(2, 3), a.astype(np.float64), a[::-1])}
    assert len(sums) == 4
    assert sha256_of_arrays(a) == sha256_of_arrays(a.copy())


def test_the_store_does_not_import_torch() -> None:
    code = "import sys, reprise.data.store; sys.exit(bool({'torch', 'pandas', 'pooch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
