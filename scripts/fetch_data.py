"""Show which data sets are on this machine, and download what is missing into the cache.

python scripts/fetch_data.py --list          what is where (checks every file, downloads nothing)
python scripts/fetch_data.py mnist adult     make these ready
python scripts/fetch_data.py all             make all of them ready
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from reprise.data.store import FileSet, FileStore, did_you_mean
from reprise.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when every data set asked for is ready, 2 when one is not."""
    options = _parser().parse_args(arguments)
    store = FileStore(Path(os.environ.get("REPRISE_DATA") or ROOT / "data"))
    try:
        names = _chosen(options.names, _known())
        print(f"searched: {store.data_dir} (REPRISE_DATA), then {store.cache} (REPRISE_CACHE)")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    failed = False
    for name in names:
        try:
            for line in _lines(name, store, fetch=bool(options.names) and not options.list):
                print(f"{name:15} {line}")
        except UserError as error:
            failed = True
            print(f"{name:15} {error}", file=sys.stderr)
    return 2 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="DATASET", help="names as on the command line of train.py, or all")
    parser.add_argument("--list", action="store_true", help="only show the state; also what happens without a name")
    return parser


def _known() -> list[str]:
    names = sorted(path.stem for path in (ROOT / "conf" / "dataset").glob("*.yaml"))
    if not names:
        raise UserError(f"No data set is described in {ROOT / 'conf' / 'dataset'}: run this from a complete checkout.")
    return names


def _chosen(asked: Sequence[str], known: list[str]) -> list[str]:
    for name in asked:
        if name not in (*known, "all"):
            raise UserError(f"There is no data set {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}.")
    return known if not asked or "all" in asked else list(dict.fromkeys(asked))


def _file_sets(config: dict[str, Any]) -> list[FileSet]:
    """The files behind a data set's config; those of its parts when it is made of other data sets."""
    module = importlib.import_module(config["_target_"].rpartition(".")[0])
    found = []
    if hasattr(module, "files"):
        asked = inspect.signature(module.files).parameters
        found.append(module.files(**{key: value for key, value in config.items() if key in asked}))
    parts = [value for value in config.values() if isinstance(value, dict) and "_target_" in value]
    return found + [wanted for part in parts for wanted in _file_sets(part)]


def _lines(name: str, store: FileStore, fetch: bool) -> list[str]:
    config = yaml.safe_load((ROOT / "conf" / "dataset" / f"{name}.yaml").read_text(encoding="utf-8"))
    lines = [line for wanted in _file_sets(config) for line in _state(wanted, store, fetch)]
    mine = " (and your own files, see its config)" if lines and "path" in config else ""
    return [f"{line}{mine}" for line in lines] or ["nothing to download (comes with a dependency, or is your own data)"]


def _state(wanted: FileSet, store: FileStore, fetch: bool) -> list[str]:
    """One line per file. Raises :class:`UserError` for a damaged file, or one that cannot be downloaded."""
    wanted = store.choose(wanted)
    paths = store.get(wanted) if fetch else tuple(store.find(file) for file in wanted.files)
    if len(paths) > 10 and all(paths):  # a folder full of sheets
        return [f"found    {len(paths)} files in {paths[0].parent} (checked when they are read)"]
    return [
        f"verified {path}" if path else f"absent   {file.path}" + (f" ({file.size / 1e6:.1f} MB)" if file.size else "")
        for file, path in zip(wanted.files, paths, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
