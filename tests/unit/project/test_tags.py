# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What ``site.yml --tags SERVICE`` runs."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
TASK = re.compile(r"^ +(?:(?P<role>\w+) : )?(?P<task>.+?)\tTAGS: \[(?P<tags>.*)\]$", re.MULTILINE)
PACKAGES = "Install the packages of every service on this host"
LOOK = {
    "Look at the files of all services",
    "Look at the units of all services",
    "Remember which services are as they shall be",
}
DATABASE = {"Create the databases, their users and grants", "Bring the database schemas to the installed release"}
CONFIGURE = "Configure {{ service_map.name }}"
# What Ansible itself puts before a role that is not told otherwise, and what every run begins with.
BEGINNING = {"secrets", "preflight", ""}
# What each tag runs beside packages and the look: how many services are configured, HAProxy for an API among them;
# roles with tasks of their own; tasks of other roles that act for this service alone.
WANTED: dict[str, tuple[int, set[str], set[str]]] = {
    "mariadb": (1, {"mariadb"}, set()),
    "rabbitmq": (1, set(), set()),
    "memcached": (1, set(), set()),
    "haproxy": (1, set(), set()),
    "libvirt": (1, {"libvirt"}, set()),
    "clients": (0, {"clients"}, set()),
    "keystone": (2, {"keystone", "catalog"}, DATABASE),
    "glance": (2, {"catalog"}, DATABASE),
    "placement": (2, {"catalog"}, DATABASE),
    "neutron": (5, {"catalog", "ovn_chassis"}, DATABASE),
    "nova": (3, {"catalog", "cells", "nova_compute"}, DATABASE),
    "ovn": (2, {"ovn_chassis"}, set()),
}


@functools.cache
def tasks() -> tuple[tuple[str, str, frozenset[str]], ...]:
    """All tasks of site.yml as (role, task, tags), in their order."""
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "inventory/lab", "--list-tasks", "site.yml"]
    environment = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple((m["role"] or "", m["task"], frozenset(m["tags"].split(", "))) for m in TASK.finditer(done.stdout))


def run_by(tag: str) -> list[tuple[str, str]]:
    """The tasks that ``--tags TAG`` runs, without those that every run begins with."""
    return [
        (role, task)
        for role, task, tags in tasks()
        if tags & {tag, "always"} and role not in BEGINNING and task not in LOOK and not task.startswith("Validating ")
    ]


@pytest.mark.parametrize("tag", WANTED)
def test_a_tag_runs_what_its_service_needs_and_nothing_else(tag: str) -> None:
    services, roles, of_others = WANTED[tag]
    found = run_by(tag)
    assert ("base", PACKAGES) in found
    assert [task for role, task in found].count(CONFIGURE) == services
    # Every role that has no more to do than others has its tasks from the role service.
    assert {role for role, task in found if task not in {PACKAGES, *of_others}} - {"service"} == roles
    assert of_others <= {task for role, task in found}


@pytest.mark.parametrize("tag", ["mariadb", "keystone", "libvirt"])
def test_a_tag_runs_all_tasks_of_its_own_role(tag: str) -> None:
    own = [task for role, task, tags in tasks() if role == tag]
    assert own
    assert [task for role, task in run_by(tag) if role == tag] == own


def test_documentation_lists_every_tag() -> None:
    text = (PROJECT / "docs" / "operate" / "tags.md").read_text()
    used = {tag for role, task, tags in tasks() for tag in tags} - {"always", ""}
    assert {tag for tag in used if f"| `{tag}` |" not in text} == set()
