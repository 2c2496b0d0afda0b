# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Renders the configuration files of all services as a deployment would, without a host.

The variables are those of a play with all roles on a sample inventory; the rendering is that of the action plugin
config_files, whose module call is kept instead of sent.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
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

PROJECT = Path(__file__).resolve().parents[2]
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
    maps: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rendered: dict[str, list[File]] = field(default_factory=dict)

    def hosts(self) -> list[str]:
        """Names of all hosts that something is deployed on."""
        return [host.name for host in self.inventory.get_hosts("controller:compute:storage")]

    def variables(self, host: str) -> dict[str, Any]:
        """What a task on the host would see."""
        found = self.variable_manager.get_vars(play=self.play, host=self.inventory.get_host(host))
        assert isinstance(found, dict)
        return found

    def templar(self, host: str, changes: Mapping[str, Any] | None = None) -> Templar:
        """A templar with the host's variables, and others than the inventory's."""
        magic = {"ansible_run_tags": ["all"], "role_path": str(PROJECT / "roles" / "service")}
        return Templar(loader=self.loader, variables={**self.variables(host), **magic, **(changes or {})})

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
            self.rendered[host] = self.render_all(host)
        return self.rendered[host]

    def render_all(self, host: str) -> list[File]:
        """Everything that config_files writes on the host, rendered anew."""
        variables = self.variables(host)
        return [rendered for service in self.services(host) for rendered in self.render(host, service, variables)]

    def render(
        self, host: str, service: dict[str, Any], variables: dict[str, Any], changes: Mapping[str, Any] | None = None
    ) -> list[File]:
        """The files of one service on one host, with others than the inventory's variables."""
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
        templar = self.templar(host, changes)
        context = PlayContext(play=self.play)
        connection = plugins.connection_loader.get("ansible.builtin.local", context)
        recorder = Recorder(task, connection, context, self.loader, templar, plugins)
        task.args = templar.template(task.args)
        recorder.run(task_vars={**variables, **(changes or {}), "ansible_search_path": task.get_search_path()})
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
