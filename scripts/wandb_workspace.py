"""A saved view for each paper in Weights & Biases: runs grouped by method and data, claims and tables beside charts.

python scripts/wandb_workspace.py dvrl entity=my-team               save it (needs an account: wandb login)
python scripts/wandb_workspace.py all entity=my-team project=reprise
python scripts/wandb_workspace.py dvrl spec=true                    print its specification, without an account

  entity=NAME      whose project it is (a user or a team)
  project=NAME     where the runs are (default: reprise)
  spec=true|false  print the specification as JSON and save nothing (default: false)
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from reprise.cli import command_line
from reprise.errors import UserError
from reprise.evidence import Record, collect
from reprise.reported import Reported, available_papers, load_reported
from reprise.tables import markdown
from reprise.words import asked, options_of, switch

OPTIONS = {"entity": "", "project": "reprise", "spec": "false"}
OUTPUTS = Path("outputs")
BEHIND = "\n\nFrom the suite's committed records; the charts beside it are of the runs in this project."


@command_line
def main() -> None:
    """Exit codes as for train.py: 0 all went well, 2 the input was wrong."""
    if (words := asked(__doc__)) is None:
        return
    paper, *rest = words or [""]
    options, known = options_of(rest, OPTIONS), available_papers()
    if paper not in (*known, "all"):
        raise UserError(f"there is no paper {paper!r}; choose one of: {', '.join([*known, 'all'])}.")
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError("saved views need one more package: pip install -e '.[dashboard]'.")
    spec = switch(options, "spec")
    if not spec and not options["entity"]:
        raise UserError("entity= is missing: name the user or team whose project the runs are in, or say spec=true.")
    for name in known if paper == "all" else [paper]:
        records = collect(OUTPUTS, name, runs=False).records
        view = workspace(load_reported(name), records, options["entity"] or "nobody", options["project"])
        print(json.dumps(specification(view), indent=1) if spec else f"saved {save(view)}")


def workspace(reported: Reported, records: list[Record], entity: str, project: str) -> Any:
    """The view of a paper, as ``wandb_workspaces`` has it.

    One section compares: verdicts, reported cells beside ours, and a bar for each column of the tables, mean and
    standard error over seeds. The other one has all that the runs sent, figures and tables among it.
    """
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as views

    bars = [
        reports.BarPlot(
            title=column.label,
            metrics=[reports.SummaryMetric(column.metric)],
            groupby=reports.Config("method.name"),
            groupby_aggfunc="mean",
            groupby_rangefunc="stderr",
        )
        for column in reported.display.columns
    ]
    told = [
        reports.MarkdownPanel(markdown=markdown(reported, records, (part,)) + BEHIND)
        for part in ("claims", "comparison")
    ]
    return views.Workspace(
        entity=entity,
        project=project,
        name=reported.name or reported.title,
        sections=[views.Section("Paper against ours", panels=[*told, *bars], is_open=True, pinned=True)],
        runset_settings=views.RunsetSettings(
            filters=[views.Tags().isin([reported.paper])],
            groupby=[views.Config("method.name"), views.Config("dataset.name")],
        ),
        auto_generate_panels=True,
    )


def specification(view: Any) -> dict[str, Any]:
    """What would be sent."""
    return json.loads(json.dumps(view._to_model().model_dump(by_alias=True), default=str))


def save(view: Any) -> str:
    """Send it; its address.

    Raises:
        UserError: there is no account, no such project, or no network.
    """
    try:
        return view.save().url
    except Exception as error:  # whatever W&B's client raises
        raise UserError(
            f"W&B did not take the view ({' '.join(str(error).split())[:200]}): see wandb login."
        ) from error


if __name__ == "__main__":
    main()
