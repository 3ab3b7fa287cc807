# Every target sets up what it needs; run `make` for the list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# With TORCH_BACKEND=cpu (auto, cu126, …) uv fetches the torch made for that, and a later make keeps to
# it. Without, pip fetches what its index has, which for Linux on x86 comes with CUDA.
TORCH_BACKEND ?= $(patsubst $(VENV)/torch-%,%,$(wildcard $(VENV)/torch-*))
ifneq ($(TORCH_BACKEND),)
TORCH := $(VENV)/torch-$(TORCH_BACKEND)
endif

# the tests are independent of each other; more processes than that gain little and take memory
SIDE_BY_SIDE := -n auto --maxprocesses 4

.PHONY: help install demo demo-zh demo-picture guide notebook commands site test test-interop \
	test-ray test-faults fuzz audit check bench bench-litgpt pictures format dist check-dist clean

help:
	@echo "make demo       train a small model on Shakespeare (3 to 6 minutes on 2 cores)"
	@echo "make demo-zh    the same on Chinese poems"
	@echo "make test       install the development extras and run all tests"
	@echo "make test-interop  TRL, PEFT, lm-evaluation-harness and llama.cpp on our models"
	@echo "make test-ray   workers and runs on Ray, started on this machine (about 2 minutes)"
	@echo "make check      ruff, mypy and all tests"
	@echo "make guide      run docs/guide again: its output and pictures (about 10 minutes)"
	@echo "make notebook   run docs/notebook in Jupyter, with a small budget"
	@echo "make site       the documentation as a site with search, in build/site/html"
	@echo "make dist       a wheel and a source archive, in dist/"
	@echo "make check-dist  both checked, and the wheel run alone in a new environment"
	@echo "make pictures   the pictures of jielong ui in docs/pictures, of runs/demo (needs Chromium)"
	@echo "make bench      short benchmarks (about 15 minutes); bench-NAME runs one whole"
	@echo
	@echo "TORCH_BACKEND=cpu make …   fetches a torch for CPUs alone, with uv (also auto, cu126, …)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "jielong needs Python 3.11 or newer; this is `$(PYTHON) --version`." \
		"Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# reinstalled, since a torch for another backend has the version asked for too
$(VENV)/torch-%: constraints.txt | $(BIN)/python
	@command -v uv >/dev/null || { echo "TORCH_BACKEND is for uv, which is not here: get it with" \
		"pip install uv, or leave TORCH_BACKEND out"; exit 1; }
	@echo "fetching torch for $* with uv (cpu: 0.2 GB; with CUDA: about 3 GB) …"
	@uv pip install --quiet --python $(BIN)/python --torch-backend $* \
		--reinstall-package torch -c constraints.txt torch
	@rm -f $(VENV)/torch-*
	@touch $@

$(VENV)/installed: pyproject.toml constraints.txt $(TORCH) | $(BIN)/python
	@echo "installing into $(VENV) (some minutes the first time) …"
	@test -n "$(TORCH)" || $(BIN)/python -c 'import torch' 2>/dev/null || echo "(torch is the large" \
		"part: as a rule 2.7 GB for Linux on x86, with CUDA, and 0.1 GB for macOS; for a CPU 0.2 GB" \
		"will do: TORCH_BACKEND=cpu make $(MAKECMDGOALS))"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[clean,fast,plots]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "installing the development extras …"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/installed

demo: $(VENV)/installed
	@$(BIN)/jielong pretrain --data-path sample:shakespeare --out-dir runs/demo \
		--minutes 4 --sample-prompts "To be, or not to be" "Enter the King" "My love is"

demo-zh: $(VENV)/installed
	@$(BIN)/jielong pretrain --preset small --data-path sample:poems --out-dir runs/demo-zh \
		--tokenizer-sample-bytes 4194304 --validation-fraction 0.003 --tokens 2e6 \
		--sample-prompts "《春曉》孟浩然" "《靜夜思》李白" "《念奴嬌》蘇軾"

test: $(VENV)/installed-dev
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-interop: $(VENV)/installed-dev
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,interop]'
	@$(BIN)/python -m pytest -m interop

test-ray: $(VENV)/installed-dev
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,ray]'
	@$(BIN)/python -m pytest tests/data/test_prepare_on_ray.py tests/cleaning/test_clean_on_ray.py \
		tests/training/test_pretrain_on_ray.py

test-faults: $(VENV)/installed-dev
	@PYTHONPATH=tests $(BIN)/python tests/faults/kill_points.py --points 200
	@PYTHONPATH=tests $(BIN)/python tests/faults/restarts.py --tries 20
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
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE)

guide: $(VENV)/installed
	@OMP_NUM_THREADS=1 $(BIN)/python docs/guide/make.py
	@OMP_NUM_THREADS=1 $(BIN)/python docs/guide/wrong.py

notebook: $(VENV)/installed-dev
	@$(BIN)/python -m pytest tests/test_notebook.py

demo-picture: $(VENV)/installed-docs
	@$(BIN)/python docs/pictures/demo.py en
	@$(BIN)/python docs/pictures/demo.py zh

commands: $(VENV)/installed
	@$(BIN)/python docs/commands/make.py

$(VENV)/installed-docs: $(VENV)/installed
	@echo "installing what makes the documentation …"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

site: $(VENV)/installed-docs
	@$(BIN)/python docs/site/make.py

$(VENV)/installed-bench: $(VENV)/installed-dev
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

bench: $(VENV)/installed-bench
	@cd benchmarks && for corpus in poems shakespeare; do \
		../$(BIN)/python time_to_loss.py --corpus $$corpus --short; done
	@cd benchmarks && for name in throughput beside prepare own_text; do ../$(BIN)/python $$name.py --short; done
	@cd benchmarks && for name in memory generate serve; do ../$(BIN)/python $$name.py; done

# litgpt's needs must not decide what we test with; only the pin of torch is ours
.venv-litgpt/bin/litgpt:
	@$(PYTHON) -m venv .venv-litgpt && .venv-litgpt/bin/pip install --quiet \
		--disable-pip-version-check "$$(grep ^torch== constraints.txt)" -e . matplotlib litgpt==0.5.13

bench-litgpt: $(VENV)/installed-bench .venv-litgpt/bin/litgpt
	@cd benchmarks && ../$(BIN)/python time_to_loss.py --contenders jielong litgpt

bench-%: $(VENV)/installed-bench
	@cd benchmarks && ../$(BIN)/python $(subst -,_,$*).py

# of the run that RUN names
RUN ?= runs/demo
pictures: $(VENV)/installed-dev
	@JIELONG_PICTURES=docs/pictures JIELONG_RUN=$(RUN) $(BIN)/python -m pytest -q -rs \
		tests/ui/test_in_browser.py -k pictures

dist: $(VENV)/installed-dev
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation

check-dist: dist
	@$(BIN)/python tests/release/check.py dist

format: $(VENV)/installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-audit .venv-litgpt runs
