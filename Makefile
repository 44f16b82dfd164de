# `make` alone lists what there is. Everything runs from .venv, which the first target builds.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# Where there is no GPU, what only a GPU needs is not installed; DEVICE=cpu or cuda says otherwise.
ifneq ($(origin DEVICE),command line)
DEVICE := $(shell if [ -e /dev/nvidiactl ] || command -v nvidia-smi >/dev/null 2>&1; then echo cuda; else echo cpu; fi)
else
ifeq ($(filter $(DEVICE),cpu cuda),)
$(error DEVICE=$(DEVICE) is neither cpu nor cuda)
endif
ifneq ($(DEVICE),$(shell cat $(STAMP) 2>/dev/null))
$(STAMP): another-device
endif
endif
# The first that is there; PYTHONS=python3.13 chooses another one, for a new .venv.
PYTHONS := python3.11 python3 python3.12 python3.13
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
EXCLUDES := $(if $(filter cpu,$(DEVICE)),--excludes requirements-cpu.excludes)
export UV_PYTHON_DOWNLOADS := never
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
# Threads that wait must not spin on cores that others need (see airflow_environment).
export OMP_WAIT_POLICY ?= PASSIVE
# Or each process would compile the code it imports once more.
unexport PYTHONDONTWRITEBYTECODE

# A file's tests share what they set up once; the longest files come first (tests/conftest.py).
SIDE_BY_SIDE := --dist loadfile --no-loadscope-reorder
# Tests with servers wait a fifth of their time: one worker more than there are cores uses it.
WORKERS := $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 4 ? cores + 1 : 4)))
# The files of the tests, up to 3 GB, lie in memory where there is plenty, unless TMPDIR says where:
# commits then wait for no disk. Servers of other users pass through the folder.
PLENTY := awk '/^MemAvailable/ {exit ($$2 < 12000000)}' /proc/meminfo && [ $$(df --output=avail /dev/shm | tail -1) -gt 8000000 ]
IN_MEMORY = if [ -z "$${TMPDIR:-}" ] && { $(PLENTY); } 2>/dev/null; then \
	export TMPDIR=$$(mktemp -d /dev/shm/tests-XXXXXX); chmod 711 $$TMPDIR; trap 'rm -rf "$$TMPDIR"' EXIT; fi

.PHONY: another-device help setup demo up cluster down status login service test test-fast lint bench tour audit lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## build .venv from the lock file (DEVICE=cpu or cuda; by itself it looks for a GPU)
	@echo "$(VENV) is ready"

demo: $(STAMP) ## train on the sample shoes, tag new pictures, show the result
	@$(PYTHON) -m shoetagger.demo

up: $(STAMP) ## start Airflow and MLflow (AIRFLOW_PORT=8080 MLFLOW_PORT=5000)
	@$(PYTHON) -m shoetagger.ops.servers up

cluster: $(STAMP) ## start them for several machines: with PostgreSQL, Redis, S3 and two workers
	@$(PYTHON) -m shoetagger.ops.servers cluster

down: ## stop what `make up` or `make cluster` started
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m shoetagger.ops.servers down; else echo "nothing is installed"; fi

status: $(STAMP) ## say which servers run
	@$(PYTHON) -m shoetagger.ops.servers status

login: $(STAMP) ## show addresses, users and passwords
	@$(PYTHON) -m shoetagger.ops.servers login

service: $(STAMP) ## write a systemd unit that starts the servers after a reboot
	@$(PYTHON) -m shoetagger.ops.servers service

test: lint ## lint, then all tests
	@$(IN_MEMORY); $(PYTHON) -m pytest -n $(WORKERS) $(SIDE_BY_SIDE)

test-fast: $(STAMP) ## the tests that take seconds each
	@$(IN_MEMORY); $(PYTHON) -m pytest -n logical --maxprocesses 4 $(SIDE_BY_SIDE) -m "not slow"

lint: $(STAMP) ## ruff, mypy, and who may import whom
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo

bench: $(STAMP) ## compare the speed with what people do today (PICTURES=folder)
	@$(PYTHON) -m benchmarks $(if $(PICTURES),--pictures "$(PICTURES)")

tour: $(STAMP) ## walk from a clone to the desk in a browser; write docs/TOUR.md and its pictures
	@$(PYTHON) -m tour

audit: $(STAMP) ## look the locked versions up in the list of known vulnerabilities
	@$(VENV)/bin/uv tool run --python $(PYTHON) pip-audit --disable-pip --require-hashes -r requirements.lock

EXTRA_RAY := import tomllib; extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; print('\n'.join(extras['ray']))

lock: $(STAMP) ## bring requirements.lock up to date with pyproject.toml, changing no other version
	@$(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  --extra cluster --extra detector --extra dev --extra metrics --extra s3 --extra timm --python-version 3.11 pyproject.toml --output-file requirements.lock
	@$(PYTHON) -c "$(EXTRA_RAY)" | $(VENV)/bin/uv pip compile --quiet --universal --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --python-version 3.11 --constraint requirements.lock \
	  --output-file requirements-ray.lock -

# A second `make` finds the stamp and installs nothing, until the lock or the package changes.
# An interrupted installation leaves no stamp and is taken up again.
$(STAMP): requirements.lock pyproject.toml
	@if command -v uv >/dev/null 2>&1; then uv=uv; else uv=$(VENV)/bin/uv; fi; \
	python=; \
	for name in $(PYTHONS); do \
	  if "$$name" -c '$(SUPPORTED)' 2>/dev/null; then python=$$(command -v "$$name"); break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11, 3.12 or 3.13 is missing: on Debian, apt-get install python3" >&2; exit 1; \
	fi; \
	if ! $(PYTHON) -c '$(SUPPORTED)' 2>/dev/null; then \
	  rm -rf $(VENV); \
	  if [ "$$uv" = uv ]; then uv venv --quiet --python "$$python" $(VENV); \
	  elif ! "$$python" -c 'import ensurepip' 2>/dev/null; then \
	    echo "Python's venv module is missing: on Debian, apt-get install python3-venv" >&2; exit 1; \
	  else "$$python" -m venv $(VENV); fi; \
	fi; \
	if [ "$$uv" != uv ] && [ ! -x "$$uv" ]; then \
	  echo "installing uv"; \
	  awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > $(VENV)/uv.lock; \
	  $(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock; \
	fi; \
	echo "installing the locked packages for DEVICE=$(DEVICE) into $(VENV) (some minutes and 6 GB the first time)"; \
	"$$uv" pip install --python $(PYTHON) --require-hashes $(EXCLUDES) -r requirements.lock; \
	if [ $(DEVICE) = cpu ]; then "$$uv" pip uninstall --quiet --python $(PYTHON) -r requirements-cpu.excludes || true; fi; \
	"$$uv" pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .; \
	echo "compiling them to byte code: a process that imports torch starts three times as fast"; \
	$(PYTHON) -m compileall -qq -j 0 $(VENV)/lib || true # some are for other Pythons
	@echo $(DEVICE) > $@
