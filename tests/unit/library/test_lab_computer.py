# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What a lab needs on its computer: what is found missing, and all of it made and removed in a network namespace."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lab_computer
import pytest
from ansible.module_utils.kilonova.lab import computer
from ansible.module_utils.kilonova.lab.boot import Interface, Machine
from ansible.module_utils.testing import patch_module_args

LAB_ID = "0f0f0f0f"
SUBNET = "10.208.7.0/24"
UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
# Runs the module once for each line of arguments, with a state directory of its own, in new namespaces: the files of
# network devices in /sys belong to the network namespace that mounted them.
IN_NAMESPACE = """
import json, sys
from pathlib import Path
state, project = Path(sys.argv[1]), sys.argv[2]
sys.path.insert(0, f"{project}/library")
import ansible.module_utils
ansible.module_utils.__path__.append(f"{project}/module_utils")
from ansible.module_utils.kilonova.lab import computer
from ansible.module_utils.kilonova.lab import network
from ansible.module_utils.testing import patch_module_args
import lab_computer
for module in (computer, network, lab_computer):
    module.STATE, module.NETNS = state, state / "netns"
network.COMPUTER_RECORD = state / "computer.json"
for line in sys.stdin:
    with patch_module_args(json.loads(line)):
        try:
            lab_computer.main()
        except SystemExit:
            sys.stdout.flush()
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(computer, "STATE", tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args({"lab_id": LAB_ID} | arguments), pytest.raises(SystemExit):
        lab_computer.main()
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("lab_id", ["", "1a2b3c4", "1a2b3c4d5", "1A2B3C4D", "../../..", "1a2b3c4d\n"])
def test_bad_identifiers_are_refused(capsys: pytest.CaptureFixture[str], lab_id: str) -> None:
    result = run(capsys, lab_id=lab_id, state="absent")
    assert result["failed"] and "must be eight hexadecimal digits" in result["msg"]


def test_other_users_are_told_to_be_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(lab_computer, "require_root", functools.partial(computer.require_root, 1000))
    assert "only root may create" in run(capsys, subnet=SUBNET)["msg"]


def test_a_subnet_is_required_and_must_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(lab_computer, "require_root", functools.partial(computer.require_root, 0))
    assert run(capsys)["msg"] == "state is present but all of the following are missing: subnet"
    assert "must be a /24 to /28" in run(capsys, subnet="10.208.0.0/16")["msg"]


def test_missing_tools_are_predicted_and_not_installed_where_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_computer, "missing_packages", lambda: {"nft": "nftables", "ssh": "openssh-client"})
    assert lab_computer.ensure_tools(install=True, check_mode=True) == ["nftables", "openssh-client"]
    for check_mode in (True, False):
        with pytest.raises(computer.LabError, match="Get it with: apt-get install nftables openssh-client"):
            lab_computer.ensure_tools(install=False, check_mode=check_mode)
    monkeypatch.setattr(lab_computer, "missing_packages", dict)
    assert lab_computer.ensure_tools(install=True, check_mode=False) == []


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is missing")
def test_directory_is_closed_and_keeps_its_key(state: Path) -> None:
    lab_computer.make_directory(LAB_ID, "/home/me/kilonova", SUBNET)
    directory = state / LAB_ID
    key = (directory / "ssh/id_ed25519").read_bytes()
    assert {path.stat().st_mode & 0o7777 for path in (directory, *directory.glob("*/"))} == {0o700}
    assert (directory / "ssh/id_ed25519").stat().st_mode & 0o7777 == 0o600
    assert json.loads((directory / "lab.json").read_text()) == {"project": "/home/me/kilonova", "subnet": SUBNET}
    lab_computer.make_directory(LAB_ID, "/home/me/elsewhere", SUBNET)
    assert (directory / "ssh/id_ed25519").read_bytes() == key
    assert json.loads((directory / "lab.json").read_text())["project"] == "/home/me/elsewhere"
    # A key without its public half is what an interruption leaves.
    (directory / "ssh/id_ed25519.pub").unlink()
    lab_computer.make_directory(LAB_ID, "/home/me/elsewhere", SUBNET)
    assert (directory / "ssh/id_ed25519.pub").exists() and (directory / "ssh/id_ed25519").read_bytes() != key


def test_machines_are_found_even_if_half_made(state: Path) -> None:
    directory = str(state / LAB_ID / "machines/nova1")
    eth1 = (Interface("eth1"),)
    whole = Machine(LAB_ID, "nova1", "10.208.7.10", 24, "10.208.7.1", 1400, directory, eth1)
    for name in ("nova1", "nova2", "nova3"):
        (state / LAB_ID / "machines" / name).mkdir(parents=True)
    (state / LAB_ID / "machines/nova1/machine.json").write_text(json.dumps(asdict(whole)))
    (state / LAB_ID / "machines/nova2/machine.json").write_text("{")
    found = lab_computer.machines(LAB_ID)
    assert found[0] == whole
    assert [machine.name for machine in found] == ["nova1", "nova2", "nova3"]
    assert found[2].directory == str(state / LAB_ID / "machines/nova3")
    assert lab_computer.machines("1a2b3c4d") == []


def test_what_is_left_of_a_lab_is_listed(state: Path) -> None:
    (state / LAB_ID).mkdir()
    assert f"directory {state / LAB_ID}" in lab_computer.lab_leftovers(LAB_ID)


def test_absent_in_check_mode_removes_nothing(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lab_computer, "require_root", functools.partial(computer.require_root, 0))
    (state / LAB_ID).mkdir()
    result = run(capsys, state="absent", _ansible_check_mode=True, _ansible_diff=True)
    assert result["changed"] is True and f"directory {state / LAB_ID}\n" in result["diff"]["before"]
    assert (state / LAB_ID).is_dir()


def can_unshare() -> bool:
    """Whether this user may make the namespaces, and the lab's tools are there."""
    if computer.missing_packages():
        return False
    command = [
        *UNSHARE,
        "sh",
        "-c",
        "mount -t sysfs sysfs /sys && nft list ruleset && echo 0 >/proc/sys/net/ipv4/ip_forward",
    ]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="user and network namespaces and the lab's tools are needed")
def test_a_lab_is_made_once_and_removed_whole(state: Path) -> None:
    there = {"lab_id": LAB_ID, "project": "/home/me/kilonova", "subnet": SUBNET, "install": False}
    other = {"lab_id": "1a2b3c4d", "subnet": "10.208.7.128/25", "install": False}
    gone = {"lab_id": LAB_ID, "state": "absent"}
    steps: dict[str, dict[str, Any]] = {
        "predicted": {**there, "_ansible_check_mode": True, "_ansible_diff": True},
        "made": {**there, "_ansible_diff": True},
        "again": there,
        "overlap": other,
        "removed": gone,
        "gone": gone,
    }
    script = 'mount -t sysfs sysfs /sys && echo 0 >/proc/sys/net/ipv4/ip_forward && "$@" && ip -brief link'
    script += " && nft list tables && cat /proc/sys/net/ipv4/ip_forward"
    python = [sys.executable, "-c", IN_NAMESPACE, str(state), str(Path(__file__).resolve().parents[3])]
    done = subprocess.run(
        [*UNSHARE, "sh", "-e", "-c", script, "sh", *python],
        input="".join(f"{json.dumps(step)}\n" for step in steps.values()),
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": computer.SEARCH_PATH},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    results = dict(zip(steps, map(json.loads, lines[: len(steps)]), strict=True))

    assert results["predicted"]["changed"] is results["made"]["changed"] is True
    assert results["predicted"]["diff"] == results["made"]["diff"]
    for part in ("lab.json", "ssh key", "IPv4 forwarding", "bridge kl0f0f0f0f", "nftables table"):
        assert part in results["made"]["diff"]["after"]
    assert (results["made"]["bridge"], results["made"]["address"]) == ("kl0f0f0f0f", "10.208.7.1")
    assert results["again"]["changed"] is False
    assert "overlaps" in results["overlap"]["msg"] and "/home/me/kilonova" in results["overlap"]["msg"]
    assert results["removed"]["changed"] is True
    assert results["gone"]["changed"] is False
    # Afterwards the namespace is as it was: its loopback only, no table, forwarding as found.
    rest = lines[len(steps) :]
    assert [line.split()[0] for line in rest[:-1]] == ["lo"]
    assert rest[-1] == "0"
    assert [path.name for path in state.iterdir() if path.name != ".lock"] == []
