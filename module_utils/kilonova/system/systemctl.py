# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Call systemctl for many units at once."""

from __future__ import annotations

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.logs import unit_log
from ansible.module_utils.kilonova.system.units import RUNNING, SUFFIXES, Unit, names_with

PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "FragmentPath",
    "SourcePath",
    "DropInPaths",
    "NeedDaemonReload",
    "Type",
    "RemainAfterExit",
    "Result",
    "ExecMainPID",
    "ExecMainStartTimestamp",
    "InactiveExitTimestamp",
    "StateChangeTimestamp",
    "ActiveEnterTimestamp",
    "NRestarts",
    "ControlGroup",
    "ConditionResult",
    "ConditionTimestamp",
    "Triggers",
    "LoadError",
    "Job",
)


def parse_show(text: str) -> list[dict[str, str]]:
    """Return the blocks that C(systemctl show) prints, one for each unit, in the order of its arguments."""
    return [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.strip().split("\n\n")
    ]


class Systemctl:
    """Makes as few calls as there are verbs."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.program = module.get_bin_path("systemctl", required=True)

    def call(self, *arguments: str) -> str:
        """Return the output of systemctl. A failure ends the module with the logs of the units in its message."""
        code, output, error = self.module.run_command(
            [self.program, *arguments], environ_update={"LC_ALL": "C", "SYSTEMD_COLORS": "0"}
        )
        if code != 0:
            units = [name for name in arguments if name.endswith(SUFFIXES)]
            logs = "\n".join(unit_log(name) for name in units if name in error)
            self.module.fail_json(
                msg=f"'systemctl {' '.join(arguments)}' failed: {(error or output).strip()}\n{logs}".rstrip()
            )
        return str(output)

    def read(self, units: list[Unit]) -> None:
        """Fill in the present properties of the units."""
        text = self.call(
            "show", "--timestamp=us+utc", f"--property={','.join(PROPERTIES)}", "--", *[unit.name for unit in units]
        )
        for unit, properties in zip(units, parse_show(text), strict=True):
            unit.now = properties

    def apply(self, units: list[Unit]) -> None:
        """Carry out the verbs of all units. Starts and restarts are queued, not waited for."""
        for verb in ("unmask", "enable", "disable", "mask"):
            names = names_with(verb, units)
            if names:
                self.call(verb, "--quiet", "--", *names)
        for unit in units:
            if "reload" in unit.verbs:
                self._reload(unit)
        begin = [unit.name for unit in units if "start" in unit.verbs or "restart" in unit.verbs]
        planned_stops = names_with("stop", units)
        blocking = list(dict.fromkeys(self._blocking_sockets(units)))
        stop = list(dict.fromkeys([*planned_stops, *blocking]))
        begin += [name for name in blocking if name not in [*begin, *planned_stops]]
        if stop:
            self.call("stop", "--", *stop)
        if not begin:
            return
        reset = [u.name for u in units if u.name in begin and u.get("ActiveState") in ("failed", *RUNNING)]
        if reset:
            self.call("reset-failed", "--", *reset)
        # A restart also reaches units that are PartOf= the restarted one. Stopped units are started instead, so that
        # this call does not end units that it has just begun to start, such as OVN databases creating their files.
        restarted = [name for name in begin if name in names_with("restart", units) and name not in stop]
        started = [name for name in begin if name not in restarted]
        for verb, names in (("restart", restarted), ("start", started)):
            if names:
                self.call(verb, "--no-block", "--", *names)

    def _reload(self, unit: Unit) -> None:
        """Reload a unit. Where it refuses its files, they count as newer than its last reload, for the next run."""
        try:
            self.call("reload", "--", unit.name)
        except SystemExit:
            for path in filter(os.path.exists, unit.reloads):
                os.utime(path)
            raise

    def _blocking_sockets(self, units: list[Unit]) -> list[str]:
        """Return what must stop before sockets can start, and start again afterwards.

        systemd refuses to start a socket while its service runs. The other sockets of that service stop as well, or
        the next connection to them would start it in between.
        """
        sockets = [unit for unit in units if unit.name.endswith(".socket")]
        found: list[str] = []
        for socket in sockets:
            if {"start", "restart"}.isdisjoint(socket.verbs):
                continue
            services = self._active(socket.get("Triggers").split())
            found += [
                other.name
                for other in sockets
                if other.get("ActiveState") in RUNNING and not set(other.get("Triggers").split()).isdisjoint(services)
            ]
            found += services
        return found

    def _active(self, names: list[str]) -> list[str]:
        if not names:
            return []
        blocks = parse_show(self.call("show", "--property=Id,ActiveState", "--", *names))
        return [name for name, block in zip(names, blocks, strict=True) if block.get("ActiveState") in RUNNING]
