# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the names of hosts in OVN."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from ansible.module_utils.kilonova.preflight.messages import Facts, message

# Of Ansible's filter to_uuid.
NAMESPACE = uuid.UUID("361E6D51-FAEC-444A-9079-341386DA8E2E")
SYSTEM_ID = "/etc/openvswitch/system-id.conf"


def own_system_id(host: str) -> str:
    """Return the name that a host without one gets, as roles/ovn_chassis/vars/main.yml does."""
    return str(uuid.uuid5(NAMESPACE, host))


def check_system_id(facts: Facts, host: str, hosts: Iterable[str]) -> list[str]:
    """Report a host with the name of another one, whose rights it would get."""
    found = facts["ovs_system_id"]
    owners = [other for other in hosts if other != host and own_system_id(other) == found]
    why = f"this is the name in OVN of {''.join(owners)}, and a certificate of this name gives its rights"
    return [message(SYSTEM_ID, found, why, f"Write {own_system_id(host)}")] if owners else []
