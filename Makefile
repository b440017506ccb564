# vmmd. The two commands: `make demo` (set up and run the main job) and
# `make test` (set up and pass the tests). `make help` lists the rest.

VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.vmmd-installed
# Debian's interpreter is built with PGO: 20 ms less to the first answer.
PYTHON ?= $(shell scripts/find-python)
NATIVE := $(shell find vmmd -name '*.c' ! -name _native.c) $(shell find vmmd -name '*.h')
TIER   := scripts/tier

.PHONY: help install demo test golden check test-pure test-loop test-kvm test-lab fuzz \
        test-long bench clean

help:
	@sed -n 's/^# \([a-z-]*\): /  \1\t/p' $(MAKEFILE_LIST)

# install: .venv with vmmd and firecracker in .venv/bin
install: $(STAMP)

$(STAMP): setup.cfg setup.py native_build.py requirements-dev.txt pyproject.toml $(NATIVE)
	@scripts/need-packages build
	@echo "using $(PYTHON) ($$($(PYTHON) --version))"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation \
	    --no-deps --config-settings editable_mode=compat --editable .
	@$(PY) -m compileall -q vmmd $(VENV)/lib
	@touch $@

# demo: boot Debian's kernel over the API, show everything, print the times
demo: install
	@scripts/need-packages lab
	@$(PY) -m demo

# test: check, then every tier, as CI runs it
test: install
	@$(TIER) check 2 $(MAKE) --no-print-directory check
	@$(TIER) pure 6 $(MAKE) --no-print-directory test-pure
	@$(TIER) loop 2 $(MAKE) --no-print-directory test-loop
	@$(TIER) kvm 5 $(MAKE) --no-print-directory test-kvm
	@$(TIER) fuzz 1 $(MAKE) --no-print-directory fuzz
	@$(TIER) lab 20 $(MAKE) --no-print-directory test-lab
	@$(TIER) --summary

# golden: golden files of records that have none yet; those that are there stay
golden: install
	@$(PY) -m tests.helpers.golden

# check: ruff, mypy --strict, gcc -Wall -Wextra -Werror, the rules of the layers
check: install
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/mypy --no-error-summary
	@for f in $$(find vmmd -name '*.c' ! -name _native.c); do \
	    gcc -std=gnu11 -O2 -Wall -Wextra -Werror -fsyntax-only -I. $$f || exit 1; done

# test-pure: no fd, Hypothesis over every device, codec and table
test-pure: install
	@scripts/need-packages test
	@$(PY) -m pytest -q -m "not loop and not kvm and not lab" tests

# test-loop: trio with real eventfds, sockets and files
test-loop: install
	@scripts/need-packages test
	@$(PY) -m pytest -q -m loop tests

# test-kvm: flat guests on this machine's /dev/kvm
test-kvm: install
	@scripts/need-packages kvm
	@$(PY) -m pytest -q -m kvm tests

# test-lab: stock Debian kernels as guests, in an emulated KVM host
test-lab: install
	@scripts/need-packages lab
	@$(PY) -m lab.images >/dev/null
	@$(PY) -m compileall -q vmmd tests lab
	@$(PY) -m pytest -q -m lab tests/test_lab_run.py
	@lab/run --images --timeout 2400 -- $(PY) -m pytest -q -m lab tests/lab

# fuzz: a minute of libFuzzer over the C data path
fuzz: install
	@scripts/need-packages test
	@if [ -d fuzz ]; then fuzz/run 20; fi

# test-long: 2,000 examples everywhere, long fuzzing, soak
test-long: install
	@VMMD_HYPOTHESIS=long VMMD_KICKS=1000000 VMMD_FORCED_KICKS=20000 \
	    VMMD_POSTS=1000000 $(PY) -m pytest -q --timeout 7200 -m "not lab" tests
	@fuzz/run 600

# bench: ours, C twin, ratio, pairs, spread
bench: install
	@$(PY) -m bench

# clean: forget the virtual environment and everything built
clean:
	rm -rf $(VENV) build dist *.egg-info vmmd/_native.c vmmd/*.so .fuzz
