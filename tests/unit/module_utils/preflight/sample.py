# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A host without problems and some options, for tests of preflight."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.kilonova.preflight.roles import Known

KNOWN = Known(
    options={
        "fixed_range": {"type": "str"},
        "nova_cpu_ratio": {"type": "float"},
        "cloud_debug": {"type": "bool"},
        "cloud_region": {"type": "str", "default": "RegionOne", "description": "Name of the region."},
        "fixed_gateway": {"type": "str", "default": ""},
        "first_cloud_server_name": {"type": "str", "default": "my_vm", "description": "Name; empty for none."},
        "nova_api_workers": {"type": "int"},
        "bridge_mtu": {"type": "int", "default": 0},
        "neutron_physical_mtu": {"type": "int"},
        "verify_outside_port": {"type": "int", "default": 443},
        "verify_timeout": {"type": "int", "default": 120},
        "lab_stop_timeout": {"type": "float"},
        "haproxy_max_connections": {"type": "int"},
        "memcached_memory_mib": {"type": "int", "default": 64},
        "nova_compute_reserved_memory_mib": {"type": "int", "default": 512},
        "secrets_length": {"type": "int", "default": 32},
        "base_apt_cache_valid_time": {"type": "int", "default": 3600},
        "first_cloud_dns_servers": {"type": "list", "elements": "str"},
        "rabbitmq_address": {"type": "str"},
        "bridge_address": {"type": "str", "default": ""},
        "bridge_gateway": {"type": "str", "default": ""},
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
        "user": "root",
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
        "apparmor": True,
        "kvm_reason": "",
        "ovs_kernel": True,
        "clock": 1000.0,
        "pid1": "systemd",
        "apt": True,
        "deployed": False,
        "record": {},
        **changes,
    }
