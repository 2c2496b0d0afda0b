# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The guest that libvirt_probe boots: boot sector, domain XML and console."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    import libvirt

GREETING = b"kilonova-probe: code runs in this guest"
POLL_MILLISECONDS = 100
# xor ax,ax; mov ds,ax; cld; mov si,text; next: lodsb; test al,al; jz done; mov bl,al; mov dx,0x3fd (line status of the
# first serial port); wait: in al,dx; test al,0x20 (transmitter empty); jz wait; mov dx,0x3f8; mov al,bl; out dx,al;
# jmp next; done: cli; halt: hlt; jmp halt; text:
CODE = bytes.fromhex("31c08ed8fcbe237cac84c0741288c3bafd03eca82074fbbaf80388d8eeebe9faf4ebfd")


def boot_sector() -> bytes:
    """Return a disk whose first sector prints the greeting on the first serial port and halts."""
    sector = CODE + GREETING + b"\r\n\0"
    return sector.ljust(510, b"\0") + b"\x55\xaa" + bytes(1024 * 1024 - 512)


def domain_xml(name: str, params: dict[str, Any], disk: tuple[str, str] | None) -> str:
    """Return the domain XML of the guest; disk is (path, format)."""
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


class Console:
    """The output of a guest on its serial port."""

    def __init__(self, libvirt: Any, connection: libvirt.virConnect, domain: libvirt.virDomain) -> None:
        self.libvirt = libvirt
        self.text = ""
        self.stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        domain.openConsole(None, self.stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)

    def wait(self, pattern: re.Pattern[str], timeout: float) -> bool:
        """Return whether the pattern appeared in time; stop early if the guest ends."""
        deadline = time.monotonic() + timeout
        # The timer makes the event loop return, so that the deadline is checked.
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
            # The domain has ended.
            return False
        finally:
            self.libvirt.virEventRemoveTimeout(timer)

    def close(self) -> None:
        """End the stream, which may have ended already."""
        try:
            self.stream.abort()
        except self.libvirt.libvirtError:
            return
