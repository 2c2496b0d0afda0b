# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Every problem that preflight finds, with the message that a user sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.kilonova.preflight import host as checks
from ansible.module_utils.kilonova.preflight import variables

from plugins.action.preflight import report

PROJECT = Path(__file__).resolve().parents[4]


def interface(*addresses: str, kind: str = "", master: str = "") -> dict[str, Any]:
    """An interface as the module preflight_facts reports it."""
    return {
        "mac": "02:00:00:00:00:01",
        "mtu": 1500,
        "up": True,
        "kind": kind,
        "master": master,
        "ports": [],
        "addresses": list(addresses),
    }


def host(**changes: Any) -> dict[str, Any]:
    """A host that has no problem."""
    return {
        "os": {"id": "debian", "version": "13", "name": "Debian GNU/Linux 13 (trixie)"},
        "hostname": "node1",
        "memory_mib": 8000,
        "disk_free_mib": {"/": 20000, "/var": 20000},
        "interfaces": {
            "lo": interface("127.0.0.1/8", kind="loopback"),
            "eth1": interface("172.16.0.2/24"),
            "eth0": interface("10.0.0.2/24", "fd00::2/64"),
        },
        "default_interface": "eth0",
        "listeners": [],
        "kvm": True,
        "kvm_reason": "",
        "ovs_kernel": True,
        "clock": 1000.0,
        "pid1": "systemd",
        "apt": True,
        "deployed": False,
        **changes,
    }


# ------------------------------------------------------------------ the system
def test_debian_13_is_supported() -> None:
    assert checks.check_system(host()) == []
    assert checks.check_system(host(os={"id": "debian", "version": "13.2", "name": "Debian"})) == []


@pytest.mark.parametrize(
    ("identity", "version", "name"),
    [
        ("debian", "12", "Debian GNU/Linux 12 (bookworm)"),
        ("ubuntu", "24.04", "Ubuntu 24.04 LTS"),
        ("debian", "", "Debian sid"),
    ],
)
def test_unsupported_release(identity: str, version: str, name: str) -> None:
    assert checks.check_system(host(os={"id": identity, "version": version, "name": name})) == [
        f"The operating system is {name}: only Debian 13 (trixie) is supported. Install Debian 13 on this host."
    ]


def test_no_systemd() -> None:
    assert checks.check_system(host(pid1="init")) == [
        "PID 1 is init: services are run by systemd. Install the package systemd-sysv and reboot the host."
    ]


def test_no_apt() -> None:
    assert checks.check_system(host(apt=False)) == [
        "apt-get and dpkg are missing: every package comes through them. Install the package apt."
    ]


def test_too_little_memory() -> None:
    assert checks.check_memory(host(), 8000) == []
    assert checks.check_memory(host(memory_mib=2000), 4608) == [
        "The host has 2000 MiB of memory: its services need 4608 MiB (preflight_minimum_memory_mib = 4608). Give it "
        "more "
        "memory, or set preflight_minimum_memory_mib to 2000 or less to try with less."
    ]


def test_too_little_disk() -> None:
    assert checks.check_disk(host(), 6144, 512) == []
    assert checks.check_disk(host(disk_free_mib={"/": 9000, "/var": 1000}), 6144, 512) == [
        "/var has 1000 MiB free: packages, databases and images need 6144 MiB (preflight_minimum_disk_mib = 6144). "
        "Free "
        "some space there, or set preflight_minimum_disk_mib to 1000 or less to try with less."
    ]


def test_one_file_system_is_one_problem() -> None:
    assert len(checks.check_disk(host(disk_free_mib={"/": 1000, "/var": 1000}), 6144, 512)) == 1


def test_a_deployed_host_needs_less_disk() -> None:
    full = host(deployed=True, disk_free_mib={"/": 1000, "/var": 1000})
    assert checks.check_disk(full, 6144, 512) == []
    assert "preflight_minimum_disk_deployed_mib = 2048" in checks.check_disk(full, 6144, 2048)[0]


def test_clock_far_off() -> None:
    assert checks.check_clock(host(clock=1000.5), 1000.0, 1001.0, 10) == []
    assert checks.check_clock(host(clock=995.0), 1000.0, 1001.0, 10) == []
    end = (
        "that of the computer running Ansible: tokens and certificates need times within 10 s "
        "(preflight_maximum_clock_skew = 10). Set the clock (timedatectl set-time, or chronyc makestep), on whichever "
        "of "
        "the two is wrong."
    )
    assert checks.check_clock(host(clock=1121.0), 1000.0, 1001.0, 10) == [
        f"The clock of this host is 120 s ahead of {end}"
    ]
    assert checks.check_clock(host(clock=900.0), 1000.0, 1001.0, 10) == [
        f"The clock of this host is 100 s behind {end}"
    ]


# ------------------------------------------------------------------ names
@pytest.mark.parametrize("name", ["node1", "node-1.example.org", "NODE", "1st"])
def test_valid_host_names(name: str) -> None:
    assert checks.check_host_name(name) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("node_1", "a host name consists of letters, digits and -, does not begin or end with -, and has at most 63 "
                   "characters between two dots"),
        ("-node", "a host name consists of letters, digits and -, does not begin or end with -, and has at most 63 "
                  "characters between two dots"),
        ("10.0.0.2", "an address cannot be a host's name, and the name in the inventory becomes that"),
        ("a." * 40, "a host name has at most 64 characters, this has 80"),
    ],
)  # fmt: skip
def test_invalid_host_name(name: str, why: str) -> None:
    assert checks.check_host_name(name) == [
        f"inventory_hostname = '{name}': {why}. Rename the host in the inventory to something like node-1, and set "
        "ansible_host to the address to reach it by."
    ]


@pytest.mark.parametrize(
    ("name", "why", "instead"),
    [
        (
            "br-provider0",
            "br-provider0-ovs and ovs-br-provider0, the ends of the cable to Open vSwitch, have 16 characters, and an "
            "interface's name has at most 15",
            "Write a name of at most 11 characters, such as br0",
        ),
        (
            "br 0",
            "a bridge's name consists of letters, digits, - and _, and starts with a letter or digit",
            "Write a name such as br0",
        ),
        ("eth0", "the bridge cannot have the name of its port, flat_interface", "Write another name, such as br0"),
        (
            "eth1",
            "this host has an interface of that name that is no bridge",
            "Write a name that is free, such as br0",
        ),
    ],
)
def test_invalid_bridge_name(name: str, why: str, instead: str) -> None:
    assert checks.check_bridge_name(host(), name, "eth0") == [f"flat_network_bridge = '{name}': {why}. {instead}."]


def test_valid_bridge_names() -> None:
    taken = host(interfaces={"br0": interface(kind="bridge")})
    assert checks.check_bridge_name(taken, "br0", "eth0") == []
    assert checks.check_bridge_name(host(), "br-provider", "eth0") == []


# ------------------------------------------------------------------ interfaces
def test_flat_interface_absent() -> None:
    assert checks.check_flat_interface(host(), "eth0", "br0") == []
    assert checks.check_flat_interface(host(), "enp1s0", "br0") == [
        "flat_interface = 'enp1s0': this host has no interface of that name. Write one of: eth0, eth1."
    ]


def test_flat_interface_of_another_bridge() -> None:
    enslaved = host(interfaces={"eth0": interface(master="br9"), "br9": interface(kind="bridge")})
    assert checks.check_flat_interface(enslaved, "eth0", "br0") == [
        "flat_interface = 'eth0': that interface is a part of br9. Write br9 if that is a bond, one of: eth0, or set "
        "flat_network_bridge to br9."
    ]
    assert checks.check_flat_interface(enslaved, "eth0", "br9") == []


def test_flat_interface_that_cannot_be_a_port() -> None:
    wireless = host(interfaces={"wlan0": interface(kind="wireless"), "eth0": interface()})
    assert checks.check_flat_interface(wireless, "wlan0", "br0") == [
        "flat_interface = 'wlan0': a wireless interface cannot be a port of a bridge. Write one of: eth0, wlan0."
    ]


def test_public_interface_absent() -> None:
    assert checks.check_public_interface(host(), "br0", "eth0", "br0") == []
    assert checks.check_public_interface(host(), "eth1", "eth0", "br0") == []
    assert checks.check_public_interface(host(), "eth5", "eth0", "br0") == [
        "public_interface = 'eth5': this host has no interface of that name. Leave it out, or write one of: eth0, eth1."
    ]


@pytest.mark.parametrize(
    ("public", "flat", "serves"),
    [
        ("eth0", "eth0", True),
        ("br0", "eth0", True),
        ("eth0", "eth1", True),
        ("eth1", "eth1", False),
    ],
)
def test_guests_get_out(public: str, flat: str, serves: bool) -> None:
    assert checks.check_way_out(host(), public, flat, "br0", serves) == []
    deployed = host(default_interface="br0" if flat == "eth0" else "eth0")
    assert checks.check_way_out(deployed, public, flat, "br0", serves) == []


def test_guests_do_not_get_out() -> None:
    for public in ("eth1", "br0"):
        assert checks.check_way_out(host(), public, "eth1", "br0", True) == [
            f"public_interface = '{public}': this host's default route leaves by eth0, where guests' addresses would "
            "not be translated. Leave it out, or write eth0."
        ]
    assert checks.check_way_out(host(default_interface=""), "eth1", "eth1", "br0", True) == []


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("node1", "this is not an IPv4 address; services are told addresses, not names"),
        ("fd00::2", "this is an IPv6 address, and an IPv4 address is needed"),
        ("127.0.0.1", "other hosts cannot reach a loopback address"),
        ("10.0.0.9", "this host does not have that address"),
    ],
)
def test_wrong_management_address(value: str, why: str) -> None:
    assert checks.check_management_address(host(), value) == [
        f"cloud_management_address = '{value}': {why}. Write one of this host's addresses in its host variables: "
        "10.0.0.2 "
        "(eth0), 172.16.0.2 (eth1)."
    ]


def test_right_management_address() -> None:
    assert checks.check_management_address(host(), "172.16.0.2") == []


# ------------------------------------------------------------------ ranges
@pytest.mark.parametrize(("value", "size"), [("192.168.1.0/24", 254), ("10.1.0.0/16", 1000), ("192.168.1.0/29", "6")])
def test_valid_fixed_range(value: str, size: object) -> None:
    assert checks.check_fixed_range(value, size) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            "192.168.1.0",
            "fixed_range = '192.168.1.0': this is not an IPv4 network in CIDR form (the prefix length is missing). "
            "Write "
            "a network such as 192.168.1.0/24.",
        ),
        (
            "192.168.1.7/24",
            "fixed_range = '192.168.1.7/24': the address has host bits set, 192.168.1.0/24 is the network that it is "
            "in. "
            "Write 192.168.1.0/24.",
        ),
        (
            "127.0.0.0/8",
            "fixed_range = '127.0.0.0/8': guests cannot use addresses of that kind. Write a private network such as "
            "192.168.1.0/24.",
        ),
        (
            "192.168.1.0/31",
            "fixed_range = '192.168.1.0/31': it has 0 usable addresses, and a gateway, DHCP and a guest need 3. Write "
            "a "
            "larger network such as 192.168.1.0/24.",
        ),
    ],
)
def test_invalid_fixed_range(value: str, expected: str) -> None:
    assert checks.check_fixed_range(value, 254) == [expected]


def test_fixed_range_that_is_no_network() -> None:
    (text,) = checks.check_fixed_range("flat", 254)
    assert text.startswith("fixed_range = 'flat': this is not an IPv4 network in CIDR form (")
    assert text.endswith(". Write a network such as 192.168.1.0/24.")


def test_network_size_does_not_fit() -> None:
    assert checks.check_fixed_range("192.168.1.0/24", 300) == [
        "network_size = 300: fixed_range = 192.168.1.0/24 has only 254 usable addresses. Write 254 or less, or a "
        "larger "
        "fixed_range such as 192.168.0.0/23."
    ]
    assert checks.check_fixed_range("192.168.1.0/24", 1) == [
        "network_size = 1: a gateway, DHCP and a guest need 3 addresses. Write a number from 3 to 254."
    ]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("router", "this is not an IPv4 address"),
        ("192.168.2.1", "this address is outside fixed_range = 192.168.1.0/24"),
        ("192.168.1.0", "this is the network address of fixed_range = 192.168.1.0/24"),
        ("192.168.1.255", "this is the broadcast address of fixed_range = 192.168.1.0/24"),
    ],
)
def test_wrong_fixed_gateway(value: str, why: str) -> None:
    assert checks.check_fixed_gateway(value, "192.168.1.0/24") == [
        f"fixed_gateway = '{value}': {why}. Write the address of the router in 192.168.1.0/24, such as 192.168.1.1, or "
        "'' "
        "if the site has none there."
    ]


def test_right_fixed_gateway() -> None:
    assert checks.check_fixed_gateway("", "192.168.1.0/24") == []
    assert checks.check_fixed_gateway("192.168.1.254", "192.168.1.0/24") == []


def test_fixed_range_overlaps_the_management_network() -> None:
    assert checks.check_host_networks(host(), "10.0.0.0/16", "br0", "10.0.0.2") == [
        "fixed_range = '10.0.0.0/16': it overlaps the management network 10.0.0.0/24 that this host is in (10.0.0.2/24 "
        "on "
        "eth0). Write a network that nothing else uses, such as 10.1.0.0/16."
    ]


def test_fixed_range_overlaps_another_network() -> None:
    assert checks.check_host_networks(host(), "172.16.0.128/25", "br0", "10.0.0.2") == [
        "fixed_range = '172.16.0.128/25': it overlaps a network 172.16.0.0/24 that this host is in (172.16.0.2/24 on "
        "eth1). Write a network that nothing else uses, such as 192.168.0.128/25."
    ]


def test_own_gateway_address_of_an_earlier_run_is_no_overlap() -> None:
    deployed = host(interfaces={"br0": interface("10.0.0.2/24", "192.168.1.1/24", kind="bridge")})
    assert checks.check_host_networks(deployed, "192.168.1.0/24", "br0", "10.0.0.2") == []
    assert len(checks.check_host_networks(deployed, "192.168.1.0/24", "br9", "10.0.0.2")) == 1


def test_ranges_overlap_each_other() -> None:
    assert checks.check_ranges({"fixed_range": "192.168.1.0/24", "nova_other_range": "192.168.2.0/24"}) == []
    assert checks.check_ranges({"fixed_range": "192.168.1.0/24", "nova_other_range": "192.168.0.0/16", "x": "no"}) == [
        "fixed_range = '192.168.1.0/24': it overlaps nova_other_range = 192.168.0.0/16. Write a network such as "
        "10.0.1.0/24 in one of the two."
    ]


# ------------------------------------------------------------------ ports
PORTS = [
    {"port": 5000, "groups": ["controller"], "purpose": "Keystone", "units": ["haproxy.service", "keystone.service"]}
]


def listener(**changes: Any) -> dict[str, Any]:
    """A listening socket as the module preflight_facts reports it."""
    found = {
        "protocol": "tcp",
        "address": "0.0.0.0",
        "port": 5000,
        "pid": 77,
        "process": "nginx",
        "unit": "nginx.service",
    }
    return {**found, **changes}


def test_port_taken() -> None:
    assert checks.check_ports(host(listeners=[listener()]), PORTS, ["controller"]) == [
        "TCP port 5000 on 0.0.0.0 is taken by nginx (PID 77, unit nginx.service): Keystone needs it. Stop and disable "
        "what "
        "listens there, or move it to another port."
    ]


@pytest.mark.parametrize(
    "change",
    [{"unit": "haproxy.service"}, {"unit": "keystone.service"}, {"port": 5001}, {"protocol": "udp"}],
)
def test_port_free_or_ours(change: dict[str, Any]) -> None:
    assert checks.check_ports(host(listeners=[listener(**change)]), PORTS, ["controller"]) == []


def test_port_of_another_group() -> None:
    assert checks.check_ports(host(listeners=[listener()]), PORTS, ["compute"]) == []


def test_a_process_that_listens_twice_is_one_problem() -> None:
    twice = [listener(), listener(address="::")]
    assert len(checks.check_ports(host(listeners=twice), PORTS, ["controller"])) == 1


# ------------------------------------------------------------------ groups
def test_groups_of_an_all_in_one_host() -> None:
    groups = {"all": ["a"], "controller": ["a"], "compute": ["a"]}
    assert checks.check_groups("a", "a", groups) == []
    assert checks.note_groups("a", "a", groups) == []


def test_host_in_no_group() -> None:
    assert checks.check_groups("b", "a", {"controller": ["a"], "compute": ["a"]}) == [
        "Host b is in neither of the groups controller and compute: it would get nothing. Add it to one, or take it "
        "out."
    ]


def test_other_hosts_of_the_inventory_are_noted() -> None:
    groups = {"all": ["a", "b", "c"], "controller": ["a"], "compute": ["a"], "lab": ["c"]}
    assert checks.note_groups("a", "a", groups) == [
        "Host b is in neither of the groups controller and compute, so nothing is done on it."
    ]
    assert checks.note_groups("c", "a", groups) == []


def test_no_controller() -> None:
    assert checks.check_groups("a", "a", {"compute": ["a"]}) == [
        "The group controller has no host: the APIs, the database and the queue run there. Put one host into it."
    ]


def test_several_controllers() -> None:
    assert checks.check_groups("a", "a", {"controller": ["a", "b"], "compute": ["a"]}) == [
        "The group controller has 2 hosts (a, b): more than one is not supported yet. Leave one in it, and put the "
        "others "
        "into compute."
    ]


def test_no_compute() -> None:
    assert checks.check_groups("a", "a", {"controller": ["a"]}) == [
        "The group compute has no host: guests run there. Put at least one host into it; the controller may be in both."
    ]


def test_the_inventory_s_problems_are_said_once() -> None:
    assert checks.check_groups("b", "a", {"compute": ["a", "b"]}) == []


# ------------------------------------------------------------------ notes
def test_no_kvm_is_a_note() -> None:
    (text,) = checks.notes(host(kvm=False, kvm_reason="/dev/kvm: No such file or directory"), ["compute"])
    assert text == (
        "KVM is not usable here (/dev/kvm: No such file or directory): guests are emulated by QEMU, which is many "
        "times "
        "slower. Enable virtualisation in the firmware, or nested virtualisation on the hypervisor below, to have KVM."
    )
    assert checks.notes(host(kvm=False), ["controller"]) == []


def test_no_openvswitch_module_is_a_note() -> None:
    assert checks.notes(host(ovs_kernel=False), ["compute"]) == [
        "The kernel has no openvswitch module: Open vSwitch forwards in user space, which is slower."
    ]


# ------------------------------------------------------------------ variables
KNOWN = variables.Known(
    options={
        "fixed_range": {"type": "str"},
        "nova_cpu_ratio": {"type": "float"},
        "cloud_debug": {"type": "bool"},
        "network_size": {"type": "int"},
        "bridge_dns": {"type": "list", "elements": "str"},
        "bridge_method": {"type": "str", "choices": ["auto", "dhcp"]},
        "nova_conf_overrides": {"type": "dict"},
        "nova_password": {"type": "str", "no_log": True},
    },
    names={"fixed_range", "nova_cpu_ratio", "cloud_debug", "network_size", "nova_service"},
    prefixes=("cloud_", "fixed_", "flat_", "network_size", "nova_", "public_interface"),
)
KNOWN.names |= set(KNOWN.options)


def test_misspelt_variable() -> None:
    assert variables.check_names(["cloud_debugg", "fixed_range", "nova_service", "ansible_host", "my_own"], KNOWN) == [
        "cloud_debugg: no role knows a variable of this name, so setting it does nothing. Did you mean cloud_debug? "
        "Rename "
        "it if it is your own."
    ]


def test_unknown_variable_with_nothing_like_it() -> None:
    assert variables.check_names(["flat_xyzzy_quux"], KNOWN) == [
        "flat_xyzzy_quux: no role knows a variable of this name, so setting it does nothing. See docs/reference/roles "
        "for the names there are. Rename it if it is your own."
    ]


def test_nearly_one_of_ours_is_a_note() -> None:
    assert variables.note_names(["fixd_range", "something_else"], KNOWN) == [
        "fixd_range is not a variable of ours. Did you mean fixed_range?"
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("fixed_range", ["10.0.0.0/8"], "fixed_range = ['10.0.0.0/8']: this must be text and is a list. Write a text."),
        (
            "network_size",
            "many",
            "network_size = 'many': this must be a whole number and is text. Write a number such as 1.",
        ),
        (
            "cloud_debug",
            "perhaps",
            "cloud_debug = 'perhaps': this must be true or false and is text. Write true or false.",
        ),
        (
            "bridge_dns",
            "10.0.0.53",
            "bridge_dns = '10.0.0.53': this must be a list and is text. Write a list such as [a, b].",
        ),
        (
            "nova_conf_overrides",
            "debug=true",
            "nova_conf_overrides = 'debug=true': this must be a mapping and is text. Write a mapping such as {a: b}.",
        ),
        (
            "bridge_method",
            "magic",
            "bridge_method = 'magic': this is not one of the values that it can have. Write one of: auto, dhcp.",
        ),
        (
            "network_size",
            None,
            "network_size = None: this must be a whole number and is empty. Write a number such as 1, or remove the "
            "line "
            "to have the default.",
        ),
        ("nova_password", ["geheim"], "nova_password = (hidden): this must be text and is a list. Write a text."),
    ],
)
def test_wrong_type(name: str, value: object, expected: str) -> None:
    assert variables.check_types({name: value}, KNOWN) == [expected]


def test_right_types() -> None:
    values = {
        "fixed_range": "192.168.1.0/24",
        "network_size": "254",
        "cloud_debug": "yes",
        "bridge_dns": ["10.0.0.53"],
        "bridge_method": "dhcp",
        "nova_conf_overrides": {"DEFAULT": {"debug": True}},
        "nova_cpu_ratio": 2,
        "unknown": object(),
    }
    assert variables.check_types(values, KNOWN) == []


@pytest.mark.parametrize(
    ("value", "why", "instead"),
    [
        ("", "an empty secret protects nothing", "Write a long random text, or remove the line to have one generated"),
        (
            "two\nlines",
            "it contains a line break, which no configuration file can hold",
            "Write it with printable characters only",
        ),
        (
            "tab\there",
            "it contains the unprintable character U+0009, which no configuration file can hold",
            "Write it with printable characters only",
        ),
    ],
)
def test_bad_secret(value: str, why: str, instead: str) -> None:
    assert variables.check_secret("nova_password", value) == [f"nova_password = (hidden): {why}. {instead}."]


def test_good_secret() -> None:
    assert variables.check_secret("nova_password", "@:/%$#'\"\\ ü long") == []
    assert variables.note_secret("nova_password", "long enough") == []


def test_short_secret_is_a_note() -> None:
    assert variables.note_secret("nova_password", "nova") == [
        "nova_password = (hidden): it has fewer than 8 characters and is easily guessed."
    ]


def test_the_roles_of_this_project_are_read() -> None:
    known = variables.read_roles(PROJECT / "roles")
    assert {"bridge_", "preflight_", "cloud_", "flat_", "fixed_"} <= set(known.prefixes)
    assert known.options["bridge_rollback_seconds"]["type"] == "int"
    assert {"bridge_service", "preflight_ports", "fixed_range"} <= known.names
    assert variables.check_names(["bridge_rollback_second"], known) == [
        "bridge_rollback_second: no role knows a variable of this name, so setting it does nothing. Did you mean "
        "bridge_rollback_seconds? Rename it if it is your own."
    ]


# ------------------------------------------------------------------ the report
def test_report_has_every_problem() -> None:
    assert report("node1", ["First.", "Second."], ["Slow."]) == (
        "2 problems on host node1. Nothing has been changed.\n  1. First.\n  2. Second.\n  Note: Slow."
    )
    assert report("node1", ["First."], []) == "1 problem on host node1. Nothing has been changed.\n  1. First."


BRIDGES = ("br-provider", "kilonova-tunnel")
OVER_ETH1 = ("kilonova-tunnel", "br-provider")


def test_user_space_tunnels_need_an_address() -> None:
    found = checks.check_tunnel(host(ovs_kernel=False), "", "", BRIDGES, 2)
    assert found == [
        "ovn_chassis_bridge_address = '': the kernel of this host has no openvswitch module, and Open vSwitch in user "
        "space can send the packets of tunnels to the cloud's other hosts only from an address on br-provider. Write "
        "an address with prefix length in a network of the tunnels' own, such as 10.78.0.14/24, another one for each "
        "host."
    ]


@pytest.mark.parametrize(("kernel", "hosts"), [(True, 2), (False, 1)])
def test_other_tunnels_need_none(kernel: bool, hosts: int) -> None:
    assert checks.check_tunnel(host(ovs_kernel=kernel), "", "", BRIDGES, hosts) == []


@pytest.mark.parametrize("kernel", [True, False])
def test_an_interface_for_tunnels_needs_an_address(kernel: bool) -> None:
    assert checks.check_tunnel(host(ovs_kernel=kernel), "", "eth1", OVER_ETH1, 2) == [
        "ovn_chassis_bridge_address = '': tunnels over ovn_chassis_tunnel_interface = eth1 end at this address, which "
        "kilonova-tunnel gets. Write an address with prefix length in a network of the tunnels' own, such as "
        "10.78.0.14/24, another one for each host."
    ]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("10.78.0.14", "other hosts' addresses must be in the same network"),
        ("10.78.0.14/32", "other hosts' addresses must be in the same network"),
        ("tunnel/24", "this is not an IPv4 address with prefix length (Expected 4 octets in 'tunnel')"),
        ("10.0.0.77/24", "eth0 is in that network already, with 10.0.0.2/24"),
    ],
)
def test_wrong_tunnel_address(value: str, why: str) -> None:
    assert checks.check_tunnel(host(), value, "", BRIDGES, 2) == [
        f"ovn_chassis_bridge_address = '{value}': {why}. Write an address with prefix length in a network of the "
        "tunnels' own, such as 10.78.0.14/24."
    ]


def test_right_tunnel_address() -> None:
    assert checks.check_tunnel(host(ovs_kernel=False), "10.78.0.14/24", "", BRIDGES, 2) == []
    # An earlier run put it on the other of our bridges, or the interface still has it, which is said of the interface.
    for name in ("br-provider", "kilonova-tunnel", "eth1"):
        moving = host(interfaces={name: interface("10.78.0.14/24")})
        assert checks.check_tunnel(moving, "10.78.0.14/24", "eth1", OVER_ETH1, 2) == []


def test_right_tunnel_interface() -> None:
    free = host(interfaces={"eth0": interface("10.0.0.2/24"), "eth1": interface(), "eth2": interface()})
    assert checks.check_tunnel_interface(free, "", "eth0") == []
    assert checks.check_tunnel_interface(free, "eth2", "eth1") == []
    deployed = host(interfaces={"eth1": interface(master="ovs-system")})
    assert checks.check_tunnel_interface(deployed, "eth1", "eth0") == []


@pytest.mark.parametrize(
    ("name", "why", "instead"),
    [
        ("eth7", "this host has no interface of that name", "Leave it out, or write one of: eth2, wlan0"),
        ("eth0", "this is flat_interface, over which tunnels go when this is left out", "Leave it out"),
        ("eth2", "that interface is a part of bond0", "Leave it out, or write one of: eth2, wlan0"),
        (
            "wlan0",
            "a wireless interface cannot be a port of Open vSwitch's bridge",
            "Leave it out, or write one of: eth2, wlan0",
        ),
        (
            "eth1",
            "it has the address 172.16.0.2/24, which no longer works once the interface is a port of a bridge",
            "If it is for tunnels only, remove the address of eth1 from /etc/network/interfaces and write it in "
            "ovn_chassis_bridge_address. Otherwise leave this out, and set ovn_chassis_tunnel_address to 172.16.0.2",
        ),
    ],
)
def test_wrong_tunnel_interface(name: str, why: str, instead: str) -> None:
    several = host(
        interfaces={
            "eth0": interface("10.0.0.2/24"),
            "eth1": interface("172.16.0.2/24"),
            "eth2": interface(master="bond0"),
            "wlan0": interface(kind="wireless"),
        }
    )
    assert checks.check_tunnel_interface(several, name, "eth0") == [
        f"ovn_chassis_tunnel_interface = '{name}': {why}. {instead}."
    ]


def test_user_space_has_no_other_way_for_an_addressed_tunnel_interface() -> None:
    (found,) = checks.check_tunnel_interface(host(ovs_kernel=False), "eth1", "eth0")
    assert found.endswith(" and write it in ovn_chassis_bridge_address.")


def test_right_end_of_tunnels() -> None:
    assert checks.check_tunnel_address(host(), "10.0.0.2", "", "10.0.0.2", 2) == []
    assert checks.check_tunnel_address(host(), "172.16.0.2", "", "10.0.0.2", 2) == []
    assert checks.check_tunnel_address(host(ovs_kernel=False), "10.78.0.14", "10.78.0.14/24", "10.0.0.2", 2) == []


def test_wrong_end_of_tunnels() -> None:
    for address in ("172.16.0.9", "node1", "127.0.0.1"):
        assert checks.check_tunnel_address(host(), address, "", "10.0.0.2", 2) == [
            f"ovn_chassis_tunnel_address = '{address}': this host does not have that address. Leave it out, or write "
            "one of: 172.16.0.2, 10.0.0.2."
        ]
    assert checks.check_tunnel_address(host(ovs_kernel=False), "172.16.0.2", "10.78.0.14/24", "10.0.0.2", 2) == [
        "ovn_chassis_tunnel_address = '172.16.0.2': the kernel of this host has no openvswitch module, and Open "
        "vSwitch in user space can send the packets of tunnels from ovn_chassis_bridge_address = 10.78.0.14/24 only. "
        "Leave it out."
    ]


def test_computes_need_an_ssh_host_key() -> None:
    bare = host(ssh_host_key="")
    assert checks.check_ssh_host_key(bare, ["controller"]) == []
    assert checks.check_ssh_host_key(host(ssh_host_key="ssh-ed25519 AAAA root@x"), ["compute"]) == []
    assert checks.check_ssh_host_key(bare, ["compute"]) == [
        "/etc/ssh/ssh_host_ed25519_key.pub is missing: computes recognise each other by it when they migrate guests. "
        "Run ssh-keygen -A on this host."
    ]
