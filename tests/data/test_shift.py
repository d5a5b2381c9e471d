from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import check_contract, no_store, sentence
from omegaconf import OmegaConf
from pydantic import ValidationError

from reprise import building
from reprise.data import breast_cancer, digits, shift
from reprise.data.base import DataSpec, Source, Split
from reprise.data.store import FileStore
from reprise.errors import UserError

CONFIG = Path(__file__).parents[2] / "conf" / "dataset" / "mnist_to_usps.yaml"


def source(side: int = 4, rows: int = 3, names: bool = False, **spec: Any) -> Source:
    x = torch.arange(rows * side**2).view(rows, 1, side, side).float() / (rows * side**2)
    described = DataSpec("a", "classification", "image", (1, side, side), ("0", "1"), licence="l", source="s")
    described = replace(described, checksum=f"{side}{rows}", **spec)
    split = Split(x.view(rows, *described.shape), torch.arange(rows) % 2, tuple("xyz"[:rows]) if names else ())
    return Source(described, split)


def pair(a: Source, b: Source, size: int | None = None) -> Source:
    return shift.load(name="pair", store=no_store(Path()), source=lambda store: a, target=lambda store: b, size=size)


def test_source_and_target_take_their_parts() -> None:
    a, b = source(), source(rows=2, name="b")
    b = replace(b, test=source(rows=1).train)
    found = pair(a, b)
    check_contract(found)
    assert torch.equal(found.train.x, a.train.x)
    assert found.test is not None
    assert torch.equal(found.test.x, torch.cat([b.train.x, b.test.x]))
    assert found.test.y.tolist() == [0, 1, 0]
    assert found.validation is None
    assert found.spec.licence == "a: l; b: l"
    assert found.spec.checksum != pair(a, a).spec.checksum != pair(b, a).spec.checksum


def test_halving_an_image_keeps_its_brightness() -> None:
    found = pair(source(side=4), source(side=2), size=2)
    check_contract(found)
    assert found.spec.shape == (1, 2, 2)
    assert found.train.x.mean() == pytest.approx(source(side=4).train.x.mean().item(), abs=1e-6)
    assert found.test is not None
    assert torch.equal(found.test.x, source(side=2).train.x), "an image of the right size stays as it is"


def test_a_ramp_by_hand() -> None:
    """Antialiased bilinear weights at half size: (1, 3, 3, 1) / 8, renormalised to (3, 3, 1) / 7 at the border."""
    ramp = torch.tensor([0.0, 0.1, 0.2, 0.3]).expand(1, 1, 4, 4)
    made = replace(source(rows=1), train=Split(ramp, torch.tensor([0])))
    row = pair(made, source(side=2), size=2).train.x[0, 0, 0].tolist()
    assert row == pytest.approx([(3 * 0 + 3 * 0.1 + 0.2) / 7, (0.1 + 3 * 0.2 + 3 * 0.3) / 7], abs=1e-6)


def test_names_are_kept_where_all_rows_have_them() -> None:
    named = source(names=True)
    found = pair(named, replace(named, test=named.train), size=2)
    assert found.train.names == ("x", "y", "z")
    assert found.test is not None
    assert found.test.names == ("x", "y", "z", "x", "y", "z")
    assert pair(named, replace(named, test=source().train)).test.names == ()  # type: ignore[union-attr]


def test_a_user_s_half_makes_it_the_user_s() -> None:
    assert pair(source(), source(origin="user")).spec.origin == "user"
    assert pair(source(), source(origin="embedded")).spec.origin == "public"


@pytest.mark.parametrize(
    ("other", "size", "part"),
    [
        (source(classes=("0", "2")), None, "classes differ (0, 1 and 0, 2)"),
        (source(kind="table"), None, "kinds differ (image and table)"),
        (source(task="regression", classes=()), None, "tasks differ"),
        (source(shape=(4, 2, 2)), 8, "shapes differ"),
    ],
)
def test_pairs_that_do_not_fit(other: Source, size: int | None, part: str) -> None:
    with pytest.raises(UserError) as error:
        pair(source(), other, size)
    sentence(error, "dataset=pair", part, "dataset.target")


def test_images_of_two_sizes_need_one() -> None:
    with pytest.raises(UserError, match=r"\(4, 4\) pixels and .* of \(2, 2\): set dataset\.size"):
        pair(source(), source(side=2))


def test_tables(tmp_path: Path) -> None:
    table = breast_cancer.load(name="t", store=no_store(tmp_path))
    assert pair(table, table).spec.features == table.spec.features
    with pytest.raises(UserError, match=r"set dataset\.size=null"):
        pair(table, table, size=16)
    other = replace(table, spec=replace(table.spec, features=table.spec.features[::-1]))
    with pytest.raises(UserError, match="columns differ"):
        pair(table, other)


def test_a_size_of_nothing() -> None:
    with pytest.raises(ValidationError, match="size"):
        pair(source(), source(), size=0)


def test_nested_configs_are_loaded_from_the_same_store(tmp_path: Path) -> None:
    node = {"_target_": f"{digits.__name__}.load", "_partial_": True, "name": "digits"}
    config = {"_target_": f"{shift.__name__}.load", "name": "pair", "source": node, "target": node, "size": 4}
    found = building.instantiate(config, "dataset", store=no_store(tmp_path))
    check_contract(found)
    assert (len(found.train), found.spec.shape) == (1797, (1, 4, 4))


def test_mnist_to_usps(real_store: FileStore) -> None:
    config = OmegaConf.to_container(OmegaConf.load(CONFIG))
    found = building.instantiate(config, "dataset", store=real_store)
    check_contract(found)
    assert found.spec.shape == (1, 16, 16)
    assert found.spec.classes == tuple("0123456789")
    assert found.train.y.bincount()[:3].tolist() == [5923, 6742, 5958]
    assert len(found.test) == 7291 + 2007
    assert found.test.y.bincount()[0] == 1194 + 359
    # resizing 28 to 16 weighs border pixels, which are black, a little differently
    assert found.train.x.mean().item() == pytest.approx(0.13066, abs=1e-3)
    assert 0 <= found.train.x.min() < found.train.x.max() <= 1
