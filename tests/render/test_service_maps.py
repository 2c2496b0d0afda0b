# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Every service map, rendered, has the form that roles/service/meta/argument_specs.yml gives."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.kilonova.config.config_files import ARGUMENT_SPEC as CONFIG_FILES
from ansible.module_utils.kilonova.database.openstack_schemas import ARGUMENT_SPEC as SCHEMAS
from ansible.module_utils.kilonova.system.service_check import CHECKS

from tests.render import rendering
from tests.render.conftest import INVENTORIES
from tests.render.rendering import PROJECT

SPECS = yaml.safe_load((PROJECT / "roles" / "service" / "meta" / "argument_specs.yml").read_text())
OPTIONS: dict[str, Any] = SPECS["argument_specs"]["service_map"]["options"]["service_map"]["options"]
# What the action plugin of config_files takes in place of content that is ready.
RENDERED_KEYS = {"src", "content", "overrides", "overrides_name", "role"}


def problems(service: dict[str, Any]) -> list[str]:
    """What a rendered map has that its form does not allow."""
    spec = {"service": {"type": "dict", "options": OPTIONS}}
    result = ArgumentSpecValidator(spec).validate({"service": service})
    files = CONFIG_FILES["files"]["options"].keys() | RENDERED_KEYS
    found = [f"{file['dest']}: {key}" for file in service.get("files", []) for key in file.keys() - files]
    schemas = SCHEMAS["schemas"]["options"].keys()
    found += [f"{one['name']}: {key}" for one in service.get("schemas", []) for key in one.keys() - schemas]
    found += [
        f"{check['module']} is not in CHECKS" for check in service.get("checks", []) if check["module"] not in CHECKS
    ]
    return [*result.error_messages, *found]


def test_every_map_has_the_documented_form(sample: rendering.Sample) -> None:
    for host in sample.hosts():
        services = sample.services(host)
        assert services
        assert {service["name"]: problems(service) for service in services if problems(service)} == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pots": []}, "pots"),
        ({"units": [{"name": "a.service", "raeds": []}]}, "raeds"),
        ({"ports": [{"name": "a", "title": "A", "port": "many", "units": ["a"]}]}, "port"),
        ({"title": None}, "title"),
        ({"files": [{"dest": "/etc/a", "overides": {}}]}, "overides"),
        ({"checks": [{"module": "nova_sells", "args": {}}]}, "nova_sells"),
    ],
)
def test_a_misspelt_key_or_value_is_found(change: dict[str, Any], message: str) -> None:
    service = next(one for one in rendering.load("all_in_one").services("cloud1") if one["name"] == "placement")
    assert problems(service) == []
    assert message in str(problems({key: value for key, value in {**service, **change}.items() if value is not None}))


def test_checks_are_arguments_that_their_modules_take(sample: rendering.Sample) -> None:
    checked = 0
    for host in sample.hosts():
        for service in sample.services(host):
            for check in service.get("checks", []):
                result = ArgumentSpecValidator(CHECKS[check["module"]].ARGUMENT_SPEC).validate(check["args"])
                assert result.error_messages == [], f"{service['name']}: {check['module']}"
                checked += 1
    assert checked


def test_every_module_of_the_check_has_a_map_that_names_it() -> None:
    samples = [rendering.load(name) for name in (*INVENTORIES, "clustered")]
    services = [service for sample in samples for host in sample.hosts() for service in sample.services(host)]
    found = {check["module"] for service in services for check in service.get("checks", [])}
    assert found == set(CHECKS)


def test_every_unit_that_runs_has_a_sandbox(sample: rendering.Sample) -> None:
    """Those without a drop-in are of the system, such as ssh.service, or run once."""
    seen = set()
    for host in sample.hosts():
        for service in sample.services(host):
            units = [*service.get("units", []), *service.get("later_units", [])]
            for unit in (one for one in units if one["name"].endswith(".service") and one.get("drop_in", True)):
                assert unit.get("sandbox"), f"{service['name']}: {unit['name']}"
                seen.add(unit["name"])
    assert {"nova-api.service", "ovs-vswitchd.service", "libvirtd.service", "ovn-controller.service"} <= seen


@pytest.mark.parametrize("inventory", ["all_in_one", "multihost"])
def test_unit_tests_use_the_index_that_a_host_has(inventory: str) -> None:
    sample = rendering.load(inventory)
    written = json.loads((PROJECT / "tests" / "unit" / "services.json").read_text())
    for host in sample.hosts():
        (text,) = [file.text for file in sample.files(host) if file.dest == "/var/lib/kilonova/services.json"]
        assert text and json.loads(text) == written, f"cp the index of {host} to tests/unit/services.json"
