# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Messages about names of variables."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.kilonova.preflight import names, roles

from tests.unit.module_utils.preflight.sample import KNOWN

PROJECT = Path(__file__).resolve().parents[4]


def test_misspelt_variable() -> None:
    assert names.check_names(["cloud_debugg", "fixed_range", "nova_service", "ansible_host", "my_own"], KNOWN) == [
        "cloud_debugg: no role knows a variable of this name, so setting it does nothing. Did you mean cloud_debug? "
        "Rename it if it is your own."
    ]


def test_unknown_variable_with_nothing_like_it() -> None:
    assert names.check_names(["flat_xyzzy_quux"], KNOWN) == [
        "flat_xyzzy_quux: no role knows a variable of this name, so setting it does nothing. See docs/roles for the "
        "names there are. Rename it if it is your own."
    ]


def test_nearly_one_of_ours_is_a_note() -> None:
    assert names.note_names(["fixd_range", "something_else"], KNOWN) == [
        "fixd_range is not a variable of this project. Did you mean fixed_range?"
    ]


def test_renamed_variable() -> None:
    assert names.check_renamed(["host_apt_proxy", "base_apt_proxy"]) == [
        "host_apt_proxy: this variable is now called base_apt_proxy, so setting it does nothing. Rename it."
    ]
    assert names.note_names(["host_apt_proxy"], KNOWN) == []


def test_renamed_variables_exist() -> None:
    options = roles.read_roles(PROJECT / "roles").options
    assert {new for old, new in names.RENAMED.items() if new not in options or old in options} == set()


def test_a_name_without_a_use_is_a_note() -> None:
    assert names.check_names(["rabbitmq_password"], KNOWN) == []
    assert names.note_names(["rabbitmq_password"], KNOWN) == [
        "rabbitmq_password is not used any more: each service and each compute has an account of its own in RabbitMQ. "
        "Remove the line."
    ]
    assert names.RETIRED.keys() & roles.read_roles(PROJECT / "roles").options == set()


@pytest.mark.parametrize("path", ["roles/nova/tasks/main.yml", "playbooks/verify.yml", "playbooks/tasks/lead.yml"])
def test_names_that_tasks_set(path: str, tmp_path: Path) -> None:
    """A run may have several checks, as a rotation has: what tasks of the first one registered is there."""
    tasks = tmp_path / path
    tasks.parent.mkdir(parents=True)
    tasks.write_text("- name: A\n  ansible.builtin.set_fact:\n    nova_fact: 1\n- name: B\n  register: nova_result\n")
    found = names.set_by_tasks(["nova_fact", "nova_result", "nova_resul", "nova_other"], tmp_path)
    assert found == {"nova_fact", "nova_result"}
