"""Every config composes, and a run's key follows from its content alone."""

from __future__ import annotations

import itertools

import hydra
import pytest
import torch
import yaml
from harness import CONF, DATASETS, METHODS, PAPERS, VALUATION, compose, methods_of, options
from hydra.core.override_parser.overrides_parser import OverridesParser

from reprise.building import CLOUDS, TABLES
from reprise.config import content, group_key, protocol_key, resolved, run_key
from reprise.errors import UserError

TABLE = "a,b,label\n1,x,yes\n2,y,no\n3,x,yes\n"


def key(*overrides: str) -> str:
    return run_key(resolved(compose(*overrides)))


def choices(params: dict[str, str]) -> dict[str, list[str]]:
    """The single values of a sweep file's parameters."""
    parser = OverridesParser.create()
    values = {}
    for name, value in params.items():
        override = parser.parse_override(f"{name}={value}")
        values[name] = list(override.sweep_string_iterator()) if override.is_sweep_override() else [str(value)]
    return values


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: p.relative_to(CONF).as_posix())
def test_every_file_is_yaml_and_says_what_it_is_for(path):
    text = path.read_text()
    assert isinstance(yaml.safe_load(text), dict)
    if path.parts[-2] in ("method", "dataset") or path.parts[-3] in ("sweep", "experiment"):
        assert "python train.py" in text, "the head comment shows how to run it"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_composes_with_data_sets_and_every_paper_with_all(method):
    """Each method with every third data set, the next method of its paper with the next third."""
    keys, datasets = set(), DATASETS[methods_of(PAPERS[method]).index(method) % 3 :: 3]
    for dataset in datasets:
        user = ["dataset.path=mine.csv", "dataset.target=y", "dataset.checksum=0"] if dataset == "csv" else []
        config = resolved(compose(f"method={method}", f"dataset={dataset}", *user))
        assert (config["method"]["name"], config["dataset"]["name"]) == (method, dataset)
        assert config["method"]["paper"] == PAPERS[method]
        keys.add(run_key(config))
    assert len(keys) == len(datasets)


@pytest.mark.parametrize("method", VALUATION)
def test_every_valuation_method_brings_its_predictor(method):
    assert resolved(compose(f"method={method}"))["method"]["module"]["predictor"]["_target_"]


GROUPS = {
    "dvrl": ("predictor", "trainer", "hardware", "logger"),
    "supsup": ("stream", "network", "search", "scenario"),
    "crvae": ("likelihood", "transformation", "network"),
    "rewriting": ("generator", "edit"),
}


@pytest.mark.parametrize(("method", "group"), [(method, group) for method in GROUPS for group in GROUPS[method]])
def test_every_choice_of_the_other_groups_composes(method, group):
    for choice in options(group):
        assert resolved(compose(f"method={method}", f"{group}={choice}"))["method"]["name"] == method


def test_tables_are_known_without_loading_them():
    """The refusal of a data set names the others of the right kind, and a config does not say its kind."""
    others = [name for name in DATASETS if "image" not in (CONF / "dataset" / f"{name}.yaml").read_text()]
    assert sorted((*TABLES, *CLOUDS)) == others


def compose_all(group: str, name: str) -> list[dict]:
    """The configs of all combinations in a file, with its first seed."""
    file = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())  # a composed config is without its Hydra part
    params = choices(file["hydra"]["sweeper"]["params"]) if "hydra" in file else {}
    params = {key: values[:1] if key == "seed" else values for key, values in params.items()}
    combinations = itertools.product(*([f"{key}={value}" for value in values] for key, values in params.items()))
    return [resolved(compose(f"{group}={name}", *combination)) for combination in combinations]


def test_every_experiment_composes():
    for name in options("experiment"):
        for config in compose_all("experiment", name):
            assert config["method"]["paper"] == name.split("/")[0]


@pytest.mark.parametrize("name", options("sweep"))
def test_every_combination_of_a_sweep_composes_to_a_run_of_its_own(name):
    bare = compose(f"sweep={name}")  # what Hydra composes first, with what the command line fixes
    assert bare.method.paper == name.split("/")[0], "so that keys of the paper can be given beside the sweep"
    configs = compose_all("sweep", name)
    assert len(configs) > 1 or name == "dvrl/official_adult"
    assert len({run_key(config) for config in configs}) == len(configs)
    for config in configs:
        assert config["method"]["paper"] == name.split("/")[0]
        assert config["table"] == name, "its records name the table"
        if recipe := config["method"]["module"].get("optimizer"):  # of a long run, which nobody starts to test it
            hydra.utils.instantiate(recipe)([torch.nn.Parameter(torch.zeros(1))])


def test_the_command_line_wins_over_the_home_data_set():
    assert compose("method=knn_shapley").dataset.name == "digits"
    assert compose("method=knn_shapley", "dataset=breast_cancer").dataset.name == "breast_cancer"
    assert compose("dataset=breast_cancer", "method=knn_shapley").dataset.name == "breast_cancer"
    assert "MLP" in compose("method=loo", "predictor=mlp").method.module.predictor["_target_"]


@pytest.mark.parametrize(("scale", "steps"), [("smoke", 1), ("cpu", 2), ("paper", 3)])
def test_scaled_picks_by_scale(scale, steps):
    config = resolved(compose(f"scale={scale}", "+method.nested.steps=${scaled:1,2,3}"))
    assert config["method"]["nested"]["steps"] == steps
    assert config["scale"] == scale


def test_the_main_method_grows_with_the_scale():
    smoke, cpu, paper = (compose(f"scale={s}").method.module.outer_steps for s in ("smoke", "cpu", "paper"))
    assert smoke < cpu < paper == 5000


def test_a_missing_value_is_named():
    with pytest.raises(UserError, match=r"dataset\.target has no value"):
        resolved(compose("dataset=csv", "dataset.path=x.csv", "dataset.checksum=0"))


@pytest.mark.parametrize(
    "override",
    [
        "hardware=gpu",
        "hardware.threads=1",
        "logger=csv",
        "logger.every=1",
        "paths.output_dir=elsewhere",
        "paths.data_dir=elsewhere",
        "force=true",
        "table=dvrl/label_noise",
    ],
)
def test_where_and_how_it_is_shown_does_not_change_the_key(override):
    assert key(override) == key()


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "scale=smoke",
        "dataset=breast_cancer",
        "method=loo",
        "predictor=mlp",
        "trainer=debug",
        "trainer.max_epochs=1",
        "method.module.learning_rate=0.02",
        "method.module.predictor.l2=0.1",
        "method.datamodule.noise_rate=0.4",
        "method=supsup",
    ],
)
def test_what_determines_the_numbers_changes_the_key(override):
    assert key(override) != key()


def test_the_key_is_stable():
    """A change here makes every stored run of every user look like a new one."""
    config = {"dataset": {"name": "d"}, "method": {"name": "m"}, "seed": 0, "paths": {"output_dir": "x"}}
    assert content(config) == {"dataset": {"name": "d"}, "method": {"name": "m"}, "seed": 0}
    assert run_key(config) == "1ba761a67fac"


@pytest.mark.parametrize(
    "override",
    ["network=fc", "search=edge_popup", "scenario=gg", "stream=rotated", "method.module.evaluation.images=7"],
)
def test_what_a_stream_is_learned_with_changes_the_key(override):
    assert key("method=supsup", override) != key("method=supsup")


def test_a_users_file_is_known_by_its_content_not_by_its_path(tmp_path):
    first, moved, changed = tmp_path / "a.csv", tmp_path / "deeper" / "b.csv", tmp_path / "c.csv"
    moved.parent.mkdir()
    first.write_text(TABLE)
    moved.write_text(TABLE)
    changed.write_text(TABLE + "4,y,no\n")

    def of(path, *more):
        return key("dataset=csv", f"dataset.path={path}", "dataset.target=label", *more)

    assert of(first) == of(moved)
    assert of(first) != of(changed)
    assert of(first, f"dataset.test_path={changed}") != of(first)
    assert of(first, "dataset.target=b") != of(first)


def test_a_users_images_are_known_by_their_content_not_by_their_place(tmp_path):
    for folder in ("here/cat", "here/dog", "there/cat", "there/dog"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.png").write_bytes(folder[-3:].encode())

    def of(folder):
        return key("dataset=image_folder", f"dataset.path={tmp_path / folder}")

    assert of("here") == of("there")
    before = of("here")
    (tmp_path / "here" / "cat" / "1.png").write_bytes(b"another")
    assert of("here") != before


def test_the_second_file_of_a_pair_is_known_by_its_content(tmp_path):
    for name, text in (("train.csv", "a"), ("store.csv", "b"), ("moved.csv", "b"), ("other.csv", "c")):
        (tmp_path / name).write_text(text)

    def of(name):
        train = f"dataset.path={tmp_path / 'train.csv'}"
        return key("dataset=rossmann", train, f"dataset.store_path={tmp_path / name}")

    assert of("store.csv") == of("moved.csv") != of("other.csv")


def test_the_group_is_the_config_without_its_seed():
    zero, one, other = (resolved(compose(*o)) for o in ([], ["seed=1"], ["method.module.selections=8"]))
    assert group_key(zero) == group_key(one) != group_key(other)


def test_methods_on_the_same_data_share_a_protocol():
    def of(*overrides):
        return protocol_key(resolved(compose(*overrides)), {"predictor": "linear"})

    assert of("method=dvrl") == of("method=loo") == of("method=random", "seed=5")
    assert of("method=dvrl") != of("method=dvrl", "method.datamodule.noise_rate=0.4")
    assert of("method=dvrl") != of("method=dvrl", "dataset=breast_cancer")
    assert of("method=supsup") == of("method=supsup", "method.module.outputs=25")
    assert of("method=supsup") != of("method=supsup", "method.datamodule.num_tasks=7")
