from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from contract import check_contract, no_store
from omegaconf import OmegaConf

from reprise import building
from reprise.data import adult, breast_cancer, digits, mnist
from reprise.data.store import FileStore, sha256_of
from reprise.errors import UserError

CONFIGS = Path(__file__).parents[2] / "conf" / "dataset"

MNIST_COUNTS = (
    [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
)


def test_digits(tmp_path: Path, offline: None) -> None:
    source = digits.load(name="digits", store=no_store(tmp_path))
    check_contract(source)
    assert source.train.x.shape == (1797, 1, 8, 8)
    assert (source.train.x.min(), source.train.x.max()) == (0, 1)
    assert source.train.y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert source.spec.origin == "embedded"
    assert source.test is None
    assert source.spec.checksum == digits.load(name="other", store=no_store(tmp_path)).spec.checksum


def test_breast_cancer(tmp_path: Path, offline: None) -> None:
    source = breast_cancer.load(name="breast_cancer", store=no_store(tmp_path))
    check_contract(source)
    assert source.train.x.shape == (569, 30)
    assert source.train.y.bincount().tolist() == [212, 357]
    assert source.spec.classes == ("malignant", "benign")
    assert source.spec.features[0] == "mean radius"


def test_adult(real_store: FileStore) -> None:
    source = adult.load(name="adult", store=real_store)
    check_contract(source)
    assert source.test is not None
    assert source.train.y.bincount().tolist() == [24_720, 7_841]
    assert source.test.y.bincount().tolist() == [12_435, 3_846]
    assert source.spec.shape == (108,)
    first = {f: v for f, v in zip(source.spec.features, source.train.x[0].tolist(), strict=True) if v}
    assert first["age"] == 39
    assert first["fnlwgt"] == 77_516
    assert first["education=Bachelors"] == first["native-country=United-States"] == 1
    assert source.test.x[0, source.spec.features.index("age")] == 25
    for split, rows in ((source.train, 2_399), (source.test, 1_221)):
        unknown = [k for k, feature in enumerate(source.spec.features) if feature.endswith("=?")]
        assert len(unknown) == 3
        assert int(split.x[:, unknown].any(dim=1).sum()) == rows
        one_hot = [k for k, feature in enumerate(source.spec.features) if "=" in feature]
        assert len(one_hot) == 102
        assert (split.x[:, one_hot].sum(dim=1) == 8).all()


@pytest.mark.parametrize(
    ("collection", "counts", "mean", "std"),
    [("MNIST", MNIST_COUNTS, 0.13066, 0.30811), ("FashionMNIST", ([6000] * 10, [1000] * 10), 0.28604, 0.35302)],
)
def test_mnist_collections(
    real_store: FileStore, collection: str, counts: tuple[list[int], list[int]], mean: float, std: float
) -> None:
    source = mnist.load(name="m", store=real_store, collection=collection)
    check_contract(source)
    assert source.test is not None
    assert (source.train.y.bincount().tolist(), source.test.y.bincount().tolist()) == counts
    assert source.train.x.mean().item() == pytest.approx(mean, abs=1e-5)
    assert source.train.x.std().item() == pytest.approx(std, abs=1e-5)
    assert len(source.test) == 10_000


def test_mnist_verifies_before_it_reads(real_store: FileStore, tmp_path: Path) -> None:
    shutil.copytree(real_store.data_dir / "MNIST", tmp_path / "MNIST")
    labels = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[100] ^= 1
    labels.chmod(0o644)
    labels.write_bytes(content)
    with pytest.raises(UserError, match="train-labels-idx1-ubyte is damaged"):
        mnist.load(name="mnist", store=FileStore(tmp_path, cache_dir=tmp_path / "cache"), collection="MNIST")


def test_mnist_without_network(tmp_path: Path, offline: None) -> None:
    store = FileStore(tmp_path / "data", cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match="MNIST/raw/train-images-idx3-ubyte") as error:
        mnist.load(name="mnist", store=store, collection="MNIST")
    assert "\n" not in str(error.value)
    assert "REPRISE_DATA" in str(error.value)


def test_torchvision_downloads_into_the_cache(real_store: FileStore, tmp_path: Path, monkeypatch: Any) -> None:
    import torchvision

    calls = []

    def pretend(root: Path, download: bool) -> None:
        calls.append(download)
        shutil.copytree(real_store.data_dir / "MNIST", root / "MNIST")

    monkeypatch.setattr(torchvision.datasets, "MNIST", pretend)
    store = FileStore(tmp_path / "data", cache_dir=tmp_path / "cache")
    for _ in range(2):
        assert len(mnist.load(name="mnist", store=store, collection="MNIST").train) == 60_000
    assert calls == [True]
    assert not store.data_dir.exists()


def test_an_unknown_collection(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'MNIST'"):
        mnist.load(name="mnist", store=no_store(tmp_path), collection="MNISTT")


def test_adult_without_network(tmp_path: Path, offline: None) -> None:
    with pytest.raises(UserError, match=r"adult/adult\.data") as error:
        adult.load(name="adult", store=FileStore(tmp_path / "data", cache_dir=tmp_path / "cache"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_config_names_itself_and_its_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert config["name"] == path.stem
    assert f"dataset={path.stem}" in text
    assert "icence" in text


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_configs_instantiate(name: str, tmp_path: Path) -> None:
    config = OmegaConf.load(CONFIGS / f"{name}.yaml")
    check_contract(hydra.utils.instantiate(config, store=no_store(tmp_path)))


def test_the_store_survives_instantiate(real_store: FileStore) -> None:
    """Hydra turns a dataclass argument into a mapping, so the runner completes Hydra's partial itself."""
    config = OmegaConf.to_container(OmegaConf.load(CONFIGS / "adult.yaml"))
    check_contract(building.instantiate(config, "dataset", store=real_store))


def test_the_csv_config_takes_its_checksum_from_the_files(tmp_path: Path) -> None:
    OmegaConf.register_new_resolver("sha256", lambda *paths: sha256_of(*paths), replace=True)
    file = tmp_path / "my, table.csv"
    file.write_text("a,y\n1,0\n2,1\n3,0\n")
    config = OmegaConf.create({"dataset": OmegaConf.load(CONFIGS / "csv.yaml")})
    config.dataset.merge_with({"path": str(file), "target": "y"})
    assert config.dataset.checksum == sha256_of(file)
    source = hydra.utils.instantiate(config.dataset, store=no_store(tmp_path))
    check_contract(source)
    assert source.spec.checksum == sha256_of(file)
