# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The Ceph cluster of the group storage: healthy, encrypted, with clients that may do no more than they need."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from plugins.filter.ceph import ceph_key
from tests.secret import Secret

pytestmark = pytest.mark.on("storage")

CLIENTS = {
    "client.glance": {"images": "rw"},
    "client.nova": {"vms": "rw", "images": "r"},
    "client.cinder": {"volumes": "rw", "images": "r"},
    "client.cinder-backup": {"backups": "rw"},
}
POOLS = ("images", "vms", "volumes", "backups")
ADMIN = "/etc/ceph/ceph.client.admin.keyring"
# What a client may do in each pool, with its own key: r (list), w (make an image and remove it).
TRY = """
import rados, rbd
found = {}
for name, key in ARGUMENTS[0].items():
    cluster = rados.Rados(conffile="/etc/ceph/ceph.conf", name=name, conf={"key": key, "rados_osd_op_timeout": "20"})
    cluster.connect(timeout=20)
    for pool in ARGUMENTS[1]:
        io = cluster.open_ioctx(pool)
        rights = ""
        try:
            rbd.RBD().list(io)
            rights += "r"
        except rbd.PermissionError:
            pass
        try:
            rbd.RBD().create(io, "kn-test", 2**22)
            rbd.RBD().remove(io, "kn-test")
            rights += "w"
        except rbd.PermissionError:
            pass
        found.setdefault(name, {})[pool] = rights
    try:
        code, _, _ = cluster.mon_command(json.dumps({"prefix": "auth ls"}), b"", timeout=20)
    except rados.Error:
        code = -1
    found[name]["administers"] = code == 0
    cluster.shutdown()
print(json.dumps(found))
"""
WRONG_KEY = """
import rados
cluster = rados.Rados(conffile="/etc/ceph/ceph.conf", name=ARGUMENTS[0],
                      conf={"key": ARGUMENTS[1], "client_mount_timeout": "10"})
try:
    cluster.connect(timeout=10)
    print(json.dumps("connected"))
except rados.Error as error:
    print(json.dumps(type(error).__name__))
finally:
    # A process that ends beside threads of the library may crash.
    cluster.shutdown()
"""


def ask(host: Any, command: str) -> Any:
    return json.loads(host.check_output(f"ceph --format json --connect-timeout 20 {command}"))


def test_it_is_healthy_and_everything_is_up(host: Any) -> None:
    health = ask(host, "health detail")
    assert health["status"] == "HEALTH_OK", health["checks"]
    osds = ask(host, "osd dump")["osds"]
    assert osds and all(osd["up"] and osd["in"] for osd in osds)


def test_copies_and_placement_follow_from_the_hosts(host: Any, hosts_sites: tuple[Any, ...]) -> None:
    storage = [site.name for site in hosts_sites if "storage" in site.groups]
    size = min(len(storage), 3)
    monitors = {one["name"] for one in ask(host, "mon dump")["mons"]}
    assert monitors == {*storage[: 3 if len(storage) >= 3 else 1]}
    domains = {
        rule["rule_id"]: [step["type"] for step in rule["steps"] if "type" in step]
        for rule in ask(host, "osd crush rule dump")
    }
    pools = {pool["pool_name"]: pool for pool in ask(host, "osd pool ls detail")}
    assert {*POOLS} <= {*pools}
    for pool in pools.values():
        assert (pool["size"], pool["min_size"]) == (size, max(size - 1, 1)), pool["pool_name"]
        assert domains[pool["crush_rule"]] == ["host" if len(storage) > 1 else "osd"]
        assert pool["pg_autoscale_mode"] == "on"


def test_modules_of_the_manager_are_loaded(host: Any) -> None:
    """Without the autoscaler, pools would stay with one placement group."""
    assert {row["pool_name"] for row in ask(host, "osd pool autoscale-status")} >= {*POOLS}


def test_clients_may_do_what_they_need(run_python: Callable[..., Any], generated_secrets: dict[str, str]) -> None:
    keys = {name: Secret(ceph_key(generated_secrets["ceph_seed"], name)) for name in CLIENTS}
    wanted = {
        name: {pool: pools.get(pool, "") for pool in POOLS} | {"administers": False} for name, pools in CLIENTS.items()
    }
    assert run_python(TRY, keys, POOLS) == wanted


def test_the_key_of_another_client_is_refused(
    run_python: Callable[..., Any], generated_secrets: dict[str, str]
) -> None:
    nova, glance = (Secret(ceph_key(generated_secrets["ceph_seed"], name)) for name in ("client.nova", "client.glance"))
    assert run_python(WRONG_KEY, "client.nova", nova) == "connected"
    for name in ("client.nova", "client.admin"):
        assert run_python(WRONG_KEY, name, glance) == "PermissionDeniedError"


def test_keys_are_for_those_who_need_them(host: Any) -> None:
    for path, owner in ((ADMIN, "root"), ("/var/lib/ceph/bootstrap-osd/ceph.keyring", "ceph")):
        file = host.file(path)
        assert (file.user, file.mode) == (owner, 0o600)
    done = host.run("setpriv --reuid nobody --regid nogroup --clear-groups ceph --connect-timeout 5 status")
    assert done.rc != 0


def test_all_traffic_is_encrypted(host: Any) -> None:
    """Daemons listen for the second version of the protocol only, and offer nothing but its secure mode."""
    sockets = host.check_output("ls /run/ceph/").split()
    asked = [name for name in sockets if name.startswith(("ceph-mon.", "ceph-osd."))]
    assert asked
    for name in asked:
        options = json.loads(host.check_output(f"ceph daemon /run/ceph/{name} config show"))
        modes = {key: value for key, value in options.items() if key.startswith("ms_") and key.endswith("_mode")}
        encrypted = (
            "ms_cluster_mode",
            "ms_service_mode",
            "ms_client_mode",
            "ms_mon_cluster_mode",
            "ms_mon_service_mode",
        )
        assert {modes[key] for key in encrypted} == {"secure"}
        assert options["ms_bind_msgr1"] == "false"
        assert options["auth_cluster_required"] == options["auth_service_required"] == "cephx"
    addresses = [one for monitor in ask(host, "mon dump")["mons"] for one in monitor["public_addrs"]["addrvec"]]
    assert {one["type"] for one in addresses} == {"v2"}
    assert all(one["type"] == "v2" for osd in ask(host, "osd dump")["osds"] for one in osd["public_addrs"]["addrvec"])


def test_stale_clients_cannot_take_the_place_of_others(host: Any) -> None:
    (name,) = [one for one in host.check_output("ls /run/ceph/").split() if one.startswith("ceph-mon.")][:1] or [""]
    if not name:
        pytest.skip("there is no monitor on this host")
    options = json.loads(host.check_output(f"ceph daemon /run/ceph/{name} config show"))
    assert options["auth_allow_insecure_global_id_reclaim"] == "false"


def test_daemons_listen_on_the_management_network_within_their_ports(site: Any, host: Any) -> None:
    found = []
    for line in host.check_output("ss -H -l -n -t -p").splitlines():
        fields = line.split()
        if '"ceph-' in fields[-1]:
            address, _, port = fields[3].rpartition(":")
            found.append((address, int(port)))
    assert found
    assert {address for address, _ in found} == {site.management_address}
    assert all(port == 3300 or 6800 <= port <= 7300 for _, port in found)


def test_logs_are_rotated(host: Any) -> None:
    assert host.run("logrotate --debug /etc/logrotate.d/ceph-common").rc == 0
    assert host.check_output("systemctl is-enabled logrotate.timer") == "enabled"


def test_units_are_kept_from_what_they_do_not_need(host: Any) -> None:
    units = host.check_output("systemctl list-units --plain --no-legend 'ceph-mon@*' 'ceph-osd@*' 'ceph-mgr@*'")
    names = [line.split()[0] for line in units.splitlines()]
    assert any(name.startswith("ceph-osd@") for name in names)
    for name in names:
        shown = host.check_output(f"systemctl show --property=NoNewPrivileges,RestrictNamespaces,ActiveState {name}")
        assert {"NoNewPrivileges=yes", "ActiveState=active"} <= {*shown.splitlines()}, name
