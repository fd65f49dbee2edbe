# Tokenbill: every target has one line of help. `make build` does all set-up; the other targets run it when needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help build demo test up down check docs bench clean

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

build: $(VENV)/.built ## do all set-up: packages with checked hashes, compiled core, Kafka; creates .venv/bin/tokenbill

demo: build ## do all set-up, then run the main job end to end on the local stack (ARGS="--json --events 200000")
	@$(BIN)/tokenbill demo $(ARGS)

test: build $(VENV)/.litellm ## do all set-up, then run every test (ARGS="-k name" for some)
	@$(BIN)/python -m pytest $(ARGS)

up: build ## start the local stack and leave it running (ARGS="--workers 2")
	@$(BIN)/tokenbill up $(ARGS)

down: build ## stop the local stack; its data stays
	@$(BIN)/tokenbill down $(ARGS)

check: build ## check style, types and import contracts only
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

docs: build ## build the documentation site in build/site, with every link checked
	@$(BIN)/sphinx-build -W --keep-going -q -c docs -d build/doctrees -b html . build/site
	@echo "build/site/index.html"

bench: build ## measure the core and the pipeline against their baselines
	@$(BIN)/tokenbill bench kernel $(ARGS) && $(BIN)/tokenbill bench pipeline $(ARGS)

# LiteLLM is large and only one test needs it, so `build` leaves it out. It requires a newer certifi than its other
# requirements allow, so its packages are pinned in a file of their own and installed without dependency resolution.
$(VENV)/.litellm: requirements/litellm.txt $(VENV)/.built
	@echo "installing LiteLLM, which the importer is compared with (250 MB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/litellm.txt
	@touch $@

clean: ## remove the output of build and tests (not the data of the local stack)
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
