# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Boot a throw-away guest on a hypervisor, unless a stamp says that one has booted there before."""

from __future__ import annotations

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

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.guest_image.disk import disk_format
from ansible.module_utils.kilonova.libvirt.domains import QEMU_LOGS, connect, qemu_log
from ansible.module_utils.kilonova.libvirt.probe_guest import GREETING, Console, boot_sector, domain_xml
from ansible.module_utils.kilonova.system import atomic_file
from ansible.module_utils.kilonova.system.logs import unit_log

if TYPE_CHECKING:
    import libvirt

PREFIX = "kilonova-probe-"
DECIDING_OPTIONS = (
    "virt_type", "machine", "cpu_mode", "memory_mib", "image", "kernel", "initramfs", "kernel_arguments", "expect",
)  # fmt: skip
ARGUMENT_SPEC: dict[str, Any] = {
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
}


def processor_model(cpuinfo: str) -> str:
    """Return the model name of the processor from the text of /proc/cpuinfo."""
    match = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", cpuinfo, re.M)
    return match.group(1).strip() if match else ""


def file_stamp(path: str | None) -> list[int] | None:
    """Return size and time of a file, by which a change of it is noticed."""
    if not path:
        return None
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def remove_left_overs(libvirt: Any, connection: libvirt.virConnect, files: Path, logs: Path = QEMU_LOGS) -> list[str]:
    """Destroy domains and remove files of probes; return the names of the domains. The caller holds the lock."""
    names = []
    for domain in connection.listAllDomains():
        if domain.name().startswith(PREFIX):
            names.append(domain.name())
            try:
                domain.destroy()
            except libvirt.libvirtError as error:
                # A transient domain that has ended is unknown.
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
    shutil.rmtree(files, ignore_errors=True)
    for log in logs.glob(f"{PREFIX}*.log*"):
        log.unlink(missing_ok=True)
    return names


class Probe:
    """A connection to libvirt, and the probe through it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.state = Path(self.params["state_path"])
        self.files = self.state / "libvirt-probe"
        self.libvirt, self.connection = connect(module, self.params["uri"])

    def hypervisor(self) -> dict[str, Any]:
        """Return everything that decides whether a guest that booted once still boots."""
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
        """Return whether a guest has booted on this hypervisor."""
        try:
            return bool(json.loads((self.state / "libvirt-probe.json").read_text()) == hypervisor)
        except (OSError, ValueError):
            return False

    def stamp(self, hypervisor: dict[str, Any]) -> None:
        """Record that a guest has booted."""
        atomic_file.replace(self.state / "libvirt-probe.json", json.dumps(hypervisor, indent=1) + "\n", mode=0o644)

    def disk(self, name: str) -> tuple[str, str] | None:
        """Write the guest's disk; return (path, format)."""
        if self.params["kernel"] and not self.params["image"]:
            return None
        # libvirt changes the owner of the file to the user of QEMU, which needs access to the directory.
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
            # These signals raise, so that an interrupted run removes its guest.
            former = {number: signal.signal(number, self.stop) for number in (signal.SIGTERM, signal.SIGHUP)}
            try:
                remove_left_overs(self.libvirt, self.connection, self.files)
                return self.boot(name)
            except self.libvirt.libvirtError as error:
                self.fail(name, f"libvirt could not run a guest: {error}", "")
            finally:
                remove_left_overs(self.libvirt, self.connection, self.files)
                for number, handler in former.items():
                    signal.signal(number, handler)

    def boot(self, name: str) -> dict[str, Any]:
        """Start the guest and wait for its console."""
        xml = domain_xml(name, self.params, self.disk(name))
        flags = self.libvirt.VIR_DOMAIN_START_PAUSED | self.libvirt.VIR_DOMAIN_START_AUTODESTROY
        # Paused until the console is open: earlier output would be lost. libvirt destroys it if this process is killed.
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
        """End the module on a signal."""
        self.module.fail_json(msg=f"stopped by signal {number}")
        raise SystemExit(1)

    def fail(self, name: str, problem: str, console: str) -> NoReturn:
        """Fail with the problem, advice, and what console and logs say."""
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


def run(module: AnsibleModule) -> None:
    """Run the module."""
    for option in ("image", "kernel", "initramfs"):
        if module.params[option] and not os.path.isfile(module.params[option]):
            module.fail_json(msg=f"{option} is {module.params[option]}, which is not a file on this host.")
    if (module.params["image"] or module.params["kernel"]) and not module.params["expect"]:
        module.fail_json(msg="expect is required with image or kernel: set it to a pattern that the console shows.")
    if module.check_mode and find_spec("libvirt") is None:
        module.exit_json(changed=False, probed=True, hypervisor={})
    probe = Probe(module)
    try:
        hypervisor = probe.hypervisor()
        wanted = module.params["force"] or not probe.stamped(hypervisor)
        result: dict[str, Any] = {"changed": False, "probed": wanted, "hypervisor": hypervisor}
        if wanted and not module.check_mode:
            result.update(probe.run())
            probe.stamp(hypervisor)
    finally:
        probe.connection.close()
    module.exit_json(**result)
