#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Install Debian packages in one transaction that may be broken off and begun again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_packages
short_description: Install packages without starting their daemons, also after an interruption
version_added: "0.1.0"
description:
  - Installs what is missing of a list of packages, with what they need, in one transaction of apt.
  - The packages' daemons are not started, because they are not configured yet. C(/usr/sbin/policy-rc.d) says so while
    apt works; a file of that name that the host already has is put back afterwards.
  - May be interrupted at any moment. The next call waits for a call that is still at work, removes the guard that
    a killed one left, and lets dpkg finish what it had begun.
  - Python packages are byte-compiled beside dpkg, on the other processors, instead of one after the other while dpkg
    waits.
  - Reads dpkg's own list of packages first. Where nothing is missing or half done, apt is not started and no lock is
    taken but this module's own.
options:
  names:
    description:
      - Packages that must be installed. A name that an installed package provides is satisfied.
      - C(NAME=VERSION) asks for a version; it may contain C(*).
    type: list
    elements: str
    required: true
  lists_max_age:
    description:
      - Seconds up to which downloaded package lists are good enough to install from.
      - Where an installation fails with older ones, they are downloaded and it is tried once more.
    type: int
    default: 3600
  timeout:
    description: Seconds to wait for another call, and for whoever else holds dpkg's lock.
    type: int
    default: 600
attributes:
  check_mode:
    description: Asks apt what it would install, where the host has package lists already.
    support: full
  diff_mode:
    description: Packages with their versions before and after.
    support: full
notes:
  - Recommended packages are not installed, and changed configuration files of packages are kept.
  - Fails with apt's last lines.
  - "The guard: https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt"
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Install Nova's API and its database
  apt_packages:
    names: [nova-api, mariadb-server]
"""

RETURN = r"""
missing:
  description: Those of O(names) that were not installed.
  returned: always
  type: list
  elements: str
  sample: [nova-api]
repaired:
  description: What an interrupted call had left, one line each.
  returned: always
  type: list
  elements: str
  sample: ["dpkg had not finished 12 packages"]
lists_updated:
  description: Whether the package lists were downloaded.
  returned: always
  type: bool
"""

import contextlib
import fnmatch
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.system.byte_compile import ByteCompiler
from ansible.module_utils.kilonova.system.locks import Busy, take, wait_for_earlier_call

GUARD = "usr/sbin/policy-rc.d"
# Where a guard of the host's own waits meanwhile.
GUARD_ASIDE = "usr/sbin/policy-rc.d.kilonova"
GUARD_TEXT = "#!/bin/sh\n# Written by Kilonova while packages are installed that are not configured yet.\nexit 101\n"
DPKG_LOCK = "var/lib/dpkg/lock-frontend"
# dpkg's journal of changes that are not in its status file yet: numbers.
DPKG_JOURNAL = "var/lib/dpkg/updates"
LISTS = "var/lib/apt/lists"
LISTS_STAMPS = (LISTS, f"{LISTS}/partial", "var/lib/apt/periodic/update-success-stamp")
QUERY = r"${Package}\t${Version}\t${db:Status-Eflag}\t${db:Status-Status}\t${Provides}\n"
# Not installed at all, or removed but for its configuration.
GONE = ("not-installed", "config-files")
LAST_LINES = 30
ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "DEBIAN_PRIORITY": "critical", "LC_ALL": "C.UTF-8"}
KEEP_FILES = ("confdef", "confold")


@dataclass
class Installed:
    """dpkg's list. ``versions`` holds what is completely installed, ``half`` what is neither that nor gone."""

    versions: dict[str, str] = field(default_factory=dict)
    provided: set[str] = field(default_factory=set)
    half: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        """Whether NAME or NAME=VERSION is there."""
        package, wanted, version = name.partition("=")
        if not wanted:
            return package in self.versions or package in self.provided
        return package in self.versions and fnmatch.fnmatchcase(self.versions[package], version)


def parse_query(text: str) -> Installed:
    """What dpkg-query says in the form QUERY."""
    found = Installed()
    for line in text.splitlines():
        package, version, error, status, provides = line.split("\t")
        if status == "installed" and error == "ok":
            found.versions[package] = version
            # "a (= 1), b:any"
            found.provided |= {re.split(r"[ :(]", word.strip(), maxsplit=1)[0] for word in provides.split(",") if word}
        elif status not in GONE:
            found.half.append(package)
    found.half.sort()
    return found


def journal_left(root: str = "/") -> bool:
    """Whether dpkg was ended before it had brought its status file up to date."""
    try:
        return any(name.isdigit() for name in os.listdir(root + DPKG_JOURNAL))
    except FileNotFoundError:
        return False


def lists_age(now: float, root: str = "/") -> float:
    """Seconds since package lists were downloaded; infinite where there are none."""
    try:
        if not any("_Packages" in name or name.endswith("InRelease") for name in os.listdir(root + LISTS)):
            return float("inf")
    except FileNotFoundError:
        return float("inf")
    stamps = [os.stat(root + path).st_mtime for path in LISTS_STAMPS if os.path.exists(root + path)]
    return now - max(stamps)


def guard_is_ours(root: str = "/") -> bool:
    try:
        with open(root + GUARD, encoding="utf-8", errors="replace") as stream:
            return stream.read() == GUARD_TEXT
    except (FileNotFoundError, IsADirectoryError):
        return False


def raise_guard(root: str = "/") -> None:
    """Keep daemons from being started. At every moment either guard can be told from the other."""
    temporary = f"{root}{GUARD}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, 0o755)
        stream.write(GUARD_TEXT)
    if os.path.lexists(root + GUARD) and not guard_is_ours(root):
        os.rename(root + GUARD, root + GUARD_ASIDE)
    os.rename(temporary, root + GUARD)


def lower_guard(root: str = "/") -> bool:
    """Undo raise_guard, whatever was done of it, and say whether there was something to undo."""
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
    raise_guard(root)
    try:
        yield
    finally:
        lower_guard(root)


@contextlib.contextmanager
def dpkg_lock(timeout: float, root: str = "/") -> Iterator[None]:
    """What apt holds while it works. dpkg may be run inside, with DPKG_FRONTEND_LOCKED set (dpkg(1))."""
    with open(root + DPKG_LOCK, "a", encoding="utf-8") as stream:
        take(stream, timeout, "another program still holds dpkg's lock")
        yield


def parse_simulation(text: str) -> dict[str, str]:
    """{package: version} of the lines C(Inst name [old] (new archive [arch]) []) of apt-get --simulate."""
    return dict(re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", text, re.MULTILINE))


def diff_of(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """The packages whose version differs, one line each."""
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return {
        "before_header": "packages",
        "after_header": "packages",
        "before": "".join(f"{name} {before[name]}\n" for name in names if name in before),
        "after": "".join(f"{name} {after[name]}\n" for name in names if name in after),
    }


class Packages:
    """The calls of dpkg and apt."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.names: list[str] = module.params["names"]
        self.timeout: int = module.params["timeout"]
        self.lists_updated = False
        self.repaired: list[str] = []

    def call(self, *command: str, **environment: str) -> tuple[int, str, str]:
        code, output, error = self.module.run_command(list(command), environ_update=ENVIRONMENT | environment)
        return code, output, error

    def must(self, what: str, *command: str, **environment: str) -> str:
        code, output, error = self.call(*command, **environment)
        if code:
            self.fail(what, output, error)
        return output

    def fail(self, what: str, output: str, error: str) -> None:
        lines = [*output.strip().splitlines()[-LAST_LINES:], *error.strip().splitlines()[-LAST_LINES:]]
        self.module.fail_json(msg="\n".join([f"{what}. Its last lines:", *lines]), repaired=self.repaired)

    def look(self) -> Installed:
        return parse_query(self.must("dpkg-query failed", "dpkg-query", "--show", f"--showformat={QUERY}"))

    def apt(self, *arguments: str) -> tuple[str, ...]:
        options = [f"--option=Dpkg::Options::=--force-{option}" for option in KEEP_FILES]
        options += [f"--option=DPkg::Lock::Timeout={self.timeout}", "--option=APT::Install-Recommends=false"]
        return ("apt-get", "--yes", "--quiet", *options, *arguments)

    def update(self) -> None:
        self.must(
            "The package lists cannot be downloaded: apt-get update failed", *self.apt("update", "--error-on=any")
        )
        self.lists_updated = True

    def repair(self, installed: Installed) -> Installed:
        """Bring what an interrupted call left to an end. Returns dpkg's list afterwards."""
        with dpkg_lock(self.timeout):
            if lower_guard():
                self.repaired.append("the guard against starting daemons was still there")
            # Whoever held the lock may have finished it.
            installed = self.look()
            if not (installed.half or journal_left()):
                return installed
            with guarded():
                # What it cannot configure because something is missing, apt completes below.
                self.call("dpkg", "--configure", "--pending", *self.force(), DPKG_FRONTEND_LOCKED="1")
        self.repaired.append(f"dpkg had not finished {len(installed.half)} packages")
        with guarded():
            self.must(
                "dpkg was interrupted, and apt cannot complete its work: apt-get --fix-broken install failed",
                *self.apt("--fix-broken", "install"),
            )
        return self.look()

    @staticmethod
    def force() -> list[str]:
        return [f"--force-{option}" for option in KEEP_FILES]

    def install(self) -> None:
        if lists_age(time.time()) > self.module.params["lists_max_age"]:
            self.update()
        command = self.apt("install", "--", *self.names)
        # Whoever else holds it may start daemons.
        with dpkg_lock(self.timeout):
            pass
        compiler = ByteCompiler()
        command = (*command[:1], f"--option=DPkg::Path={compiler.path}", *command[1:])
        with guarded(), compiler:
            code, output, error = self.call(*command)
            if code and not self.lists_updated:
                self.update()
                code, output, error = self.call(*command)
        for problem in compiler.problems:
            self.module.warn(problem)
        if code:
            self.fail("apt-get install failed", output, error)

    def predict(self, missing: list[str]) -> dict[str, str]:
        """{package: version} that would be installed."""
        unknown = dict.fromkeys(missing, "(version not known)")
        if lists_age(time.time()) == float("inf"):
            self.module.warn("The host has no package lists yet, so it is not known what else these packages need.")
            return unknown
        code, output, error = self.call(*self.apt("--simulate", "install", "--", *self.names))
        if code:
            # The lists that a real run downloads first may know better.
            self.module.warn(f"apt cannot say yet what it would install: {error.strip()}")
            return unknown
        return parse_simulation(output)


def converge(packages: Packages) -> dict[str, Any]:
    """Do the work and return the module's result. Raises Busy."""
    installed = before = packages.look()
    compiler = ByteCompiler()
    uncompiled = compiler.waiting()
    half = bool(installed.half or journal_left() or guard_is_ours() or os.path.lexists("/" + GUARD_ASIDE))
    missing = [name for name in packages.names if not installed.has(name)]
    if packages.module.check_mode:
        if half:
            packages.repaired.append(f"dpkg has not finished {len(installed.half)} packages")
        after = installed.versions | (packages.predict(missing) if missing else {})
    else:
        if half:
            installed = packages.repair(installed)
        if uncompiled:
            compiler.finish()
        if any(not installed.has(name) for name in packages.names):
            packages.install()
            installed = packages.look()
            left = [name for name in packages.names if not installed.has(name)]
            if left or installed.half:
                packages.fail(
                    f"apt-get succeeded, yet these are not installed: {' '.join(left + installed.half)}", "", ""
                )
        after = installed.versions
    if uncompiled:
        packages.repaired.append(f"{len(uncompiled)} packages were not byte-compiled")
    result: dict[str, Any] = {
        "changed": bool(missing or packages.repaired),
        "missing": missing,
        "repaired": packages.repaired,
        "lists_updated": packages.lists_updated,
    }
    if packages.module._diff and before.versions != after:
        result["diff"] = diff_of(before.versions, after)
    return result


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "lists_max_age": {"type": "int", "default": 3600},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    packages = Packages(module)
    wait_for_earlier_call(module, "apt_packages", packages.timeout)
    try:
        result = converge(packages)
    except Busy as error:
        module.fail_json(msg=f"The packages could not be installed: {error}.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
