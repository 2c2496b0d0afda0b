# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keep libvirt's secrets of Ceph. The logic of the module libvirt_secrets."""

from __future__ import annotations

import base64
import binascii
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.libvirt.domains import connect

if TYPE_CHECKING:
    import libvirt

ARGUMENT_SPEC: dict[str, Any] = {
    "secrets": {
        "type": "list",
        "elements": "dict",
        "required": True,
        # What it holds is hidden, its form is not.
        "no_log": False,
        "options": {
            "uuid": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "value": {"type": "str", "default": "", "no_log": True},
        },
    },
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
    "uri": {"type": "str", "default": "qemu:///system"},
}


def secret_xml(uuid: str, name: str) -> str:
    """Return the definition of a secret. Kept on disk; readable, because Nova reads it as well."""
    root = ET.Element("secret", ephemeral="no", private="no")
    ET.SubElement(root, "uuid").text = uuid
    ET.SubElement(root, "description").text = "Managed by Kilonova"
    usage = ET.SubElement(root, "usage", type="ceph")
    ET.SubElement(usage, "name").text = name
    return ET.tostring(root, encoding="unicode")


def properties(xml: str) -> dict[str, str]:
    """Return what decides whether a secret does its work, from its definition."""
    root = ET.fromstring(xml)
    usage = root.find("usage")
    found = {"ephemeral": root.get("ephemeral", "no"), "private": root.get("private", "no")}
    return found | {
        "type": usage.get("type", "") if usage is not None else "",
        "name": (usage.findtext("name") or "") if usage is not None else "",
    }


@dataclass
class Secrets:
    """The secrets of a libvirt."""

    libvirt: Any
    connection: libvirt.virConnect
    check_mode: bool
    changes: list[str] = field(default_factory=list)

    def by_uuid(self) -> dict[str, Any]:
        return {secret.UUIDString(): secret for secret in self.connection.listAllSecrets()}

    def value(self, secret: Any) -> bytes | None:
        """Return the value of a secret; None where it has none."""
        try:
            return bytes(secret.value())
        except self.libvirt.libvirtError as error:
            if error.get_error_code() in (self.libvirt.VIR_ERR_NO_SECRET, self.libvirt.VIR_ERR_INVALID_SECRET):
                return None
            raise

    def keep(self, uuid: str, name: str, value: bytes) -> None:
        """Define a secret, or correct it."""
        present = self.by_uuid()
        secret = present.get(uuid)
        wanted = properties(secret_xml(uuid, name))
        # libvirt has one secret for a usage, and does not change that of one.
        for other_uuid, other in present.items():
            found = properties(other.XMLDesc())
            taken = other_uuid != uuid and (found["type"], found["name"]) == ("ceph", name)
            if taken or (other_uuid == uuid and found != wanted):
                self.remove(other_uuid, found["name"] or other_uuid, other)
                secret = None if other_uuid == uuid else secret
        if secret is None:
            self.changes.append(f"{name} ({uuid}): defined")
            if not self.check_mode:
                secret = self.connection.secretDefineXML(secret_xml(uuid, name))
                secret.setValue(value)
        elif self.value(secret) != value:
            self.changes.append(f"{name} ({uuid}): another value")
            if not self.check_mode:
                secret.setValue(value)

    def remove(self, uuid: str, name: str, secret: Any) -> None:
        self.changes.append(f"{name} ({uuid}): removed")
        if not self.check_mode:
            secret.undefine()


def decoded(module: AnsibleModule, wanted: list[dict[str, Any]]) -> list[bytes]:
    """Return the keys as libvirt keeps them, or fail."""
    try:
        return [base64.b64decode(one["value"], validate=True) for one in wanted]
    except binascii.Error:
        names = ", ".join(one["name"] for one in wanted)
        module.fail_json(msg=f"A key of {names} is not base64, as Ceph writes keys.")
        raise  # not reached; for type checkers


def run(module: AnsibleModule) -> None:
    """Run the module."""
    wanted, absent = module.params["secrets"], module.params["state"] == "absent"
    values = [] if absent else decoded(module, wanted)
    if not absent and not all(values):
        module.fail_json(msg="A secret without value is of no use. Set value, or state to absent.")
    if module.check_mode and find_spec("libvirt") is None:
        changes = [] if absent else [f"{one['name']} ({one['uuid']}): defined" for one in wanted]
        finish(module, changes)
    library, connection = connect(module, module.params["uri"])
    work = Secrets(library, connection, module.check_mode)
    try:
        if absent:
            present = work.by_uuid()
            for one in wanted:
                if secret := present.get(one["uuid"]):
                    work.remove(one["uuid"], one["name"], secret)
        else:
            for one, value in zip(wanted, values, strict=True):
                work.keep(one["uuid"], one["name"], value)
    except library.libvirtError as error:
        module.fail_json(msg=f"libvirt keeps no secret of Ceph: {error}", changes=work.changes)
    finally:
        connection.close()
    finish(module, work.changes)


def finish(module: AnsibleModule, changes: list[str]) -> None:
    after = "".join(f"{change}\n" for change in changes)
    module.exit_json(
        changed=bool(changes),
        changes=changes,
        diff={
            "before": "",
            "after": after,
            "before_header": "secrets of libvirt",
            "after_header": "secrets of libvirt",
        },
    )
