# Two commands for a new machine: `make run` and `make test`. Each sets up what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

# uv where it is installed, else the pip of the new environment; both obey constraints.txt.
INSTALL = if command -v uv >/dev/null 2>&1; \
	then uv pip install $(1) --python $(BIN)/python -c constraints.txt $(2); \
	else $(BIN)/python -m pip install $(1) --disable-pip-version-check -c constraints.txt $(2); fi

# Every process of a suite would compile all modules again: they are a third of what a test costs.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-fast test-browser test-frameworks test-torch test-slow soak check docs bench decisions wheel clean

run: $(VENV)/.run  ## sampler, API and a live view of what is measured; Ctrl-C stops
	@$(BIN)/shm-monitor run $(ARGS)

test: $(VENV)/.test  ## the fast suite on all cores, warnings are errors
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

test-fast: $(VENV)/.test  ## the loop of an edit: what starts no process, tries few inputs, and shows no whole screen
	$(BIN)/python -m pytest -n auto -m "not processes and not thorough and not slow and not soak and not browser" $(ARGS)

test-slow: $(VENV)/.test  ## what takes minutes: kills, cgroups, long traces
	$(BIN)/python -m pytest -m slow $(ARGS)

test-browser: $(VENV)/.browser  ## the dashboard in a real Chromium, which is looked for on the path
	$(BIN)/python -m pytest -n auto --dist loadfile -m browser tests $(ARGS)

test-frameworks: $(VENV)/.frameworks  ## the integrations against the real packages
	$(BIN)/python -m pytest tests/integrations $(ARGS)

# 1.2 GB with a CPU build of torch, 5.5 GB with the one that the registry has: a venv of its own.
test-torch:  ## the integrations of PyTorch, Lightning and transformers against the real packages
	@$(MAKE) --no-print-directory VENV=$(VENV)-torch $(VENV)-torch/.torch-frameworks
	$(VENV)-torch/bin/python -m pytest tests/integrations $(ARGS)

soak: $(VENV)/.test  ## half an hour of restarts, kills and stops
	$(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)

check: $(VENV)/.check  ## lint, types, architecture, the site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python -m docs.site.build

docs: $(VENV)/.check  ## the site, in build/docs/site, and what is kept of what makes it: figures, completions, man page
	$(BIN)/python -m docs.site.figures
	$(BIN)/python -m docs.site.screens
	$(BIN)/python -m docs.site.shell
	$(BIN)/python -m docs.site.build

bench: $(VENV)/.bench  ## the benchmarks, bench/README.md, bench/tables.md and docs/growth.md: about 9 minutes
	$(BIN)/python -m pytest bench --benchmark-json=bench/.results.json $(ARGS); status=$$?; \
	$(BIN)/python -m bench.publish bench/.results.json && exit $$status

decisions: $(VENV)/.bench  ## the tables of docs/decisions.md: version 1 of the decision against version 2
	$(BIN)/python -m bench.decisions docs/decisions.md

wheel: $(VENV)/.check  ## the wheel, in dist/
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf .venv .venv-* .coverage* dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "shm-monitor needs Python 3.11 or newer; try: make PYTHON=python3.11")'
	@if command -v uv >/dev/null 2>&1; then uv venv --quiet --python $(PYTHON) $(VENV); else $(PYTHON) -m venv $(VENV); fi

# The first command that anybody types says what it fetches.
$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	@echo "setting up $(VENV): sampler, API and view; 36 MB to download, 220 MB on disk ..."
	@$(call INSTALL,,-e '.[run]')
	@touch $@

$(VENV)/.%: $(BIN)/python pyproject.toml constraints.txt
	@echo "setting up $(VENV) ($*) ..."
	@$(call INSTALL,--quiet,-e '.[all$(comma)test$(comma)$*]')
	@touch $@

comma := ,
