# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Each service is described once: its map, its links in role common, its line in site.yml and its tags agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.filter.services import tags_of

PROJECT = Path(__file__).resolve().parents[3]
ROLES = PROJECT / "roles"
COMMON = ROLES / "common"
# Roles of plays that are not part of a deployed host, and those whose variables are their own business.
UNLINKED = {"common", "lab"}
# Playbooks whose plays need the variables of roles.
USERS = ("compute-maintenance", "compute-remove", "preflight", "rotate-secrets", "status", "storage", "verify")


def maps() -> dict[str, dict[str, Any]]:
    """The service map of each role that has one, with its expressions as text."""
    found = {}
    for path in sorted(ROLES.glob("*/vars/main.yml")):
        role = path.parts[-3]
        content = yaml.safe_load(path.read_text())
        if f"{role}_service" in content:
            found[role] = content[f"{role}_service"]
            if isinstance(found[role].get("ports"), str):
                # Where not all clouds have them, they are in variables of their own.
                found[role]["ports"] = [port for name in content if name.endswith("_ports") for port in content[name]]
    return found


def listed_roles() -> dict[str, list[str]]:
    """The roles in the lists of site.yml and of its parts, with the tags that they have there."""
    found: dict[str, list[str]] = {}
    playbooks = [
        yaml.safe_load((PROJECT / name).read_text())
        for name in ("site.yml", "playbooks/storage.yml", "playbooks/control-plane.yml")
    ]
    for play in (one for playbook in playbooks for one in playbook):
        for listed in play.get("roles", []):
            entry = listed if isinstance(listed, dict) else {"role": listed}
            tags = entry.get("tags", [])
            found[entry["role"]] = [tags] if isinstance(tags, str) else tags
    return found


MAPS = maps()


def test_there_are_maps() -> None:
    assert {"base", "mariadb", "nova", "nova_compute", "catalog"} <= MAPS.keys()


@pytest.mark.parametrize("role", MAPS)
def test_a_map_is_named_after_its_role(role: str) -> None:
    assert MAPS[role]["name"] == role


@pytest.mark.parametrize(("kind", "room"), [("defaults", "main"), ("vars", "roles")])
def test_common_links_to_the_variables_of_every_role(kind: str, room: str) -> None:
    wanted = {path.parts[-3] for path in ROLES.glob(f"*/{kind}/main.yml")} - UNLINKED
    links = {path.stem: path for path in (COMMON / kind / room).iterdir() if path.stem != "common"}
    missing = [
        f"ln -s ../../../{role}/{kind}/main.yml roles/common/{kind}/{room}/{role}.yml" for role in wanted - set(links)
    ]
    assert not missing, f"role common does not know these variables; run: {'; '.join(missing)}"
    for role, link in links.items():
        assert link.is_symlink() and link.resolve() == ROLES / role / kind / "main.yml", f"{link} leads elsewhere"


@pytest.mark.parametrize("playbook", ["site.yml", *(f"playbooks/{name}.yml" for name in USERS)])
def test_plays_with_roles_list_common_first(playbook: str) -> None:
    found = 0
    for play in yaml.safe_load((PROJECT / playbook).read_text()):
        imported = [task for task in play.get("tasks", []) if "ansible.builtin.import_role" in task]
        if play.get("hosts") != "localhost" and (play.get("roles") or imported):
            first = play["roles"][0]
            assert (first["role"] if isinstance(first, dict) else first) == "common", play["name"]
            found += 1
    assert found


@pytest.mark.parametrize("role", MAPS)
def test_site_lists_the_role_with_the_tags_of_its_map(role: str) -> None:
    listed = listed_roles()
    assert role in listed, f"no play of site.yml lists the role {role}"
    if MAPS[role].get("serves"):
        # Runs with the tags of other services as well: its tasks, or those of role service, decide.
        assert listed[role] in ([], ["always"])
    else:
        assert sorted(listed[role]) == sorted(tags_of(MAPS[role]))


def test_ports_are_unique() -> None:
    lists = [ports for service in MAPS.values() if isinstance(ports := service.get("ports", []), list)]
    names = [port["name"] for ports in lists for port in ports]
    assert len(names) == len(set(names)) > 10


def test_layers_name_units_of_the_maps() -> None:
    units = {"libvirtd", "networking", "ovn-controller"}
    for role, service in MAPS.items():
        # Where not all hosts have them, they are in variables of their own.
        others = yaml.safe_load((ROLES / role / "vars" / "main.yml").read_text())
        lists = [service.get("units") or [], *(others.get(f"{role}_{key}", []) for key in ("units", "later_units"))]
        for unit in (one for units_of_role in lists for one in units_of_role):
            if isinstance(unit, dict):
                units.add(unit["name"].removesuffix(".service"))
    named = {unit for service in MAPS.values() for layer in service.get("layers", {}).values() for unit in layer}
    assert named and named <= units


def test_site_is_a_table_of_contents() -> None:
    text = (PROJECT / "site.yml").read_text()
    assert len(text.splitlines()) <= 120
    for path in [PROJECT / "site.yml", *ROLES.glob("**/*.yml"), *(PROJECT / "playbooks").glob("**/*.yml")]:
        assert "rolespec_validate" not in path.read_text(), path
