# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Change the network of a host so that the host undoes the change by itself unless it is confirmed.

The state is a directory on the host. The file ``armed`` exists from before the first change until the change is
confirmed or undone; the saved files are the last configuration over which the host was reached. Change and rollback are
shell scripts there, run by systemd: they need neither the ssh session nor Python nor the network.

The rollback is started by a transient timer (systemd-run --on-active), by a failed change, or at the next boot by a
unit ordered before networking.service, because a transient timer does not survive a reboot. See systemd-run(1).
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

from ansible.module_utils.kilonova.system.atomic_file import replace

DIRECTORY = "/var/lib/kilonova/bridge"
BOOT_UNIT = "kilonova-bridge-rollback-boot.service"
SYSTEM_UNITS = "/etc/systemd/system"
TIMER = "kilonova-bridge-rollback"
APPLY = "kilonova-bridge-apply"
# The module must have returned its result before the network goes down.
APPLY_DELAY = 1

# run(command) -> (rc, stdout, stderr)
Runner = Callable[[list[str]], tuple[int, str, str]]


class RollbackError(Exception):
    """The change cannot be started; the message says why."""


@dataclass
class Change:
    """The input of both scripts."""

    token: str
    seconds: int
    files: dict[str, str | None]
    interface: str
    down: list[str]
    up: list[str]
    restore: list[str]
    remove_links: list[str] = field(default_factory=list)


def quoted(words: list[str]) -> str:
    """Return words quoted for a shell script."""
    return " ".join(shlex.quote(word) for word in words)


def install_lines(names: dict[str, str | None]) -> str:
    """Return shell lines that install files: {path: file in the directory, or None to remove it}."""
    lines = []
    for path, name in names.items():
        target = shlex.quote(path)
        if name is None:
            lines.append(f"rm -f {target}")
        else:
            lines.append(f"cp -p {shlex.quote(name)} {target}.kilonova && mv -f {target}.kilonova {target} || exit 1")
    return "\n".join(lines)


def apply_script(change: Change, names: dict[str, str | None], directory: str = DIRECTORY) -> str:
    """Return the script of the change: old interfaces down, new files, new interfaces up. A failed ifup undoes it."""
    return f"""#!/bin/sh
# Written by Kilonova (role bridge): changes the network. See rollback beside it.
cd {shlex.quote(directory)} || exit 1
[ -e armed ] || exit 0
echo "taking down: {quoted(change.down)}"
for interface in {quoted(change.down)}; do
    # A hotplugged interface belongs to the unit ifup@.
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
    """Return the script of the rollback: saved files and, unless the host is booting, the former interfaces."""
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
    """Return the unit that undoes an unconfirmed change at the next boot."""
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


def read(path: str) -> str | None:
    """Return a file's text, None where there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def locked(directory: str, timeout: float = 90) -> Iterator[None]:
    """Hold the lock that a running rollback holds."""
    with open(f"{directory}/lock", "w", encoding="utf-8") as file:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RollbackError(
                        f"The rollback of an earlier change ({directory}/rollback) has been running for over "
                        f"{timeout:.0f} s; see: journalctl -u '{TIMER}-*'"
                    ) from None
                time.sleep(0.2)
        yield


def status(directory: str = DIRECTORY) -> dict[str, Any]:
    """Return the state of the last change: armed, applied, undone (timer, boot, or empty), and its token."""
    change = json.loads(read(f"{directory}/change.json") or "{}")
    undone = (read(f"{directory}/undone") or "").split()
    return {
        "token": change.get("token", ""),
        "armed": os.path.exists(f"{directory}/armed"),
        "applied": os.path.exists(f"{directory}/applied"),
        "undone": undone[2] if len(undone) == 3 and undone[0] == change.get("token") else "",
    }


def save(change: Change, directory: str = DIRECTORY) -> None:
    """Save the present files, write the new ones, and arm. Files saved by an armed earlier change are kept."""
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
                replace(f"{directory}/{saved[path]}", current, mode=os.stat(path).st_mode & 0o777)
        new[path] = None if text is None else f"new/{len(new)}"
        if text is not None:
            mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o644
            replace(f"{directory}/{new[path]}", text, mode=mode)
    for name in ("applied", "undone"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}")
    replace(f"{directory}/rollback", rollback_script(change, saved, directory), mode=0o700)
    replace(f"{directory}/apply", apply_script(change, new, directory), mode=0o700)
    replace(f"{directory}/change.json", json.dumps({**asdict(change), "files": None, "saved": saved}))
    wants = f"{SYSTEM_UNITS}/networking.service.wants"
    os.makedirs(wants, exist_ok=True)
    replace(f"{SYSTEM_UNITS}/{BOOT_UNIT}", boot_unit(directory), mode=0o644)
    if not os.path.islink(f"{wants}/{BOOT_UNIT}"):
        os.symlink(f"{SYSTEM_UNITS}/{BOOT_UNIT}", f"{wants}/{BOOT_UNIT}")
    replace(f"{directory}/armed", change.token)
    os.sync()


def disarm(directory: str = DIRECTORY) -> None:
    """Make the change permanent. The caller holds the lock."""
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
    """Stop the timers of an earlier change; a rollback that already runs is left to finish."""
    run(["systemctl", "stop", f"{TIMER}-*.timer", f"{APPLY}-*.timer"])


def transient(unit: str, service: str, seconds: int, script: str) -> list[str]:
    """Return the command that makes systemd run a script in some seconds.

    RemainAfterExit keeps the unit and the DHCP client that ifup started in it.
    """
    return [
        "systemd-run", "--quiet", f"--on-active={seconds}", f"--unit={unit}", "--timer-property=AccuracySec=100ms",
        "--timer-property=RemainAfterElapse=no", "--property=RemainAfterExit=yes", "--property=TimeoutStopSec=5",
        f"--description=Kilonova: {service}", "/bin/sh", *script.split(),
    ]  # fmt: skip


def start(change: Change, run: Runner, directory: str = DIRECTORY) -> None:
    """Start the timer of the rollback, then that of the change."""
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
