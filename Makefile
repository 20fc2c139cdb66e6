# `make serve` and `make test` do all their own set-up; `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help setup serve test test-all test-docs test-browser site update-outputs recording wheel release lint bench accelerator chaos faults versions lock clean
BIN := .venv/bin
HOST ?= 127.0.0.1:8000

help:            ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1 ~/' | column -t -s '~'

setup:           ## Make .venv from requirements.lock (a no-op when it is up to date).
	@PYTHON='$(PYTHON)' tools/setup.sh

lock: setup      ## Resolve requirements.lock again, to the newest releases.
	tools/lock.sh

# The theme prints a notice about its successor on every start.
export NO_MKDOCS_2_WARNING := 1

serve: setup     ## Serve the site with live reload, at HOST (default 127.0.0.1:8000).
	@echo "The site will be at http://$(HOST)/ once it is built; Ctrl-C ends." >&2
	$(BIN)/python -m tools.serve $(HOST)

# Dozens of processes are started, and each imports JAX: from source that takes twice as long.
unexport PYTHONDONTWRITEBYTECODE

# Tests, pages and the processes they start compile each program once, and find it here later; a
# second run takes half the CPU time. It changes no bits: digests of trainings are the same with the
# cache and without, at 1 and 2 threads, and those of 67 operations at 2 (jax 0.12.0.1).
# Only here: elsewhere nothing is set. `make clean` empties it; CACHE= runs the tests without.
CACHE ?= $(CURDIR)/build/jax-cache
test test-all test-docs test-browser update-outputs chaos: export JAX_COMPILATION_CACHE_DIR := $(CACHE)
test test-all test-docs test-browser update-outputs chaos: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0
test test-all test-docs test-browser update-outputs chaos: export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES := -1

# The second line looks at the built site and needs the record that the first one leaves.
test: setup      ## Run the tests: package, pages, README, docstrings, guards, built site.
	$(BIN)/pytest -m "not long" -n 2 --dist worksteal $(ORDER) docs README.md reproducibility tests \
	  --ignore tests/site --ignore tests/browser
	$(BIN)/pytest -m "not long" -n 2 --dist loadgroup tests/site

LONG ?= long
test-all: test   ## Run the long tests as well: every layout, kills, every notebook and program.
	$(BIN)/pytest -m "$(LONG)" -n 3 --dist worksteal $(ORDER) tests --ignore tests/browser

test-docs: setup ## Run the code blocks of the pages and the docstring examples only.
	$(BIN)/pytest -n 2 docs README.md reproducibility

# What the browser tests take from npm, by the hashes of its lock.
NPM := tests/browser/node_modules/.package-lock.json
$(NPM): tests/browser/package-lock.json
	npm ci --prefix tests/browser --ignore-scripts --no-audit --no-fund --loglevel error

# Three workers, here and in `make test-all`: they wait for processes and for Chromium a third of
# the time. Needs Chromium and Node.js (Debian's packages chromium, nodejs and npm).
test-browser: setup $(NPM) ## Look at every page in Chromium: errors, access, search, size, speed.
	$(BIN)/pytest -n 3 --dist worksteal tests/browser

update-outputs: setup ## Rewrite every output that pages show to what their blocks print.
	$(BIN)/pytest -n 2 docs README.md tests/test_sabotage.py --update-outputs

site: setup      ## Build the site into site/, strictly.
	$(BIN)/mkdocs build --strict

wheel: setup      ## Build dist/reproducibility-VERSION-py3-none-any.whl, to install it elsewhere.
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist
	@ls dist/*.whl

release: setup    ## Build the wheel and the source archive of a release into dist/.
	rm -rf dist
	$(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir dist
	@ls dist

FAULTS ?= --table docs/reference/planted_faults.md
faults: setup    ## Plant faults in scripts, see whether `twice` and `interrupt` name them: hours.
	@tools/faults.sh
	$(BIN)/python -m tests.faults $(FAULTS)
	$(BIN)/python -m tests.faults.states --page docs/reference/kinds_of_state.md

versions: setup  ## Try the recorder in each version of Python and JAX that is here: an hour.
	@. tools/index.sh && $(BIN)/python -m tests.versions $(VERSIONS)

recording: setup ## Record the first screen of the home page again, and draw it.
	$(BIN)/python -m tools.session

lint: setup      ## Check format, lint, types and spelling.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell

bench: setup     ## Measure the speed of the package; prints a table of ratios.
	$(BIN)/python -m tests.benchmarks

# A machine with an accelerator has a Python with JAX, and often no network: with PYTHON there is no
# set-up, and what that Python lacks is left out.
accelerator: $(if $(PYTHON),,setup) ## Measure on the device that is here, in 8 minutes; PYTHON has JAX.
	$(or $(PYTHON),$(BIN)/python) -m tools.accelerator $(ACCELERATOR)

chaos: setup     ## Kill runs at random moments and damage their files at random places: minutes.
	$(BIN)/python -m tests.chaos $(CHAOS)

clean:           ## Remove what was built; .venv stays.
	rm -rf site build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
