# Every target sets up what it needs: a virtual environment in .venv, made by Python 3.11 or newer.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help run test test-browser test-slurm test-drill lint table figures report editor view sync reproduce clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "reprise needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(READY) ## the main job: DVRL on embedded data, about half a minute after the set-up
	$(BIN)/python train.py method=dvrl

test: $(READY) ## unit and smoke tests: offline, no GPU, no account
	$(BIN)/python -m pytest -n auto --dist loadscope

test-browser: $(READY) ## the report and the editor in a real Chromium (root: installs it where it is missing)
	command -v chromium > /dev/null || apt-get install -y chromium chromium-driver
	$(BIN)/python -m pytest tests/report/test_browser.py tests/rewriting/test_editor_browser.py

test-slurm: $(READY) ## a sweep on a real Slurm of one node on this machine (root; installs slurm-wlm and munge)
	command -v slurmctld > /dev/null || apt-get install -y slurm-wlm munge
	$(BIN)/python -m pytest -m slurm -s tests/test_slurm.py

test-drill: $(READY) ## a sweep of all methods under kills, full disks, wrong clocks (root; installs faketime; ten minutes)
	command -v faketime > /dev/null || apt-get install -y faketime
	$(BIN)/python -m pytest -m drill -s tests/test_drill.py

lint: $(READY) ## ruff
	$(BIN)/ruff check
	$(BIN)/ruff format --check

editor: $(READY) ## edit a generator in the browser (rewriting)
	$(BIN)/python scripts/editor.py

table: $(READY) ## paper against ours, from the finished runs
	$(BIN)/python scripts/table.py all

figures: $(READY) ## figures over many runs, from the records and the run folders
	$(BIN)/python scripts/figures.py all

report: $(READY) ## one page over all papers, from the records: outputs/report/index.html
	$(BIN)/python scripts/table.py report

view: $(READY) ## compare the runs in the terminal, without an account
	$(BIN)/wandb leet outputs/wandb

sync: $(READY) ## upload the offline runs to Weights & Biases (needs an account)
	$(BIN)/wandb sync outputs/wandb/offline-run-*

reproduce: $(READY) ## check the papers' claims by running them (minutes to hours)
	$(BIN)/python -m pytest -m reproduction

clean: ## remove the environment and caches; runs, records and tables stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
