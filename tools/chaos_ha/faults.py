# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The faults: where each one happens, how it is made, and how it ends."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tools.chaos_ha.site import Failed, Site, wait_until

# What runs on each controller.
DAEMONS = (
    "mariadb",
    "rabbitmq-server",
    "epmd",
    "haproxy",
    "keepalived",
    "ovn-ovsdb-server-nb",
    "ovn-ovsdb-server-sb",
    "ovn-northd",
    "kilonova-ovn-relay",
    "kilonova-galera",
    "kilonova-memcached@keystone",
    "kilonova-memcached@nova",
    "keystone",
    "glance-api",
    "placement-api",
    "neutron-api",
    "neutron-ovn-maintenance-worker",
    "neutron-periodic-workers",
    "nova-api",
    "nova-api-metadata",
    "nova-conductor",
    "nova-scheduler",
    "nova-novncproxy",
    "nova-serialproxy",
    "ovsdb-server",
    "ovs-vswitchd",
    "ovn-controller",
)
# Long enough for everybody to notice.
HOLD = 25
PARTITION = "kilonova_chaos"
SMALL_DISK = "/run/kilonova-chaos-disk"
FAKE_CLOCK = "/etc/systemd/system/{unit}.service.d/chaos-clock.conf"
CLOCK_UNITS = ("keystone", "glance-api", "placement-api", "neutron-api", "nova-api", "nova-conductor", "nova-scheduler")
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


@dataclass(frozen=True)
class Fault:
    """Something that happens to a controller, or to all."""

    name: str
    choose: Callable[[Site, random.Random], str]
    begin: Callable[[Site, str], None]
    end: Callable[[Site, str], None]
    hold: float = HOLD


def _any(site: Site, chance: random.Random) -> str:
    return chance.choice(site.controllers)


def _power_off(name: str, choose: Callable[[Site], str]) -> Fault:
    return Fault(
        f"power off: {name}",
        lambda site, chance: choose(site),
        lambda site, host: site.power_off([host]),
        lambda site, host: site.start([host]),
    )


def _kill(unit: str) -> Fault:
    """All processes of a unit are killed; systemd starts it again."""

    def begin(site: Site, host: str) -> None:
        site.must(host, f"systemctl kill --signal=KILL --kill-whom=all {unit}.service")

    def end(site: Site, host: str) -> None:
        wait_until(
            lambda: site.on(host, f"systemctl is-active --quiet {unit}.service").returncode == 0, 300, f"{unit} runs"
        )

    return Fault(f"kill -9: {unit}", _any, begin, end, hold=0)


def _others(site: Site, host: str) -> str:
    """Return the management addresses of the other controllers, for nft."""
    found = []
    for other in site.controllers:
        if other != host:
            config = (site.lab.directory / "machines" / other / "ssh_config").read_text()
            found.append(config.partition("HostName ")[2].split()[0])
    return ", ".join(found)


def _cut_off(name: str, *directions: str) -> Fault:
    """Drop packets between a controller and the others; clients and computes still reach it."""

    def begin(site: Site, host: str) -> None:
        chains = {
            "in": "chain in { type filter hook prerouting priority -400; ip saddr { %s } drop; };",
            "out": "chain out { type filter hook output priority -400; ip daddr { %s } drop; };",
        }
        text = " ".join(chains[direction] % _others(site, host) for direction in directions)
        site.must(host, f"nft 'table ip {PARTITION} {{ {text} }}'")

    def end(site: Site, host: str) -> None:
        site.must(host, f"nft delete table ip {PARTITION}")

    return Fault(f"partition: {name}", lambda site, chance: site.address_holder(), begin, end)


def _fill_disk(site: Site, host: str) -> None:
    """Give the database a small disk of its own, and fill it: the machines of a lab share the disk of this computer."""
    site.must(
        host,
        f"set -e; systemctl stop mariadb; mkdir -p {SMALL_DISK}"
        f"; mount -t tmpfs -o size=$(( $(du -sm /var/lib/mysql | cut -f1) + 64 ))m,mode=0755 tmpfs {SMALL_DISK}"
        f"; cp -a /var/lib/mysql/. {SMALL_DISK}; chown mysql:mysql {SMALL_DISK}"
        f"; mount --bind {SMALL_DISK} /var/lib/mysql; systemctl start mariadb"
        f"; dd if=/dev/zero of={SMALL_DISK}/chaos-fill bs=1M 2>/dev/null || true",
        timeout=300,
    )


def _empty_disk(site: Site, host: str) -> None:
    site.must(
        host,
        f"set -e; rm {SMALL_DISK}/chaos-fill; systemctl stop mariadb; umount /var/lib/mysql; umount {SMALL_DISK}"
        f"; rmdir {SMALL_DISK}; systemctl start mariadb",
        timeout=300,
    )


def _set_clock(site: Site, host: str) -> None:
    """Let the services see a clock that is wrong: the machines of a lab share the clock of this computer."""
    site.must(host, "dpkg --status faketime >/dev/null 2>&1 || apt-get --quiet --yes install faketime", timeout=300)
    if site.on(host, f"test -e {FAKETIME}").returncode:
        raise Failed(f"{host} has no {FAKETIME}")
    for unit in CLOCK_UNITS:
        path = FAKE_CLOCK.format(unit=unit)
        text = f"[Service]\\nEnvironment=LD_PRELOAD={FAKETIME} FAKETIME=+600s\\n"
        site.must(host, f"mkdir -p $(dirname {path}); printf '{text}' >{path}")
    site.must(host, f"systemctl daemon-reload; systemctl restart {' '.join(CLOCK_UNITS)}", timeout=300)


def _reset_clock(site: Site, host: str) -> None:
    paths = " ".join(FAKE_CLOCK.format(unit=unit) for unit in CLOCK_UNITS)
    site.must(
        host,
        f"rm {paths}; rmdir --ignore-fail-on-non-empty $(dirname {paths}); systemctl daemon-reload"
        f"; systemctl restart {' '.join(CLOCK_UNITS)}",
        timeout=300,
    )


def _slow_disk(site: Site, host: str) -> None:
    """Delay each write of the database to its disk by a second."""
    site.must(host, "command -v strace >/dev/null || apt-get --quiet --yes install strace", timeout=300)
    site.must(
        host,
        "systemd-run --quiet --unit=chaos-slow-disk strace --follow-forks --quiet=all --output=/dev/null"
        " --trace=fsync,fdatasync --inject=fsync,fdatasync:delay_enter=1000000"
        " --attach=$(systemctl show --property=MainPID --value mariadb)",
    )


def _fast_disk(site: Site, host: str) -> None:
    site.must(host, "systemctl stop chaos-slow-disk")


def _power_cut(site: Site, host: str) -> None:
    site.power_off(site.controllers)


def _power_back(site: Site, host: str) -> None:
    """Start the controllers one after the other, the named one last: a boot ends when the others are there, too."""
    order = sorted(site.controllers, key=lambda other: other == host)
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(site.start, [one]) for one in order]:
            done.result()


FAULTS = (
    _power_off("holder of the API address", lambda site: site.address_holder()),
    _power_off("the database's writer", lambda site: site.database_writer()),
    _power_off("leader of most queues", lambda site: site.queue_leader()),
    _power_off("leader of OVN's northbound database", lambda site: site.raft_leader("nb")),
    _power_off("leader of OVN's southbound database", lambda site: site.raft_leader("sb")),
    _power_off("neither address nor writer", lambda site: site.plain()),
    *map(_kill, DAEMONS),
    _cut_off("from the others, both directions", "in", "out"),
    _cut_off("hears nothing of the others", "in"),
    _cut_off("the others hear nothing of it", "out"),
    Fault("full disk: the database's writer", lambda site, chance: site.database_writer(), _fill_disk, _empty_disk),
    Fault("clock of the services 10 minutes ahead", _any, _set_clock, _reset_clock),
    Fault("slow disk: the database's writer", lambda site, chance: site.database_writer(), _slow_disk, _fast_disk),
    Fault("power cut of all controllers", _any, _power_cut, _power_back, hold=0),
)


def draw(count: int, seed: int) -> list[Fault]:
    """Return faults in an order that follows from the seed, one of each kind before a second one of a kind."""
    chance = random.Random(seed)
    kinds: dict[str, list[Fault]] = {}
    for fault in chance.sample(FAULTS, len(FAULTS)):
        kinds.setdefault(fault.name.partition(":")[0], []).append(fault)
    drawn: list[Fault] = []
    while len(drawn) < min(count, len(FAULTS)):
        for kind in list(kinds):
            if kinds[kind] and len(drawn) < count:
                drawn.append(kinds[kind].pop())
    return drawn
