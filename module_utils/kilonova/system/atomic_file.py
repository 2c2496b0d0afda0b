# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Replace a file in one step: a reader, a killed run and a power cut see the old file or the new one."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def replace(path: str | Path, text: str | bytes, *, mode: int = 0o600, owner: str = "") -> None:
    """Write a file with mode and owner (a user with a group of the same name), and replace the one at `path`.

    The text is on the disk before the file is replaced. Raises OSError, and LookupError where there is no such owner;
    the old file stays then.
    """
    target = Path(path)
    # mkstemp() creates the file with mode 0600.
    descriptor, new = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text.encode() if isinstance(text, str) else text)
            os.fchmod(stream.fileno(), mode)
            if owner:
                shutil.chown(new, owner, owner)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, target)
    except BaseException:
        os.unlink(new)
        raise
