#!/usr/bin/python
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Build or fetch the image of a small test guest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_image
short_description: Build or fetch the image of a small test guest
version_added: "0.1.0"
description:
  - Builds a bootable disk from Debian packages, or takes an image from a URL or a file of the host.
  - The built guest has a boot loader, so it needs no separate kernel or ramdisk. It configures the network by DHCP
    (including classless static routes and MTU), takes host name and ssh key from the metadata service, runs an ssh
    server, and offers a login on the serial console and the screen.
  - Packages are downloaded and read, never installed. dpkg is not locked, so this can run while packages are being
    installed. If the host has no package lists or outdated ones, private lists are fetched.
  - No mounts, loop devices or chroots are used. The image appears at O(path) only when it is complete.
  - A file beside the image, O(path) with C(.json) added, records what it was built from. While nothing of that changes,
    the module does nothing and uses no network.
options:
  path:
    description: Path of the image. The directory is created, readable by all.
    type: path
    required: true
  source:
    description:
      - URL (C(http), C(https), C(ftp), C(file)) or absolute path on the host of an image made elsewhere.
      - Empty to build one.
    type: str
    default: ""
  checksum:
    description: V(sha256:) or V(sha512:) and the digest in hexadecimal. Required with O(source).
    type: str
    default: ""
  download_timeout:
    description: Seconds without data after which a download fails.
    type: int
    default: 60
  user:
    description: Login name in the built guest, which may become root with C(sudo) or C(doas) without a password.
    type: str
    default: guest
  console_password:
    description:
      - Password of O(user) on the console of the built guest; only its SHA-512 crypt hash goes into the image.
      - Without it there is no login by password. The ssh server accepts only keys in any case.
    type: str
  size_mib:
    description: Size in MiB of the disk that the built guest sees. The file is smaller, without empty clusters.
    type: int
    default: 512
  kernel_arguments:
    description: Kernel command line of the built guest.
    type: str
    default: console=tty0 console=ttyS0,115200 loglevel=4
  files:
    description:
      - Files of the built guest in addition to those from packages. A path that begins with C(initramfs/) is a file of
        the initramfs. Required to build.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path in the guest without a leading slash.
        type: str
        required: true
      content:
        description: Content of the file.
        type: str
        required: true
      mode:
        description: Permissions as an octal string.
        type: str
        default: "0644"
  upgrade:
    description:
      - Build again if the package lists of the host have other versions of the packages than the image.
      - By default new versions are ignored, so that a run without changes to the options changes nothing.
    type: bool
    default: false
  raw:
    description:
      - Make a raw image instead of qcow2, of which Ceph can make disks without copying it. The file is sparse.
      - An image from O(source) that is qcow2 is converted, with C(qemu-img).
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Downloads and builds nothing.
  diff_mode:
    support: full
    description: Shows which inputs of the image differ.
  async:
    support: full
    description: A build takes a few seconds of processor time.
notes:
  - Building works on amd64. On other architectures set O(source).
  - Building needs C(mke2fs) (package e2fsprogs) on the host; other tools come from packages that are not installed.
  - Fails if a package cannot be found or downloaded, if a build step fails (with its message), or if the download fails
    or has another checksum. The present image is kept.
  - "The guest reports on the serial console in lines that begin with C(kilonova-guest:), the last one being
    C(ready after SECONDS s, address ADDRESS)."
  - "The metadata paths that the guest reads: https://docs.openstack.org/nova/latest/user/metadata.html"
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Build the test image
  guest_image:
    path: /var/lib/kilonova/guest-image/kilonova-guest.qcow2
    console_password: "{{ guest_image_console_password }}"
    files: "{{ guest_image_files }}"

- name: Download an image
  guest_image:
    path: /var/lib/kilonova/guest-image/cirros.qcow2
    source: https://download.example.org/cirros-0.6.3-x86_64-disk.img
    checksum: sha256:7d6355852aeb6dbcd191bcda7cd74f1536cfe5cbf8a10495a7283a8396e4b75b
"""

RETURN = r"""
path:
  description: The image.
  type: str
  returned: always
disk_format:
  description: V(qcow2) or V(raw), as the file has it; for Glance.
  type: str
  returned: when the image exists
size:
  description: Size of the file in bytes.
  type: int
  returned: when the image exists
virtual_size:
  description: Size in bytes of the disk that a guest sees.
  type: int
  returned: when the image exists
sha256:
  description: Checksum of the file.
  type: str
  returned: when the image exists
user:
  description: Login name of the built guest.
  type: str
  returned: always
packages:
  description: Versions of the packages in the image, by name. Empty for a downloaded image.
  type: dict
  returned: when the image exists
seconds:
  description: Duration of the build or download.
  type: float
  returned: when the image was built or downloaded
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.guest_image.image import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
