.DEFAULT_GOAL := help
DATA ?= phantom
PROFILE ?= quick
PYTHON ?= python3
BIN := .venv/bin
UV = $$(uv --version >/dev/null 2>&1 && command -v uv || echo $(BIN)/uv)
READY := .venv/.ready

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "options: DATA=phantom|brain|path/to/prepared (default: phantom)  PROFILE=quick|full"

setup: $(READY) ## make .venv from the lock, with uv

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "[setup] .venv from requirements.lock (PyTorch is large: some minutes on a slow line)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "python3 -m venv failed: install your system's package python3-venv, then call make again"; exit 1; }
	@uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(UV) pip install --python $(BIN)/python --requirement requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

book: setup ## train small networks, execute the notebooks, build _build/html
	@$(BIN)/python book/build.py --data "$(DATA)" --profile $(PROFILE)

results: setup ## rebuild the tables and figures of results/ (no training)
	@$(BIN)/python book/results.py

test: setup chromium ## every check: lint, the book, doctests, tests, browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/python book/build.py
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

chromium: # for the browser tests; they say so and skip where there is none
	@command -v chromium >/dev/null || \
		{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		  echo "[setup] Chromium for the browser tests" && \
		  apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; } || \
		echo "No Chromium and no right to install it: the browser tests will be skipped."

notebooks: setup ## bring each .ipynb in line with its .py
	$(BIN)/jupytext --quiet --update --to ipynb notebooks/*.py

lock: setup ## resolve pyproject.toml anew into requirements.lock
	@$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate --upgrade --quiet -o requirements.lock

picture: setup ## draw the picture of the README from the runs of `make book`
	@$(BIN)/python book/picture.py

clean: ## remove what was built; runs/ and .venv stay
	rm -rf build _build

.PHONY: help setup book results test chromium notebooks lock picture clean
