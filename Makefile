# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
# An inherited virtual environment or PYTHONPATH would mix its packages with those of .venv.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

BIN := .venv/bin
STAMP := .venv/.kilonova-setup
DEV_STAMP := .cache/collections/.kilonova-setup-dev
# The lab with a store: STORAGE=ceph.
STORAGE ?=
LAB := inventory/lab$(STORAGE:%=-%)
INVENTORY ?= $(LAB)
ARGS ?=
PLAYBOOK := $(BIN)/ansible-playbook -i $(INVENTORY) $(ARGS)
SCENARIOS ?= default multihost storage
KEEP ?=
# Scenarios that run side by side.
SCENARIO_JOBS ?= 2
KILLS ?= 20
FAULTS ?= 20
SEED ?= 1
ROUNDS ?= 3
ONLY ?=
# The interpreter for .venv; tools/setup finds one where this is empty.
PYTHON ?=
# Share the job server of a calling make, or start one.
PARALLEL = $(MAKE) $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc)) --keep-going --output-sync=target
NEED_ROOT = [ "$$(id -u)" = 0 ] || { printf '%s\n' \
	"make $@ manages lab machines (containers, network namespaces, mounts), which needs root." \
	"Run it as root: sudo make $@" $(1) >&2; exit 1; }
NEED_ROOT_FOR_LAB = [ "$(INVENTORY)" != $(LAB) ] || \
	$(call NEED_ROOT,"or deploy to hosts of your own: make $@ INVENTORY=inventory/mysite")

.PHONY: help
help: ## Show this list
	@echo "Usage: make TARGET [INVENTORY=inventory/mysite|STORAGE=ceph] [ARGS='--diff -v']"
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

##@ The cloud
.PHONY: cloud
cloud: ## Deploy with site.yml; on the default inventory, create the lab machine first
	@$(NEED_ROOT_FOR_LAB)
	@$(MAKE) setup
	@$(PLAYBOOK) site.yml

.PHONY: destroy
destroy: ## Remove the lab: machines, network, disks
	@$(NEED_ROOT_FOR_LAB)
	@$(MAKE) setup
	@$(PLAYBOOK) playbooks/destroy.yml

.PHONY: verify
verify: $(STAMP) ## Check the running cloud down to a guest
	@$(PLAYBOOK) playbooks/verify.yml

.PHONY: status
status: $(STAMP) ## Show services, agents, hypervisors and servers
	@$(PLAYBOOK) playbooks/status.yml

.PHONY: drift
drift: $(STAMP) ## List differences from the inventory without changing anything
	@$(PLAYBOOK) playbooks/drift.yml --check

##@ Setup
$(STAMP): requirements.txt tools/setup
	@PYTHON="$(PYTHON)" tools/setup

# The stamp is in .cache, and a removed .venv makes it void.
$(DEV_STAMP): requirements.txt requirements-dev.txt requirements.yml requirements-collections.txt tools/setup \
		tools/install_collections.py $(if $(wildcard $(STAMP)),,no-environment)
	@PYTHON="$(PYTHON)" tools/setup dev

.PHONY: no-environment
no-environment:

.PHONY: setup
setup: $(STAMP) ## Install what deployments need into .venv (PYTHON=/path/to/python3)
	@:

.PHONY: setup-dev
setup-dev: $(DEV_STAMP) ## Install what checks, tests and benchmarks need, too
	@:

.PHONY: pins
pins: ## Resolve requirements*.in into requirements*.txt, with the newest releases
	@tools/pins

.PHONY: clean
clean: ## Remove .venv and .cache (run make destroy first)
	@rm -rf .venv .cache

##@ Checks and tests
# The longest first.
CHECKS := check-ansible check-plugins check-rendering check-unit check-project check-types check-yaml check-python

.PHONY: check $(CHECKS)
check: $(DEV_STAMP) ## Run linters, type checks, unit and rendering tests (no root, no lab, 3 minutes)
	@$(PARALLEL) $(CHECKS)
	@echo "check: passed"

check-yaml: $(DEV_STAMP)
	@$(BIN)/yamllint --strict .

# File by file: site.yml checks the syntax of roles, and ansible-lint would load each role once more. It finds these
# playbooks in those that import them, whose syntax check includes them; given, each would be loaded once more as well.
IMPORTED := site.yml $(patsubst %,playbooks/%.yml,close control-plane destroy lab-create lab-reboot preflight storage verify) \
	$(patsubst %,molecule/default/%.yml,broken_units drift rotation) $(patsubst %,molecule/multihost/%.yml,dead_host rolling)

check-ansible: $(DEV_STAMP)
	@$(BIN)/ansible-lint --offline --strict -q $$(git ls-files --cached --others --exclude-standard \
		'*.yml' '*.yaml' ':!docs' ':!roles/common/*/main/*' $(IMPORTED:%=':!%'))

check-python: $(DEV_STAMP)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --diff .

check-types: $(DEV_STAMP)
	@$(BIN)/mypy --no-error-summary

check-unit: $(DEV_STAMP)
	@$(BIN)/python -m pytest --quiet tests/unit/library tests/unit/module_utils

check-plugins: $(DEV_STAMP)
	@$(BIN)/python -m pytest --quiet tests/unit/plugins

check-project: $(DEV_STAMP)
	@$(BIN)/python -m pytest --quiet tests/unit/project tests/unit/tools

check-rendering: $(DEV_STAMP)
	@$(BIN)/python -m pytest --quiet tests/render

.PHONY: test scenarios
test: ## Run check, and Molecule on lab machines (SCENARIOS="default multihost storage", KEEP=1 leaves them)
	@$(call NEED_ROOT,"make check needs no root.")
	@$(MAKE) setup-dev
	@tools/setup browser
	@$(MAKE) -j2 check scenarios

# Side by side with check, since scenarios wait for machines now and then.
scenarios: $(DEV_STAMP)
	@KEEP=$(KEEP) SCENARIO_JOBS=$(SCENARIO_JOBS) tools/molecule-test $(SCENARIOS)

.PHONY: chaos
chaos: ## Kill site.yml at random moments and check that it converges (KILLS=20 SEED=1)
	@$(call NEED_ROOT)
	@$(MAKE) setup-dev
	@$(BIN)/python -m tools.chaos --kills $(KILLS) --seed $(SEED) $(ARGS)

.PHONY: chaos-ha
chaos-ha: ## Break controllers of a cloud that has three, under load (FAULTS=20 SEED=1)
	@$(call NEED_ROOT)
	@$(MAKE) setup-dev
	@$(BIN)/python -m tools.chaos_ha --faults $(FAULTS) --seed $(SEED) $(ARGS)

.PHONY: format
format: $(DEV_STAMP) ## Fix and format Python files with ruff
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

.PHONY: reference
reference: $(DEV_STAMP) ## Generate docs/reference: roles, modules, filters
	@$(BIN)/python -m tools.role_reference
	@$(BIN)/python -m tools.module_reference

##@ Measurements
.PHONY: bench
bench: ## Time site.yml against a deployment by hand, and its next runs (ROUNDS=3 ONLY=a,b,c,d,e)
	@$(NEED_ROOT_FOR_LAB)
	@$(MAKE) setup-dev
	@$(BIN)/python -m tools.bench --rounds $(ROUNDS) --only '$(ONLY)' --args '$(ARGS)' $(if $(KEEP),--keep) \
		$(if $(filter file,$(origin INVENTORY)),,--inventory $(INVENTORY))

.PHONY: bench-scale
bench-scale: ## Measure what grows with the number of computes, into .cache/bench-scale
	@$(call NEED_ROOT)
	@$(MAKE) setup-dev
	@$(BIN)/python -m tools.scale $(ARGS)
