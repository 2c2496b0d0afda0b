# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What the modules that talk to libvirt share: the connection, domain XML as data, log files of QEMU and consoles."""

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
# Divisors to KiB of the units that libvirt writes in <memory unit=...>.
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


@dataclass
class Nic:
    """A network interface of a domain; bridge and port_id only where its XML has them."""

    mac: str
    target: str
    model: str
    bridge: str = ""
    port_id: str = ""


@dataclass
class Domain:
    """The parts of a domain's XML that are compared with Nova and Neutron."""

    name: str
    uuid: str
    virt_type: str
    vcpus: int
    memory_mib: int
    disks: list[Disk] = field(default_factory=list)
    nics: list[Nic] = field(default_factory=list)
    console_log: str = ""
    # Fixed addresses by Neutron port, as Nova wrote them into the domain's metadata.
    addresses: dict[str, list[str]] = field(default_factory=dict)


def _attribute(element: ET.Element, path: str, name: str) -> str:
    found = element.find(path)
    return found.get(name, "") if found is not None else ""


def parse_domain(xml: str) -> Domain:
    """Return a domain's XML as data. Raises ValueError naming what is missing."""
    root = ET.fromstring(xml)
    memory, vcpu = root.find("memory"), root.find("vcpu")
    if root.tag != "domain" or memory is None or vcpu is None:
        raise ValueError("this is no libvirt domain: it has no memory or vcpu element")
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
        # QEMU writes the file itself, or virtlogd keeps a log beside a pty or a socket.
        own = _attribute(device, "source", "path") if device.get("type") == "file" else ""
        domain.console_log = domain.console_log or _attribute(device, "log", "file") or own
    for port in root.iter(f"{NOVA}port"):
        domain.addresses[port.get("uuid", "")] = [ip.get("address", "") for ip in port.findall(f"{NOVA}ip")]
    return domain


def tail(path: str | Path, lines: int) -> str:
    """Return the last lines of a text file, or why it cannot be read. Never raises."""
    try:
        return "\n".join(read_end(Path(path)).splitlines()[-lines:])
    except OSError as error:
        return f"({error})"


def read_end(path: Path) -> str:
    """Return the end of a text file, at most 256 KiB; carriage returns and other control characters left out."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")


def console_text(path: str) -> str:
    """Return what a guest printed, the rotated part before the present one. '' if it cannot be read."""
    text = ""
    for part in (Path(f"{path}.0"), Path(path)):
        try:
            text += read_end(part)
        except OSError:
            continue
    return text


def qemu_log(name: str, lines: int = 20) -> str:
    """Return the last lines of a domain's QEMU log, labelled."""
    path = QEMU_LOGS / f"{name}.log"
    return f"--- {path}\n{tail(path, lines)}"


def connect(module: AnsibleModule, uri: str) -> tuple[Any, libvirt.virConnect]:
    """Return (the libvirt module, a connection), or fail with libvirt's message and last log lines."""
    try:
        import libvirt
    except ImportError:
        module.fail_json(msg=missing_required_lib("libvirt-python"), exception=traceback.format_exc())
    # Errors come as exceptions; without this they are printed as well, into the module's result.
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
        raise  # fail_json has ended the module; type checkers do not know
