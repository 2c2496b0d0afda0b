# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Make a volume of an image, and ask Ceph whether it is a clone. The logic of the module volume_probe."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.cloud.api import POLL_SECONDS, CloudApi, CloudError
from ansible.module_utils.kilonova.cloud.client import CLIENT_ARGUMENTS, connect
from ansible.module_utils.kilonova.cloud.volume_health import CINDER
from ansible.module_utils.kilonova.libvirt.ceph_disk import COPY, describe
from ansible.module_utils.kilonova.system.logs import layer_logs

ARGUMENT_SPEC: dict[str, Any] = {
    **CLIENT_ARGUMENTS,
    "image": {"type": "str", "required": True},
    "pool": {"type": "str", "required": True},
    "parent_pool": {"type": "str", "required": True},
    "user": {"type": "str", "default": "cinder"},
    "timeout": {"type": "int", "default": 120},
}
NAME = "kilonova-probe"
LAYER = "Cinder volume"
GIB = 2**30
# States in which Cinder deletes a volume. Others are left by themselves.
DELETABLE = ("available", "error", "error_deleting")


def size_of(image: dict[str, Any]) -> int:
    """Return the GiB that a volume of an image needs."""
    return max(1, int(image.get("min_disk") or 0), -(-int(image.get("virtual_size") or 0) // GIB))


def find_image(api: CloudApi, name: str) -> dict[str, Any]:
    """Return the image with a name."""
    found = [one for one in api.listing("image", "/images", "images", name=name) if one["status"] == "active"]
    if not found:
        raise CloudError("Glance", f"there is no active image '{name}'", HTTPStatus.NOT_FOUND)
    return found[0]


class Probe:
    """A volume that is there for the time of the check."""

    def __init__(self, api: CloudApi, timeout: float) -> None:
        self.api, self.timeout = api, timeout

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self.timeout
        while not condition():
            if time.monotonic() >= deadline:
                raise CloudError(LAYER, f"{what} within {self.timeout} s")
            time.sleep(POLL_SECONDS)

    def create(self, image: dict[str, Any]) -> str:
        """Return the identifier of a new volume as soon as it can be used."""
        body = {"name": NAME, "size": size_of(image), "imageRef": image["id"]}
        volume = str(self.api.post(CINDER, "/volumes", {"volume": body})["volume"]["id"])
        status = "creating"

        def ready() -> bool:
            nonlocal status
            status = self.api.get(CINDER, f"/volumes/{volume}")["volume"]["status"]
            if status.startswith("error"):
                raise CloudError(LAYER, f"a volume of the image '{image['name']}' is in the state {status}")
            return status == "available"

        self.until(ready, f"no volume of the image '{image['name']}' was made (it is {status})")
        return volume

    def remove(self) -> None:
        """Remove the volume, and what a killed run has left of it."""

        def gone() -> bool:
            found = self.api.listing(CINDER, "/volumes/detail", "volumes", name=NAME)
            for one in found:
                if one["status"] in DELETABLE:
                    self._delete(one["id"])
            return not found

        self.until(gone, f"the volume '{NAME}' was not removed")

    def _delete(self, volume: str) -> None:
        try:
            self.api.delete(CINDER, f"/volumes/{volume}")
        except CloudError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise


def check(probe: Probe, params: dict[str, Any]) -> dict[str, Any]:
    """Return what the volume was a clone of, and how long it took."""
    image = find_image(probe.api, params["image"])
    began = time.monotonic()
    volume = probe.create(image)
    seconds = time.monotonic() - began
    found = describe(f"{params['pool']}/volume-{volume}", params["user"])
    if problem := found.get("problem"):
        raise CloudError(LAYER, f"Ceph does not show the volume {volume} to client.{params['user']}: {problem}")
    expected = f"{params['parent_pool']}/{image['id']}"
    if found["parent"] != expected:
        raise CloudError(
            LAYER,
            f"a volume of the image '{image['name']}' is no clone of {expected}. Its parent: {found['parent'] or COPY}",
        )
    return {"parent": expected, "seconds": round(seconds, 1)}


def run(module: AnsibleModule) -> None:
    params = module.params
    probe = Probe(CloudApi(connect(module)), params["timeout"])
    try:
        probe.remove()
        try:
            result = check(probe, params)
        finally:
            probe.remove()
    except CloudError as error:
        logs = f"\n{layer_logs([error.layer])}" if error.logs_matter else ""
        module.fail_json(msg=f"{error.layer}: {error}{logs}", layer=error.layer)
    module.exit_json(changed=False, **result)
