# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Change the network of a host so that the host undoes the change by itself unless somebody confirms it.

The state is a directory on the host. C(armed) exists from before the first change until the change is confirmed or
undone; the saved files beside it are the last configuration that somebody reached the host with. The change and the way
back are scripts in that
directory: systemd runs them, not the ssh session that asked for them, and they do without Python and without the
  network.

Three things can start the way back: a transient timer (systemd-run --on-active), the failed change itself, and a unit
ordered before networking.service at the next boot, because a transient timer does not survive a reboot.
See systemd-run(1), systemd.timer(5) (AccuracySec is a minute unless told otherwise).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

DIRECTORY = "/var/lib/kilonova/bridge"
BOOT_UNIT = "kilonova-bridge-rollback-boot.service"
SYSTEM_UNITS = "/etc/systemd/system"
TIMER = "kilonova-bridge-rollback"
APPLY = "kilonova-bridge-apply"
# The result of the module that starts the change must be on its way before the network goes down.
APPLY_DELAY = 1

# run(command) -> (rc, stdout, stderr)
Runner = Callable[[list[str]], tuple[int, str, str]]


class RollbackError(Exception):
    """The change cannot be started; the message says why."""


@dataclass
class Change:
    """What the two scripts need to know."""

    token: str
    seconds: int
    files: dict[str, str | None]
    interface: str
    down: list[str]
    up: list[str]
    restore: list[str]
    remove_links: list[str] = field(default_factory=list)


def quoted(words: list[str]) -> str:
    """Words for a shell script."""
    return " ".join(shlex.quote(word) for word in words)


def install_lines(names: dict[str, str | None]) -> str:
    """Shell lines that put saved or new files in place: {path: file in the directory, or None to remove it}."""
    lines = []
    for path, name in names.items():
        target = shlex.quote(path)
        if name is None:
            lines.append(f"rm -f {target}")
        else:
            lines.append(f"cp -p {shlex.quote(name)} {target}.kilonova && mv -f {target}.kilonova {target} || exit 1")
    return "\n".join(lines)


def apply_script(change: Change, names: dict[str, str | None], directory: str = DIRECTORY) -> str:
    """The change: old interfaces down, new files, new interfaces up; undone at once where ifup fails."""
    return f"""#!/bin/sh
# Written by Kilonova (role bridge): changes the network. See rollback beside it.
cd {shlex.quote(directory)} || exit 1
[ -e armed ] || exit 0
echo "taking down: {quoted(change.down)}"
for interface in {quoted(change.down)}; do
    # A hotplugged interface belongs to a unit of its own.
    systemctl --quiet is-active "ifup@$interface.service" && systemctl stop "ifup@$interface.service"
    ifdown --force "$interface"
done
ip address flush dev {shlex.quote(change.interface)} scope global
{install_lines(names)}
echo "bringing up: {quoted(change.up)}"
for interface in {quoted(change.up)}; do
    if ! ifup --force "$interface"; then
        echo "ifup $interface failed: returning to the old configuration"
        systemctl start --no-block {TIMER}-{change.token}.service
        exit 1
    fi
done
date +%s >applied.new && mv applied.new applied
"""


def rollback_script(change: Change, names: dict[str, str | None], directory: str = DIRECTORY) -> str:
    """The way back: the saved files, and, unless the host is just booting, the interfaces as they were."""
    up = list(reversed(change.up))
    removed = "\n".join(f"    ip link delete dev {shlex.quote(link)} 2>/dev/null" for link in change.remove_links)
    unit = f"{SYSTEM_UNITS}/{BOOT_UNIT}"
    return f"""#!/bin/sh
# Written by Kilonova (role bridge): returns the network to its old configuration, unless a run confirmed the new one.
cd {shlex.quote(directory)} || exit 1
exec 9>lock
flock 9
[ -e armed ] || exit 0
if [ "$1" != boot ]; then
    systemctl stop {APPLY}-{change.token}.timer {APPLY}-{change.token}.service
    for interface in {quoted(up)}; do
        ifdown --force "$interface"
    done
{removed}
    ip address flush dev {shlex.quote(change.interface)} scope global
fi
{install_lines(names)}
if [ "$1" != boot ]; then
    for interface in {quoted(change.restore)}; do
        ifup --force "$interface"
    done
fi
echo {shlex.quote(change.token)} "$(date +%s)" "${{1:-timer}}" >undone
rm -f armed {unit} {SYSTEM_UNITS}/networking.service.wants/{BOOT_UNIT}
sync -f .
"""


def boot_unit(directory: str = DIRECTORY) -> str:
    """The unit that undoes an unconfirmed change when the host reboots before its time is up."""
    return f"""# Written by Kilonova (role bridge); removed when the change of the network is confirmed or undone.
[Unit]
Description=Return to the network configuration before an unconfirmed change
DefaultDependencies=no
RequiresMountsFor={directory}
After=local-fs.target
Before=ifupdown-pre.service networking.service network-pre.target
ConditionPathExists={directory}/armed

[Service]
Type=oneshot
ExecStart=/bin/sh {directory}/rollback boot
"""


def write(path: str, text: str, mode: int = 0o600) -> None:
    """Write a file so that it survives a power failure from here on."""
    temporary = f"{path}.kilonova"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read(path: str) -> str | None:
    """A file's text, None where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def locked(directory: str, timeout: float = 90) -> Iterator[None]:
    """Hold the lock that the way back holds while it runs."""
    with open(f"{directory}/lock", "w", encoding="utf-8") as file:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RollbackError(
                        f"the way back of an earlier change ({directory}/rollback) has been running for over "
                        f"{timeout:.0f} s; "
                        f"see: journalctl -u '{TIMER}-*'"
                    ) from None
                time.sleep(0.2)
        yield


def status(directory: str = DIRECTORY) -> dict[str, Any]:
    """Where a change stands: armed, applied, undone (how: timer, boot, or nothing), and its token."""
    change = json.loads(read(f"{directory}/change.json") or "{}")
    undone = (read(f"{directory}/undone") or "").split()
    return {
        "token": change.get("token", ""),
        "armed": os.path.exists(f"{directory}/armed"),
        "applied": os.path.exists(f"{directory}/applied"),
        "undone": undone[2] if len(undone) == 3 and undone[0] == change.get("token") else "",
    }


def save(change: Change, directory: str = DIRECTORY) -> None:
    """Save what is, write what shall be, and arm. The saved files of an armed earlier change are the last good ones."""
    for sub in ("", "/saved", "/new"):
        os.makedirs(f"{directory}{sub}", mode=0o700, exist_ok=True)
    old: dict[str, Any] = (
        json.loads(read(f"{directory}/change.json") or "{}") if os.path.exists(f"{directory}/armed") else {}
    )
    saved: dict[str, str | None] = dict(old.get("saved", {}))
    if old:
        change.restore = old["restore"]
        change.remove_links = old["remove_links"]
    new: dict[str, str | None] = {}
    for path, text in change.files.items():
        if path not in saved:
            current = read(path)
            saved[path] = None if current is None else f"saved/{len(saved)}"
            if current is not None:
                write(f"{directory}/{saved[path]}", current, os.stat(path).st_mode & 0o777)
        new[path] = None if text is None else f"new/{len(new)}"
        if text is not None:
            mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o644
            write(f"{directory}/{new[path]}", text, mode)
    for name in ("applied", "undone"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}")
    write(f"{directory}/rollback", rollback_script(change, saved, directory), 0o700)
    write(f"{directory}/apply", apply_script(change, new, directory), 0o700)
    write(f"{directory}/change.json", json.dumps({**asdict(change), "files": None, "saved": saved}))
    wants = f"{SYSTEM_UNITS}/networking.service.wants"
    os.makedirs(wants, exist_ok=True)
    write(f"{SYSTEM_UNITS}/{BOOT_UNIT}", boot_unit(directory), 0o644)
    if not os.path.islink(f"{wants}/{BOOT_UNIT}"):
        os.symlink(f"{SYSTEM_UNITS}/{BOOT_UNIT}", f"{wants}/{BOOT_UNIT}")
    write(f"{directory}/armed", change.token)
    os.sync()


def disarm(directory: str = DIRECTORY) -> None:
    """The change stays. The caller holds the lock."""
    for path in (
        f"{directory}/armed",
        f"{SYSTEM_UNITS}/networking.service.wants/{BOOT_UNIT}",
        f"{SYSTEM_UNITS}/{BOOT_UNIT}",
    ):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    for sub in ("saved", "new"):
        for name in os.listdir(f"{directory}/{sub}"):
            os.unlink(f"{directory}/{sub}/{name}")
    os.sync()


def stop_units(run: Runner) -> None:
    """Stop the timers of an earlier change; the way back itself, once it runs, is left to finish."""
    run(["systemctl", "stop", f"{TIMER}-*.timer", f"{APPLY}-*.timer"])


def transient(unit: str, service: str, seconds: int, script: str) -> list[str]:
    """
    The command that has systemd run a script in some seconds.

    RemainAfterExit keeps the unit, and with it the DHCP client that ifup left running in it.
    """
    return [
        "systemd-run", "--quiet", f"--on-active={seconds}", f"--unit={unit}", "--timer-property=AccuracySec=100ms",
        "--timer-property=RemainAfterElapse=no", "--property=RemainAfterExit=yes", "--property=TimeoutStopSec=5",
        f"--description=Kilonova: {service}", "/bin/sh", *script.split(),
    ]  # fmt: skip


def start(change: Change, run: Runner, directory: str = DIRECTORY) -> None:
    """Arm the timer of the way back, then have the change begin a moment from now."""
    unit = f"{TIMER}-{change.token}"
    code, _, error = run(
        transient(unit, "return to the old network configuration", change.seconds, f"{directory}/rollback timer")
    )
    if code:
        disarm(directory)
        raise RollbackError(f"systemd-run could not arm the rollback timer, so nothing was changed: {error.strip()}")
    unit = f"{APPLY}-{change.token}"
    command = transient(unit, "change the network", APPLY_DELAY, f"{directory}/apply")
    code, _, error = run(command)
    if code:
        disarm(directory)
        stop_units(run)
        raise RollbackError(f"systemd-run could not start the change, so nothing was changed: {error.strip()}")
