# Everything happens in .venv, made on first use from a Python 3.11 or later: `make demo PYTHON=/path/to/python` chooses
# it. Each target's line below is what `make help` prints.

VENV = .venv
BIN = $(VENV)/bin
PYTHON =
PYTHONS = python3 python python3.14 python3.13 python3.12 python3.11
NEW_ENOUGH = -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Environments of their own: `make test` needs neither PyTorch, which is large, nor Sphinx. On Linux the usual index
# has builds with CUDA, of gigabytes; the version +cpu exists only without.
WITNESS = .venv-witness
BENCH = .venv-bench
DOCS = .venv-docs
KERNELS = .venv-kernels
RELEASE = .venv-release
LOWEST = .venv-lowest
TORCH = torch==2.13.0$(if $(filter Linux,$(shell uname)),+cpu)

# What another Python, or the oldest dependencies, would break first.
FAST = tests/tensor tests/optim tests/data tests/language tests/training tests/test_package.py tests/test_ways_in.py
PYTEST = $(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 8 --dist worksteal

# What a shell may have set for other projects must not leak into this one.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV

.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help demo docs examples gallery test test-numba test-thorough test-pythons test-lowest release-check kernel-test browser-test browser-times stand-in witness mutants mutation-report lint bench gpu-check clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo ## train a character LSTM for a minute into runs/demo/
	@$(BIN)/tinygrad-rnn train --out runs/demo --replace

examples: $(VENV)/.examples ## every example for seconds, beside its baseline
	@$(BIN)/python -m examples --quick

gallery: $(VENV)/.examples ## every example in full, a quarter of an hour; docs/gallery.md
	@$(BIN)/python -m examples --page docs/gallery.md

test: $(VENV)/.test ## all tests and doctests; under four minutes
	@$(PYTEST)

test-numba: $(VENV)/.numba ## the tests of layers and optimisers, with numba's kernels
	@$(PYTEST) --numba tests/nn tests/optim tests/compiler tests/tensor/test_indexing.py

test-thorough: $(VENV)/.test ## all tests, with many more Hypothesis examples
	@HYPOTHESIS_PROFILE=thorough $(PYTEST)

test-pythons: ## a part of the tests on every other Python that is here
	@for version in 3.12 3.13 3.14; do \
		! "python$$version" -c "" 2>/dev/null || \
		$(MAKE) --no-print-directory test-fast VENV=.venv-$$version PYTHON="python$$version" || exit; \
	done

test-lowest: ## the same part with the oldest dependencies that are allowed
	@$(MAKE) --no-print-directory $(LOWEST)/.lowest VENV=$(LOWEST)
	@$(MAKE) --no-print-directory test-fast VENV=$(LOWEST)

test-fast: $(VENV)/.test
	@HYPOTHESIS_PROFILE=fast $(PYTEST) $(FAST)

release-check: ## what would be released: built, checked, alone in a bare environment
	@$(MAKE) --no-print-directory VENV=$(RELEASE) $(RELEASE)/.release
	@.ci/release-check $(RELEASE)

kernel-test: ## the CUDA kernels, by NVRTC and by a C++ compiler, without a GPU
	@$(MAKE) --no-print-directory VENV=$(KERNELS) $(KERNELS)/.test
	@$(MAKE) --no-print-directory VENV=$(KERNELS) $(KERNELS)/.nvrtc 2>/dev/null || \
		echo "make: no NVRTC for this machine in the package index: its tests are skipped"
	@$(KERNELS)/bin/python -m tests.standin kernels

browser-test: $(VENV)/.browser ## the page of `tinygrad-rnn explore` in a headless Chromium
	@$(BIN)/python -m pytest -q tests/browser

browser-times: $(VENV)/.browser ## how soon that page answers, on a quiet machine
	@$(BIN)/python -m pytest -q -s tests/browser/times.py

stand-in: $(VENV)/.examples $(VENV)/.test ## what needs a GPU, on a stand-in for CuPy, four minutes
	@$(BIN)/python -m tests.standin

witness: ## PyTorch's sample inputs judge our ops and layers
	@$(MAKE) --no-print-directory VENV=$(WITNESS) $(WITNESS)/.witness
	@$(WITNESS)/bin/python -m tests.witness.report

mutants: $(VENV)/.test ## is each of the usual bugs noticed? under 30 minutes
	@$(BIN)/python -m tests.mutants

mutation-report: $(VENV)/.mutation ## mutate all derivatives, an hour; docs/mutation-report.md
	@$(BIN)/python -m tests.mutants.report

lint: $(VENV)/.test ## ruff, mypy --strict, the code lines of the core
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m tests.code_lines tinygrad_rnn/tensor

docs: ## the course, the pages and the API as a site, docs/_build/html
	@$(MAKE) --silent VENV=$(DOCS) $(DOCS)/.docs
	@rm -rf docs/_build/html
	@$(DOCS)/bin/sphinx-build -W --keep-going -q -j auto -d docs/_build/doctrees docs docs/_build/html
	@$(DOCS)/bin/python -m tests.site docs/_build/html

bench: ## beside the peers, 15 minutes; docs/performance.md
	@$(MAKE) --no-print-directory VENV=$(BENCH) $(BENCH)/.bench
	@$(MAKE) --no-print-directory VENV=$(BENCH) $(BENCH)/.torch 2>/dev/null || \
		echo "make: no $(TORCH) in the package index, so PyTorch is left out; CONTRIBUTING.md says what to do"
	@$(BENCH)/bin/python -m benchmarks.report --page docs/performance.md

gpu-check: ## what needs a GPU, by the Python and the packages of the machine
	@$(or $(PYTHON),python3) -m benchmarks.gpu

clean: ## remove .venv*, caches and build outputs; runs/ stays
	rm -rf $(VENV) .venv-* docs/_build docs/api build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@for python in $(if $(PYTHON),"$(PYTHON)",$(PYTHONS)); do \
		if "$$python" $(NEW_ENOUGH) 2>/dev/null; then \
			echo "Making $(VENV) with $$("$$python" --version), $$(command -v "$$python")"; \
			"$$python" -m venv $(VENV) || exit; \
			$(BIN)/python $(NEW_ENOUGH) || { echo "make: $(VENV) holds an older Python: make clean" >&2; exit 1; }; \
			touch $@; exit; \
		fi; \
	done; \
	echo "make: this project needs Python 3.11 or later, not $$("$(or $(PYTHON),python3)" --version 2>&1)." >&2; \
	echo "      Where it has another name: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python" >&2; exit 1

$(VENV)/.demo: pyproject.toml $(VENV)/.python
	@echo "Installing the project with its plots and numba into $(VENV)"
	@$(PIP) --editable '.[viz,numba]' && touch $@

$(VENV)/.examples: pyproject.toml $(VENV)/.python
	@echo "Installing the project with what its examples need into $(VENV)"
	@$(PIP) --editable '.[viz,data,numba]' && touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.python
	@echo "Installing the project with its tests, and what its examples need, into $(VENV)"
	@$(PIP) --editable '.[viz,data,test]' && touch $@

$(VENV)/.lowest: pyproject.toml $(VENV)/.python
	@echo "Installing the oldest dependencies that are allowed into $(VENV)"
	@$(PIP) --editable . $$($(BIN)/python -m tests.lowest) && touch $@ $(VENV)/.test

$(VENV)/.release: pyproject.toml $(VENV)/.python
	@echo "Installing what checks a release into $(VENV)"
	@$(PIP) --upgrade 'pip>=25.1' && $(PIP) --group release && touch $@

$(VENV)/.numba: $(VENV)/.test
	@echo "Installing numba into $(VENV)"
	@$(PIP) --editable '.[numba]' && touch $@

$(VENV)/.nvrtc: $(VENV)/.test
	@echo "Installing NVRTC, the compiler of CUDA, into $(VENV)"
	@$(PIP) --editable '.[kernels]' && touch $@

$(VENV)/.browser: $(VENV)/.test
	@echo "Installing what drives a browser into $(VENV)"
	@$(PIP) --editable '.[browser]' && touch $@

$(VENV)/.mutation: $(VENV)/.numba
	@echo "Installing what mutates into $(VENV)"
	@$(PIP) --editable '.[mutation]' && touch $@

$(VENV)/.docs: pyproject.toml $(VENV)/.python
	@echo "Installing the project and what builds its site into $(VENV)"
	@$(PIP) --editable '.[viz,docs]' && touch $@

$(VENV)/.bench: pyproject.toml $(VENV)/.python
	@echo "Installing the project, and beside it JAX, MyGrad and HIPS autograd, into $(VENV)"
	@$(PIP) --editable '.[viz,numba,bench]' && touch $@

$(VENV)/.torch: $(VENV)/.python
	@echo "Installing $(TORCH) into $(VENV)"
	@$(PIP) '$(TORCH)' || { echo "make: no $(TORCH) in the package index; CONTRIBUTING.md says what to do" >&2; exit 1; }
	@touch $@

$(VENV)/.witness: pyproject.toml $(VENV)/.torch
	@echo "Installing the project with its witness into $(VENV)"
	@$(PIP) --editable '.[test,witness]' && touch $@
