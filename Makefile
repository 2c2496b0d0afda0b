# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
# An inherited virtual environment or PYTHONPATH would mix its packages with ours.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

BIN := .venv/bin
STAMP := .venv/.kilonova-setup
INVENTORY ?= inventory/lab
ARGS ?=
PLAYBOOK := $(BIN)/ansible-playbook -i $(INVENTORY) $(ARGS)
SCENARIOS ?= default multihost
KEEP ?=
KILLS ?= 20
SEED ?= 1
ROUNDS ?= 3
ONLY ?=
# The interpreter that .venv is made from; found by itself where empty.
PYTHON ?=
# A make that already has a job server shares it; a plain one starts its own.
PARALLEL = $(MAKE) $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc)) --keep-going --output-sync=target
# The lab is made of containers, network namespaces and mounts. Other inventories' hosts need no root here.
NEED_ROOT = [ "$(INVENTORY)" != inventory/lab ] || [ "$$(id -u)" = 0 ] || { printf '%s\n' \
	"make $@: the lab is made of containers, network namespaces and mounts, which only root may create." \
	"Run it as root (sudo make $@), or deploy to hosts of your own: make $@ INVENTORY=inventory/mysite" >&2; exit 1; }

.PHONY: help
help: ## This list
	@echo "make TARGET [INVENTORY=inventory/mysite] [ARGS='--diff -v']"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# ---------------------------------------------------------------- what everything needs
$(STAMP): requirements.txt requirements.yml requirements-collections.txt tools/setup tools/install_collections.py
	@PYTHON="$(PYTHON)" tools/setup

.PHONY: setup
setup: $(STAMP) ## Make .venv and fetch the Ansible collections
	@:

.PHONY: pins
pins: ## Resolve requirements.in into requirements.txt
	@tools/pins

# ---------------------------------------------------------------- the cloud
.PHONY: cloud
cloud: ## Build the lab machine and the cloud on it, boot my_vm, check all of it
	@$(NEED_ROOT)
	@$(MAKE) setup
	@$(PLAYBOOK) site.yml

.PHONY: destroy
destroy: ## Remove the lab: machine, network, disks
	@$(NEED_ROOT)
	@$(MAKE) setup
	@$(PLAYBOOK) playbooks/destroy.yml

.PHONY: verify
verify: $(STAMP) ## Check the running cloud as its operator sees it
	@$(PLAYBOOK) playbooks/verify.yml

.PHONY: status
status: $(STAMP) ## Show what runs where, and what does not
	@$(PLAYBOOK) playbooks/status.yml

.PHONY: drift
drift: $(STAMP) ## List what differs from the inventory (exit code 2), changing nothing
	@$(PLAYBOOK) playbooks/drift.yml --check

.PHONY: bench
bench: ## Compare site.yml with a deployment by hand, and with its next runs (ROUNDS=3 ONLY=a,b,c,d,e)
	@$(NEED_ROOT)
	@$(MAKE) setup
	@$(BIN)/python -m tools.bench --rounds $(ROUNDS) --only '$(ONLY)' --args '$(ARGS)' $(if $(KEEP),--keep) \
		$(if $(filter file,$(origin INVENTORY)),,--inventory $(INVENTORY))

.PHONY: bench-scale
bench-scale: ## Measure what grows with the number of computes, on lab machines, into .cache/bench-scale
	@[ "$$(id -u)" = 0 ] || { echo "make bench-scale: its hosts are lab machines, which only root may create." >&2; exit 1; }
	@$(MAKE) setup
	@$(BIN)/python -m tools.bench_scale $(ARGS)

# ---------------------------------------------------------------- checks and tests
CHECKS := check-yaml check-ansible check-python check-types check-unit

.PHONY: check $(CHECKS)
check: $(STAMP) ## Lint, types, unit and rendering tests (no root, no lab; under 3 minutes)
	@$(PARALLEL) $(CHECKS)
	@echo "check: passed"

check-yaml: $(STAMP)
	@$(BIN)/yamllint --strict .

check-ansible: $(STAMP)
	@$(BIN)/ansible-lint --offline --strict -q

check-python: $(STAMP)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --diff .

check-types: $(STAMP)
	@$(BIN)/mypy --no-error-summary

check-unit: $(STAMP)
	@$(BIN)/python -m pytest --quiet tests/unit tests/render

.PHONY: test
test: ## check, then Molecule's SCENARIOS, each on lab machines of its own (KEEP=1 leaves them)
	@[ "$$(id -u)" = 0 ] || { echo "make test: Molecule's machine is a lab, which only root may create. Run it as root" \
		"(sudo make test); make check needs no root." >&2; exit 1; }
	@$(MAKE) setup
	@$(MAKE) check
	@for scenario in $(SCENARIOS); do KEEP=$(KEEP) tools/molecule-test "$$scenario" || exit; done

.PHONY: chaos
chaos: ## Kill site.yml KILLS=20 times at moments drawn from SEED=1, and see that the next run always converges
	@[ "$$(id -u)" = 0 ] || { echo "make chaos: it kills a lab of its own, which only root may create. Run it as root" \
		"(sudo make chaos)." >&2; exit 1; }
	@$(MAKE) setup
	@$(BIN)/python tools/chaos.py --kills $(KILLS) --seed $(SEED) $(ARGS)

.PHONY: format
format: $(STAMP) ## Let ruff correct what it can
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

.PHONY: reference
reference: $(STAMP) ## Write docs/reference: roles, modules, filters
	@$(BIN)/python -m tools.role_reference
	@$(BIN)/python -m tools.module_reference

.PHONY: clean
clean: ## Remove .venv and .cache (run make destroy first)
	@rm -rf .venv .cache
