from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from reprise.data.store import FileStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``scripts/fetch_data.py`` with empty data and cache folders."""
    monkeypatch.setenv("REPRISE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("REPRISE_CACHE", str(tmp_path / "cache"))
    spec = importlib.util.spec_from_file_location("fetch_data", ROOT / "scripts" / "fetch_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("arguments", [[], ["--list"], ["--list", "all"]])
def test_the_list_shows_every_data_set_and_downloads_nothing(
    script: ModuleType, offline: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str]
) -> None:
    assert script.main(arguments) == 0
    out = capsys.readouterr().out
    for path in (ROOT / "conf" / "dataset").glob("*.yaml"):
        assert f"\n{path.stem} " in out
    assert "absent   adult/adult.data" in out
    assert not (tmp_path / "cache").exists()


def test_a_failed_download_is_a_sentence(script: ModuleType, offline: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["adult", "digits"]) == 2
    captured = capsys.readouterr()
    assert "adult/adult.data" in captured.err
    assert captured.err.count("\n") == 1
    assert "digits          nothing to download" in captured.out


def test_a_misspelt_name(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["mnits"]) == 2
    assert "did you mean 'mnist'" in capsys.readouterr().err


def test_a_damaged_file_is_reported(script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "adult.data").write_bytes(b"39, State-gov")
    assert script.main(["--list", "adult"]) == 2
    assert "truncated, 13 bytes instead of 3,974,305" in capsys.readouterr().err


def test_parts_other_layouts_and_own_files(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert script.main(["--list", "mnist_to_usps", "email_to_sms", "rossmann", "cifar10_subset"]) == 0
    out = capsys.readouterr().out
    assert "mnist_to_usps   absent   MNIST/raw/train-images-idx3-ubyte (47.0 MB)" in out
    assert "mnist_to_usps   absent   USPS/usps.h5" in out
    assert "email_to_sms    absent   sms_spam/SMSSpamCollection (0.5 MB) (and your own files" in out
    assert "rossmann        nothing to download" in out
    assert "cifar10_subset  absent   cifar-10-batches-py/data_batch_1" in out


def test_a_folder_of_sheets_is_one_line(
    real_store: FileStore, script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRISE_DATA", str(real_store.data_dir))
    if not (real_store.data_dir / "cifar10_subset").is_dir():
        pytest.skip("REPRISE_DATA has no CIFAR-10 sheets")
    assert script.main(["--list", "cifar10_subset"]) == 0
    assert "found    13 files in" in capsys.readouterr().out
