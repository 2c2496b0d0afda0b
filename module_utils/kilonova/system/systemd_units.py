# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Bring a list of systemd units to their wanted states.

Documented in library/systemd_units.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.systemctl import Systemctl
from ansible.module_utils.kilonova.system.unit_readiness import wait_for
from ansible.module_utils.kilonova.system.units import (
    Unit,
    definition_files,
    foreign_drop_ins,
    full_name,
    names_with,
    newest,
    pending_reason,
    plan,
)

ARGUMENT_SPEC: dict[str, Any] = {
    "units": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
            "enabled": {"type": "bool"},
            "masked": {"type": "bool"},
            "reads": {"type": "list", "elements": "path", "default": []},
            "reloads": {"type": "list", "elements": "path", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "deferred": {"type": "list", "elements": "path", "default": []},
        },
    },
    "pending": {"type": "list", "elements": "path", "default": []},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 300},
    "settle": {"type": "float", "default": 1.5},
}


def missing_units(units: list[Unit]) -> Iterator[str]:
    """Yield a sentence for each unit that must exist and does not."""
    for unit in units:
        if not unit.installed and (unit.must_run or unit.enabled):
            yield f"{unit.name} does not exist on this host; install the package that contains it"


def unusable_units(units: list[Unit], pending: list[str]) -> dict[str, str]:
    """Return {name: sentence} of the units that cannot run until an operator acts."""
    found = {}
    for unit in units:
        load = unit.get("LoadState")
        if load == "masked" and unit.must_run and unit.masked is None:
            found[unit.name] = (
                f"{unit.name} is masked and cannot be started: run 'systemctl unmask {unit.name}' on the host if that "
                "was not meant"
            )
        elif load in ("bad-setting", "error") and not pending_reason(unit, definition_files(unit), pending):
            why = unit.get("LoadError") or unit.get("FragmentPath")
            found[unit.name] = f"{unit.name} cannot be loaded ({load}): {why}"
    return found


def diff_of(units: list[Unit]) -> dict[str, str]:
    """Return a diff with one line for each unit that changes."""
    before, after = [], []
    ends = {"start": "active", "restart": "active, restarted", "reload": "active, reloaded", "stop": "inactive"}
    for unit in (unit for unit in units if unit.verbs):
        state = unit.get("ActiveState") if unit.installed else "not installed"
        action = next((ends[verb] for verb in unit.verbs if verb in ends), state)
        changes = {"enable": "enabled", "disable": "disabled", "mask": "masked", "unmask": "unmasked"}
        boot = next((changes[verb] for verb in unit.verbs if verb in changes), unit.get("UnitFileState"))
        reason = f" ({unit.reason})" if unit.reason else ""
        before.append(f"{unit.name}: {state}, {unit.get('UnitFileState')}\n")
        after.append(f"{unit.name}: {action}, {boot}{reason}\n")
    return {"before": "".join(before), "after": "".join(after), "before_header": "units", "after_header": "units"}


def settle_future_files(module: AnsibleModule, units: list[Unit]) -> None:
    """Set time stamps that lie in the future to now, or their units would restart in every run."""
    now = time.time()
    for unit in (unit for unit in units if {"restart", "reload"} & set(unit.verbs)):
        for path in [*definition_files(unit), *unit.reads, *unit.reloads]:
            stamp, name = newest(path, unit.deferred)
            while stamp > now + 1:
                module.warn(f"{name} has a time stamp in the future; it is set to the present time")
                os.utime(name)
                stamp, name = newest(path, unit.deferred)


def read(module: AnsibleModule, systemctl: Systemctl, units: list[Unit]) -> bool:
    """Read the units' properties, after a daemon-reload if systemd needs one. Returns whether it does."""
    systemctl.read(units)
    outdated = {unit.name for unit in units if unit.get("NeedDaemonReload") == "yes"}
    absent = [unit for unit in units if not unit.installed and (unit.state == "started" or unit.enabled)]
    reload = bool(absent or outdated)
    if reload and not module.check_mode:
        systemctl.call("daemon-reload")
        systemctl.read(units)
        # The reload makes systemd forget that a unit file changed, but the unit must still restart.
        for unit in units:
            unit.now["NeedDaemonReload"] = "yes" if unit.name in outdated else "no"
    return reload


def result_of(units: list[Unit], reload: bool) -> dict[str, Any]:
    """Return the planned verbs as the module's result."""
    outdated = any(unit.get("NeedDaemonReload") == "yes" for unit in units)
    return {
        "changed": outdated or any(unit.verbs for unit in units),
        "started": names_with("start", units),
        "restarted": [{"name": unit.name, "reason": unit.reason} for unit in units if "restart" in unit.verbs],
        "reloaded": [{"name": unit.name, "reason": unit.reason} for unit in units if "reload" in unit.verbs],
        "stopped": names_with("stop", units),
        "enabled": names_with("enable", units),
        "disabled": names_with("disable", units),
        "masked": names_with("mask", units),
        "unmasked": names_with("unmask", units),
        "daemon_reload": reload,
        "outdated": [unit.name for unit in units if unit.get("NeedDaemonReload") == "yes"],
        "foreign": [f"{unit.name}: drop-in {path}" for unit in units for path in foreign_drop_ins(unit)],
    }


def run(module: AnsibleModule) -> None:
    """Change the units that differ, and wait until those that must run are up."""
    systemctl = Systemctl(module)
    units = [Unit(**{**entry, "name": full_name(entry["name"])}) for entry in module.params["units"]]
    if not units:
        module.exit_json(**result_of(units, reload=False))
    reload = read(module, systemctl, units)
    # Without check mode, pending files are written already.
    pending = module.params["pending"] if module.check_mode else []
    unusable = unusable_units(units, pending)
    if not module.check_mode:
        problems = [*missing_units(units), *unusable.values()]
        if problems:
            module.fail_json(msg="\n".join(problems))
    for unit in units:
        plan(unit, pending)
        if unit.name in unusable:
            # No run can do it, so it is not predicted.
            unit.verbs = []

    result = result_of(units, reload)
    if module._diff and result["changed"]:
        result["diff"] = diff_of(units)
    if module.check_mode:
        result["needs_you"] = list(unusable.values())
    else:
        settle_future_files(module, units)
        systemctl.apply(units)
        up = [unit for unit in units if unit.must_run]
        if module.params["wait"] and up:
            wait_for(module, systemctl, up)
    module.exit_json(**result)
