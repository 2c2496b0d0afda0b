# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Kernel values against sysctl files, in a directory that stands for /proc/sys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sysctl_values as library
from ansible.module_utils.kilonova.system import sysctl_values
from ansible.module_utils.testing import patch_module_args

FILE = """# A comment.
; another one
net.ipv4.ip_forward = 1
-net/ipv4/conf/br0.100/send_redirects = 0
net.ipv4.tcp_rmem = 4096   131072 6291456
net.absent = 1
net.ipv4.ip_forward = 0
"""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "sys"
    values = {"ip_forward": "1\n", "conf/br0.100/send_redirects": "0\n", "tcp_rmem": "4096\t131072\t6291456\n"}
    for name, value in values.items():
        path = root / "net/ipv4" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)
    monkeypatch.setattr(sysctl_values, "KERNEL", root)
    return root


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        library.main()
    return dict(json.loads(capsys.readouterr().out))


def test_settings_of_a_file() -> None:
    assert sysctl_values.settings(FILE) == {
        "net/ipv4/ip_forward": "0",
        "net/ipv4/conf/br0.100/send_redirects": "0",
        "net/ipv4/tcp_rmem": "4096 131072 6291456",
        "net/absent": "1",
    }
    assert sysctl_values.settings("net.ipv4.conf.br0/100.forwarding=1") == {"net/ipv4/conf/br0.100/forwarding": "1"}


def test_a_changed_value_is_corrected_once(kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "60-kilonova.conf"
    file.write_text(FILE)
    files = [str(file), str(tmp_path / "absent.conf")]
    predicted = run(capsys, files=files, _ansible_check_mode=True)
    assert (kernel / "net/ipv4/ip_forward").read_text() == "1\n"
    result = run(capsys, files=files)
    assert result["changes"] == predicted["changes"] == ["sysctl net/ipv4/ip_forward = 0"]
    assert result["diff"] == {"before": {"net/ipv4/ip_forward": "1"}, "after": {"net/ipv4/ip_forward": "0"}}
    assert (kernel / "net/ipv4/ip_forward").read_text() == "0"
    assert not run(capsys, files=files)["changed"]


def test_a_pattern_stands_for_the_names_that_are_not_written_out(
    kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("eth0", "br0"):
        (kernel / "net/ipv4/conf" / name).mkdir(parents=True)
        (kernel / "net/ipv4/conf" / name / "accept_redirects").write_text("1\n")
    file = tmp_path / "60-kilonova.conf"
    file.write_text("net.ipv4.conf.br0.accept_redirects = 1\nnet.ipv4.conf.*.accept_redirects = 0\nnet.absent.* = 1\n")
    assert run(capsys, files=[str(file)])["changes"] == ["sysctl net/ipv4/conf/eth0/accept_redirects = 0"]
    assert not run(capsys, files=[str(file)])["changed"]


def test_a_value_that_the_kernel_refuses(kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "60-kilonova.conf"
    file.write_text("net.ipv4.conf = 1")
    # Reading a directory fails like reading a key that the kernel does not have.
    assert not run(capsys, files=[str(file)])["changed"]
