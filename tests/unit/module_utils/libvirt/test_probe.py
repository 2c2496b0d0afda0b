# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The boot sector, domain and console of libvirt_probe, its stamp, and that nothing stays."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.libvirt import probe, probe_guest
from ansible.module_utils.testing import patch_module_args

libvirt = pytest.importorskip("libvirt")
PARAMS = {
    "virt_type": "qemu",
    "machine": "",
    "cpu_mode": "none",
    "memory_mib": 128,
    "image": None,
    "kernel": None,
    "initramfs": None,
    "kernel_arguments": "console=ttyS0",
}


def test_boot_sector_is_one() -> None:
    disk = probe_guest.boot_sector()
    assert len(disk) == 1024 * 1024 and disk[510:512] == b"\x55\xaa"
    # The code loads the text's address, where the BIOS has put it.
    address = int.from_bytes(disk[6:8], "little") - 0x7C00
    assert disk[address:].startswith(probe_guest.GREETING + b"\r\n\0")


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU on this computer")
def test_boot_sector_prints_its_greeting(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(probe_guest.boot_sector())
    command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "16", "-nodefaults", "-display", "none", "-serial", "stdio"]
    with subprocess.Popen([*command, "-drive", f"file={disk},format=raw"], stdout=subprocess.PIPE) as guest:
        assert guest.stdout is not None
        try:
            assert guest.stdout.readline().strip() == probe_guest.GREETING
        finally:
            guest.kill()


def test_domain_is_what_nova_will_start() -> None:
    changes = {"machine": "q35", "cpu_mode": "host-model", "kernel": "/a&b/vmlinuz", "kernel_arguments": "a='1' <b>"}
    params = {**PARAMS, **changes}
    root = ET.fromstring(probe_guest.domain_xml("kilonova-probe-x", params, ("/var/lib/x & y/disk", "qcow2")))
    assert root.get("type") == "qemu" and root.findtext("name") == "kilonova-probe-x"
    kind = root.find("os/type")
    assert kind is not None and kind.get("machine") == "q35"
    assert root.findtext("os/kernel") == "/a&b/vmlinuz" and root.findtext("os/cmdline") == "a='1' <b>"
    assert root.find("os/initrd") is None
    source, cpu = root.find("devices/disk/source"), root.find("cpu")
    assert source is not None and source.get("file") == "/var/lib/x & y/disk"
    assert cpu is not None and cpu.get("mode") == "host-model"
    plain = ET.fromstring(probe_guest.domain_xml("n", PARAMS, None))
    assert plain.find("cpu") is None and plain.find("devices/disk") is None and plain.find("os/kernel") is None


def test_processor_model() -> None:
    assert probe.processor_model("processor\t: 0\nmodel name\t: AMD EPYC\nflags\t: fpu\n") == "AMD EPYC"
    assert probe.processor_model("") == ""


def test_left_over_domains_and_files_are_removed(tmp_path: Path) -> None:
    connection = libvirt.open("test:///default")
    xml = probe_guest.domain_xml("kilonova-probe-old", PARAMS, None).replace("type='qemu'", "type='test'")
    connection.createXML(xml)
    files, logs = tmp_path / "files", tmp_path / "logs"
    for directory in (files, logs):
        directory.mkdir()
    (files / "kilonova-probe-old").write_text("disk")
    for name in ("kilonova-probe-old.log", "instance-00000001.log"):
        (logs / name).write_text("log")
    assert probe.remove_left_overs(libvirt, connection, files, logs) == ["kilonova-probe-old"]
    assert [domain.name() for domain in connection.listAllDomains()] == ["test"]
    assert not files.exists() and [path.name for path in logs.iterdir()] == ["instance-00000001.log"]
    assert probe.remove_left_overs(libvirt, connection, files, logs) == []


class FakeStream:
    """A console stream: bytes, -2 for nothing yet, an error for a guest that is gone."""

    def __init__(self, blocks: list[bytes | int | Exception]) -> None:
        self.blocks = blocks

    def recv(self, _size: int) -> bytes | int:
        block = self.blocks.pop(0) if self.blocks else -2
        if isinstance(block, Exception):
            raise block
        return block


def console(blocks: list[bytes | int | Exception]) -> probe_guest.Console:
    """A console that prints blocks, over libvirt's real event loop."""
    libvirt.virEventRegisterDefaultImpl()
    made = probe_guest.Console.__new__(probe_guest.Console)
    made.libvirt, made.text, made.stream = libvirt, "", FakeStream(blocks)
    return made


def test_console_is_read_until_it_matches() -> None:
    made = console([b"SeaBIOS\r\nkilo", -2, b"nova-probe: co", -2, b"de runs\r\n", -2])
    assert made.wait(re.compile("^kilonova-probe: code runs", re.M), 5)
    assert made.text == "SeaBIOS\nkilonova-probe: code runs\n"


def test_console_that_stays_silent() -> None:
    made = console([b"Booting\r\n"])
    assert not made.wait(re.compile("never"), 0.3)
    assert made.text == "Booting\n"


@pytest.mark.parametrize("end", [b"", libvirt.libvirtError("domain is gone")])
def test_console_that_ends(end: bytes | Exception) -> None:
    assert not console([b"panic\r\n", end]).wait(re.compile("never"), 30)


def run(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    with patch_module_args(options), pytest.raises(SystemExit):
        probe.run(AnsibleModule(argument_spec=probe.ARGUMENT_SPEC, supports_check_mode=True))
    result = json.loads(capsys.readouterr().out)
    assert isinstance(result, dict)
    return result


def test_hypervisor_that_refuses_the_guest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """libvirt's test driver has no emulator: a probe there fails as one on a broken hypervisor does."""
    result = run(capsys, uri="test:///default", virt_type="qemu", state_path=str(tmp_path))
    assert result["failed"] and not result.get("changed")
    assert "This hypervisor cannot run a guest (virt_type qemu" in result["msg"]
    assert "libvirt could not run a guest" in result["msg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["libvirt-probe.lock"]


def test_stamp_saves_the_second_probe(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted: list[str] = []

    def boot(self: probe.Probe, name: str) -> dict[str, Any]:
        booted.append(name)
        return {"seconds": 0.1, "console": "ok"}

    monkeypatch.setattr(probe.Probe, "boot", boot)
    options = {"uri": "test:///default", "state_path": str(tmp_path)}
    first, second = run(capsys, **options), run(capsys, **options)
    assert (first["probed"], second["probed"]) == (True, False)
    assert not first["changed"] and not second["changed"]
    assert run(capsys, **options, force=True)["probed"]
    assert run(capsys, **options, memory_mib=256)["probed"]
    assert len(booted) == len(set(booted)) == 3
    assert not run(capsys, **options, memory_mib=256)["probed"]
    predicted = run(capsys, **options, force=True, _ansible_check_mode=True)
    assert predicted["probed"] and len(booted) == 3


def test_options_that_cannot_be(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    absent = run(capsys, uri="test:///default", image=str(tmp_path / "absent"), expect="x")
    assert absent["failed"] and "not a file" in absent["msg"]
    (tmp_path / "image").write_bytes(b"x")
    unclear = run(capsys, uri="test:///default", image=str(tmp_path / "image"))
    assert unclear["failed"] and "expect is required" in unclear["msg"]


def test_libvirt_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, uri="qemu+unix:///system?socket=/nonexistent", state_path="/nonexistent")
    assert result["failed"] and "libvirt does not answer at qemu+unix" in result["msg"] and "libvirtd" in result["msg"]
