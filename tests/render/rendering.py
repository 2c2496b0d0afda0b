# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Renders the configuration files of all services as a deployment would, without a host.

The variables are those of a play with all roles on a sample inventory; the rendering is that of the action plugin
config_files, whose module call is kept instead of sent.
"""

from __future__ import annotations

import base64
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.block import Block
from ansible.playbook.play import Play
from ansible.playbook.play_context import PlayContext
from ansible.playbook.role import Role
from ansible.playbook.task import Task
from ansible.plugins import loader as plugins
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from plugins.action.config_files import ActionModule
from plugins.filter.services import files_of
from tests.render.templating import templar_with

PROJECT = Path(__file__).resolve().parents[2]
# What a task of the role service sees besides.
MAGIC = {"ansible_run_tags": ["all"], "role_path": str(PROJECT / "roles" / "service")}
# The value of every secret in the sample inventories.
SECRET = "p@:/%\\$#'\"\\ x"


@dataclass
class File:
    """A rendered file. Where it is a directory or absent, text is None."""

    service: str
    dest: str
    text: str | None
    mode: str
    source: str


class Recorder(ActionModule):
    """config_files up to the point where it would call the host."""

    recorded: dict[str, Any]

    def _execute_module(self, *positional: Any, **named: Any) -> dict[str, Any]:
        self.recorded = named["module_args"]
        return {}


@dataclass
class Sample:
    """A play of all roles on a sample inventory."""

    loader: DataLoader
    inventory: InventoryManager
    variable_manager: VariableManager
    play: Play
    roles: dict[str, Role]
    changes: dict[str, Any] = field(default_factory=dict)
    make_templar: Callable[[DataLoader, dict[str, Any]], Templar] = templar_with
    templars: dict[str, Templar] = field(default_factory=dict)
    maps: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rendered: dict[str, list[File]] = field(default_factory=dict)

    def hosts(self) -> list[str]:
        """Names of all hosts that something is deployed on."""
        return [host.name for host in self.inventory.get_hosts("controller:compute:storage")]

    def changed(self, **changes: Any) -> Sample:
        """The same with other values of variables."""
        return replace(self, changes={**self.changes, **changes}, templars={}, maps={}, rendered={})

    def variables(self, host: str) -> dict[str, Any]:
        """What a task on the host would see."""
        found = self.variable_manager.get_vars(play=self.play, host=self.inventory.get_host(host))
        assert isinstance(found, dict)
        return {**found, **MAGIC, **self.changes}

    def templar(self, host: str, changes: Mapping[str, Any] | None = None) -> Templar:
        """A templar with the host's variables, and others than the inventory's."""
        if changes:
            return self.changed(**changes).templar(host)
        if host not in self.templars:
            self.templars[host] = self.make_templar(self.loader, self.variables(host))
        return self.templars[host]

    def services(self, host: str) -> list[dict[str, Any]]:
        """The maps of the services that the host runs, rendered once."""
        if host not in self.maps:
            found = self.templar(host).template(self.variables(host)["cloud_services_here"])
            assert isinstance(found, list)
            self.maps[host] = found
        return self.maps[host]

    def files(self, host: str) -> list[File]:
        """Everything that config_files writes on the host, rendered once."""
        if host not in self.rendered:
            self.rendered[host] = [
                rendered for service in self.services(host) for rendered in self.render(host, service)
            ]
        return self.rendered[host]

    def render(self, host: str, service: dict[str, Any]) -> list[File]:
        """The files of one service on one host, rendered anew."""
        role = self.roles["common"]
        files = files_of(service)
        block = Block(play=self.play, role=role)
        block._dep_chain = [role]
        task = Task.load(
            {"name": service["name"], "config_files": {"files": files, "secrets": []}},
            block=block,
            role=role,
            variable_manager=self.variable_manager,
            loader=self.loader,
        )
        templar = self.templar(host)
        context = PlayContext(play=self.play)
        connection = plugins.connection_loader.get("ansible.builtin.local", context)
        recorder = Recorder(task, connection, context, self.loader, templar, plugins)
        task.args = templar.template(task.args)
        # A dictionary of all would be one of their values, worked out whether needed or not.
        variables: Any = ChainMap({"ansible_search_path": task.get_search_path()}, templar.available_variables)
        recorder.run(task_vars=variables)
        return [
            File(
                service["name"],
                item["dest"],
                base64.b64decode(item["encoded"]).decode() if "encoded" in item else None,
                str(item.get("mode", "0644")),
                str(given.get("src", "")),
            )
            for given, item in zip(files, recorder.recorded["files"], strict=True)
        ]


@cache
def register_plugins() -> None:
    """Make the project's plugins known, as ansible.cfg does for a playbook."""
    plugins.init_plugin_loader([str(PROJECT / ".cache" / "collections")])
    plugins.filter_loader.add_directory(str(PROJECT / "plugins" / "filter"))
    plugins.action_loader.add_directory(str(PROJECT / "plugins" / "action"))
    plugins.module_loader.add_directory(str(PROJECT / "library"))


@cache
def load(inventory: str) -> Sample:
    """A play on a sample inventory beside this file. The role common brings the variables of all others."""
    register_plugins()
    loader = DataLoader()
    loader.set_basedir(str(PROJECT))
    manager = InventoryManager(loader=loader, sources=[str(Path(__file__).parent / inventory)])
    variable_manager = VariableManager(loader=loader, inventory=manager)
    HostVars(inventory=manager, variable_manager=variable_manager, loader=loader)
    play = Play.load(
        {"name": "Sample", "hosts": "controller:compute:storage", "gather_facts": False, "roles": ["common"]},
        variable_manager=variable_manager,
        loader=loader,
    )
    # As its task does.
    for path in sorted((PROJECT / "roles/common/vars/roles").iterdir()):
        for name, value in loader.load_from_file(str(path), trusted_as_template=True).items():
            for host in manager.get_hosts():
                variable_manager.set_host_variable(host.name, name, value)
    return Sample(loader, manager, variable_manager, play, {role.get_name(): role for role in play.get_roles()})
