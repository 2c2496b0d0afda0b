# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.kilonova.system import logs, service_index
from ansible.module_utils.kilonova.system.logs import (
    file_lines,
    layer_logs,
    log_files,
    mask_url_passwords,
    unit_log,
)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journalctl that prints its arguments, and an empty log directory."""
    program = tmp_path / "bin" / "journalctl"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "line of $2, $4 lines"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr(log_files, "__defaults__", (str(tmp_path / "log"),))
    return program


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"in {name}\n")


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("nova-api.service", ["nova/nova-api.log"]),
        ("keystone", ["keystone/keystone.log"]),
        ("libvirtd.socket", ["libvirt/libvirtd.log"]),
        ("haproxy.service", ["haproxy.log"]),
        ("rabbitmq-server.service", ["rabbitmq/rabbit@floor.log", "rabbitmq/rabbitmq-server.error.log"]),
        ("mariadb.service", ["mysql/error.log"]),
        ("ovn-host", ["ovn/ovn-controller.log"]),
        ("nova", []),
    ],
)
def test_log_files_of_debians_packages(unit: str, expected: list[str], tmp_path: Path) -> None:
    names = ["nova/nova-api.log", "nova/nova-api-metadata.log", "keystone/keystone.log", "libvirt/libvirtd.log"]
    names += ["haproxy.log", "rabbitmq/rabbit@floor.log", "rabbitmq/rabbitmq-server.error.log", "mysql/error.log"]
    put(tmp_path, *names, "ovn/ovn-controller.log")
    (tmp_path / "nova" / "nova.log").touch()
    assert log_files(unit, str(tmp_path)) == [str(tmp_path / name) for name in expected]


def test_unit_log_labels_every_source(journal: Path, tmp_path: Path) -> None:
    put(tmp_path / "log", "nova/nova-api.log")
    assert unit_log("nova-api.service", 7) == (
        "--- journal of nova-api.service:\nline of nova-api.service, 7 lines\n"
        f"--- {tmp_path}/log/nova/nova-api.log:\nin nova/nova-api.log"
    )


def test_unit_log_says_that_the_journal_cannot_be_read(journal: Path) -> None:
    journal.write_text("#!/bin/sh\necho no journal >&2; exit 1\n")
    assert unit_log("x") == "--- journal of x:\n(cannot be read: no journal)"


def test_unit_log_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(unit: str) -> list[str]:
        raise RuntimeError("no disk")

    monkeypatch.setattr(logs, "log_files", fail)
    assert unit_log("x") == "(the logs of x cannot be read: no disk)"


def test_errors_before_the_last_lines_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("start\n2026 ERROR nova no database\n" + "INFO waiting\n" * 30)
    assert file_lines(str(log), 2) == ["2026 ERROR nova no database", "[...]", "INFO waiting", "INFO waiting"]
    log.write_text("ERROR old\nINFO\nERROR new\nend\n")
    assert file_lines(str(log), 2) == ["ERROR new", "end"]


def test_only_the_end_of_a_large_file_is_read(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("ERROR far away\n" + "x" * logs.TAIL_BYTES + "\nlast\n")
    assert file_lines(str(log), 1) == ["last"]


def test_passwords_in_urls_are_masked() -> None:
    line = "connect to rabbit://openstack:p@:s$@127.0.0.1:5672/ and http://host:80/x"
    assert mask_url_passwords(line) == "connect to rabbit://openstack:********@127.0.0.1:5672/ and http://host:80/x"


def test_logs_of_layers_show_each_unit_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "unit_log", lambda unit, lines: f"{lines} lines of {unit}")
    assert layer_logs(["guest", "Nova compute", "no such layer"], 3).splitlines() == [
        "3 lines of nova-compute",
        "3 lines of libvirtd",
    ]


def test_logs_without_an_index_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_index, "PATH", "/nonexistent/services.json")
    assert layer_logs(["guest"]) == "(no logs: /nonexistent/services.json is missing on this host; run site.yml)"
    assert log_files("mariadb", "/nonexistent") == []
