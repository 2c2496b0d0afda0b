# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What ``site.yml --tags SERVICE`` runs."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import yaml
from ansible.template import trust_as_template

from plugins.filter.services import services_needed
from tests.render import rendering
from tests.site_tasks import listed
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
    "keystone": {"base", "mariadb", "haproxy", "keepalived", "catalog", "keystone"},
    "glance": {"base", "mariadb", "haproxy", "keepalived", "catalog", "glance"},
    "ovn": {"base", "ovn_central", "ovn_chassis"},
    "neutron": {
        *("base", "mariadb", "rabbitmq", "haproxy", "keepalived", "catalog"),
        *("neutron", "neutron_ovn_metadata", "ovn_central", "ovn_chassis"),
    },
    "nova": {"base", "mariadb", "rabbitmq", "haproxy", "keepalived", "catalog", "cells", "nova", "nova_compute"},
    "verify": set(),
}


@functools.cache
def tasks() -> tuple[tuple[str, str, frozenset[str]], ...]:
    """All tasks of site.yml as (role, task, tags), in their order."""
    found = TASK.finditer(listed("inventory/lab").stdout)
    return tuple((match["role"] or "", match["task"], frozenset(match["tags"].split(", "))) for match in found)


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
        "Correct users and permissions",
        "Upgrade database schemas",
        "Register services, users and endpoints in the catalog",
        "Check all services",
    }


def test_documentation_lists_every_tag() -> None:
    (page,) = PROJECT.glob("docs/**/tags.md")
    used = {tag for role, task, tags in tasks() for tag in tags} - {"always", ""}
    assert {tag for tag in used if f"| `{tag}` |" not in page.read_text()} == set()


def test_preflight_knows_all_tags() -> None:
    used = {tag for role, task, tags in tasks() for tag in tags} - {""}
    expression = yaml.safe_load((PROJECT / "roles/preflight/vars/main.yml").read_text())["preflight_known_tags"]
    known = rendering.load("all_in_one").templar("cloud1").template(trust_as_template(expression))
    assert len(used) > 15
    assert used - {*known} == set()


def test_secrets_are_generated_after_preflight() -> None:
    roles = [role for role, task, tags in tasks()]
    assert 0 < roles.index("preflight") < roles.index("secrets")
