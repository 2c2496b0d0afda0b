# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""molecule destroy leaves nothing of the lab on this computer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins.filter import lab

PROJECT = Path(__file__).resolve().parents[2]
SCENARIO = os.environ.get("MOLECULE_SCENARIO_NAME", "default")
LAB_ID = lab.lab_id(str(PROJECT), f"molecule-{SCENARIO}")
DIRECTORY = Path("/var/lib/kilonova/lab") / LAB_ID
# Bridge and network namespaces; units and control groups.
PREFIX = f"kl{LAB_ID}"
UNIT = f"kilonova-lab-{LAB_ID}-"


def run(*command: str) -> str:
    """Return the output of a command that must succeed."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def processes(marker: str) -> Iterator[str]:
    """Find processes whose arguments, root directory or control groups contain a text."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = os.readlink(process / "root") + (process / "cgroup").read_text()
        except OSError:  # It ended meanwhile.
            continue
        if process.name != str(os.getpid()) and marker in arguments + where:
            yield f"{process.name}: {arguments}"


@pytest.mark.parametrize("marker", [str(DIRECTORY), UNIT, f"{PREFIX}-"])
def test_no_process(marker: str) -> None:
    assert list(processes(marker)) == []


def test_search_finds_processes() -> None:
    command = [sys.executable, "-c", "input()", "kilonova-marker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            assert any(found.startswith(f"{process.pid}:") for found in processes("kilonova-marker"))
        finally:
            process.communicate(b"\n")


def test_no_network_namespace() -> None:
    assert [path.name for path in Path("/run/netns").glob(f"{PREFIX}*")] == []


def test_no_interface() -> None:
    names = [link["ifname"] for link in json.loads(run("ip", "-json", "link"))]
    assert "lo" in names
    assert [name for name in names if name.startswith(PREFIX)] == []


def test_no_packet_filter_rule() -> None:
    tables = json.loads(run("nft", "--json", "list", "tables"))["nftables"]
    assert [entry["table"]["name"] for entry in tables if LAB_ID in entry.get("table", {}).get("name", "")] == []


def test_no_mount() -> None:
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    assert "/proc" in mounts
    assert [mount for mount in mounts if LAB_ID in mount] == []


def test_no_control_group() -> None:
    assert [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{UNIT}*")] == []


@pytest.mark.skipif(not Path("/run/systemd/system").exists(), reason="PID 1 is not systemd here")
def test_no_unit() -> None:
    assert shutil.which("systemctl")
    assert run("systemctl", "list-units", "--all", "--plain", "--no-legend", f"{UNIT}*").split() == []


def test_no_file() -> None:
    assert not DIRECTORY.exists()
