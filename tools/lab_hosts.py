# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The machines of a lab as an operator's inventory has hosts: without the group lab, with values for its expressions.

Ansible works out an expression again in each task. In a lab, site.yml sees to the machines first and then remembers
what the expressions gave; where it does not see to them, the inventory has to have the values.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parent.parent
VARIABLES = PROJECT / "inventory" / "lab" / "group_vars" / "lab.yml"
OTHERS = ("lab_name", "lab_project_directory")


def host_variables(*inventories: Path) -> dict[str, dict[str, Any]]:
    """The variables of each machine of a lab, which is in these inventories."""
    names = [*OTHERS, *yaml.safe_load(VARIABLES.read_text())]
    message = "{{ {" + ", ".join(f"'{name}': {name}" for name in names) + "} | to_json }}"
    sources = [argument for path in inventories for argument in ("-i", str(path))]
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "adhoc", *sources, "lab", "-m", "ansible.builtin.debug"]
        + ["-a", json.dumps({"msg": message})],
        cwd=PROJECT,
        env=os.environ | {"ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]
    values = {host: answer["msg"] for host, answer in answers.items()}
    return {host: json.loads(value) if isinstance(value, str) else value for host, value in values.items()}


def site_inventory(groups: dict[str, Any], *inventories: Path) -> str:
    """An inventory with these groups of a lab's machines, as YAML."""
    return yaml.safe_dump({"all": {"hosts": host_variables(*inventories), "children": groups}}, sort_keys=False)
