# Every target first sets up what it needs in .venv; a second call installs nothing.

# Python 3.11 comes first because requirements.txt was tested on it.
PYTHONS := python3.11 python3 python3.12 python3.13
IS_USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,$(PYTHONS),$(shell $(p) -c '$(IS_USABLE)' 2>/dev/null && echo $(p))))

VENV := .venv
INCOMPLETE := $(VENV).incomplete
BIN := $(VENV)/bin
# Compiling all of TensorFlow to bytecode would take longer than compiling what is imported.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check -qq install --no-compile

# Without kept bytecode, every process that imports TensorFlow spends 10 s compiling it.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX ?= $(CURDIR)/.cache/bytecode

.DEFAULT_GOAL := help
.PHONY: help demo demo-train scores eval-demo playground test bytecode test-beam lint plan format docs docs-serve clean

help:  ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 16

# Prompts go through the environment, so that a quote in one does not end the command.
export PROMPT
SEED ?= 0

demo: $(VENV)/.run-time  ## Make videos with the shipped weights; yours with PROMPT="..." SEED=1.
	@$(BIN)/python -m lumiere_jax.demo --output demo --seed "$(SEED)" --prompt "$$PROMPT"

demo-train: $(VENV)/.run-time  ## Train the tiny cascade from nothing and write videos to demo-train/.
	$(BIN)/python -m lumiere_jax.demo --train --output demo-train

scores: $(VENV)/.eval  ## Update the scores in weights/small/README.md (an hour or more).
	rm -rf weights/small/scores runs/scores
	$(BIN)/python benchmarks/shipped_scores.py

# BUNDLE=demo-train/bundle serves what `make demo-train` trained.
BUNDLE ?= weights/small
PORT ?= 8000

playground: $(VENV)/.serve  ## Serve the shipped weights with a page to try them on: BUNDLE=... PORT=...
	@$(BIN)/python -m lumiere_jax.serve --bundle "$(BUNDLE)" --data playground --port "$(PORT)"

# Three on two cores, because an eighth of the time they wait for servers that they started.
test: $(VENV)/.test  ## Check format, lint, imports and types, then run the tests.
	@$(MAKE) --no-print-directory -j2 lint bytecode
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Compiled once beside the checks; test processes that start together would each compile all of it.
bytecode: $(VENV)/.test
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null 2>&1 || true  # the run itself tells of errors

# Apache Beam's pins conflict with those of requirements.txt.
test-beam:  ## Run the tests of the Beam pipeline, in a separate environment.
	@$(MAKE) --no-print-directory VENV=.venv-beam .venv-beam/.beam
	.venv-beam/bin/python -m pytest tests/preparation/test_beam_engine.py

# Tiny base clips have 8 frames but I3D needs 9, so these have 16.
EVAL_DEMO := --task=held_out --base=demo-train/runs/stunet --ssr=demo-train/runs/ssr --output=demo-train/eval \
  --num_videos=96 --sample_frames=16 --batch_size=32

eval-demo: $(VENV)/.eval  ## Score the model of demo-train by FVD with the real I3D weights.
	$(BIN)/python -m lumiere_jax.eval $(EVAL_DEMO)

# The types of libraries differ between versions: they are checked where the pins are installed.
lint: $(VENV)/.test  ## Check format, lint, imports and types.
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; \
	then $(BIN)/mypy; else echo "types are checked on Python 3.11 only"; fi

plan: $(VENV)/.test  ## Compile the full configs for TPU slices, without a TPU (hours).
	benchmarks/plan_all.sh

format: $(VENV)/.test  ## Format the code and fix what lint can fix.
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# MkDocs advises on other generators, which is noise in a build.
docs docs-serve: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.docs  ## Build the documentation site in site/; broken links and docstrings fail.
	$(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.docs  ## Show the documentation at http://127.0.0.1:8000 and follow changes.
	$(BIN)/mkdocs serve

clean:  ## Remove the environment, the caches, the site and the demos' output.
	rm -rf $(VENV) $(INCOMPLETE) .venv-beam .venv-beam.incomplete .cache .hypothesis .pytest_cache .ruff_cache .mypy_cache .import_linter_cache demo demo-train playground site
	find lumiere_jax tests configs -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.run-time: requirements.txt setup.py
	@$(call install,the run-time packages (about 2 minutes),-r requirements.txt -e .,-e .)
	@touch $@

$(VENV)/.eval: $(VENV)/.run-time
	@$(call install,what evaluation needs,-c requirements-test.txt -e '.[eval]',-e '.[eval]')
	@touch $@

$(VENV)/.serve: $(VENV)/.run-time
	@$(call install,what serving needs,-c requirements-test.txt -e '.[serve]',-e '.[serve]')
	@touch $@

$(VENV)/.docs: $(VENV)/.run-time requirements-docs.txt
	@$(call install,what the documentation needs,-r requirements-docs.txt,-e '.[docs]')
	@touch $@

$(VENV)/.test: requirements.txt requirements-test.txt setup.py
	@$(call install,the run-time and test packages (about 4 minutes),-r requirements-test.txt -e .,-e '.[test]')
	@touch $(VENV)/.run-time $@

$(VENV)/.beam: requirements-beam.txt setup.py
	@$(call install,what the Beam pipeline needs (about 4 minutes),-r requirements-beam.txt -e . --no-deps,-e '.[beam]' pytest hypothesis)
	@touch $@

# $(call install,what,packages on Python 3.11,packages on any other). An interrupted call leaves
# $(INCOMPLETE) behind, and the next one then starts from an empty environment.
define install
set -e; \
if [ -e $(INCOMPLETE) ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
  if [ -z "$(PYTHON)" ]; then \
    echo "error: no Python 3.11 or newer with venv was found (tried: $(PYTHONS)); install one," \
      "or name it: make PYTHON=/path/to/python" >&2; exit 2; \
  fi; \
  touch $(INCOMPLETE); \
  echo "Creating $(VENV) with $$($(PYTHON) --version)"; \
  $(PYTHON) -m venv --clear $(VENV); \
fi; \
touch $(INCOMPLETE); \
echo "Installing $(1) into $(VENV)"; \
if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; \
then $(INSTALL) $(2); else $(INSTALL) $(3); fi; \
rm $(INCOMPLETE)
endef
