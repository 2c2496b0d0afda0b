# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The program that the metadata agent calls in place of HAProxy, and the module that asks it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import metadata_proxies as library
import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.network import metadata_proxies
from ansible.module_utils.testing import patch_module_args

PROJECT = Path(__file__).resolve().parents[4]
TEMPLATE = PROJECT / "roles" / "neutron_ovn_metadata" / "templates" / "haproxy.j2"
NETWORK = "86412621-8ac6-4069-a5c6-bbcaf3826041"
# As Neutron 26.0 writes it.
WRITTEN = f"""
global
    user        haproxy
    pidfile     /var/lib/neutron/external/pids/{NETWORK}.pid.haproxy
    daemon

defaults
    mode http
    option forwardfor

listen listener
    bind 169.254.169.254:80
    \n    server metadata /var/lib/neutron/metadata/metadata_proxy

    http-request add-header X-OVN-Network-ID {NETWORK}
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, with its directories below tmp_path."""
    loader = importlib.machinery.SourceFileLoader("metadata_haproxy", str(TEMPLATE))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(module, "WRITTEN", tmp_path / "written")
    monkeypatch.setattr(module, "LIMITED", tmp_path / "limited")
    (tmp_path / "written").mkdir()
    (tmp_path / "written" / f"{NETWORK}.conf").write_text(WRITTEN)
    return module


def process(program: ModuleType, tmp_path: Path, directory: str, user: int = 100) -> tuple[Path, Path]:
    """A process as running() yields it."""
    here = tmp_path / "process"
    here.mkdir(exist_ok=True)
    (here / "status").write_text(f"Name:\thaproxy\nUid:\t{user}\t{user}\t{user}\t{user}\n")
    return here, getattr(program, directory) / f"{NETWORK}.conf"


def test_limits_come_before_the_rules_of_neutron(program: ModuleType) -> None:
    text = program.limited(WRITTEN)
    rules = [line.split() for line in text.splitlines() if line.strip().startswith("http-request")]
    assert [rule[1] for rule in rules] == ["return"] * 3 + ["del-header"] * 2 + ["add-header"]
    assert text.replace(program.RULES, "") == WRITTEN


def test_what_passes_fits_into_what_the_agent_reads(program: ModuleType) -> None:
    added = f"x-forwarded-for: {'f' * 45}\r\nX-OVN-Network-ID: {NETWORK}\r\nconnection: close\r\n\r\n"
    lines = f"POST  HTTP/1.1\r\n{added}"
    assert program.TARGET_BYTES + program.HEADER_BYTES + len(lines) < 4096


@pytest.mark.parametrize("text", ["global\n", WRITTEN + "\nfrontend other\n"])
def test_an_unknown_configuration_starts_nothing(program: ModuleType, text: str) -> None:
    with pytest.raises(SystemExit, match="not 1: no metadata for guests"):
        program.limited(text)


def test_it_becomes_haproxy(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(os, "execv", lambda *arguments: started.append(arguments))
    program.LIMITED.mkdir()
    (program.LIMITED / "gone.conf").write_text("")
    program.main(["-f", str(program.WRITTEN / f"{NETWORK}.conf")])
    (path,) = program.LIMITED.iterdir()
    assert started == [("/usr/sbin/haproxy", ["haproxy", "-f", str(path)])]
    assert path.name == f"{NETWORK}.conf"
    assert path.read_text() == program.limited(WRITTEN)


def test_it_is_called_for_neutrons_files_only(program: ModuleType) -> None:
    with pytest.raises(SystemExit, match="usage"):
        program.main(["-f", "/etc/haproxy/haproxy.cfg"])


@pytest.mark.parametrize(
    ("directory", "text", "user", "why"),
    [
        ("LIMITED", None, 100, None),
        ("LIMITED", None, 0, "runs as root"),
        ("LIMITED", WRITTEN, 100, "runs with other limits"),
        ("WRITTEN", None, 100, "runs without limits"),
    ],
)
def test_haproxies_without_limits_are_found_and_expire(
    program: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    directory: str,
    text: str | None,
    user: int,
    why: str | None,
) -> None:
    program.LIMITED.mkdir()
    (program.LIMITED / f"{NETWORK}.conf").write_text(text or program.limited(WRITTEN))
    monkeypatch.setattr(program, "running", lambda: [process(program, tmp_path, directory, user)])
    program.main(["--unlimited"])
    assert json.loads(capsys.readouterr().out) == ({NETWORK: why} if why else {})
    program.main(["--expire"])
    assert capsys.readouterr().out == (f"{NETWORK}\n" if why else "")
    assert (program.WRITTEN / f"{NETWORK}.conf").exists() == (why is None)
    program.main(["--expire"])
    assert capsys.readouterr().out == ""


def call_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answers: list[str], check: bool = False
) -> tuple[dict[str, Any], list[list[str]]]:
    """Return the result of the module, and the commands that it ran."""
    commands: list[list[str]] = []

    def run_command(_: AnsibleModule, command: list[str]) -> tuple[int, str, str]:
        commands.append(command)
        return 0, answers.pop(0) if command[-1] == "--unlimited" else f"{NETWORK}\n", ""

    monkeypatch.setattr(AnsibleModule, "run_command", run_command)
    monkeypatch.setattr(metadata_proxies, "POLL_SECONDS", 0)
    with (
        patch_module_args({"program": __file__, "timeout": 1, "_ansible_check_mode": check}),
        pytest.raises(SystemExit),
    ):
        library.main()
    return json.loads(capsys.readouterr().out), commands


def test_nothing_is_restarted_where_all_have_limits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result, commands = call_module(monkeypatch, capsys, ["{}"])
    assert result["changed"] is False
    assert commands == [[__file__, "--unlimited"]]


def test_the_agent_replaces_those_without(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.dumps({NETWORK: "runs without limits"})
    result, commands = call_module(monkeypatch, capsys, [found, found, "{}"])
    assert result["changes"] == [f"HAProxy of network {NETWORK} runs without limits"]
    assert ["systemctl", "restart", "neutron-ovn-metadata-agent.service"] in commands
    result, commands = call_module(monkeypatch, capsys, [found], check=True)
    assert result["changed"] is True
    assert commands == [[__file__, "--unlimited"]]


def test_an_agent_that_does_not_replace_them_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metadata_proxies, "wait", lambda *_: ["HAProxy of network n runs as root"])
    monkeypatch.setattr(metadata_proxies, "unit_log", lambda _: "its log")
    result, _ = call_module(monkeypatch, capsys, [json.dumps({"n": "runs as root"})])
    assert result["failed"] is True
    assert result["msg"].endswith("within 1 s: HAProxy of network n runs as root\nits log")
