# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Build or fetch the test image where it differs from the wanted one."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import stat
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

WORK_PREFIX = ".building-"
# The image has the hash of the console password.
MODE = 0o640
ARGUMENT_SPEC: dict[str, Any] = {
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
    "raw": {"type": "bool", "default": False},
}


def wanted_inputs(params: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the content of the image, except the console password and package versions."""
    # Records from before have no format.
    kind = {"format": "raw"} if params["raw"] else {}
    if params["source"]:
        return {"source": params["source"], "checksum": params["checksum"], **kind}
    return {
        **kind,
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
    """Return the record beside the image, {} if there is none or it cannot be read."""
    try:
        record = json.loads(path.with_name(f"{path.name}.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def intact(record: dict[str, Any], path: Path) -> bool:
    """Return whether the image is still the file that was recorded."""
    try:
        status = path.stat()
    except OSError:
        return False
    return [status.st_size, status.st_mtime_ns] == [record.get("size"), record.get("mtime_ns")]


def same_password(record: dict[str, Any], params: dict[str, Any]) -> bool:
    """Return whether the image has the hash of the wanted console password."""
    recorded, password = str(record.get("console_hash", "")), params["console_password"] or ""
    if params["source"] or not (recorded and password):
        return bool(params["source"]) or not (recorded or password)
    return password_hash(password, recorded) == recorded


def new_versions(record: dict[str, Any], work: Path) -> dict[str, str]:
    """Return the packages of which this host has a candidate version that is not in the image."""
    apt = Apt(work)
    kernel = apt.dependency(KERNEL, "linux-image-")
    candidates = apt.versions([*PACKAGES, *([kernel] if kernel else [])])
    built = record.get("packages", {})
    return {name: version for name, version in candidates.items() if built.get(name) != version}


class GuestImage:
    """The image file and its record."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.path = Path(self.params["path"])
        self.record = read_record(self.path)
        self.inputs = wanted_inputs(self.params)

    def check_options(self) -> None:
        """Fail where the options cannot lead to an image."""
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
        """Return {what differs: [before, after]}."""
        try:
            return self._reasons()
        except (BuildError, PackageError) as error:
            self.module.fail_json(msg=str(error))
            raise  # not reached; for type checkers

    def _reasons(self) -> dict[str, Any]:
        before = self.record.get("inputs", {})
        found: dict[str, Any] = {}
        for key in sorted({*before, *self.inputs}):
            if before.get(key) != self.inputs.get(key):
                found[key] = [before.get(key), self.inputs.get(key)]
        if not intact(self.record, self.path):
            found["image"] = ["changed since it was built" if self.path.exists() else "absent", "built"]
        elif not found and stat.S_IMODE(self.path.stat().st_mode) != MODE:
            found["mode"] = [f"{stat.S_IMODE(self.path.stat().st_mode):04o}", f"{MODE:04o}"]
        elif not found and not same_password(self.record, self.params):
            found["console_password"] = ["different", "as given"]
        elif not found and self.params["upgrade"] and not self.params["source"]:
            for name, version in new_versions(self.record, self.path.parent).items():
                found[name] = [self.record.get("packages", {}).get(name), version]
        return found

    def make(self) -> None:
        """Build or fetch the image, and replace the present one."""
        directory = self.path.parent
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with (directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # A build that outlived a killed run may have finished meanwhile. Another build would change a file in use.
            self.record = read_record(self.path)
            reasons = self.reasons()
            if self.path.exists():
                self.path.chmod(MODE)
            if not reasons.keys() - {"mode"}:
                return
            # Directories of killed builds: the lock says that none of them is in use.
            for left_over in directory.glob(f"{WORK_PREFIX}*"):
                shutil.rmtree(left_over, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=directory))
            try:
                new = work / "image"
                extra = self._take(new) if self.params["source"] else self._build(new, work)
                self._install(new, extra)
            except (BuildError, SourceError, OSError, ValueError) as error:
                self.module.fail_json(msg=f"The guest image {self.path} was not built: {error}")
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
        builder.build(new, raw=params["raw"])
        return {"packages": builder.versions, "console_hash": recipe.console_hash}

    def _take(self, new: Path) -> dict[str, Any]:
        source, checksum = self.params["source"], self.params["checksum"]
        url = urlsplit(source)
        if source.startswith("/") or url.scheme == "file":
            with open(unquote(url.path) if url.scheme else source, "rb") as stream:
                copy_checked(stream, new, checksum, source)
        else:
            from ansible.module_utils.urls import fetch_url

            response, info = fetch_url(self.module, source, timeout=self.params["download_timeout"])
            if response is None or info["status"] != 200:
                raise SourceError(f"{source} could not be downloaded: {info['msg']} (status {info['status']})")
            length = int(info.get("content-length") or 0)
            size = copy_checked(response, new, checksum, source)
            if length and size < length:
                raise SourceError(f"{source} ended after {size} of {length} bytes")
        if self.params["raw"] and disk_format(new)[0] != "raw":
            self._make_raw(new)
        return {"packages": {}, "console_hash": ""}

    def _make_raw(self, new: Path) -> None:
        """Convert the image in place."""
        raw = new.with_name("raw")
        command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(new), str(raw)]
        try:
            status, _, problem = self.module.run_command(command)
        except OSError as error:
            raise BuildError(f"qemu-img does not start: {error}") from error
        if status:
            raise BuildError(f"qemu-img made no raw image of {self.params['source']}: {problem.strip()}")
        os.replace(raw, new)

    def _install(self, new: Path, extra: dict[str, Any]) -> None:
        new.chmod(MODE)
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
        # The record has the hash of the console password.
        record.touch(mode=0o600)
        record.write_text(json.dumps(self.record, indent=1, sort_keys=True) + "\n")
        # The image first: after an interruption the record does not match, and the next run builds again.
        os.replace(new, self.path)
        os.replace(record, self.path.with_name(f"{self.path.name}.json"))

    def facts(self) -> dict[str, Any]:
        """Return what the record says of the image."""
        keys = ("disk_format", "size", "virtual_size", "sha256", "packages")
        found = {key: self.record[key] for key in keys if key in self.record}
        return {"path": str(self.path), "user": self.params["user"], **found}


def run(module: AnsibleModule) -> None:
    """Run the module."""
    image = GuestImage(module)
    image.check_options()
    reasons = image.reasons()
    result: dict[str, Any] = {"changed": bool(reasons)}
    if reasons:
        result["diff"] = {
            "before_header": f"{image.path} was built from",
            "after_header": f"{image.path} is built from",
            "before": json.dumps({key: pair[0] for key, pair in reasons.items()}, indent=1) + "\n",
            "after": json.dumps({key: pair[1] for key, pair in reasons.items()}, indent=1) + "\n",
        }
        if not module.check_mode:
            started = time.monotonic()
            image.make()
            result["seconds"] = round(time.monotonic() - started, 1)
    module.exit_json(**result, **image.facts())
