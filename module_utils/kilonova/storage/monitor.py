# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Make the store of a Ceph monitor: of the first one of a new cluster, or of one that joins.

Documented in library/ceph_monitor.py. A store is made beside its place and renamed: what is in its place is complete.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.storage.cluster import CephError, Cluster
from ansible.module_utils.kilonova.storage.data import ASIDE

ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "fsid": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "keyring": {"type": "str", "required": True, "no_log": True},
    "founder": {"type": "bool", "default": False},
    "data": {"type": "dict", "required": True},
}
STORES = "/var/lib/ceph/mon"
USER = "ceph"


def refusal(founder: bool, data: Mapping[str, Sequence[str] | None], why: str) -> str:
    """Return why no new cluster may begin here although none answers; empty where it may.

    A cluster that does not exist and one that is down as a whole look alike from outside.
    """
    found = {host: list(paths) for host, paths in data.items() if paths}
    none = f"No quorum of monitors answers ({why})"
    if found:
        listed = "; ".join(f"{host}: {', '.join(paths)}" for host, paths in sorted(found.items()))
        return (
            f"{none}, and storage hosts hold data of a cluster ({listed}). A new cluster would lose it. Start the "
            "monitors that exist (systemctl start ceph-mon.target on their hosts) and run this again. Where all of "
            "them are lost, their store can be made anew from the OSDs: docs/operate/storage.md. Where these data are "
            "of a cluster that is to be given up, remove them from these hosts."
        )
    unknown = sorted(host for host, paths in data.items() if paths is None)
    if unknown:
        return (
            f"{none}, and {', '.join(unknown)} could not be looked at: a cluster may exist there. Run site.yml without "
            "--limit when all storage hosts answer, or remove hosts that do not exist from the group storage."
        )
    if not founder:
        return (
            f"{none}. The first host of the group storage begins a cluster: run site.yml without --limit, and look at "
            "its monitor if that has run already."
        )
    return ""


def installed() -> bool:
    """Return whether the packages of the monitor are here."""
    return shutil.which("ceph-mon") is not None


def call(module: AnsibleModule, *command: str) -> None:
    """Run a program; a failure ends the module."""
    code, output, error = module.run_command([*command])
    if code:
        module.fail_json(msg=f"'{' '.join(command[:2])}' failed: {error.strip() or output.strip()}")


def make(module: AnsibleModule, store: str, monmap: bytes | None) -> None:
    """Make the store in its place. Without a monmap, of the first monitor of a new cluster."""
    params = module.params
    owner = pwd.getpwnam(USER)
    os.makedirs(STORES, exist_ok=True)
    for left in (entry for entry in os.listdir(STORES) if entry.startswith(ASIDE)):
        shutil.rmtree(os.path.join(STORES, left))
    work = tempfile.mkdtemp(prefix=ASIDE, dir=STORES)
    keyring, map_path, aside = (os.path.join(work, name) for name in ("keyring", "monmap", "store"))
    with open(keyring, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
        stream.write(params["keyring"])
    if monmap is None:
        call(
            module,
            *("monmaptool", "--create", "--clobber", "--set-min-mon-release", "reef", "--fsid", params["fsid"]),
            *("--addv", params["name"], params["address"], map_path),
        )
    else:
        with open(map_path, "wb") as stream_of_map:
            stream_of_map.write(monmap)
    os.mkdir(aside, 0o750)
    for path in (work, keyring, map_path, aside):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    call(
        module,
        *(
            "ceph-mon",
            "--mkfs",
            "--id",
            params["name"],
            "--fsid",
            params["fsid"],
            "--setuser",
            USER,
            "--setgroup",
            USER,
        ),
        *("--mon-data", aside, "--monmap", map_path, "--keyring", keyring),
    )
    os.rename(aside, store)
    shutil.rmtree(work)
    for path in (store, STORES):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def run(module: AnsibleModule) -> None:
    """Make the store where there is none."""
    params = module.params
    store = f"{STORES}/ceph-{params['name']}"
    if os.path.isdir(store):
        module.exit_json(changed=False, changes=[])
    if module.check_mode and not installed():
        module.exit_json(changed=True, changes=[f"make the monitor {params['name']}"])
    monmap, why = None, ""
    try:
        monmap = Cluster().raw("mon getmap")
    except CephError as error:
        why = str(error)
    if monmap is None and (text := refusal(params["founder"], params["data"], why)):
        if module.check_mode and not any(params["data"].values()) and None not in params["data"].values():
            # The first host begins the cluster before this one is met.
            module.exit_json(changed=True, changes=[f"make the monitor {params['name']}"])
        module.fail_json(msg=text)
    if not module.check_mode:
        make(module, store, monmap)
    kind = "the first one of a new cluster" if monmap is None else "which joins the others"
    module.exit_json(changed=True, changes=[f"make the monitor {params['name']}, {kind}"])
