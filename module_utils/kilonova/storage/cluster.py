# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ask the monitors of a Ceph cluster, as its administrator, from a storage host."""

from __future__ import annotations

import atexit
import errno
import importlib
import json
import os
import time
from typing import Any

CONFIGURATION = "/etc/ceph/ceph.conf"
KEYRING = "/etc/ceph/ceph.client.admin.keyring"
# Seconds that an answer may take.
TIMEOUT = 15
POLL_SECONDS = 1.0
# Seconds that a dry run waits for a quorum.
DRY_RUN_TIMEOUT = 5


class CephError(Exception):
    """A cluster that does not answer, or that refuses a command."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Cluster:
    """A connection to the monitors. Keys go into commands as data, never as arguments of programs."""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        missing = [path for path in (CONFIGURATION, KEYRING) if not os.path.exists(path)]
        if missing:
            raise CephError(f"{' and '.join(missing)} do not exist on this host", errno.ENOENT)
        try:
            rados = importlib.import_module("rados")
        except ImportError as error:
            raise CephError(f"the package python3-rados is not installed: {error}", errno.ENOENT) from error
        limit = str(int(timeout))
        settings = {"client_mount_timeout": limit, "rados_mon_op_timeout": limit, "log_to_stderr": "false"}
        self._rados = rados.Rados(conffile=CONFIGURATION, name="client.admin", conf=settings)
        # A process that ends beside threads of the library may crash after its result.
        atexit.register(self._rados.shutdown)
        try:
            self._rados.connect(timeout=int(timeout))
        except rados.Error as error:
            self._rados.shutdown()
            raise CephError(f"no monitor answers: {error}", errno.ETIMEDOUT) from error

    def command(self, prefix: str, data: bytes = b"", **arguments: Any) -> Any:
        """Return the answer to a command, parsed where it is JSON. Raises CephError where it is refused."""
        output = self.raw(prefix, data, format="json", **arguments)
        return json.loads(output) if output.strip() else None

    def raw(self, prefix: str, data: bytes = b"", **arguments: Any) -> bytes:
        """Return the answer to a command as it came. Raises CephError where it is refused."""
        code, output, text = self._rados.mon_command(json.dumps({"prefix": prefix, **arguments}), data, timeout=TIMEOUT)
        if code:
            why = text.strip() or os.strerror(abs(code))
            raise CephError(f"'ceph {prefix}' was refused: {why}", abs(code))
        return bytes(output)


def reach(timeout: float) -> Cluster:
    """Return a connection as soon as a quorum answers. Raises CephError where none does in this time."""
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            return Cluster(max(min(left, TIMEOUT), 1))
        except CephError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(POLL_SECONDS)
