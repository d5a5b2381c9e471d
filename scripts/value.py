"""Value rows that a DVRL run has never seen, with the function that it learned; nothing is trained.

python scripts/value.py run=RUN                                                   the run's own data set
python scripts/value.py run=RUN dataset=csv dataset.path=new.csv dataset.target=label    new rows of your own table
python scripts/value.py run=RUN dataset=adult part=test out=adult_test.csv        another data set, other rows

RUN is a run folder, outputs/runs/dvrl/..., as train.py names it when it ends.

  run=FOLDER       a finished run of method=dvrl, or of a variant of it
  dataset=NAME     as for train.py, dataset.KEY=VALUE too; default: the run's own. A table needs the columns that the
                   run was trained on; dataset.target is the run's unless you say otherwise
  part=PART        train (default), test or validation: which rows of the data set; all of them are valued
  out=FILE         where the values go (default: values.csv): row, value, logit, given_label; row counts from 0
  paths.data_dir=FOLDER    where data is searched first (default: REPRISE_DATA)
"""

from __future__ import annotations

import logging.config
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from reprise.cli import command_line
from reprise.errors import UserError
from reprise.words import asked, options_of

CONF = Path(__file__).resolve().parent.parent / "conf"
OPTIONS = {"run": "", "part": "train", "out": "values.csv", "paths.data_dir": ""}
PARTS = ("train", "test", "validation")
CSV_LOADER = "reprise.data.csv.load"
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
LOWEST = 10


@command_line
def main() -> None:
    """Exit codes as for train.py: 0 all went well, 2 the input was wrong."""
    if (words := asked(__doc__)) is None:
        return
    options, overrides = parsed(words)
    logging.config.dictConfig(OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "job_logging" / "reprise.yaml")))
    value(Path(options["run"]).expanduser(), options, overrides)


def parsed(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """This command's own options, and what Hydra composes: ``dataset=`` and ``dataset.*=``.

    Raises:
        UserError: no option, an unknown or repeated one, or no run.
    """
    found = options_of(words, OPTIONS, group="dataset")
    options = {key: found.pop(key) for key in OPTIONS}
    overrides = [f"{key}={text}" for key, text in found.items()]
    if not options["run"]:
        raise UserError("run= is missing: name a run folder, outputs/runs/dvrl/... (see --help).")
    if options["part"] not in PARTS:
        raise UserError(f"part={options['part']} is not known; choose one of {', '.join(PARTS)}.")
    return options, overrides


def value(run_dir: Path, options: dict[str, Any], overrides: list[str]) -> None:
    """Value the rows and write them down."""
    from reprise.papers.dvrl import new_rows
    from reprise.papers.dvrl.valuer import OWN_SOURCES, Valuer, check_own, config_of

    config, out = config_of(run_dir), Path(options["out"]).expanduser()
    valuer = Valuer.load(run_dir)
    if overrides:
        config = composed(overrides, config["dataset"])
    data_dir = options["paths.data_dir"] or os.environ.get("REPRISE_DATA") or config["paths"]["data_dir"]
    config = config | {"paths": {"data_dir": data_dir}}
    check_out(out, config["dataset"])
    if not overrides:  # the only case in which the folder chooses the loader
        check_own(config["dataset"], OWN_SOURCES, run_dir)
    split = rows(config, options["part"], valuer.spec, same=not overrides)
    found, logits = valuer.values(split.x.numpy(), split.y.numpy())
    labels = new_rows.labels(split.y.numpy(), valuer.spec)
    columns = {"row": range(len(found)), "value": found, "logit": logits, "given_label": labels}
    write(out, columns | ({"name": split.names} if split.names else {}))
    show(run_dir, config["dataset"]["name"], columns)
    print(f"wrote {out}")


def composed(overrides: list[str], own: dict[str, Any]) -> dict[str, Any]:
    """The data set's config as train.py would compose it; what is not said of a table is as in the run."""
    import hydra

    from reprise.config import register, resolved

    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        if not any(word.startswith("dataset=") for word in overrides):
            overrides = [f"dataset={_group_option(own)}", *overrides]
        cfg = hydra.compose("train", overrides)
        _inherit_target(cfg, own)
        return resolved(cfg)


def _group_option(own: dict[str, Any]) -> str:
    """The choice of the config group that the run's data set came from."""
    for path in sorted((CONF / "dataset").glob("*.yaml")):
        if OmegaConf.load(path).get("_target_") == own["_target_"] and (path.stem == own["name"] or _is_table(own)):
            return path.stem
    raise UserError(f"the run's data set {own['name']} is no choice of dataset=: name one with dataset=NAME.")


def _is_table(dataset: Any) -> bool:
    return dataset["_target_"] == CSV_LOADER


def _inherit_target(cfg: DictConfig, own: dict[str, Any]) -> None:
    if _is_table(own) and _is_table(cfg.dataset) and OmegaConf.is_missing(cfg.dataset, "target"):
        cfg.dataset.target = own["target"]


def check_out(out: Path, dataset: dict[str, Any]) -> None:
    """Refuse to write over a folder or over the data."""
    if out.is_dir():
        raise UserError(f"out={out} is a folder: name a file in it.")
    inputs = [dataset.get(key) for key in ("path", "test_path", "validation_path")]
    if out.exists() and any(name and Path(name).exists() and out.samefile(name) for name in inputs):
        raise UserError(f"out={out} would replace the rows that are to be valued: name another file.")


def rows(config: dict[str, Any], part: str, spec: Any, same: bool) -> Any:
    """The rows to value, in the shape of the run's data."""
    from reprise import building
    from reprise.data.store import user_file
    from reprise.data.table import read_table
    from reprise.papers.dvrl import new_rows

    dataset = config["dataset"]
    if same or not _is_table(dataset):
        return new_rows.of_source(building.source(config), part, spec)
    # a table of new rows is read by the columns of the run, not by what its own cells suggest
    option = "path" if part == "train" else f"{part}_path"
    if not dataset[option]:
        raise UserError(f"dataset.{option} is not set: name the file of the {part} rows with dataset.{option}=FILE.")
    table = read_table(user_file(dataset[option], f"dataset.{option}"), dataset["separator"])
    return new_rows.of_table(table, str(dataset["target"]), spec)


def write(out: Path, columns: dict[str, Any]) -> None:
    """One line per row, in the form of a run's ``data_values.csv``."""
    import pandas as pd

    from reprise.records import write_text

    write_text(out, pd.DataFrame(columns).to_csv(index=False, float_format="%.9g", lineterminator="\n"))


def show(run_dir: Path, name: str, columns: dict[str, Any]) -> None:
    """How the values are spread, and where to look first."""
    import numpy as np

    from reprise.layout import Table, terminal, to_rich

    values, given = columns["value"], columns["given_label"]
    spread = Table(
        f"{len(values)} rows of {name}, valued by {run_dir}",
        ("Quantile", *(f"{100 * q:g} %" for q in QUANTILES)),
        (("Value", *(f"{v:.4f}" for v in np.quantile(values, QUANTILES))),),
    )
    lowest = np.argsort(columns["logit"], kind="stable")[:LOWEST]
    first = Table(
        "The lowest values",
        ("Row", "Value", "Given"),
        tuple((str(k), f"{values[k]:.4f}", str(given[k])) for k in lowest),
    )
    console = terminal()
    for table in (spread, first):
        console.print(to_rich(table))


if __name__ == "__main__":
    main()
