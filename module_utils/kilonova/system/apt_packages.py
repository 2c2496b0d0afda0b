# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Install Debian packages in one transaction that may be interrupted and repeated.

Documented in library/apt_packages.py.
"""

from __future__ import annotations

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
from ansible.module_utils.kilonova.system.daemon_guard import guard_left, guarded, lower_guard
from ansible.module_utils.kilonova.system.locks import Busy, take, wait_for_earlier_call

ARGUMENT_SPEC: dict[str, Any] = {
    "names": {"type": "list", "elements": "str", "required": True},
    "lists_max_age": {"type": "int", "default": 3600},
    "timeout": {"type": "int", "default": 600},
}
DPKG_LOCK = "var/lib/dpkg/lock-frontend"
# Changes that are not in the status file of dpkg yet, in files with numbers as names.
DPKG_JOURNAL = "var/lib/dpkg/updates"
LISTS = "var/lib/apt/lists"
LISTS_STAMPS = (LISTS, f"{LISTS}/partial", "var/lib/apt/periodic/update-success-stamp")
QUERY = r"${Package}\t${Version}\t${db:Status-Eflag}\t${db:Status-Status}\t${Provides}\n"
# Not installed, or removed except for the configuration.
GONE = ("not-installed", "config-files")
LAST_LINES = 30
ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "DEBIAN_PRIORITY": "critical", "LC_ALL": "C.UTF-8"}
KEEP_FILES = ("confdef", "confold")


@dataclass
class Installed:
    """The package list of dpkg. ``half`` holds packages that are neither completely installed nor gone."""

    versions: dict[str, str] = field(default_factory=dict)
    provided: set[str] = field(default_factory=set)
    half: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        """Return whether NAME or NAME=VERSION is installed."""
        package, wanted, version = name.partition("=")
        if not wanted:
            return package in self.versions or package in self.provided
        return package in self.versions and fnmatch.fnmatchcase(self.versions[package], version)


def parse_query(text: str) -> Installed:
    """Parse the output of dpkg-query in the format QUERY."""
    found = Installed()
    for line in text.splitlines():
        package, version, error, status, provides = line.split("\t")
        if status == "installed" and error == "ok":
            found.versions[package] = version
            # Such as "a (= 1), b:any".
            found.provided |= {re.split(r"[ :(]", word.strip(), maxsplit=1)[0] for word in provides.split(",") if word}
        elif status not in GONE:
            found.half.append(package)
    found.half.sort()
    return found


def journal_left(root: str = "/") -> bool:
    """Return whether dpkg was killed before it had updated its status file."""
    try:
        return any(name.isdigit() for name in os.listdir(root + DPKG_JOURNAL))
    except FileNotFoundError:
        return False


def lists_age(now: float, root: str = "/") -> float:
    """Return the seconds since package lists were downloaded, infinite if there are none."""
    try:
        if not any("_Packages" in name or name.endswith("InRelease") for name in os.listdir(root + LISTS)):
            return float("inf")
    except FileNotFoundError:
        return float("inf")
    stamps = [os.stat(root + path).st_mtime for path in LISTS_STAMPS if os.path.exists(root + path)]
    return now - max(stamps)


@contextlib.contextmanager
def dpkg_lock(timeout: float, root: str = "/") -> Iterator[None]:
    """Hold the lock that apt takes. dpkg may run inside with DPKG_FRONTEND_LOCKED set (dpkg(1))."""
    with open(root + DPKG_LOCK, "a", encoding="utf-8") as stream:
        take(stream, timeout, "another program still holds dpkg's lock")
        yield


def parse_simulation(text: str) -> dict[str, str]:
    """Return {package: version} from the lines C(Inst name [old] (new archive [arch]) []) of apt-get --simulate."""
    return dict(re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", text, re.MULTILINE))


def diff_of(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """Return a diff of the packages whose version changes."""
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return {
        "before_header": "packages",
        "after_header": "packages",
        "before": "".join(f"{name} {before[name]}\n" for name in names if name in before),
        "after": "".join(f"{name} {after[name]}\n" for name in names if name in after),
    }


class Packages:
    """Calls dpkg and apt."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.names: list[str] = module.params["names"]
        self.timeout: int = module.params["timeout"]
        self.lists_updated = False
        self.repaired: list[str] = []

    def call(self, *command: str, **environment: str) -> tuple[int, str, str]:
        """Run a command and return its status, output and errors."""
        code, output, error = self.module.run_command(list(command), environ_update=ENVIRONMENT | environment)
        return code, output, error

    def must(self, what: str, *command: str, **environment: str) -> str:
        """Return the output of a command, or fail with a message that begins with ``what``."""
        code, output, error = self.call(*command, **environment)
        if code:
            self.fail(what, output, error)
        return output

    def fail(self, what: str, output: str, error: str) -> None:
        """End the module with the last lines of a command."""
        lines = [*output.strip().splitlines()[-LAST_LINES:], *error.strip().splitlines()[-LAST_LINES:]]
        self.module.fail_json(msg="\n".join([f"{what}. Its last lines:", *lines]), repaired=self.repaired)

    def installed(self) -> Installed:
        """Return the package list of dpkg."""
        return parse_query(self.must("dpkg-query failed", "dpkg-query", "--show", f"--showformat={QUERY}"))

    def apt(self, *arguments: str) -> tuple[str, ...]:
        """Return an apt-get command."""
        options = [f"--option=Dpkg::Options::=--force-{option}" for option in KEEP_FILES]
        options += [f"--option=DPkg::Lock::Timeout={self.timeout}", "--option=APT::Install-Recommends=false"]
        return ("apt-get", "--yes", "--quiet", *options, *arguments)

    def update(self) -> None:
        """Download the package lists."""
        self.must(
            "The package lists cannot be downloaded: apt-get update failed", *self.apt("update", "--error-on=any")
        )
        self.lists_updated = True

    def repair(self, installed: Installed) -> Installed:
        """Finish what an interrupted call left, and return the package list afterwards."""
        with dpkg_lock(self.timeout):
            if lower_guard():
                self.repaired.append("the guard against starting daemons was still there")
            # The program that held the lock may have finished it.
            installed = self.installed()
            if not (installed.half or journal_left()):
                return installed
            with guarded():
                # It may fail where packages are missing; apt installs them below.
                self.call("dpkg", "--configure", "--pending", *self.force(), DPKG_FRONTEND_LOCKED="1")
        self.repaired.append(f"dpkg had not finished {len(installed.half)} packages")
        with guarded():
            self.must(
                "dpkg was interrupted, and apt cannot complete its work: apt-get --fix-broken install failed",
                *self.apt("--fix-broken", "install"),
            )
        return self.installed()

    @staticmethod
    def force() -> list[str]:
        """Return the options of dpkg that keep changed configuration files."""
        return [f"--force-{option}" for option in KEEP_FILES]

    def install(self) -> None:
        """Install the packages, with newer lists if the present ones do not suffice."""
        if lists_age(time.time()) > self.module.params["lists_max_age"]:
            self.update()
        command = self.apt("install", "--", *self.names)
        # Another program that holds it may start daemons, which the guard must not prevent.
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
        """Return {package: version} of what would be installed."""
        unknown = dict.fromkeys(missing, "(version not known)")
        if lists_age(time.time()) == float("inf"):
            self.module.warn("The host has no package lists yet: the dependencies of these packages are not known.")
            return unknown
        code, output, error = self.call(*self.apt("--simulate", "install", "--", *self.names))
        if code:
            # A real run downloads newer lists first.
            self.module.warn(f"apt cannot say yet what it would install: {error.strip()}")
            return unknown
        return parse_simulation(output)


def converge(packages: Packages) -> dict[str, Any]:
    """Install what is missing, and return the module's result. Raises Busy."""
    installed = before = packages.installed()
    compiler = ByteCompiler()
    uncompiled = compiler.waiting()
    interrupted = bool(installed.half or journal_left() or guard_left())
    missing = [name for name in packages.names if not installed.has(name)]
    if packages.module.check_mode:
        if interrupted:
            packages.repaired.append(f"dpkg has not finished {len(installed.half)} packages")
        after = installed.versions | (packages.predict(missing) if missing else {})
    else:
        if interrupted:
            installed = packages.repair(installed)
        if uncompiled:
            compiler.finish()
        if any(not installed.has(name) for name in packages.names):
            packages.install()
            installed = packages.installed()
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


def run(module: AnsibleModule) -> None:
    """Install what is missing, one call at a time."""
    packages = Packages(module)
    wait_for_earlier_call(module, "apt_packages", packages.timeout)
    try:
        result = converge(packages)
    except Busy as error:
        module.fail_json(msg=f"The packages could not be installed: {error}.")
    module.exit_json(**result)
