# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Every variable of every role has an effect: with another value, another line is on the host or in a task.

Each role says of its variables, in tests/variables.yml: [value, place, line]. The value is not the default. With the
values of all roles, the line is in that place, and without them it is not. The place is a file on the host, the tasks
of a role ("role NAME", with the line "task: option: value" or "option: value"), or the plays ("site.yml"). "no" before
the line: it is there only without the values. Variables below "apart" have no effect beside others below "together",
and those below "storage" only in a cloud with a Ceph cluster of its own.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.template import Templar, trust_as_template

from tests.render import rendering
from tests.render.test_preflight import problems

HOST = "cloud1"
FILES = sorted((rendering.PROJECT / "roles").glob("*/tests/variables.yml"))
TABLES = [yaml.safe_load(path.read_text()) for path in FILES]
VALUES: dict[str, dict[str, Any]] = {
    section: {name: entry for table in TABLES for name, entry in table.get(section, {}).items()}
    for section in ("together", "apart", "storage")
}
# Of a cloud with a Ceph cluster of its own, and of one without.
INVENTORY = {"storage": "storage"}
PLACES = {place for values in VALUES.values() for _, place, _ in values.values()}
# Without a line that a sample can show.
ELSEWHERE = {
    "secrets_rotation": "holds secrets in stages: tests/render/test_rotation.py",
    "secrets_second_accounts": "goes with others: tests/render/test_rotation.py",
    "secrets_certificate_days": "decides when certificates end: tests/unit/plugins/filter/test_pki.py, test_tls.py",
    "rabbitmq_erlang_cookie": "is for several controllers: tests/render/test_rabbitmq.py",
    "haproxy_certificate": "fits a key and names, made by tests/render/test_tls.py",
    "haproxy_certificate_authority": "fits a certificate, made by tests/render/test_tls.py",
    "haproxy_certificate_chain": "fits a certificate, made by tests/render/test_tls.py",
    "haproxy_certificate_key": "fits a certificate, made by tests/render/test_tls.py",
    "verify_in_deployment": "decides at run time which computes are probed: tests/after/test_verification.py",
    "verify_probe_again": "decides at run time which computes are probed: tests/after/test_verification.py",
}
# Interfaces and addresses that the sample host lacks, and an image that other values have.
OF_A_REAL_HOST = {"flat_interface", "public_interface", "ovn_chassis_tunnel_interface", "ovn_chassis_tunnel_address"}
OF_A_REAL_HOST |= {"cloud_api_address", "first_cloud_server_image", "haproxy_former_addresses"}
# The inventory of a lab sets them, and each scenario of Molecule uses them.
LAB = ["state", "id", "name", "project_directory", "subnet", "machine", "machine_address"]
LAB += ["directory", "outside_address", "tunnel_subnet", "interfaces"]


def declared() -> set[str]:
    """The variables of all roles, from their specifications."""
    found: set[str] = set()
    for path in (rendering.PROJECT / "roles").glob("*/meta/argument_specs.yml"):
        specs = yaml.safe_load(path.read_text())["argument_specs"]
        found |= {name for spec in specs.values() for name in spec.get("options", {})}
    return found - {"service_map"}


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The innermost values with their keys."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, key)
    else:
        yield key, value


def templated(templar: Templar, key: str, value: Any) -> Any:
    """A value as a task would get it; unchanged where it needs what only a run knows."""
    text = f"{{{{ {value} }}}}" if key == "when" else value
    if not isinstance(text, str) or "{" not in text:
        return value
    try:
        return templar.template(trust_as_template(text))
    except AnsibleError:
        return value


def task_lines(templar: Templar, tasks: list[dict[str, Any]]) -> Iterator[str]:
    """The options of tasks, as "task: option: value" and, where the option is unique enough, as "option: value"."""
    for task in tasks:
        inner = [task.pop(part, []) for part in ("block", "rescue", "always")]
        for key, value in leaves(task):
            for option, final in leaves(templated(templar, key, value), key):
                for line in str(final).splitlines():
                    yield from (line, f"{option}: {line}", f"{task.get('name', '')}: {option}: {line}")
        for tasks_of_block in inner:
            yield from task_lines(templar, tasks_of_block)


def places(sample: rendering.Sample) -> dict[str, Counter[str]]:
    """The lines of all files, tasks and plays."""
    templar = sample.templar(HOST)
    found = {file.dest: Counter(map(str.strip, (file.text or "").splitlines())) for file in sample.files(HOST)}
    for place in PLACES:
        if place.startswith("role "):
            files = (rendering.PROJECT / "roles" / place.removeprefix("role ") / "tasks").glob("*.yml")
            tasks = [task for file in files for task in yaml.safe_load(file.read_text())]
            found[place] = Counter(task_lines(templar, tasks))
    plays = yaml.safe_load((rendering.PROJECT / "site.yml").read_text())
    found["site.yml"] = Counter(task_lines(templar, plays))
    return found


@cache
def without(inventory: str) -> dict[str, Counter[str]]:
    return places(rendering.load(inventory))


def test_every_variable_is_here() -> None:
    here = {name for values in VALUES.values() for name in values}
    assert declared() == here | {*ELSEWHERE} | {f"lab_{name}" for name in LAB}


@pytest.mark.parametrize("section", VALUES)
def test_preflight_accepts_these_values(section: str) -> None:
    values = {name: entry[0] for name, entry in VALUES[section].items()}
    found = problems(INVENTORY.get(section, "all_in_one"), HOST, **values)
    assert [text for text in found if text.split(" = ")[0] not in OF_A_REAL_HOST] == []


@pytest.mark.parametrize("section", VALUES)
def test_another_value_has_an_effect(section: str, tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    shutil.copytree(Path(__file__).parent / INVENTORY.get(section, "all_in_one"), inventory)
    (inventory / "host_vars").mkdir()
    text = yaml.safe_dump({name: entry[0] for name, entry in VALUES[section].items()})
    (inventory / "host_vars" / f"{HOST}.yml").write_text(text)
    found = places(rendering.load(str(inventory)))
    without_effect = []
    for name, (_, place, line) in VALUES[section].items():
        before = without(INVENTORY.get(section, "all_in_one"))
        fewer, more = before.get(place, Counter()), found.get(place, Counter())
        if line.startswith("no "):
            fewer, more = more, fewer
        if not more[line.removeprefix("no ")] > fewer[line.removeprefix("no ")]:
            without_effect.append(name)
    assert without_effect == []
