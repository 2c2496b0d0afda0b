#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Boot a throw-away guest on a hypervisor and wait for its console."""

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_probe
short_description: Show that a hypervisor can run a guest
version_added: "0.1.0"
description:
  - Boots a transient domain through libvirt, as Nova will do, and waits until its serial console shows that code in it
    runs. The domain is then destroyed. Nothing of it stays, so the module never reports a change.
  - Without O(image) and O(kernel) the guest is a boot sector of 512 bytes, which prints one line on its serial port.
    It needs no operating system and takes a second or two.
  - A guest that boots leaves a stamp with the versions of libvirt, QEMU and the kernel, the processor's model and
    these options. While they are the same, later runs do not boot a guest. See O(force).
  - A domain or file that an interrupted run left behind is removed by the next run.
options:
  virt_type:
    description: V(kvm), or V(qemu) for a processor that QEMU emulates; the same as Nova's C(virt_type).
    type: str
    choices: [kvm, qemu]
    default: kvm
  machine:
    description: Machine type (C(pc), C(q35)); the same as Nova's C(hw_machine_type). Empty for libvirt's default.
    type: str
    default: ""
  cpu_mode:
    description: Processor model as libvirt calls it; the same as Nova's C(cpu_mode). V(none) for the default.
    type: str
    choices: [none, host-model, host-passthrough]
    default: none
  memory_mib:
    description: The guest's memory in MiB.
    type: int
    default: 128
  image:
    description: Disk image on this host to boot from, qcow2 or raw. The guest gets a copy.
    type: path
  kernel:
    description: Kernel on this host to boot directly.
    type: path
  initramfs:
    description: The initramfs of O(kernel).
    type: path
  kernel_arguments:
    description: Command line of O(kernel).
    type: str
    default: console=ttyS0
  expect:
    description:
      - Regular expression (Python's) that the console must show.
      - By default what the built-in boot sector prints; with O(image) or O(kernel) it must be given.
    type: str
  timeout:
    description: Seconds from the start of the domain until the console must have shown it.
    type: int
    default: 60
  uri:
    description: libvirt's address.
    type: str
    default: qemu:///system
  state_path:
    description: Directory for the stamp and, while the guest runs, its disk. QEMU's user must be able to reach it.
    type: path
    default: /var/lib/kilonova
  force:
    description: Boot a guest even if the stamp says that one has booted before.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says whether a guest would be booted; boots none.
  diff_mode:
    support: none
notes:
  - Needs python3-libvirt. The built-in boot sector is for x86.
  - Fails when libvirt does not answer, refuses the domain, or the console does not show O(expect) in time; the message
    ends with the console's last lines, QEMU's log of the domain and libvirt's last log lines.
  - "Domain XML: https://libvirt.org/formatdomain.html"
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: See that this hypervisor runs guests, before Nova uses it
  libvirt_probe:
    virt_type: "{{ libvirt_virt_type }}"

- name: Boot the test guest's image without a network
  libvirt_probe:
    virt_type: qemu
    image: /var/lib/kilonova/guest-image/kilonova-guest.qcow2
    expect: "kilonova-guest: ready after"
    force: true
"""

RETURN = r"""
probed:
  description: Whether a guest was booted (in check mode, would be booted) this time.
  type: bool
  returned: always
seconds:
  description: From the domain's start until the console showed what was expected.
  type: float
  returned: when a guest was booted
console:
  description: Last lines of the guest's console.
  type: str
  returned: when a guest was booted
hypervisor:
  description: Versions and options that the stamp is made of; empty in check mode where libvirt is not installed yet.
  type: dict
  returned: always
not_looked_at:
  description: Why a dry run could not see, though libvirt is installed. RV(ignore:changed) is then false.
  returned: in check mode, when libvirt does not answer
  type: str
"""

import fcntl
import json
import os
import re
import shutil
import signal
import time
import uuid
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn
from xml.sax.saxutils import escape, quoteattr

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.guest_image.disk import disk_format
from ansible.module_utils.kilonova.libvirt.domains import QEMU_LOGS, connect, qemu_log
from ansible.module_utils.kilonova.system.logs import unit_log

if TYPE_CHECKING:
    import libvirt

PREFIX = "kilonova-probe-"
GREETING = b"kilonova-probe: code runs in this guest"
POLL_MILLISECONDS = 100
DECIDING_OPTIONS = (
    "virt_type", "machine", "cpu_mode", "memory_mib", "image", "kernel", "initramfs", "kernel_arguments", "expect",
)  # fmt: skip
# xor ax,ax; mov ds,ax; cld; mov si,text; next: lodsb; test al,al; jz done; mov bl,al; mov dx,0x3fd (line status of the
# first serial port); wait: in al,dx; test al,0x20 (transmitter empty); jz wait; mov dx,0x3f8; mov al,bl; out dx,al;
# jmp next; done: cli; halt: hlt; jmp halt; text:
CODE = bytes.fromhex("31c08ed8fcbe237cac84c0741288c3bafd03eca82074fbbaf80388d8eeebe9faf4ebfd")


def boot_sector() -> bytes:
    """Return a disk whose first sector prints the greeting on the first serial port and halts."""
    sector = CODE + GREETING + b"\r\n\0"
    return sector.ljust(510, b"\0") + b"\x55\xaa" + bytes(1024 * 1024 - 512)


def domain_xml(name: str, params: dict[str, Any], disk: tuple[str, str] | None) -> str:
    """Return the probe's domain XML; disk is (path, format)."""
    machine = f" machine={quoteattr(params['machine'])}" if params["machine"] else ""
    direct = "".join(
        f"<{tag}>{escape(params[option])}</{tag}>"
        for tag, option in (("kernel", "kernel"), ("initrd", "initramfs"), ("cmdline", "kernel_arguments"))
        if params["kernel"] and params[option]
    )
    cpu = f"<cpu mode='{params['cpu_mode']}'/>" if params["cpu_mode"] != "none" else ""
    drive = (
        f"<disk type='file' device='disk'><driver name='qemu' type='{disk[1]}'/><source file={quoteattr(disk[0])}/>"
        "<target dev='vda' bus='virtio'/></disk>"
        if disk
        else ""
    )
    return (
        f"<domain type='{params['virt_type']}'><name>{name}</name><memory unit='MiB'>{params['memory_mib']}</memory>"
        f"<vcpu>1</vcpu><os><type{machine}>hvm</type>{direct}<boot dev='hd'/></os>"
        f"<features><acpi/><apic/></features>{cpu}"
        "<on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>"
        f"<devices>{drive}<serial type='pty'/><console type='pty'/><memballoon model='none'/></devices></domain>"
    )


def processor_model(cpuinfo: str) -> str:
    """Return the processor's model name from /proc/cpuinfo."""
    match = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", cpuinfo, re.M)
    return match.group(1).strip() if match else ""


def file_stamp(path: str | None) -> list[int] | None:
    """Return size and time of a file, which say whether it is still the same."""
    if not path:
        return None
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


class Console:
    """What a guest prints on its serial port, read while waiting for a pattern."""

    def __init__(self, libvirt: Any, connection: libvirt.virConnect, domain: libvirt.virDomain) -> None:
        self.libvirt = libvirt
        self.text = ""
        self.stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        domain.openConsole(None, self.stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)

    def wait(self, pattern: re.Pattern[str], timeout: float) -> bool:
        """Say whether the pattern appeared in time; stop early when the guest is gone."""
        deadline = time.monotonic() + timeout
        # A repeating timer makes the event loop return, so that the deadline is looked at.
        timer = self.libvirt.virEventAddTimeout(POLL_MILLISECONDS, lambda _timer, _opaque: None, None)
        raw = b""
        try:
            while time.monotonic() < deadline:
                self.libvirt.virEventRunDefaultImpl()
                ended = False
                while True:
                    block = self.stream.recv(4096)
                    if block == -2:  # nothing yet
                        break
                    if not block:
                        ended = True
                        break
                    raw += block
                self.text = raw.decode(errors="replace").replace("\r", "")
                if pattern.search(self.text):
                    return True
                if ended:
                    return False
            return False
        except self.libvirt.libvirtError:
            # The domain is gone, and its console with it.
            return False
        finally:
            self.libvirt.virEventRemoveTimeout(timer)

    def close(self) -> None:
        """End the stream. It may have ended by itself."""
        try:
            self.stream.abort()
        except self.libvirt.libvirtError:
            return


def remove_left_overs(libvirt: Any, connection: libvirt.virConnect, files: Path, logs: Path = QEMU_LOGS) -> list[str]:
    """Destroy domains and remove files of probes; return the domains' names. The caller holds the lock."""
    names = []
    for domain in connection.listAllDomains():
        if domain.name().startswith(PREFIX):
            names.append(domain.name())
            try:
                domain.destroy()
            except libvirt.libvirtError as error:
                # It ended by itself meanwhile; a transient domain is then unknown.
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
    shutil.rmtree(files, ignore_errors=True)
    for log in logs.glob(f"{PREFIX}*.log*"):
        log.unlink(missing_ok=True)
    return names


class Probe:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.state = Path(self.params["state_path"])
        self.files = self.state / "libvirt-probe"
        self.libvirt, self.connection = connect(module, self.params["uri"])

    def hypervisor(self) -> dict[str, Any]:
        """Return all that decides whether a guest that ran once still runs."""
        params = self.params
        return {
            "uri": params["uri"],
            "libvirt": self.connection.getLibVersion(),
            "qemu": self.connection.getVersion(),
            "kernel_release": os.uname().release,
            "processor": processor_model(Path("/proc/cpuinfo").read_text()),
            "files": [file_stamp(params[option]) for option in ("image", "kernel", "initramfs")],
            **{option: params[option] for option in DECIDING_OPTIONS},
        }

    def stamped(self, hypervisor: dict[str, Any]) -> bool:
        try:
            return bool(json.loads((self.state / "libvirt-probe.json").read_text()) == hypervisor)
        except (OSError, ValueError):
            return False

    def stamp(self, hypervisor: dict[str, Any]) -> None:
        new = self.state / "libvirt-probe.json.new"
        new.write_text(json.dumps(hypervisor, indent=1) + "\n")
        os.replace(new, self.state / "libvirt-probe.json")

    def disk(self, name: str) -> tuple[str, str] | None:
        """Write the guest's disk; return (path, format)."""
        if self.params["kernel"] and not self.params["image"]:
            return None
        # libvirt gives the file to QEMU's user, who must be able to walk to it.
        self.files.mkdir(mode=0o711)
        self.files.chmod(0o711)
        path = self.files / name
        if not self.params["image"]:
            path.write_bytes(boot_sector())
            return str(path), "raw"
        shutil.copyfile(self.params["image"], path)
        return str(path), disk_format(path)[0]

    def run(self) -> dict[str, Any]:
        """Boot the guest; return what the console showed, or fail."""
        self.state.mkdir(mode=0o755, parents=True, exist_ok=True)
        with (self.state / "libvirt-probe.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            name = f"{PREFIX}{uuid.uuid4().hex[:12]}"
            # An interrupted run must not leave its guest behind: finally below runs on these signals as well.
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, self.stop)
            remove_left_overs(self.libvirt, self.connection, self.files)
            try:
                return self.boot(name)
            except self.libvirt.libvirtError as error:
                self.fail(name, f"libvirt could not run a guest: {error}", "")
            finally:
                remove_left_overs(self.libvirt, self.connection, self.files)

    def boot(self, name: str) -> dict[str, Any]:
        xml = domain_xml(name, self.params, self.disk(name))
        flags = self.libvirt.VIR_DOMAIN_START_PAUSED | self.libvirt.VIR_DOMAIN_START_AUTODESTROY
        # Paused, because what a guest prints before its console is opened is lost; destroyed by libvirt itself
        # should this process end without a word.
        domain = self.connection.createXML(xml, flags)
        console = Console(self.libvirt, self.connection, domain)
        try:
            started = time.monotonic()
            domain.resume()
            pattern = re.compile(self.params["expect"] or re.escape(GREETING.decode()), re.M)
            if not console.wait(pattern, self.params["timeout"]):
                running = any(name == other.name() for other in self.connection.listAllDomains())
                silent = f"did not show '{pattern.pattern}' within {self.params['timeout']} s"
                state = silent if running else "ended first"
                self.fail(name, f"a guest was started, but its console {state}", console.text)
            seconds = round(time.monotonic() - started, 2)
            return {"seconds": seconds, "console": "\n".join(console.text.splitlines()[-20:])}
        finally:
            console.close()

    def stop(self, number: int, _frame: FrameType | None) -> NoReturn:
        self.module.fail_json(msg=f"stopped by signal {number}")
        raise SystemExit(1)

    def fail(self, name: str, problem: str, console: str) -> NoReturn:
        params = self.params
        shown = "\n".join(console.splitlines()[-20:]) or "(nothing)"
        advice = (
            "Check that /dev/kvm exists and the firmware allows virtualisation, or set libvirt_virt_type to qemu."
            if params["virt_type"] == "kvm"
            else "Emulation needs qemu-system-x86 and enough free memory and disk."
        )
        self.module.fail_json(
            msg=f"This hypervisor cannot run a guest (virt_type {params['virt_type']}, machine "
            f"{params['machine'] or 'default'}, {params['memory_mib']} MiB): {problem}. {advice}\n"
            f"--- console\n{shown}\n{qemu_log(name)}\n{unit_log('libvirtd')}"
        )
        raise SystemExit(1)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "virt_type": {"type": "str", "choices": ["kvm", "qemu"], "default": "kvm"},
            "machine": {"type": "str", "default": ""},
            "cpu_mode": {"type": "str", "choices": ["none", "host-model", "host-passthrough"], "default": "none"},
            "memory_mib": {"type": "int", "default": 128},
            "image": {"type": "path"},
            "kernel": {"type": "path"},
            "initramfs": {"type": "path"},
            "kernel_arguments": {"type": "str", "default": "console=ttyS0"},
            "expect": {"type": "str"},
            "timeout": {"type": "int", "default": 60},
            "uri": {"type": "str", "default": "qemu:///system"},
            "state_path": {"type": "path", "default": "/var/lib/kilonova"},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    for option in ("image", "kernel", "initramfs"):
        if module.params[option] and not os.path.isfile(module.params[option]):
            module.fail_json(msg=f"{option} is {module.params[option]}, which is not a file on this host.")
    if (module.params["image"] or module.params["kernel"]) and not module.params["expect"]:
        module.fail_json(msg="expect is required with image or kernel: what their console shows is not known here.")
    if module.check_mode and find_spec("libvirt") is None:
        module.exit_json(changed=False, probed=True, hypervisor={})
    probe = Probe(module)
    hypervisor = probe.hypervisor()
    wanted = module.params["force"] or not probe.stamped(hypervisor)
    result: dict[str, Any] = {"changed": False, "probed": wanted, "hypervisor": hypervisor}
    if wanted and not module.check_mode:
        result.update(probe.run())
        probe.stamp(hypervisor)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
