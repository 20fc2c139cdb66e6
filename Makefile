# `make serve` and `make test` do all their own set-up; `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help setup serve test site update-outputs lint bench lock clean
BIN := .venv/bin
PYTHON ?= python3
HOST ?= 127.0.0.1:8000

help:            ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1 ~/' | column -t -s '~'

setup:           ## Make .venv from requirements.lock (a no-op when it is up to date).
	@PYTHON=$(PYTHON) tools/setup.sh

lock:            ## Resolve requirements.lock again, for Python 3.11 and newer.
	@test -x $(BIN)/uv || $(MAKE) setup
	$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --group dev pyproject.toml -o requirements.lock
