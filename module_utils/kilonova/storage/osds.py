# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Bring the OSDs of a host to what is wanted, in one call.

Documented in library/ceph_osds.py. osd_plan.py decides. The UUID of an OSD follows from the cluster, the host and its
path, so that a run that was killed finds its number again.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.storage.cluster import DRY_RUN_TIMEOUT, POLL_SECONDS, CephError, Cluster, reach
from ansible.module_utils.kilonova.storage.data import device
from ansible.module_utils.kilonova.storage.osd_plan import AGAIN, KEEP, MAKE, PRIME, Known, Local, Refused, decide
from ansible.module_utils.kilonova.storage.sizes import bytes_of
from ansible.module_utils.kilonova.system.dry_run import not_looked_at
from ansible.module_utils.kilonova.system.logs import unit_log
from ansible.module_utils.kilonova.system.systemctl import Systemctl
from ansible.module_utils.kilonova.system.units import Unit, plan

ARGUMENT_SPEC: dict[str, Any] = {
    "host": {"type": "str", "required": True},
    "osds": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "path", "required": True},
            "size": {"type": "str", "default": ""},
            "uuid": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": True},
        },
    },
    "reads": {"type": "list", "elements": "path", "default": []},
    "careful": {"type": "bool", "default": True},
    "pending": {"type": "list", "elements": "path", "default": []},
    "timeout": {"type": "int", "default": 300},
}
DIRECTORIES = "/var/lib/ceph/osd"
USER = "ceph"


def known_osds(dump: Mapping[str, Any]) -> dict[str, Known]:
    """Return the OSDs of the cluster by UUID, from what 'ceph osd dump' says."""
    return {one["uuid"]: Known(one["osd"], bool(one["up"]), "new" in one.get("state", [])) for one in dump["osds"]}


def volumes(listed: str) -> set[str]:
    """Return the UUIDs of the OSDs on LVM volumes, from what 'ceph-volume lvm list' says."""
    found = json.loads(listed or "{}")
    return {one["tags"]["ceph.osd_fsid"] for entries in found.values() for one in entries if "tags" in one}


def directory(number: int) -> str:
    """Return the directory of an OSD."""
    return f"{DIRECTORIES}/ceph-{number}"


def unit_of(number: int) -> str:
    """Return the unit of an OSD."""
    return f"ceph-osd@{number}.service"


class Host:
    """The OSDs of this host."""

    def __init__(self, module: AnsibleModule, cluster: Cluster | None) -> None:
        self.module, self.cluster, self.params = module, cluster, module.params
        self.known = known_osds(cluster.command("osd dump")) if cluster else {}
        self.volumes: set[str] = set()
        if any(not osd["size"] for osd in self.params["osds"]) and shutil.which("ceph-volume"):
            self.volumes = volumes(self.call("ceph-volume", "lvm", "list", "--format", "json"))

    def call(self, *command: str, data: str | None = None) -> str:
        """Run a program; a failure ends the module."""
        code, output, error = self.module.run_command([*command], data=data)
        if code:
            why = (error.strip() or output.strip()).splitlines()[-3:]
            self.module.fail_json(msg=f"'{' '.join(command[:3])}' failed: {' / '.join(why)}")
        return str(output)

    def local(self, osd: Mapping[str, Any]) -> Local:
        """Return what the host has of an OSD."""
        known = self.known.get(osd["uuid"])
        ready = known is not None and os.path.exists(f"{directory(known.number)}/ready")
        return Local(device(osd["path"]), osd["uuid"] in self.volumes, ready)

    def decisions(self) -> tuple[dict[str, str], list[str]]:
        """Return what to do by UUID, and what is refused."""
        found, refused = {}, []
        for osd in self.params["osds"]:
            try:
                found[osd["uuid"]] = decide(osd, self.params["host"], self.known.get(osd["uuid"]), self.local(osd))
            except Refused as error:
                refused.append(f"{error}.")
        return found, refused

    def foreign(self) -> list[str]:
        """Return OSDs with directories on this host that are not wanted."""
        wanted = {osd["uuid"] for osd in self.params["osds"]}
        numbers = {directory(known.number): uuid for uuid, known in self.known.items()}
        here = sorted(os.listdir(DIRECTORIES)) if os.path.isdir(DIRECTORIES) else []
        return [
            f"Ceph: {name.replace('ceph-', 'osd.')} is not in ceph_osd_devices"
            for name in here
            if (path := f"{DIRECTORIES}/{name}") in numbers and numbers[path] not in wanted
        ]

    def apply(self, osd: Mapping[str, Any], decision: str) -> None:
        """Make an OSD, or its directory."""
        assert self.cluster
        known = self.known.get(osd["uuid"])
        if not osd["size"]:
            self.apply_device(osd, decision, known)
            return
        if decision in (MAKE, AGAIN):
            secrets = json.dumps({"cephx_secret": osd["key"]}).encode()
            # The same number, if an earlier run got one.
            answer = self.cluster.command("osd new", secrets, uuid=osd["uuid"])
            self.make_file(osd, int(answer["osdid"]))
        elif decision == PRIME and known:
            self.prime(osd, known.number)

    def apply_device(self, osd: Mapping[str, Any], decision: str, known: Known | None) -> None:
        """Let ceph-volume make an OSD on a block device, or activate it."""
        assert self.cluster
        if decision == AGAIN and known:
            if osd["uuid"] in self.volumes:
                self.call("ceph-volume", "lvm", "zap", "--destroy", osd["path"])
            # ceph-volume makes another key for each try.
            self.cluster.raw("osd purge-new", id=known.number, yes_i_really_mean_it=True)
        if decision in (MAKE, AGAIN):
            self.call("ceph-volume", "lvm", "create", "--bluestore", "--data", osd["path"], "--osd-fsid", osd["uuid"])
        elif decision == PRIME and known:
            self.call("ceph-volume", "lvm", "activate", "--bluestore", str(known.number), osd["uuid"])

    def prepare(self, osd: Mapping[str, Any], number: int) -> str:
        """Make the directory of an OSD in a file, with its key. Returns its path."""
        path, owner = directory(number), pwd.getpwnam(USER)
        os.makedirs(path, mode=0o750, exist_ok=True)
        with open(
            f"{path}/keyring", "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)
        ) as stream:
            stream.write(f"[osd.{number}]\n\tkey = {osd['key']}\n")
        if not os.path.islink(f"{path}/block"):
            os.symlink(osd["path"], f"{path}/block")
        for one in (path, f"{path}/keyring"):
            os.chown(one, owner.pw_uid, owner.pw_gid)
        os.chown(osd["path"], owner.pw_uid, owner.pw_gid)
        return path

    def make_file(self, osd: Mapping[str, Any], number: int) -> None:
        """Make an OSD in a sparse file. Nothing has ever been stored in what an earlier run left."""
        self.call("systemctl", "stop", unit_of(number))
        shutil.rmtree(directory(number), ignore_errors=True)
        os.makedirs(os.path.dirname(osd["path"]), exist_ok=True)
        descriptor = os.open(osd["path"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.truncate(descriptor, bytes_of(osd["size"]))
        os.close(descriptor)
        path = self.prepare(osd, number)
        self.call(
            *("ceph-osd", "--mkfs", "--id", str(number), "--osd-uuid", osd["uuid"], "--osd-data", path),
            *("--setuser", USER, "--setgroup", USER),
        )

    def prime(self, osd: Mapping[str, Any], number: int) -> None:
        """Make the directory of an OSD anew, from the label of its data."""
        path = directory(number)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path, mode=0o750)
        self.call("ceph-bluestore-tool", "prime-osd-dir", "--dev", osd["path"], "--path", path, "--no-mon-config")
        self.prepare(osd, number)
        owner = pwd.getpwnam(USER)
        for name in os.listdir(path):
            os.lchown(f"{path}/{name}", owner.pw_uid, owner.pw_gid)

    def units(self, made: Sequence[str]) -> list[Unit]:
        """Return the units of the OSDs with what has to be done with them. made: UUIDs of those that would be made."""
        wanted = [osd for osd in self.params["osds"] if osd["uuid"] in self.known and osd["uuid"] not in made]
        units = [
            Unit(
                unit_of(self.known[osd["uuid"]].number),
                "started",
                True if osd["size"] else None,
                None,
                self.params["reads"],
                [],
            )
            for osd in wanted
        ]
        if units:
            systemctl = Systemctl(self.module)
            systemctl.read(units)
            for unit in units:
                plan(unit, self.params["pending"] if self.module.check_mode else [])
        return units

    def start(self, units: list[Unit]) -> None:
        """Start and restart units; restarts wait until the others hold enough copies of everything."""
        restarted = [unit.name.partition("@")[2].removesuffix(".service") for unit in units if "restart" in unit.verbs]
        if restarted and self.params["careful"]:
            self.wait_until(
                lambda: self.ok_to_stop(restarted),
                f"osd.{', osd.'.join(restarted)} cannot be restarted without a pause",
            )
        Systemctl(self.module).apply(units)

    def ok_to_stop(self, numbers: Sequence[str]) -> bool:
        """Return whether clients would not notice if these OSDs stopped."""
        assert self.cluster
        try:
            self.cluster.command("osd ok-to-stop", ids=[*numbers])
        except CephError as error:
            if error.code == errno.EBUSY:
                return False
            raise
        return True

    def wait_until(self, condition: Any, otherwise: str) -> None:
        """Return when a condition holds; end the module where it does not in time."""
        deadline = time.monotonic() + self.params["timeout"]
        while not condition():
            if time.monotonic() >= deadline:
                self.module.fail_json(msg=f"{otherwise} ({self.params['timeout']} s)\n{unit_log('ceph-osd@*')}")
            time.sleep(POLL_SECONDS)

    def all_up(self) -> bool:
        """Return whether the cluster says that all wanted OSDs are up."""
        assert self.cluster
        self.known = known_osds(self.cluster.command("osd dump"))
        return all(self.known[osd["uuid"]].up for osd in self.params["osds"])


def run(module: AnsibleModule) -> None:
    """Look, decide, do."""
    params, checking = module.params, module.check_mode
    try:
        cluster: Cluster | None = reach(DRY_RUN_TIMEOUT if checking else params["timeout"])
    except CephError as error:
        if not checking:
            module.fail_json(msg=f"Ceph's monitors could not be asked: {error}")
        if error.code != errno.ENOENT:
            not_looked_at(module, "OSDs", error, changes=[])
        # Nothing of Ceph is on this host yet.
        cluster = None
    try:
        converge(module, Host(module, cluster))
    except (CephError, ValueError, OSError) as error:
        module.fail_json(msg=f"OSDs: {error}")


def converge(module: AnsibleModule, host: Host) -> None:
    """Make what is missing, and let everything run."""
    decisions, refused = host.decisions()
    if refused and not module.check_mode:
        module.fail_json(msg="\n".join(["Nothing has been done for the OSDs of this host.", *refused]))
    todo = [osd for osd in host.params["osds"] if decisions.get(osd["uuid"], KEEP) != KEEP]
    words = {MAKE: "make an OSD on", AGAIN: "make an OSD on", PRIME: "make the directory of the OSD on"}
    changes = [f"{words[decisions[osd['uuid']]]} {osd['path']}" for osd in todo]
    diff = {"before": "", "after": "".join(f"{line}\n" for line in changes), "after_header": "OSDs"}
    for osd in [] if module.check_mode else todo:
        host.apply(osd, decisions[osd["uuid"]])
    if host.cluster and not module.check_mode:
        host.known = known_osds(host.cluster.command("osd dump"))
        Systemctl(module).call("daemon-reload")
    # Of those that are not made yet, and of those that are refused, there is nothing to start.
    left = [osd["uuid"] for osd in todo] if module.check_mode else []
    units = host.units([*left, *(osd["uuid"] for osd in host.params["osds"] if osd["uuid"] not in decisions)])
    verbs = [f"{verb} {unit.name}" for unit in units for verb in unit.verbs if verb != "enable" or len(unit.verbs) == 1]
    if not module.check_mode:
        host.start(units)
        host.wait_until(host.all_up, "not all OSDs of this host are up in the cluster")
    result: dict[str, Any] = {"needs_you": refused} if refused else {}
    changes += verbs
    module.exit_json(changed=bool(changes), changes=changes, foreign=host.foreign(), diff=diff, **result)
