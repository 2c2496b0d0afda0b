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

from plugins.filter.services import services_needed
from tests.unit.project.test_service_maps import MAPS

PROJECT = Path(__file__).resolve().parents[3]
TASK = re.compile(r"^ +(?:(?P<role>\w+) : )?(?P<task>.+?)\tTAGS: \[(?P<tags>.*)\]$", re.MULTILINE)
# The services that a tag selects, and those that serve them.
NEEDED: dict[str, set[str]] = {
    "base": {"base"},
    "bridge": {"base", "bridge"},
    "mariadb": {"base", "mariadb"},
    "rabbitmq": {"base", "rabbitmq"},
    "libvirt": {"base", "libvirt"},
    "catalog": {"catalog"},
    "keystone": {"base", "mariadb", "haproxy", "catalog", "keystone"},
    "glance": {"base", "mariadb", "haproxy", "catalog", "glance"},
    "ovn": {"base", "ovn_central", "ovn_chassis"},
    "neutron": {
        *("base", "mariadb", "haproxy", "catalog"),
        *("neutron", "neutron_ovn_metadata", "ovn_central", "ovn_chassis"),
    },
    "nova": {"base", "mariadb", "haproxy", "catalog", "cells", "nova", "nova_compute"},
    "verify": set(),
}


@functools.cache
def tasks() -> tuple[tuple[str, str, frozenset[str]], ...]:
    """All tasks of site.yml as (role, task, tags), in their order."""
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "inventory/lab", "--list-tasks", "site.yml"]
    environment = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple((m["role"] or "", m["task"], frozenset(m["tags"].split(", "))) for m in TASK.finditer(done.stdout))


@pytest.mark.parametrize("tag", NEEDED)
def test_a_tag_selects_its_services_and_those_that_serve_them(tag: str) -> None:
    # An expression stands for a list that is not empty.
    assert {service["name"] for service in services_needed(MAPS.values(), [tag])} == NEEDED[tag]


@pytest.mark.parametrize("tag", ["mariadb", "keystone", "libvirt", "cells", "first_cloud", "guest_image"])
def test_a_tag_runs_all_tasks_of_its_own_role(tag: str) -> None:
    own = [tags for role, task, tags in tasks() if role == tag]
    assert own
    assert all(tags & {tag, "always"} for tags in own)


def test_a_tag_runs_no_tasks_of_a_service_that_it_does_not_name() -> None:
    roles = {role for role, task, tags in tasks() if "glance" in tags}
    assert roles == {"glance", "service"}


def test_packages_databases_and_the_catalog_serve_every_tag() -> None:
    shared = {task for role, task, tags in tasks() if "always" in tags and not task.startswith("Validating ")}
    assert shared >= {
        "Install packages",
        "Create databases, users and grants",
        "Upgrade database schemas",
        "Register services, users and endpoints in the catalog",
        "Check all services",
    }


def test_documentation_lists_every_tag() -> None:
    (page,) = PROJECT.glob("docs/**/tags.md")
    used = {tag for role, task, tags in tasks() for tag in tags} - {"always", ""}
    assert {tag for tag in used if f"| `{tag}` |" not in page.read_text()} == set()
