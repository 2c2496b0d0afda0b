# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Files of packed modules that a host keeps, so that Python compiles each of them once and not in every call.

Ansible sends a module as a zip file with all that it imports, some sixty sources. Python keeps no byte code of what it
imports from a zip file, and compiles it again in each call: more than half of the time of one that finds nothing to do.
The callback plugin prebuild therefore lets the package ansible of a packed module be looked for below KEPT, where this
unpacks it once. The zip file is still complete: where nothing can be kept, it is used as ever.

Runs before anything of Ansible's is imported, so that it imports nothing of it. /run is empty after a boot.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
import zipfile
from collections.abc import Iterable

KEPT = "/run/kilonova/code"
PACKAGE = "ansible"
# What no call has used for so long belongs to sources that were replaced since.
FORGOTTEN_SECONDS = 86400


def is_ours_alone(directory: str) -> bool:
    """Whether a path is a directory of this process's user, in which nobody else can put anything."""
    found = os.lstat(directory)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def write(path: str, content: bytes) -> None:
    """Write a file in one step: calls at the same time write the same, and none finds half of it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f"{path}.{os.getpid()}"
    with open(part, "wb") as stream:
        stream.write(content)
    os.replace(part, path)


def unpack(archive: str, directory: str) -> None:
    """Unpack what a zip file has and a directory has not."""
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            path = os.path.join(directory, name)
            if name.startswith(f"{PACKAGE}/") and not name.endswith("/") and not os.path.exists(path):
                write(path, packed.read(name))


def forget(kept: str, directory: str) -> None:
    """Remove what was kept of other sources and is not used any more."""
    for name in os.listdir(kept):
        path = os.path.join(kept, name)
        if path != directory and os.lstat(path).st_mtime < time.time() - FORGOTTEN_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def locate(paths: Iterable[str], sources: str, module: str, kept: str = KEPT) -> list[str]:
    """Where the package ansible is to be looked for.

    paths: where it is by itself, below the zip file. sources: a name for the sources of all modules that are packed
    together, another one for others. module: the packed module's name.
    """
    paths = list(paths)
    directory = os.path.join(kept, sources)
    done = os.path.join(directory, f"{module}.complete")
    try:
        if not os.path.exists(done):
            os.makedirs(os.path.dirname(kept), mode=0o711, exist_ok=True)
            os.makedirs(kept, mode=0o700, exist_ok=True)
        if not is_ours_alone(os.path.dirname(kept)) or not is_ours_alone(kept):
            return paths
        if not os.path.exists(done):
            unpack(os.path.dirname(paths[0]), directory)
            write(done, b"")
            forget(kept, directory)
        os.utime(directory)
    except OSError:
        # A full or read-only file system, say.
        return paths
    return [os.path.join(directory, PACKAGE), *paths]
