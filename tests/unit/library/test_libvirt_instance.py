# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""libvirt_instance: Nova's domain XML, Open vSwitch's answers, and the comparison."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import libvirt_instance
import pytest
from ansible.module_utils.kilonova.libvirt import domains
from ansible.module_utils.testing import patch_module_args

libvirt = pytest.importorskip("libvirt")

UUID = "1ca6bbcd-5f9d-4e1d-9d14-954c2e40cc7e"
PORT = "4507a056-8f48-4a49-b5fd-720c69c53e83"
MAC = "fa:16:3e:9e:b8:53"
TAP = "tap4507a056-8f"
LOG = f"/var/lib/nova/instances/{UUID}/console.log"

# What Nova 31 wrote for an instance on OVN, without devices that play no part.
NOVA_XML = f"""
<domain type='qemu' id='1'>
  <name>instance-00000001</name>
  <uuid>{UUID}</uuid>
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:name>my_vm</nova:name>
      <nova:ports>
        <nova:port uuid="{PORT}">
          <nova:ip type="fixed" address="192.168.1.149" ipVersion="4"/>
        </nova:port>
      </nova:ports>
    </nova:instance>
  </metadata>
  <memory unit='KiB'>131072</memory>
  <currentMemory unit='KiB'>131072</currentMemory>
  <vcpu placement='static'>1</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-10.0'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/var/lib/nova/instances/{UUID}/disk' index='1'/>
      <backingStore type='file' index='2'>
        <format type='raw'/>
        <source file='/var/lib/nova/instances/_base/b114'/>
      </backingStore>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'><target dev='hda' bus='ide'/></disk>
    <interface type='ethernet'>
      <mac address='{MAC.upper()}'/>
      <target dev='tap4507a056-8f'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'>
      <source path='/dev/pts/1'/>
      <log file='{LOG}' append='off'/>
      <target type='isa-serial' port='0'/>
    </serial>
    <console type='pty' tty='/dev/pts/1'><log file='{LOG}' append='off'/></console>
  </devices>
</domain>"""

# ovs-vsctl --format=json --columns=name,external_ids,error list Interface, on the same host.
OVS_OUTPUT = json.dumps(
    {
        "data": [
            ["br-int", ["map", []], ["set", []]],
            [
                "tap4507a056-8f",
                [
                    "map",
                    [
                        ["attached-mac", MAC],
                        ["iface-id", PORT],
                        ["iface-status", "active"],
                        ["ovn-installed", "true"],
                        ["vm-uuid", UUID],
                    ],
                ],
                ["set", []],
            ],
        ],
        "headings": ["name", "external_ids", "error"],
    }
)

CONSOLE = "udhcpc: lease of 192.168.1.149 obtained\nkilonova-guest: ready after 4.8 s, address 192.168.1.149\n"
FOUND: dict[str, Any] = {
    "name": "instance-00000001",
    "state": "running",
    "virt_type": "qemu",
    "vcpus": 1,
    "memory_mib": 128,
    "console_log": LOG,
    "arrived_running": False,
    "recorded": True,
    "disks": [{"target": "vda", "bus": "virtio", "source": "/x", "format": "qcow2", "gib": 1.0}],
    "interfaces": [
        {
            "mac": MAC,
            "target": "tap4507a056-8f",
            "model": "virtio",
            "bridge": "br-int",
            "port_id": PORT,
            "addresses": ["192.168.1.149"],
            "flows": True,
            "sent": 14,
            "received": 3,
            "vm_uuid": UUID,
        }
    ],
}
EXPECTED: dict[str, Any] = {
    "vcpus": 1,
    "memory_mib": 128,
    "disk_gib": 1,
    "disk_bus": "virtio",
    "console": "^kilonova-guest: ready after",
    "interfaces": [
        {"mac": MAC.upper(), "bridge": "br-int", "port_id": PORT, "address": "192.168.1.149", "network": "nova"},
    ],
}


def test_domain_as_nova_writes_it() -> None:
    domain = domains.parse_domain(NOVA_XML)
    assert (domain.name, domain.uuid, domain.virt_type) == ("instance-00000001", UUID, "qemu")
    assert (domain.vcpus, domain.memory_mib, domain.console_log) == (1, 128, LOG)
    assert [(disk.target, disk.bus, disk.format) for disk in domain.disks] == [("vda", "virtio", "qcow2")]
    assert domain.disks[0].source == f"/var/lib/nova/instances/{UUID}/disk"
    assert [(nic.mac, nic.target, nic.bridge) for nic in domain.nics] == [(MAC, "tap4507a056-8f", "")]
    assert domain.addresses == {PORT: ["192.168.1.149"]}


IN_CEPH = {
    "target": "vda",
    "bus": "virtio",
    "source": f"vms/{UUID}_disk",
    "format": "raw",
    "gib": 1.0,
    "protocol": "rbd",
}


def test_a_disk_in_ceph() -> None:
    xml = NOVA_XML.replace(
        f"<source file='/var/lib/nova/instances/{UUID}/disk' index='1'/>",
        f"<source protocol='rbd' name='vms/{UUID}_disk' index='1'><host name='192.0.2.1' port='3300'/></source>",
    )
    (disk,) = domains.parse_domain(xml).disks
    assert (disk.protocol, disk.source) == ("rbd", f"vms/{UUID}_disk")
    assert [one.protocol for one in domains.parse_domain(NOVA_XML).disks] == [""]


@pytest.mark.parametrize(
    ("disk", "what", "found"),
    [
        (IN_CEPH | {"ceph": {"parent": "images/1234"}}, "", ""),
        (IN_CEPH | {"ceph": {"parent": ""}}, "parent of disk vda", "none: a copy"),
        (IN_CEPH | {"ceph": {"parent": "other/1234"}}, "parent of disk vda", "other/1234"),
        (IN_CEPH | {"ceph": {"problem": "no answer"}}, "disk vda in Ceph", "no answer"),
        (IN_CEPH | {"source": "other/x"}, "place of disk vda", "other/x"),
        (FOUND["disks"][0] | {"protocol": ""}, "place of disk vda", "/x"),
    ],
)
def test_the_clone_of_an_image(disk: dict[str, Any], what: str, found: str) -> None:
    problems = libvirt_instance.compare(UUID, EXPECTED, {**FOUND, "disks": [disk]}, CONSOLE, True, ("vms", "images"))
    assert [problem["what"] for problem in problems] == ([what] if what else [])
    assert all(problem["found"].startswith(found) for problem in problems)


def test_a_disk_that_need_not_be_a_clone() -> None:
    found = {**FOUND, "disks": [IN_CEPH | {"ceph": {"parent": ""}}]}
    assert libvirt_instance.compare(UUID, EXPECTED, found, CONSOLE, True, ("vms", "")) == []


def test_domain_with_a_bridge_and_a_console_file() -> None:
    domain = domains.parse_domain(
        "<domain type='kvm'><name>x</name><memory unit='GiB'>2</memory><vcpu current='2'>4</vcpu><devices>"
        "<interface type='bridge'><mac address='aa:00:00:00:00:01'/><source bridge='br-int'/>"
        "<virtualport type='openvswitch'><parameters interfaceid='port'/></virtualport><target dev='tap0'/></interface>"
        "<serial type='file'><source path='/log'/></serial></devices></domain>"
    )
    assert (domain.vcpus, domain.memory_mib, domain.console_log) == (2, 2048, "/log")
    assert (domain.nics[0].bridge, domain.nics[0].port_id) == ("br-int", "port")
    with pytest.raises(ValueError, match="no libvirt domain"):
        domains.parse_domain("<network/>")


def test_open_vswitch_answer() -> None:
    interfaces = libvirt_instance.ovs_interfaces(OVS_OUTPUT)
    assert interfaces["br-int"] == {}
    assert interfaces["tap4507a056-8f"]["iface-id"] == PORT


def test_instance_as_it_should_be() -> None:
    assert libvirt_instance.compare(UUID, EXPECTED, FOUND, CONSOLE, True) == []


@pytest.mark.parametrize(
    ("expected", "found", "interface", "what", "seen"),
    [
        ({}, {"state": "paused"}, {}, "state of the domain", "paused"),
        ({"vcpus": 2}, {}, {}, "vCPUs", 1),
        ({"memory_mib": 512}, {}, {}, "memory in MiB", 128),
        ({"disk_gib": 20}, {}, {}, "size of disk vda in GiB", 1.0),
        ({"disk_bus": "scsi"}, {}, {}, "bus of disk vda", "virtio"),
        ({}, {"disks": []}, {}, "disks", "none"),
        ({"console": "LOGIN"}, {}, {}, "console log", "no match"),
        ({"interfaces": []}, {}, {}, "interfaces", f"also {MAC}"),
        ({"interfaces": [{"mac": MAC, "bridge": "br0"}]}, {}, {}, f"interface {MAC}: bridge of {TAP}", "br-int"),
        ({}, {}, {"bridge": ""}, f"interface {MAC.upper()}: bridge of {TAP}", "none"),
        ({}, {}, {"port_id": "other"}, f"interface {MAC.upper()}: Neutron port (iface-id)", "other"),
        ({}, {}, {"flows": False}, f"interface {MAC.upper()}: flows by OVN (ovn-installed)", "not set"),
        ({}, {}, {"addresses": ["10.0.0.7"]}, f"interface {MAC.upper()}: address that Nova was given", "10.0.0.7"),
    ],
)
def test_each_mismatch(
    expected: dict[str, Any], found: dict[str, Any], interface: dict[str, Any], what: str, seen: Any
) -> None:
    runs = {**copy.deepcopy(FOUND), **found}
    runs["interfaces"][0].update(interface)
    problems = libvirt_instance.compare(UUID, {**EXPECTED, **expected}, runs, CONSOLE, True)
    assert [(problem["what"], problem["found"]) for problem in problems] == [(what, seen)]


def test_missing_interface_names_those_that_are_there() -> None:
    wanted = {**EXPECTED, "interfaces": [*EXPECTED["interfaces"], {"mac": "fa:16:3e:00:00:01", "bridge": "br-int"}]}
    problems = libvirt_instance.compare(UUID, wanted, FOUND, CONSOLE, True)
    assert problems == [{"what": "interface fa:16:3e:00:00:01", "expected": "present", "found": MAC}]


@pytest.mark.parametrize(
    ("console", "printed"),
    [
        ("address 192.168.1.149", True),
        ("inet 192.168.1.149/24 scope", True),
        ("lease of 192.168.1.149.\n", True),
        ("address 192.168.1.14", False),
        ("address 1.192.168.1.149", False),
        ("address 192.168.1.1490", False),
        ("", False),
    ],
)
def test_address_on_the_console(console: str, printed: bool) -> None:
    wanted = {**EXPECTED, "console": None}
    problems = libvirt_instance.compare(UUID, wanted, FOUND, console, True)
    assert [problem["what"].endswith("address on the console") for problem in problems] == ([] if printed else [True])
    assert all("sent 14 packets and got 3" in problem["found"] for problem in problems)
    assert libvirt_instance.compare(UUID, wanted, FOUND, console, False) == []


def test_kernel_bridge_of_a_tap_device(tmp_path: Path) -> None:
    (tmp_path / "br0").mkdir()
    (tmp_path / "tap0").mkdir()
    (tmp_path / "tap0" / "master").symlink_to(tmp_path / "br0")
    assert libvirt_instance.bridge_of("tap0", False, tmp_path) == "br0"
    assert libvirt_instance.bridge_of("tap1", False, tmp_path) == ""


@pytest.mark.parametrize(("virtlogd", "recorded"), [(90, True), (100, True), (101, False)])
def test_a_console_that_virtlogd_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, virtlogd: int, recorded: bool
) -> None:
    (tmp_path / "instance-1.pid").write_text("17")
    for pid, ticks in ((17, 100), (18, virtlogd)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) b) S {' '.join(map(str, range(4, 22)))} {ticks} 23 24\n")
    monkeypatch.setattr(libvirt_instance, "run", lambda arguments: "18\n")
    assert libvirt_instance.console_is_recorded("instance-1", tmp_path, tmp_path) is recorded
    problems = libvirt_instance.compare(UUID, EXPECTED, FOUND | {"recorded": recorded}, CONSOLE, True)
    assert [problem["what"] for problem in problems] == ([] if recorded else ["console log"])


def test_a_console_without_processes_is_no_finding(tmp_path: Path) -> None:
    assert libvirt_instance.console_is_recorded("instance-1", tmp_path, tmp_path)


def test_what_became_of_dhcp_requests() -> None:
    interface = "interface FA:16:3E:E0:54:4D: address on the console"
    match = "udp,reg14=0x5,metadata=0x1,dl_src=fa:16:3e:e0:54:4d,tp_src=68,tp_dst=67"
    flows = f" table=31, n_packets=0, priority=100,{match} actions=conjunction(39,1/2)\n"
    assert "no flow passes its DHCP requests on to ovn-controller (1 others" in libvirt_instance.dhcp_requests(
        flows, interface
    )
    flows += (
        f" table=31, n_packets=2, priority=100,conj_id=39,{match} actions=controller(userdata=00.00),resubmit(,32)\n"
    )
    assert libvirt_instance.dhcp_requests(flows, interface).startswith("2 of its DHCP requests were passed on")
    assert "(0 others" in libvirt_instance.dhcp_requests(flows, interface.replace("4D", "4E"))


def test_packets_of_a_guest(tmp_path: Path) -> None:
    counters = tmp_path / "tap0" / "statistics"
    counters.mkdir(parents=True)
    (counters / "rx_packets").write_text("14\n")
    (counters / "tx_packets").write_text("3\n")
    assert libvirt_instance.packets("tap0", tmp_path) == {"sent": 14, "received": 3}
    assert libvirt_instance.packets("tap1", tmp_path) == {"sent": 0, "received": 0}


def test_console_log_with_its_rotated_part(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    assert domains.console_text(str(log)) == ""
    (tmp_path / "console.log.0").write_bytes(b"first\r\n")
    log.write_bytes(b"\x1b[0msecond \xff\r\n")
    assert domains.console_text(str(log)) == "first\n[0msecond \ufffd\n"
    assert domains.tail(log, 1) == "[0msecond \ufffd"
    assert "No such file" in domains.tail(tmp_path / "absent", 1)


def run(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    with patch_module_args({"uri": "test:///default", "timeout": 0, **options}), pytest.raises(SystemExit):
        libvirt_instance.main()
    result = json.loads(capsys.readouterr().out)
    assert isinstance(result, dict)
    return result


def test_all_mismatches_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """libvirt's test driver runs one domain: two vCPUs, 8 GiB, a disk, an interface."""
    uuid = libvirt.open("test:///default").lookupByName("test").UUIDString()
    expected = {"vcpus": 1, "memory_mib": 512, "console": "login:", "interfaces": [{"mac": MAC}]}
    result = run(capsys, uuid=uuid.upper(), expected=expected)
    assert result["failed"]
    assert [problem["what"] for problem in result["mismatches"]] == [
        "vCPUs", "memory in MiB", f"interface {MAC}", "interfaces", "console log",
    ]  # fmt: skip
    assert result["found"]["state"] == "running" and result["found"]["vcpus"] == 2
    assert "- vCPUs: expected 1, found 2" in result["msg"]
    assert "- memory in MiB: expected 512, found 8192" in result["msg"]
    assert "/var/log/libvirt/qemu/test.log" in result["msg"]


def test_domain_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, uuid=UUID, expected={"vcpus": 1})
    assert result["failed"] and f"expected one with the UUID {UUID}" in result["msg"]
    assert "present: test (" in result["msg"]


def test_instance_with_a_disk(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    connection = libvirt.open("test:///default")
    xml = NOVA_XML.replace("type='qemu' id='1'", "type='test'").replace("arch='x86_64' machine='pc-i440fx-10.0'", "")
    domain = connection.createXML(xml)
    monkeypatch.setattr(libvirt_instance, "connect", lambda module, uri: (libvirt, connection))
    monkeypatch.setattr(libvirt.virDomain, "blockInfo", lambda self, disk, flags=0: [1 << 30, 0, 0])
    answers = {"iface-to-br": "br-int\n", "list": OVS_OUTPUT}
    monkeypatch.setattr(
        libvirt_instance, "run", lambda arguments: next(text for verb, text in answers.items() if verb in arguments)
    )
    monkeypatch.setattr(libvirt_instance, "console_text", lambda path: CONSOLE if path == LOG else "")
    try:
        result = run(capsys, uuid=UUID, expected=EXPECTED)
    finally:
        domain.destroy()
    assert not result.get("failed"), result["msg"]
    assert not result["changed"] and result["mismatches"] == []
    assert result["found"]["interfaces"][0]["flows"] is True and result["console"].endswith("address 192.168.1.149")


def test_a_guest_that_arrived_running_has_printed_its_address_elsewhere() -> None:
    problems = libvirt_instance.compare(UUID, EXPECTED, FOUND, "", True)
    assert any("address on the console" in problem["what"] for problem in problems)
    moved = {**FOUND, "arrived_running": True}
    problems = libvirt_instance.compare(UUID, EXPECTED, moved, "", True)
    assert not any("address on the console" in problem["what"] for problem in problems)


@pytest.mark.parametrize(("arguments", "arrived"), [(b"qemu\0-incoming\0defer\0", True), (b"qemu\0-name\0x\0", False)])
def test_arrived_running(tmp_path: Path, arguments: bytes, arrived: bool) -> None:
    (tmp_path / "one.pid").write_text("17")
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "cmdline").write_bytes(arguments)
    assert libvirt_instance.arrived_running("one", tmp_path, tmp_path) is arrived
    assert libvirt_instance.arrived_running("two", tmp_path, tmp_path) is False
