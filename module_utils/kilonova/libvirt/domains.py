# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Connect to libvirt, parse domain XML, read logs of QEMU and consoles."""

from __future__ import annotations

import traceback
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.kilonova.system.dry_run import not_looked_at
from ansible.module_utils.kilonova.system.logs import unit_log

if TYPE_CHECKING:
    import libvirt

QEMU_LOGS = Path("/var/log/libvirt/qemu")
TAIL_BYTES = 256 * 1024
# Size in KiB of the units in <memory unit=...>.
KIB = {"b": 1 / 1024, "bytes": 1 / 1024, "KB": 1000 / 1024, "KiB": 1, "k": 1, "MiB": 1024, "M": 1024, "GiB": 1024**2}
# https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainState
STATES = ("no state", "running", "blocked", "paused", "shutting down", "shut off", "crashed", "suspended by the guest")
NOVA = "{http://openstack.org/xmlns/libvirt/nova/1.1}"


@dataclass
class Disk:
    """A disk of a domain."""

    target: str
    bus: str
    source: str
    format: str
    # Of a disk on the network, such as rbd.
    protocol: str = ""


@dataclass
class Nic:
    """A network interface of a domain; bridge and port_id if the XML has them."""

    mac: str
    target: str
    model: str
    bridge: str = ""
    port_id: str = ""


@dataclass
class Domain:
    """The parts of a domain that are compared with Nova and Neutron."""

    name: str
    uuid: str
    virt_type: str
    vcpus: int
    memory_mib: int
    disks: list[Disk] = field(default_factory=list)
    nics: list[Nic] = field(default_factory=list)
    console_log: str = ""
    # Fixed addresses by Neutron port, from the metadata that Nova writes.
    addresses: dict[str, list[str]] = field(default_factory=dict)


def _attribute(element: ET.Element, path: str, name: str) -> str:
    found = element.find(path)
    return found.get(name, "") if found is not None else ""


def parse_domain(xml: str) -> Domain:
    """Parse the XML of a domain. Raises ValueError."""
    root = ET.fromstring(xml)
    memory, vcpu = root.find("memory"), root.find("vcpu")
    if root.tag != "domain" or memory is None or vcpu is None:
        raise ValueError("no libvirt domain: memory or vcpu is missing")
    kib = int(memory.text or 0) * KIB[memory.get("unit", "KiB")]
    domain = Domain(
        name=root.findtext("name", ""),
        uuid=root.findtext("uuid", ""),
        virt_type=root.get("type", ""),
        vcpus=int(vcpu.get("current") or vcpu.text or 0),
        memory_mib=int(kib // 1024),
    )
    for disk in root.findall("devices/disk[@device='disk']"):
        source = disk.find("source")
        place = source.attrib if source is not None else {}
        domain.disks.append(
            Disk(
                target=_attribute(disk, "target", "dev"),
                bus=_attribute(disk, "target", "bus"),
                source=place.get("file") or place.get("dev") or place.get("name") or "",
                format=_attribute(disk, "driver", "type"),
                protocol=place.get("protocol") or "",
            )
        )
    for nic in root.findall("devices/interface"):
        domain.nics.append(
            Nic(
                mac=_attribute(nic, "mac", "address").lower(),
                target=_attribute(nic, "target", "dev"),
                model=_attribute(nic, "model", "type"),
                bridge=_attribute(nic, "source", "bridge"),
                port_id=_attribute(nic, "virtualport/parameters", "interfaceid"),
            )
        )
    for device in [*root.findall("devices/serial"), *root.findall("devices/console")]:
        # QEMU writes the file, or virtlogd logs a pty or socket.
        own = _attribute(device, "source", "path") if device.get("type") == "file" else ""
        domain.console_log = domain.console_log or _attribute(device, "log", "file") or own
    for port in root.iter(f"{NOVA}port"):
        domain.addresses[port.get("uuid", "")] = [ip.get("address", "") for ip in port.findall(f"{NOVA}ip")]
    return domain


def tail(path: str | Path, lines: int) -> str:
    """Return the last lines of a text file, or why it cannot be read."""
    try:
        return "\n".join(read_end(Path(path)).splitlines()[-lines:])
    except OSError as error:
        return f"({error})"


def read_end(path: Path) -> str:
    """Return at most the last 256 KiB of a text file, without control characters."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")


def console_text(path: str) -> str:
    """Return the console log of a guest with its rotated part, '' if it cannot be read."""
    text = ""
    for part in (Path(f"{path}.0"), Path(path)):
        try:
            text += read_end(part)
        except OSError:
            continue
    return text


def qemu_log(name: str, lines: int = 20) -> str:
    """Return the last lines of the QEMU log of a domain, labelled."""
    path = QEMU_LOGS / f"{name}.log"
    return f"--- {path}\n{tail(path, lines)}"


def connect(module: AnsibleModule, uri: str) -> tuple[Any, libvirt.virConnect]:
    """Return (the libvirt module, a connection), or fail with the error and last log lines of libvirt."""
    try:
        import libvirt
    except ImportError:
        module.fail_json(msg=missing_required_lib("libvirt-python"), exception=traceback.format_exc())
    # Otherwise libvirt also prints errors, into the result of the module.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    try:
        return libvirt, libvirt.open(uri)
    except libvirt.libvirtError as error:
        if module.check_mode:
            not_looked_at(module, "libvirt", error)
        module.fail_json(
            msg=f"libvirt does not answer at {uri}: {error}. Check that libvirtd.socket is active and that this host "
            f"is a hypervisor of the cloud (group compute).\n{unit_log('libvirtd')}"
        )
        raise  # not reached; for type checkers
