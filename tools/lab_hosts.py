# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Write the machines of a lab as hosts of an operator: without the group lab, with values instead of expressions.

Ansible evaluates an expression again in each task. With the group lab, site.yml records the values first; without it,
the inventory must have them.
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
    """Return the variables of each machine of the lab in these inventories."""
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
    """Return an inventory with these groups of lab machines, as YAML."""
    return yaml.safe_dump({"all": {"hosts": host_variables(*inventories), "children": groups}}, sort_keys=False)
