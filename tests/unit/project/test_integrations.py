# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Workflows, hooks, dependency updates and the execution environment fit the rest of the project."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[3]
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))


def load(path: Path) -> Any:
    """Parse a YAML file."""
    return yaml.safe_load(path.read_text())


def steps(workflow: Path) -> list[dict[str, Any]]:
    """Return the steps of all jobs of a workflow."""
    return [step for job in load(workflow)["jobs"].values() for step in job["steps"]]


def ansible_core(python: str) -> str:
    """Return the version of ansible-core that requirements.txt has for a Python."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    for line in (PROJECT / "requirements.txt").read_text().splitlines():
        if line.startswith("ansible-core=="):
            requirement = Requirement(line.rstrip("\\ "))
            if requirement.marker and requirement.marker.evaluate(environment):
                return str(requirement.specifier).removeprefix("==")
    raise AssertionError(f"requirements.txt has no ansible-core for Python {python}")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pin_actions_and_limit_themselves(workflow: Path) -> None:
    used = re.findall(r"uses: (.*)", workflow.read_text())
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", action)] == []
    assert load(workflow)["permissions"] == {"contents": "read"}
    assert [name for name, job in load(workflow)["jobs"].items() if "timeout-minutes" not in job] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_make_targets(workflow: Path) -> None:
    called = {target for step in steps(workflow) for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))}
    assert called
    assert called - TARGETS == set()


def test_checks_run_on_the_supported_pairs() -> None:
    pairs = load(PROJECT / ".github" / "workflows" / "check.yml")["jobs"]["check"]["strategy"]["matrix"]["include"]
    assert len(pairs) == 2
    for pair in pairs:
        assert ansible_core(pair["python"]).startswith(f"{pair['ansible']}.")


def test_root_tests_run_on_demand_only() -> None:
    # YAML 1.1 reads the key `on` as a boolean.
    assert set(load(PROJECT / ".github" / "workflows" / "test.yml")[True]) == {"schedule", "workflow_dispatch"}


def test_hooks_are_local_tools() -> None:
    hooks = []
    for repository in load(PROJECT / ".pre-commit-config.yaml")["repos"]:
        assert repository["repo"] == "local"
        hooks += repository["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    for hook in hooks:
        program, argument, *_ = hook["entry"].split()
        assert argument in TARGETS if program == "make" else program.startswith(".venv/bin/")


def test_execution_environment_installs_what_the_project_pins() -> None:
    environment = load(PROJECT / "execution-environment.yml")
    assert environment["version"] == 3
    dependencies = environment["dependencies"]
    for kind in ("python", "galaxy"):
        assert (PROJECT / dependencies[kind]).is_file()
    python = dependencies["python_interpreter"]["package_system"].removeprefix("python")
    assert dependencies["ansible_core"]["package_pip"] == f"ansible-core=={ansible_core(python)}"
    assert re.fullmatch(r"ansible-runner==[\d.]+", dependencies["ansible_runner"]["package_pip"])
    assert {package.split()[0] for package in dependencies["system"]} >= {"openssh-clients", "ca-certificates"}


def test_dependency_updates_cover_packages_and_actions() -> None:
    updates = load(PROJECT / ".github" / "dependabot.yml")["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"uv", "github-actions"}
    # Dependabot repeats the options that it finds there.
    for name in ("requirements.txt", "requirements-dev.txt"):
        header = "".join((PROJECT / name).read_text().splitlines()[:3])
        assert "uv pip compile" in header and "--universal" in header and "--python-version=3.11" in header
