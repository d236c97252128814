# make quickstart: from nothing to a report.  make test: set up and test.  make help: the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Images of containers often set it; hundreds of processes would each compile what they import.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup quickstart quality format docs test test-slurm test-slow bench-quick clean-demo

BIN := .venv/bin
STAMP := .venv/.livetrain-setup
DEMO := data/demo
DEMO_SHARDS := data/demo-shards
QUICKSTART_RUN := runs/quickstart
# One process on one device: a GPU where there is one. Override it, e.g. ACCELERATE_CONFIG=launch/eight_gpus.yaml.
ACCELERATE_CONFIG = $(shell $(BIN)/python -c 'import torch; print("launch/one_gpu.yaml" if torch.cuda.is_available() else "launch/one_cpu.yaml")')

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(STAMP): requirements.lock pyproject.toml launch/setup.sh
	launch/setup.sh
	@touch $@

setup: $(STAMP) ## make .venv from requirements.lock

# The corpus writes label.csv last, the shard builder dataset.json: a killed step is taken up again.
$(DEMO)/label.csv: shards/demo/corpus.py shards/demo/scene.py | $(STAMP)
	rm -rf $(DEMO)
	$(BIN)/livetrain demo $(DEMO)
	@touch $@

$(DEMO_SHARDS)/dataset.json: $(DEMO)/label.csv $(wildcard shards/*.py shards/*/*.py) Makefile | $(STAMP)
	$(BIN)/livetrain shards build --videos $(DEMO)/videos --labels $(DEMO)/label.csv --out $(DEMO_SHARDS) --shard-mb 4 --overwrite
	@touch $@

quickstart: $(DEMO_SHARDS)/dataset.json ## demo videos, shards, training, report
	rm -rf $(QUICKSTART_RUN)
	$(BIN)/accelerate launch --config_file $(ACCELERATE_CONFIG) livetrain/train.py configs/quickstart.yaml
	@test -s $(QUICKSTART_RUN)/report.html
	@echo $(QUICKSTART_RUN)/report.html

quality: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff rewrite the files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## the generated pages of docs/
	$(BIN)/python -c 'from livetrain.config.reference import markdown; print(markdown(), end="")' > docs/train/configuration.md

test: $(STAMP) ## all tests but the heavy ones
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=15 -m "not slow and not slurm"

test-slurm: $(STAMP) ## runs over two SLURM nodes on this machine
	tests/slurm/install.sh
	$(BIN)/python -m pytest -m slurm

test-slow: $(STAMP) ## the heavy proofs
	tests/browser/install.sh
	tests/slurm/install.sh
	$(BIN)/python -m pytest -m slow

bench-quick: $(STAMP) ## the short benchmarks; fails where a ratio has fallen by half
	$(BIN)/livetrain bench --quick --against benchmarks/ratios.json

clean-demo: ## remove what quickstart made
	rm -rf $(DEMO) $(DEMO_SHARDS) $(QUICKSTART_RUN)
