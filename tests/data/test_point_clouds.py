from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from contract import check_contract, no_store, sentence
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprise.data import point_clouds
from reprise.data.cloud_files import read_folder, read_off
from reprise.data.folders import sha256_of_clouds
from reprise.errors import UserError

SQUARE = "OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n"


def load(tmp_path: Path, **options: object):
    return point_clouds.load(name="point_clouds", store=no_store(tmp_path), **options)


def test_made_up_clouds(tmp_path: Path) -> None:
    source = load(tmp_path, points=40, train=60, test=20)
    check_contract(source)
    assert (len(source.train), len(source.test), source.spec.num_classes) == (60, 20, 10)
    assert source.train.y.bincount().tolist() == [6] * 10
    assert source.train.x.norm(dim=2).amax(1).allclose(torch.ones(60)), "the farthest point is on the unit sphere"
    assert source.train.x.mean(1).abs().max() < 1e-6
    again = load(tmp_path, points=40, train=60, test=20)
    assert torch.equal(source.train.x, again.train.x)
    assert (
        source.spec.checksum
        == again.spec.checksum
        != load(tmp_path, points=40, train=60, test=20, seed=1).spec.checksum
    )


@pytest.mark.parametrize("shape", point_clouds.SHAPES)
def test_points_of_a_shape_are_where_they_should_be(shape: str) -> None:
    points = point_clouds.SHAPES[shape](np.random.default_rng(0), 4000)
    x, y, z = points.T
    flat = np.hypot(x, y)
    on_it = {
        "sphere": np.linalg.norm(points, axis=1),
        "half sphere": np.linalg.norm(points, axis=1),
        "box": np.abs(points).max(1),
        "cylinder": np.maximum(flat, np.abs(z)),
        "cone": np.maximum(flat * 2 / (1 - z).clip(1e-9), -z),
        "torus": np.hypot(flat - 1, z) / 0.35,
        "pyramid": np.maximum(np.maximum(np.abs(x), np.abs(y)) * 2 / (1 - z).clip(1e-9), -z),
    }.get(shape)
    assert np.abs(points).max() <= 1.6
    if on_it is not None:
        assert on_it == pytest.approx(np.ones(4000), abs=1e-6)


def test_two_shapes_of_a_class_differ(tmp_path: Path) -> None:
    x, y = point_clouds.sampled(20, 500, 0.0, seed=0)
    assert np.abs(x[0].std(0) - x[10].std(0)).max() > 0.02
    assert y[0] == y[10] == 0


def own(folder: Path) -> Path:
    for name in ("flat", "line"):
        (folder / name).mkdir(parents=True)
    (folder / "flat" / "a.off").write_text(SQUARE)
    (folder / "flat" / "b.OFF").write_text(SQUARE.replace("OFF\n4", "OFF4"))  # as many files of ModelNet have it
    np.save(folder / "line" / "a.npy", np.column_stack([np.arange(50.0), np.zeros((50, 5))]))  # with normals
    np.savez(folder / "line" / "b.npz", points=np.column_stack([np.arange(7.0), np.zeros((7, 2))]), other=np.zeros(3))
    return folder


def test_clouds_and_meshes_of_the_user(tmp_path: Path) -> None:
    folder = own(tmp_path / "mine")
    source = load(tmp_path, path=str(folder), points=30, checksum=sha256_of_clouds(folder))
    check_contract(source)
    assert source.spec.classes == ("flat", "line")
    assert source.spec.origin == "user"
    assert source.train.names == ("flat/a.off", "flat/b.OFF", "line/a.npy", "line/b.npz")
    assert source.test is None
    flat, line = source.train.x[source.train.y == 0], source.train.x[source.train.y == 1]
    assert flat[..., 2].abs().max() < 1e-6
    assert line[..., 1:].abs().max() < 1e-6
    assert len(line[0].unique(dim=0)) == 30, "drawn without repetition"
    assert torch.equal(source.train.x, load(tmp_path, path=str(folder), points=30).train.x)


def test_a_mesh_is_sampled_by_area(tmp_path: Path) -> None:
    """Nine tenths of the area is in one of two triangles."""
    mesh = "OFF\n6 2 0\n0 0 0\n9 0 0\n0 2 0\n0 0 5\n1 0 5\n0 2 5\n3 0 1 2\n3 3 4 5\n"
    for name in ("a", "b"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "m.off").write_text(mesh)
    x = load(tmp_path, path=str(tmp_path / "mine"), points=4000).train.x
    assert (x[0, :, 2] < x[0, :, 2].mean()).float().mean() == pytest.approx(0.9, abs=0.02)


def test_polygons_become_triangles() -> None:
    vertices, triangles = read_off("# made by hand\n" + SQUARE)
    assert vertices.shape == (4, 3)
    assert triangles.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_colours_behind_the_corners_are_left_out() -> None:
    assert read_off(SQUARE.replace("4 0 1 2 3", "4 0 1 2 3 0.5 0.5 0.5"))[1].tolist() == [[0, 1, 2], [0, 2, 3]]


BROKEN = {
    "a.off": [
        *("", "nothing", "OFF", "OFF\nx y z\n", "OFF BINARY", "OFF\n4 1 0\n0 0 0\n", "OFF\n4\n"),
        SQUARE.replace("4 0 1 2 3", "4 0 1 2 9"),
        SQUARE.replace("4 0 1 2 3", "4 0 1 2 -1"),
        SQUARE.replace("4 0 1 2 3", "4 0 1"),
        SQUARE.replace("4 0 1 2 3", f"4 0 1 2 {10**30}"),
        SQUARE.replace("4 0 1 2 3", "2 0 1"),
        SQUARE.replace("4 1 0", "4 2 0"),  # a face is missing
        SQUARE.replace("4 1 0", "4 -1 0"),
        SQUARE.replace("1 1 0\n", "1 1\n"),
        SQUARE.replace("1 1 0\n", "1 nan 0\n"),
        "OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n",  # no area
    ],
    "a.npy": ["", "nothing"],
    "a.npz": ["", "nothing"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BROKEN.items() for text in texts])
def test_a_broken_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    folder = own(tmp_path / "mine")
    (folder / "flat" / name).write_text(text)
    with pytest.raises(UserError) as error:
        load(tmp_path, path=str(folder))
    sentence(error, f"flat/{name}", "replace or remove it")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of all kinds, each as its bytes."""
    folder, x = tmp_path_factory.mktemp("whole"), np.random.default_rng(0).normal(size=(30, 3))
    np.save(folder / "a.npy", x)
    np.savez(folder / "b.npz", points=x, other=x)
    np.savez_compressed(folder / "c.npz", points=x)
    (folder / "d.off").write_text(SQUARE)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["a.npy", "b.npz", "c.npz", "d.off"]), st.data())
def test_any_damage_is_a_sentence(tmp_path: Path, whole: dict[str, bytes], name: str, data: st.DataObject) -> None:
    """A file cut anywhere, or with bytes of something else in it, is read or named; nothing else is raised."""
    content = bytearray(whole[name])
    place = data.draw(st.integers(0, len(content) - 1), label="place")
    if data.draw(st.booleans(), label="cut"):
        del content[place:]
    else:
        other = data.draw(st.binary(min_size=1, max_size=40), label="other")
        content[place : place + len(other)] = other
    folder = tmp_path / "damaged"
    for label in ("one", "two"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / "whole.off").write_text(SQUARE)
    file = folder / "one" / name
    file.write_bytes(content)
    clouds, said = np.zeros(0), str(file)
    try:
        clouds, _ = read_folder(folder, 8, seed=0)
    except UserError as error:
        said = str(error)
    finally:
        file.unlink()
    assert np.isfinite(clouds).all()
    assert str(file) in said


@pytest.mark.parametrize(
    "array",
    [
        *(np.zeros((0, 3)), np.zeros((5, 2)), np.zeros(4), np.zeros((5, 3)), np.full((5, 3), np.nan)),
        *(np.full((5, 3), "1"), np.full((5, 3), 1j)),
    ],
)
def test_an_array_that_is_no_cloud_is_named(tmp_path: Path, array: np.ndarray) -> None:
    folder = own(tmp_path / "mine")
    np.save(folder / "line" / "bad.npy", array)
    with pytest.raises(UserError) as error:
        load(tmp_path, path=str(folder))
    sentence(error, "line/bad.npy", "replace or remove it")


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    folder = own(tmp_path / "mine")
    np.save(folder / "line" / "bad.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError) as error:
        load(tmp_path, path=str(folder))
    sentence(error, "line/bad.npy")


def test_folders_without_clouds_are_refused(tmp_path: Path) -> None:
    folder = own(tmp_path / "mine")
    (folder / "empty").mkdir()
    with pytest.raises(UserError) as error:
        load(tmp_path, path=str(folder))
    sentence(error, "holds no cloud", ".off")
    with pytest.raises(UserError) as error:
        load(tmp_path, path=str(tmp_path / "nowhere"))
    sentence(error, "does not exist", "dataset.path")


def test_files_that_changed_are_refused(tmp_path: Path) -> None:
    folder = own(tmp_path / "mine")
    checksum = sha256_of_clouds(folder)
    (folder / "flat" / "c.off").write_text(SQUARE)
    with pytest.raises(UserError) as error:
        load(tmp_path, path=str(folder), checksum=checksum)
    sentence(error, "changed since")


def archive(tmp_path: Path, **arrays: object) -> Path:
    rng = np.random.default_rng(0)
    held = {"points": rng.normal(size=(5, 20, 4)).astype(np.float32), "labels": np.array([7, 3, 7, 10, 3])} | arrays
    np.savez(tmp_path / "mine.npz", **{name: array for name, array in held.items() if array is not None})
    return tmp_path / "mine.npz"


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([7, 3, 7, 10, 3], ("3", "7", "10")),
        (["cup", "bed", "cup", "pan", "bed"], ("bed", "cup", "pan")),
        ([True, False, True, True, False], ("False", "True")),
    ],
)
def test_all_clouds_in_one_file(tmp_path: Path, labels: list[object], classes: tuple[str, ...]) -> None:
    path = archive(tmp_path, labels=np.array(labels))
    source = load(tmp_path, path=str(path), points=30, checksum=sha256_of_clouds(path))
    check_contract(source)
    assert (source.spec.classes, source.spec.origin, source.test) == (classes, "user", None)
    assert [source.spec.classes[label] for label in source.train.y] == [str(label) for label in labels]
    assert all(len(cloud.unique(dim=0)) <= 20 for cloud in source.train.x), "with repetition"
    fewer = load(tmp_path, path=str(path), points=12).train.x
    assert [len(cloud.unique(dim=0)) for cloud in fewer] == [12] * 5
    assert torch.equal(fewer, load(tmp_path, path=str(path), points=12).train.x)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": None}, "it must hold the arrays points [n, P, 3] and labels [n]"),
        ({"points": None}, "it must hold the arrays points [n, P, 3] and labels [n]"),
        ({"labels": np.zeros(4, int)}, "labels of shape (4,)"),
        ({"points": np.zeros((5, 3))}, "points of shape (5, 3)"),
        ({"points": np.zeros((5, 0, 3))}, "points of shape (5, 0, 3)"),
        ({"labels": np.linspace(0, 1, 5)}, "whole numbers or words"),
        ({"labels": np.zeros(5, int)}, "two classes at least"),
        ({"points": np.stack([*np.eye(4, 3)[None].repeat(4, 0), np.full((4, 3), np.inf)])}, "Cloud 4 of"),
        ({"labels": np.array([{}] * 5, dtype=object)}, "replace or remove it"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = archive(tmp_path, **change)
    with pytest.raises(UserError) as error:
        load(tmp_path, path=str(path))
    sentence(error, "mine.npz", words)


def test_a_file_that_is_not_there_or_changed_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path)
    checksum = sha256_of_clouds(path)
    with pytest.raises(UserError) as error:
        sha256_of_clouds(tmp_path / "mime.npz")
    sentence(error, "did you mean 'mine.npz'", "dataset.path")
    archive(tmp_path, labels=np.array([1, 2, 1, 2, 1]))
    with pytest.raises(UserError) as error:
        load(tmp_path, path=str(path), checksum=checksum)
    sentence(error, "changed since")
