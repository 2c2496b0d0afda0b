# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keep packages from starting their daemons while they are installed.

The guard is /usr/sbin/policy-rc.d. If the host has such a file, it is moved aside and restored, also after a kill:
at every moment the content tells which of the two files is the guard.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

GUARD = "usr/sbin/policy-rc.d"
# Where a policy file of the host waits meanwhile.
GUARD_ASIDE = "usr/sbin/policy-rc.d.kilonova"
GUARD_TEXT = "#!/bin/sh\n# Written by Kilonova while packages are installed that are not configured yet.\nexit 101\n"


def guard_is_ours(root: str = "/") -> bool:
    """Return whether the policy file is the guard."""
    try:
        with open(root + GUARD, encoding="utf-8", errors="replace") as stream:
            return stream.read() == GUARD_TEXT
    except (FileNotFoundError, IsADirectoryError):
        return False


def guard_left(root: str = "/") -> bool:
    """Return whether an interrupted call left a guard or a file that it had moved aside."""
    return guard_is_ours(root) or os.path.lexists(root + GUARD_ASIDE)


def raise_guard(root: str = "/") -> None:
    """Keep daemons from starting."""
    temporary = f"{root}{GUARD}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, 0o755)
        stream.write(GUARD_TEXT)
    if os.path.lexists(root + GUARD) and not guard_is_ours(root):
        os.rename(root + GUARD, root + GUARD_ASIDE)
    os.rename(temporary, root + GUARD)


def lower_guard(root: str = "/") -> bool:
    """Undo raise_guard, even if it was interrupted. Returns whether there was anything to undo."""
    found = guard_is_ours(root)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{root}{GUARD}.new")
        found = True
    if os.path.lexists(root + GUARD_ASIDE) and (guard_is_ours(root) or not os.path.lexists(root + GUARD)):
        os.rename(root + GUARD_ASIDE, root + GUARD)
        return True
    if guard_is_ours(root):
        os.unlink(root + GUARD)
    return found


@contextlib.contextmanager
def guarded(root: str = "/") -> Iterator[None]:
    """Keep daemons from starting within a context."""
    raise_guard(root)
    try:
        yield
    finally:
        lower_guard(root)
