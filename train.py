"""Run one paper's method: ``python train.py method=dvrl``. Options: ``python train.py --help``."""

import hydra

from reprise.cli import attempt, command_line
from reprise.config import register

register()


@command_line
@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg):
    """One run; Hydra calls this once per job. Torch is imported here, so that help and typos answer at once."""
    from reprise.run import run

    return attempt(run, cfg)


if __name__ == "__main__":
    main()
