.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test ray lint docs coverage mutants fake-cuda gpu legs dist smoke licences clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Of what is installed a small part is ever imported, and compiled then: a third of the time of an installation.
PIP := $(BIN)/python -m pip install --no-compile --constraint constraints.txt
DEMO := runs/demo
LEGS ?= lowest no_extras parts float64 warnings random_order

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

setup: $(VENV)/.setup ## make the environment (.venv) with Limbeck in it

setup-dev: $(VENV)/.setup-dev ## the same with what development needs

demo: setup ## distil the built-in scenes and evaluate them: a few minutes on two cores
	rm -rf $(DEMO)
	$(BIN)/limbeck distill scenes --output $(DEMO)

test: setup-dev ## run the default tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

ray: setup-dev ## on a cluster of Ray on this machine: 200 jobs and ten killed workers, a comparison equal to the local one
	OMP_NUM_THREADS=1 RAY_worker_niceness=0 $(BIN)/python -m pytest -m slow tests/runtime/test_ray.py -k "killed_cost or comparison_is_the_same or comparison_keeps"

lint: setup-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.setup-docs ## build the site of the documentation, build/docs/index.html
	$(BIN)/python -m sphinx -b html -n -W --keep-going docs build/docs

coverage: $(VENV)/.setup-reliability ## which lines the default tests reach, by room: 90 % at least
	rm -f .coverage .coverage.*
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report= --cov-fail-under=0
	$(BIN)/python benchmarks/coverage_by_room.py

mutants: $(VENV)/.setup-reliability ## go on with the sample of mutants, and tell how many the tests kill
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py run
	$(BIN)/python benchmarks/mutants.py table

fake-cuda: setup-dev ## take the paths of a GPU with tensors that only say they are on one
	OMP_NUM_THREADS=1 $(BIN)/python tests/fake_cuda.py

gpu: setup ## check and measure this machine's GPU in nine minutes at most
	$(BIN)/python benchmarks/gpu.py --output runs/gpu

legs: $(VENV)/.setup-legs ## the tests in other environments, see noxfile.py: make legs LEGS="lowest float64"
	$(BIN)/nox -s $(LEGS)

dist: setup ## build the wheel and the source distribution of the last commit, twice and to the same bytes
	$(BIN)/python release/dist.py

smoke: dist ## install that wheel into a clean environment and try it
	$(BIN)/python release/dist.py smoke

licences: setup-dev ## write docs/licences.md from what is installed
	$(BIN)/python release/licences.py

clean: ## remove the environment and what tools have left, but no runs
	rm -rf $(VENV) .nox build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A stamp is newer than the files it depends on while what they ask for is installed.
$(VENV)/.setup: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) --editable .
	touch $@

$(VENV)/.setup-dev: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) --editable '.[dev]'
	touch $(VENV)/.setup $@

$(VENV)/.setup-docs: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) --editable '.[docs]'
	touch $(VENV)/.setup $@

$(VENV)/.setup-reliability: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) --editable '.[dev,reliability]'
	touch $(VENV)/.setup $(VENV)/.setup-dev $@

$(VENV)/.setup-legs: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) --editable '.[legs]'
	touch $(VENV)/.setup $@

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Limbeck needs Python 3.10 or later: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	touch $@
