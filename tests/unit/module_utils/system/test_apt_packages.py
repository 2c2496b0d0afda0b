# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.system import apt_packages

QUERY = """\
nova-api\t2:31.0.0-6\tok\tinstalled\t
exim4-daemon-light\t4.98\tok\tinstalled\tdefault-mta (= 4.98), mail-transport-agent
libc6\t2.41\tok\tinstalled\t
keystone\t2:27.0.0-3\tok\thalf-configured\t
glance\t2:30.0.0-3\tok\tunpacked\t
nova-common\t2:31.0.0-6\treinstreq\thalf-installed\t
ovn-common\t25.03\tok\ttriggers-awaited\t
old\t1\tok\tconfig-files\t
never\t\tok\tnot-installed\t
"""


@pytest.fixture
def root(tmp_path: Path) -> str:
    """The root of a made-up host, as a prefix of paths."""
    for name in ("var/lib/dpkg/updates", "var/lib/apt/lists/partial"):
        (tmp_path / name).mkdir(parents=True)
    return f"{tmp_path}/"


def test_what_is_installed() -> None:
    found = apt_packages.parse_query(QUERY)
    assert sorted(found.versions) == ["exim4-daemon-light", "libc6", "nova-api"]
    assert found.half == ["glance", "keystone", "nova-common", "ovn-common"]


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("nova-api", True),
        ("default-mta", True),
        ("mail-transport-agent", True),
        ("keystone", False),
        ("old", False),
        ("never", False),
        ("unheard-of", False),
        ("libc6=2.41", True),
        ("libc6=2.*", True),
        ("libc6=2.36", False),
        ("default-mta=4.98", False),
    ],
)
def test_names(name: str, there: bool) -> None:
    assert apt_packages.parse_query(QUERY).has(name) is there


def test_dpkg_journal(root: str) -> None:
    updates = Path(root, apt_packages.DPKG_JOURNAL)
    (updates / "tmp.i").touch()
    assert not apt_packages.journal_left(root)
    (updates / "0003").touch()
    assert apt_packages.journal_left(root)


def test_age_of_the_package_lists(root: str) -> None:
    lists = Path(root, apt_packages.LISTS)
    assert apt_packages.lists_age(1000.0, root) == float("inf")
    (lists / "deb.example.org_dists_trixie_InRelease").touch()
    os.utime(lists, (900, 900))
    os.utime(lists / "partial", (940, 940))
    assert apt_packages.lists_age(1000.0, root) == 60.0


def test_wait_for_the_dpkg_lock(root: str) -> None:
    """Another process holds the lock: a POSIX lock does not block its own process."""
    path = Path(root, apt_packages.DPKG_LOCK)
    path.touch()
    script = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with (
            pytest.raises(apt_packages.Busy, match="still holds dpkg's lock after 0.3 s"),
            apt_packages.dpkg_lock(0.3, root),
        ):
            pass
        holder.communicate("\n")
    with apt_packages.dpkg_lock(0.3, root), path.open("a") as stream:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_simulation() -> None:
    text = (
        "NOTE: This is only a simulation!\n"
        "Inst libssl3t64 [3.5.1-1] (3.5.4-1 Debian:13.1/stable [amd64])\n"
        "Inst nova-api (2:31.0.0-6 Debian:13.1/stable [all]) []\n"
        "Conf nova-api (2:31.0.0-6 Debian:13.1/stable [all])\n"
    )
    assert apt_packages.parse_simulation(text) == {"libssl3t64": "3.5.4-1", "nova-api": "2:31.0.0-6"}


def test_diff_shows_changes_only() -> None:
    diff = apt_packages.diff_of({"a": "1", "b": "1"}, {"a": "1", "b": "2", "c": "3"})
    assert (diff["before"], diff["after"]) == ("b 1\n", "b 2\nc 3\n")
