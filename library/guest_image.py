#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Have a bootable test guest as one image file on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_image
short_description: Build or fetch the image of a small test guest
version_added: "0.1.0"
description:
  - Builds a bootable disk from Debian packages, or takes an image from a URL or a file of the host.
  - The built guest has a boot loader of its own, so it needs no kernel or ramdisk beside it. It configures its
    network by DHCP (classless static routes and MTU included), takes host name and ssh key from the metadata service,
    runs an ssh server, and offers a login on the serial console and the screen.
  - Packages are downloaded and read, never installed. dpkg's lock is not taken, so this can run while packages are
    being installed. If the host has no package lists or outdated ones, private lists are fetched.
  - No mounts, loop devices or chroots are used. The image appears at O(path) only when it is complete.
  - A file beside the image, O(path) with C(.json) added, keeps what it was made of. While that still holds, nothing is
    done and no network is used.
options:
  path:
    description: Where the image is kept. Its directory is created, readable by all.
    type: path
    required: true
  source:
    description:
      - URL (C(http), C(https), C(ftp), C(file)) or absolute path on the host of an image made elsewhere.
      - Empty to build one.
    type: str
    default: ""
  checksum:
    description: V(sha256:) or V(sha512:) and the digest in hexadecimal. Required with O(source).
    type: str
    default: ""
  download_timeout:
    description: Seconds that a download may stand still.
    type: int
    default: 60
  user:
    description: Login name in the built guest. It may become root with C(sudo) or C(doas), without a password.
    type: str
    default: guest
  console_password:
    description:
      - Password of O(user) on the console of the built guest; only its SHA-512 crypt hash goes into the image.
      - Without it there is no login by password. The ssh server takes keys only, in any case.
    type: str
  size_mib:
    description: Size in MiB of the disk that the built guest sees. The file is smaller, it holds no empty space.
    type: int
    default: 512
  kernel_arguments:
    description: The built guest's kernel command line.
    type: str
    default: console=tty0 console=ttyS0,115200 loglevel=4
  files:
    description:
      - The built guest's own files, beside those from packages. A path that begins with C(initramfs/) is a file of the
        initramfs. Required to build.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path in the guest without a leading slash.
        type: str
        required: true
      content:
        description: The file's text.
        type: str
        required: true
      mode:
        description: Permissions, in octal, as a string.
        type: str
        default: "0644"
  upgrade:
    description:
      - Build again if the host's package lists have other versions of the guest's packages than the image was made of.
      - By default a new version alone is no reason, so that a run without changes of yours changes nothing.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Nothing is downloaded or built.
  diff_mode:
    support: full
    description: Shows what the image was made of and what it is made of now.
  async:
    support: full
    description: A build takes a few seconds of processor time and can run beside other work.
notes:
  - Building works on amd64. On other architectures set O(source).
  - Building needs C(mke2fs) (package e2fsprogs) on the host; other tools come from packages that are not installed.
  - Fails when a package cannot be found or downloaded, a build step fails (with its message), the download fails or its
    checksum differs. What was there before stays.
  - "The serial console shows what happens in lines that begin with C(kilonova-guest:), at last
    C(ready after SECONDS s, address ADDRESS)."
  - "The metadata paths that the guest reads: https://docs.openstack.org/nova/latest/user/metadata.html"
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Build the test guest's image
  guest_image:
    path: /var/lib/kilonova/guest-image/kilonova-guest.qcow2
    console_password: "{{ guest_image_console_password }}"
    files: "{{ guest_image_files }}"

- name: Use an image from elsewhere
  guest_image:
    path: /var/lib/kilonova/guest-image/cirros.qcow2
    source: https://download.example.org/cirros-0.6.3-x86_64-disk.img
    checksum: sha256:7d6355852aeb6dbcd191bcda7cd74f1536cfe5cbf8a10495a7283a8396e4b75b
"""

RETURN = r"""
path:
  description: The image.
  type: str
  returned: always
disk_format:
  description: V(qcow2) or V(raw), found by looking at the file; for Glance.
  type: str
  returned: when the image exists
size:
  description: Bytes of the file.
  type: int
  returned: when the image exists
virtual_size:
  description: Bytes of the disk that a guest sees.
  type: int
  returned: when the image exists
sha256:
  description: The file's checksum.
  type: str
  returned: when the image exists
user:
  description: Login name of the built guest.
  type: str
  returned: always
packages:
  description: Versions of the packages that it was built of, by name. Empty for an image from elsewhere.
  type: dict
  returned: when the image exists
seconds:
  description: How long building or fetching took.
  type: float
  returned: when something was done
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.guest_image.build import (
    KERNEL,
    PACKAGES,
    REVISION,
    Builder,
    BuildError,
    GuestFile,
    Recipe,
    password_hash,
)
from ansible.module_utils.kilonova.guest_image.disk import disk_format
from ansible.module_utils.kilonova.guest_image.packages import Apt, PackageError
from ansible.module_utils.kilonova.guest_image.source import SourceError, copy_checked, parse_checksum
from ansible.module_utils.urls import fetch_url

WORK_PREFIX = ".building-"


def wanted_inputs(params: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the image's content, without the console password and package versions."""
    if params["source"]:
        return {"source": params["source"], "checksum": params["checksum"]}
    return {
        "revision": REVISION,
        "user": params["user"],
        "size_mib": params["size_mib"],
        "kernel_arguments": params["kernel_arguments"],
        "files": {
            file["path"]: f"{file['mode']} {hashlib.sha256(file['content'].encode()).hexdigest()}"
            for file in params["files"]
        },
    }


def read_record(path: Path) -> dict[str, Any]:
    """Return the record beside the image; {} if there is none or it is of no use."""
    try:
        record = json.loads(path.with_name(f"{path.name}.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def intact(record: dict[str, Any], path: Path) -> bool:
    """Say whether the image is still the file that the record was written for."""
    try:
        status = path.stat()
    except OSError:
        return False
    return [status.st_size, status.st_mtime_ns] == [record.get("size"), record.get("mtime_ns")]


def same_password(record: dict[str, Any], params: dict[str, Any]) -> bool:
    """Say whether the image holds the hash of the wanted console password."""
    recorded, password = str(record.get("console_hash", "")), params["console_password"] or ""
    if params["source"] or not (recorded and password):
        return bool(params["source"]) or not (recorded or password)
    return password_hash(password, recorded) == recorded


def new_versions(record: dict[str, Any], work: Path) -> dict[str, str]:
    """Return the packages whose candidate version on this host is another than the image's."""
    apt = Apt(work)
    kernel = apt.dependency(KERNEL, "linux-image-")
    candidates = apt.versions([*PACKAGES, *([kernel] if kernel else [])])
    built = record.get("packages", {})
    return {name: version for name, version in candidates.items() if built.get(name) != version}


class GuestImage:
    """The image file, its record, and how to make both."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.path = Path(self.params["path"])
        self.record = read_record(self.path)
        self.inputs = wanted_inputs(self.params)

    def check_options(self) -> None:
        params = self.params
        if params["source"]:
            try:
                parse_checksum(params["checksum"])
            except SourceError as error:
                self.module.fail_json(msg=str(error))
            return
        if platform.machine() != "x86_64":
            self.module.fail_json(
                msg=f"The test guest can be built on x86_64 only, this host is {platform.machine()}. Set source (and "
                "checksum) to an image for this architecture."
            )
        if not any(file["path"] == "initramfs/init" for file in params["files"]):
            self.module.fail_json(msg="files has no initramfs/init, without which the guest cannot boot.")
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", params["user"]) or params["user"] in ("root", "tty"):
            self.module.fail_json(
                msg=f"user is '{params['user']}'; a login name has up to 31 lower-case letters, digits, '-' and '_', "
                "begins with a letter, and is not root (who cannot log in; the user may become root)."
            )
        for file in params["files"]:
            path, mode = file["path"], file["mode"]
            if path.startswith("/") or ".." in path.split("/") or not re.fullmatch("[0-7]{3,4}", mode):
                self.module.fail_json(
                    msg=f"files has '{path}' with mode '{mode}'; a path is relative to the guest's root, without '..', "
                    "and a mode has three or four octal digits."
                )

    def reasons(self) -> dict[str, Any]:
        """Return what differs from the present image, for the diff; {} if nothing does."""
        try:
            return self._reasons()
        except (BuildError, PackageError) as error:
            self.module.fail_json(msg=str(error))
            raise  # for those who read types: it does not return

    def _reasons(self) -> dict[str, Any]:
        before = self.record.get("inputs", {})
        found: dict[str, Any] = {}
        for key in sorted({*before, *self.inputs}):
            if before.get(key) != self.inputs.get(key):
                found[key] = [before.get(key), self.inputs.get(key)]
        if not intact(self.record, self.path):
            found["image"] = ["absent or changed since it was made" if self.path.exists() else "absent", "made"]
        elif not found and not same_password(self.record, self.params):
            found["console_password"] = ["another one", "as given"]
        elif not found and self.params["upgrade"] and not self.params["source"]:
            for name, version in new_versions(self.record, self.path.parent).items():
                found[name] = [self.record.get("packages", {}).get(name), version]
        return found

    def make(self) -> None:
        directory = self.path.parent
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with (directory / ".lock").open("w") as lock:
            # A build that was killed leaves its directory; whoever holds the lock may remove it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            # One that goes on although its run was killed may have made it meanwhile: to make it once more would
            # change a file that is in use.
            self.record = read_record(self.path)
            if not self.reasons():
                return
            for left_over in directory.glob(f"{WORK_PREFIX}*"):
                shutil.rmtree(left_over, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=directory))
            try:
                new = work / "image"
                extra = self._take(new) if self.params["source"] else self._build(new, work)
                self._install(new, extra)
            except (BuildError, SourceError, OSError, ValueError) as error:
                self.module.fail_json(msg=f"The guest image {self.path} was not made: {error}")
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def _build(self, new: Path, work: Path) -> dict[str, Any]:
        params = self.params
        recipe = Recipe(
            user=params["user"],
            size_mib=params["size_mib"],
            kernel_arguments=params["kernel_arguments"],
            files=tuple(GuestFile(file["path"], file["content"], int(file["mode"], 8)) for file in params["files"]),
            console_hash=password_hash(params["console_password"]) if params["console_password"] else "",
        )
        builder = Builder(recipe, work)
        builder.build(new)
        return {"packages": builder.versions, "console_hash": recipe.console_hash}

    def _take(self, new: Path) -> dict[str, Any]:
        source, checksum = self.params["source"], self.params["checksum"]
        url = urlsplit(source)
        if source.startswith("/") or url.scheme == "file":
            with open(unquote(url.path) if url.scheme else source, "rb") as stream:
                copy_checked(stream, new, checksum, source)
        else:
            response, info = fetch_url(self.module, source, timeout=self.params["download_timeout"])
            if response is None or info["status"] != 200:
                raise SourceError(f"{source} could not be downloaded: {info['msg']} (status {info['status']})")
            length = int(info.get("content-length") or 0)
            size = copy_checked(response, new, checksum, source)
            if length and size < length:
                raise SourceError(f"{source} ended after {size} of {length} bytes")
        return {"packages": {}, "console_hash": ""}

    def _install(self, new: Path, extra: dict[str, Any]) -> None:
        new.chmod(0o644)
        with new.open("rb") as image:
            os.fsync(image.fileno())
            digest = hashlib.file_digest(image, "sha256").hexdigest()
        kind, virtual_size = disk_format(new)
        status = new.stat()
        self.record = {
            "inputs": self.inputs,
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "sha256": digest,
            "disk_format": kind,
            "virtual_size": virtual_size,
            **extra,
        }
        record = new.with_name("record")
        # It holds the console password's hash.
        record.touch(mode=0o600)
        record.write_text(json.dumps(self.record, indent=1, sort_keys=True) + "\n")
        # The image first: if it stops in between, the old record does not fit the new image, which is made again.
        os.replace(new, self.path)
        os.replace(record, self.path.with_name(f"{self.path.name}.json"))

    def facts(self) -> dict[str, Any]:
        keys = ("disk_format", "size", "virtual_size", "sha256", "packages")
        found = {key: self.record[key] for key in keys if key in self.record}
        return {"path": str(self.path), "user": self.params["user"], **found}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "source": {"type": "str", "default": ""},
            "checksum": {"type": "str", "default": ""},
            "download_timeout": {"type": "int", "default": 60},
            "user": {"type": "str", "default": "guest"},
            "console_password": {"type": "str", "no_log": True},
            "size_mib": {"type": "int", "default": 512},
            "kernel_arguments": {"type": "str", "default": "console=tty0 console=ttyS0,115200 loglevel=4"},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "str", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "default": "0644"},
                },
            },
            "upgrade": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    image = GuestImage(module)
    image.check_options()
    reasons = image.reasons()
    result: dict[str, Any] = {"changed": bool(reasons)}
    if reasons:
        result["diff"] = {
            "before_header": f"{image.path} was made of",
            "after_header": f"{image.path} is made of",
            "before": json.dumps({key: pair[0] for key, pair in reasons.items()}, indent=1) + "\n",
            "after": json.dumps({key: pair[1] for key, pair in reasons.items()}, indent=1) + "\n",
        }
        if not module.check_mode:
            started = time.monotonic()
            image.make()
            result["seconds"] = round(time.monotonic() - started, 1)
    module.exit_json(**result, **image.facts())


if __name__ == "__main__":
    main()
