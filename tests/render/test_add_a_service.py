# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""docs/contributing/add-a-service.md, followed in a copy of the project: the new service appears everywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.render.rendering import PROJECT

GUIDE = PROJECT / "docs" / "contributing" / "add-a-service.md"
COPIED = ("library", "module_utils", "playbooks", "plugins", "roles", "site.yml", "templates", "tests", "ansible.cfg")
FENCE = re.compile(r"^( *)```(\w+)(?: title=(\S+))?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LOOK = """
import json, sys
from tests import conftest
from tests.render import rendering, test_service_maps
from ansible.template import trust_as_template
sample = rendering.load("all_in_one")
template = sample.templar("cloud1", {"ansible_run_tags": ["heat"]}).template
files = {file.dest: file.text for file in sample.files("cloud1")}
(heat,) = [service for service in sample.services("cloud1") if service["name"] == "heat"]
print(json.dumps({
    "haproxy": files["/etc/haproxy/haproxy.cfg"],
    "conf": files["/etc/heat/heat.conf"],
    "index": json.loads(files["/var/lib/kilonova/services.json"]),
    "drop_in": files["/etc/systemd/system/heat-api.service.d/kilonova.conf"],
    "problems": test_service_maps.problems(heat),
    **{name: template(trust_as_template("{{ " + expression + " }}")) for name, expression in {
        "ports": "preflight_ports",
        "packages": "base_packages_arguments.names",
        "databases": "mariadb_databases_arguments.databases",
        "catalog": "catalog_arguments.services | map(attribute='name')",
        "secrets": "secrets_names",
        "needed": "cloud_services_tagged | map(attribute='name')",
    }.items()},
}))
"""


def follow(guide: str, project: Path) -> int:
    """Do what the guide says in a copy of the project. Returns the number of edits outside of the role."""
    edits = 0
    for indent, kind, title, body in FENCE.findall(guide):
        text = textwrap.dedent(body) if indent else body
        if title:
            path = project / title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            edits += not title.startswith("roles/heat/")
        elif kind == "sh":
            subprocess.run(["sh", "-ec", text], cwd=project, check=True)
            edits += 1
        elif kind == "diff":
            (after,) = [line[1:] for line in text.splitlines() if not line.startswith("+")]
            (added,) = [line[1:] for line in text.splitlines() if line.startswith("+")]
            site = (project / "playbooks/control-plane.yml").read_text()
            assert site.count(f"{after}\n") == 1, after
            (project / "playbooks/control-plane.yml").write_text(site.replace(f"{after}\n", f"{after}\n{added}\n"))
            edits += 1
    return edits


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the service of the guide."""
    project = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, project / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, project / name)
    shutil.copytree(PROJECT / "inventory" / "lab", project / "inventory" / "lab")
    (project / ".cache").mkdir()
    (project / ".cache" / "collections").symlink_to(PROJECT / ".cache" / "collections")
    # What preflight would generate.
    with (project / "tests" / "render" / "all_in_one" / "group_vars" / "all.yml").open("a") as stream:
        stream.write(
            "heat_password: generated\nheat_database_password: generated\nheat_messaging_password: generated\n"
        )
    # The tag's line in the page of tags is the third edit, which is prose.
    assert follow(GUIDE.read_text(), project) == 2
    return project


def run(project: Path, *command: str) -> str:
    environment = os.environ | {"ANSIBLE_CONFIG": str(project / "ansible.cfg"), "PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def found(copy: Path) -> dict[str, Any]:
    """What the roles make of the new service."""
    loaded = json.loads(run(copy, "-c", LOOK).splitlines()[-1])
    assert isinstance(loaded, dict)
    return loaded


def test_its_map_has_the_documented_form(found: dict[str, Any]) -> None:
    assert found["problems"] == []


def test_its_port_is_served_and_checked(found: dict[str, Any]) -> None:
    listen = found["haproxy"].split("\nlisten heat\n")[1].split("\nlisten ")[0]
    assert re.search(r"^    bind [\d.]+:8004 ssl crt ", listen, re.M)
    assert re.search(r"^    server \S+ 127\.0\.0\.1:8004$", listen, re.M)
    (port,) = [port for port in found["ports"] if port["port"] == 8004]
    assert port["units"] == ["haproxy.service", "heat-api.service"]
    assert "bind_port = 8004" in found["conf"]


def test_its_units_appear(found: dict[str, Any]) -> None:
    assert found["index"]["layers"]["Heat"] == ["heat-api", "heat-engine"]
    assert "After=mariadb.service rabbitmq-server.service" in found["drop_in"]


def test_its_tag_selects_all_that_it_needs(found: dict[str, Any], copy: Path) -> None:
    assert set(found["needed"]) == {"base", "mariadb", "rabbitmq", "haproxy", "catalog", "heat"}
    assert found["packages"] == ["heat-api", "heat-engine"]
    assert found["databases"] == [{"name": "heat"}]
    assert found["catalog"] == ["heat"]
    assert {"heat_password", "heat_database_password", "heat_messaging_password"} <= set(found["secrets"])
    listed = run(copy, "-m", "ansible", "playbook", "-i", "inventory/lab", "--list-tasks", "--tags=heat", "site.yml")
    assert "heat, rabbit" not in listed and re.search(r"service : Configure .*TAGS: \[heat\]", listed)


def test_the_checks_of_the_project_accept_it(copy: Path) -> None:
    run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib",
        "tests/unit/project/test_service_maps.py", "tests/unit/project/test_argument_specs.py",
        "tests/render/test_every_variable.py::test_every_variable_is_here")  # fmt: skip
