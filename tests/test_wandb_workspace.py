"""The saved views for W&B, as far as they go without an account: what would be sent."""

from __future__ import annotations

import json
import runpy
import sys

import harness
import pytest

from reprise.reported import available_papers, load_reported

pytest.importorskip("wandb_workspaces", reason="the extra [dashboard] is not installed")


@pytest.fixture
def script(capfd, monkeypatch):
    """``python scripts/wandb_workspace.py`` in this process."""

    def call(*argv):
        capfd.readouterr()
        with pytest.MonkeyPatch.context() as patch, harness.unchanged_process():
            patch.setattr(sys, "argv", ["wandb_workspace.py", *argv])
            patch.setenv("HYDRA_FULL_ERROR", "0")
            patch.setenv("REPRISE_LEDGER", "")
            patch.chdir(harness.ROOT)
            with pytest.raises(SystemExit) as stopped:
                runpy.run_path(str(harness.ROOT / "scripts" / "wandb_workspace.py"), run_name="__main__")
        captured = capfd.readouterr()
        return harness.Outcome(int(stopped.value.code or 0), captured.out, captured.err)

    return call


@pytest.mark.parametrize("paper", available_papers())
def test_a_view_shows_its_papers_runs_grouped_and_compared(script, paper):
    done = script(paper, "spec=true", "entity=me", "project=mine")
    assert done.code == 0, done.err
    spec, reported = json.loads(done.out), load_reported(paper)
    assert (spec["entity"], spec["project"]) == ("me", "mine")
    (runs,) = spec["spec"]["section"]["runSets"]
    (only,) = runs["filters"]["filters"]
    assert (only["key"]["name"], only["value"]) == ("tags", [paper])
    assert [part["name"] for part in runs["grouping"]] == ["method.value.name", "dataset.value.name"]
    first = spec["spec"]["section"]["panelBankConfig"]["sections"][0]
    kinds = [panel["viewType"] for panel in first["panels"]]
    assert kinds == ["Markdown Panel"] * 2 + ["Bar Chart"] * len(reported.display.columns)
    assert "### Claims, cpu scale" in first["panels"][0]["config"]["value"]
    metrics = [panel["config"]["metrics"] for panel in first["panels"][2:]]
    assert metrics == [[f"summary_metrics.{column.metric}"] for column in reported.display.columns]
    assert {panel["config"]["groupBy"] for panel in first["panels"][2:]} == {"method.value.name"}


def test_the_keys_it_groups_by_are_those_that_runs_send():
    from reprise.config import content, resolved

    config = content(resolved(harness.compose("method=dvrl")))
    assert config["method"]["name"] == "dvrl"
    assert config["dataset"]["name"] == "digits"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("nobody", "entity=me"), "there is no paper 'nobody'"),
        (("dvrl",), "entity= is missing"),
        (("dvrl", "entity=me", "spec=maybe"), "spec=maybe cannot be"),
        (("dvrl", "colour=red"), "is no option"),
    ],
)
def test_wrong_words_are_refused_in_a_sentence(script, words, why):
    done = script(*words)
    assert (done.code, why in done.err) == (2, True)


def test_what_wandb_refuses_is_a_sentence(script, monkeypatch):
    import wandb_workspaces.workspaces as views

    def refuse(self):
        raise ValueError("api_key not configured")

    monkeypatch.setattr(views.Workspace, "save", refuse)
    done = script("dvrl", "entity=me")
    assert (done.code, "W&B did not take the view (api_key not configured)" in done.err) == (2, True)
