"""Show which data sets are on this machine, and download what is missing into the cache.

python scripts/fetch_data.py --list          what is where (checks every file, downloads nothing)
python scripts/fetch_data.py mnist adult     make these ready
python scripts/fetch_data.py all             make all of them ready
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

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
            for line in _state(_file_set(name), store, fetch=bool(options.names) and not options.list):
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


def _file_set(name: str) -> FileSet | None:
    """The files behind ``conf/dataset/<name>.yaml``, or ``None`` when its loader has nothing to download."""
    config = yaml.safe_load((ROOT / "conf" / "dataset" / f"{name}.yaml").read_text(encoding="utf-8"))
    module = importlib.import_module(config.pop("_target_").rpartition(".")[0])
    if not hasattr(module, "files"):
        return None
    return module.files(**{key: value for key, value in config.items() if key not in ("_convert_", "name")})


def _state(wanted: FileSet | None, store: FileStore, fetch: bool) -> list[str]:
    """One line per file. Raises :class:`UserError` for a damaged file, or one that cannot be downloaded."""
    if wanted is None:
        return ["nothing to download (comes with a dependency, or is your own file)"]
    paths = store.get(wanted) if fetch else [store.find(file) for file in wanted.files]
    return [
        f"verified {path}" if path else f"absent   {file.path} ({file.size / 1e6:.1f} MB unpacked)"
        for file, path in zip(wanted.files, paths, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
