# Tokenbill: every verb with one line of help. `make build` does all set-up; the others call it when it is needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help build demo test up down check docs bench clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

build: $(VENV)/.built ## all set-up: packages with checked hashes, compiled core, Kafka; leaves .venv/bin/tokenbill

demo: build ## all set-up, then the main job end to end on the embedded stack (ARGS="--json --events 200000")
	@$(BIN)/tokenbill demo $(ARGS)

test: build $(VENV)/.litellm ## all set-up, then every test (ARGS="-k name" for some)
	@$(BIN)/python -m pytest $(ARGS)

up: build ## start the local stack and leave it running (ARGS="--workers 2")
	@$(BIN)/tokenbill up $(ARGS)

down: build ## stop the local stack; its data stays
	@$(BIN)/tokenbill down $(ARGS)

check: build ## lint, types and import contracts only
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

docs: build ## these pages as a site in build/site, every link checked
	@$(BIN)/sphinx-build -W --keep-going -q -c docs -d build/doctrees -b html . build/site
	@echo "build/site/index.html"

bench: build ## measure the core and the pipeline against their baselines
	@$(BIN)/tokenbill bench kernel $(ARGS) && $(BIN)/tokenbill bench pipeline $(ARGS)

# Only a test needs it, and it is large, so `build` does without. LiteLLM asks for a newer certifi than can be had with its
# other demands; what it needs besides ours is pinned in a file of its own and installed as it stands there.
$(VENV)/.litellm: requirements/litellm.txt $(VENV)/.built
	@echo "installing LiteLLM, which the importer is compared with (250 MB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/litellm.txt
	@touch $@

clean: ## remove what build and tests made (not the data of the local stack)
	rm -rf $(VENV) build *.egg-info cython_ext/*.so cython_ext/*.cpp .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.built: requirements/dev.txt pyproject.toml setup.py $(wildcard cython_ext/*.pyx cython_ext/*.pxd cython_ext/*.hpp)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tokenbill needs Python 3.11 or newer: make build PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@cmp -s requirements/dev.txt $(VENV)/.requirements || { \
	  echo "installing packages (hashes are checked; a mirror is set with 'pip config set global.index-url URL')"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt \
	  && cp requirements/dev.txt $(VENV)/.requirements; }
	@echo "compiling the core"
	@$(BIN)/python setup.py --quiet build_ext --inplace --parallel 2 > $(VENV)/build.log 2>&1 || { tail -n 40 $(VENV)/build.log; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m tokenbill.stack.jars
	@touch $@
