#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Boot a throw-away guest on a hypervisor and wait for its console."""

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_probe
short_description: Check that a hypervisor can run a guest
version_added: "0.1.0"
description:
  - Boots a transient domain through libvirt, as Nova does, waits until the serial console shows that the guest runs,
    and destroys the domain. Nothing of it stays, so the module never reports a change.
  - Without O(image) and O(kernel) the guest is a boot sector of 512 bytes that prints one line on the serial port. It
    takes a second or two.
  - After a guest has booted, a stamp keeps the versions of libvirt, QEMU and the kernel, the model of the processor and
    the options. While these are the same, later runs do not boot a guest. See O(force).
  - Removes domains and files that an interrupted run left behind.
options:
  virt_type:
    description: V(kvm), or V(qemu) for emulation; same as C(virt_type) in nova.conf.
    type: str
    choices: [kvm, qemu]
    default: kvm
  machine:
    description: Machine type (C(pc), C(q35)); same as C(hw_machine_type) in nova.conf. Empty for the default.
    type: str
    default: ""
  cpu_mode:
    description: Processor model; same as C(cpu_mode) in nova.conf. V(none) for the default of libvirt.
    type: str
    choices: [none, host-model, host-passthrough]
    default: none
  memory_mib:
    description: Memory of the guest in MiB.
    type: int
    default: 128
  image:
    description: Disk image on this host, qcow2 or raw. The guest gets a copy.
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
      - Regular expression (Python) that the console must match. Required with O(image) or O(kernel).
      - By default the line that the built-in boot sector prints.
    type: str
  timeout:
    description: Seconds from the start of the domain until the console must match O(expect).
    type: int
    default: 60
  uri:
    description: Address of libvirt.
    type: str
    default: qemu:///system
  state_path:
    description: Directory of the stamp and, while the guest runs, of its disk. The user of QEMU needs access to it.
    type: path
    default: /var/lib/kilonova
  force:
    description: Boot a guest even if one has booted before.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Reports whether a guest would be booted, and boots none.
  diff_mode:
    support: none
notes:
  - Needs python3-libvirt. The built-in boot sector is for x86.
  - Fails if libvirt does not answer or refuses the domain, or if the console does not match O(expect) in time; the
    message ends with the last lines of the console, of the QEMU log of the domain and of the log of libvirt.
  - "Domain XML: https://libvirt.org/formatdomain.html"
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Check that this hypervisor runs guests
  libvirt_probe:
    virt_type: "{{ libvirt_virt_type }}"

- name: Boot the test image without a network
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
  description: Seconds from the start of the domain until the console matched.
  type: float
  returned: when a guest was booted
console:
  description: Last lines of the console.
  type: str
  returned: when a guest was booted
hypervisor:
  description: Versions and options in the stamp; empty in check mode before libvirt is installed.
  type: dict
  returned: always
not_looked_at:
  description: Why the check could not be made although libvirt is installed.
  returned: in check mode, when libvirt does not answer
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.libvirt.probe import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
