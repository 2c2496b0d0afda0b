# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Build a bootable disk from Debian packages, without mounts, loop devices or a chroot."""

from __future__ import annotations

import ctypes
import gzip
import lzma
import os
import re
import secrets
import shutil
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.kilonova.guest_image.disk import (
    PARTITION_FAT16_LBA,
    PARTITION_LINUX,
    Entry,
    Partition,
    boot_record,
    cpio,
    elf_needed,
    module_depends,
    write_qcow2,
)
from ansible.module_utils.kilonova.guest_image.packages import PackageError, extract, fetch

# Raise it when a change below changes the image although files and options are the same.
REVISION = 2
MIB = 1024 * 1024
KERNEL = "linux-image-cloud-amd64"
LIBRARY_PACKAGES = (
    "libc6", "libcrypt1", "libtomcrypt1", "libtommath1", "zlib1g", "libgmp10", "libpam0g", "libaudit1", "libcap-ng0",
)  # fmt: skip
PROGRAM_PACKAGES = ("busybox-static", "dropbear-bin", "opendoas", "libpam-modules")
# Only used for building; they need nothing but the C library of the host.
TOOL_PACKAGES = ("mtools", "syslinux", "syslinux-common")
PACKAGES = (*PROGRAM_PACKAGES, *LIBRARY_PACKAGES, *TOOL_PACKAGES)
PROGRAMS = {
    "usr/bin/busybox": "usr/bin/busybox",
    "usr/sbin/dropbear": "usr/bin/dropbear",
    "usr/bin/dropbearkey": "usr/bin/dropbearkey",
    "usr/bin/doas": "usr/bin/doas",
    "usr/lib/x86_64-linux-gnu/security/pam_permit.so": "usr/lib/x86_64-linux-gnu/security/pam_permit.so",
}
LOADER = "ld-linux-x86-64.so.2"
# Needed to reach the disk, and needed later.
DISK_MODULES = ("virtio_blk", "virtio_scsi", "sd_mod", "ext4", "virtio_pci")
LATER_MODULES = ("virtio_rng", "virtio_net", "virtio_balloon", "virtio_input", "button", "evdev")
# Applets without a link: the first three are not for users, the others need what the guest does not have.
NOT_BUSYBOX = ("busybox", "init", "linuxrc", "dpkg", "dpkg-deb", "rpm", "rpm2cpio")
PAM_KINDS = ("auth", "account", "session")
KERNEL_DIRECTORIES = re.compile(r"/kernel/(drivers/(virtio|block|net|scsi|acpi|input|char/hw_random)|net|fs|lib)/")
BOOT_START = MIB
FILESYSTEM_UUID = "6b696c6f-6e6f-7661-8000-677565737400"
DISK_ID = 0x4B4E4756


class BuildError(Exception):
    """The image could not be built; the message has the step and the reason."""


@dataclass(frozen=True)
class GuestFile:
    """A file of the guest; ``initramfs/...`` is a file of the initramfs."""

    path: str
    content: str
    mode: int = 0o644


@dataclass(frozen=True)
class Recipe:
    """The inputs of the image except package versions."""

    user: str
    size_mib: int
    kernel_arguments: str
    files: tuple[GuestFile, ...]
    console_hash: str = field(default="", repr=False)


def password_hash(password: str, setting: str = "") -> str:
    """Return the SHA-512 crypt(5) hash of a password, with the salt of the hash ``setting`` if given.

    Uses libcrypt directly, because Python 3.13 has no crypt module.
    """
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    library.crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    salt = setting or f"$6${secrets.token_hex(8)}$"
    hashed = library.crypt(password.encode(), salt.encode())
    if not hashed or hashed.startswith(b"*"):
        raise BuildError("crypt(3) on this host cannot hash the console password with SHA-512")
    return str(hashed.decode())


def module_order(wanted: tuple[str, ...], available: dict[str, bytes], builtin: set[str], given: set[str]) -> list[str]:
    """Return the modules to load in order of dependency, except built-in ones and those in ``given``."""
    order: list[str] = []

    def add(name: str, needed_by: str) -> None:
        if name in builtin or name in given or name in order:
            return
        if name not in available:
            raise BuildError(f"the kernel package has no module {name}, which {needed_by} needs")
        for dependency in module_depends(available[name]):
            add(dependency, name)
        order.append(name)

    for name in wanted:
        add(name, "the guest")
    return order


def without_signature(module: bytes) -> bytes:
    """Return a kernel module without the appended signature (include/linux/module_signature.h).

    The guest does not require signatures, and checking one takes an emulated processor a tenth of a second.
    """
    marker = b"~Module signature appended~\n"
    if not module.endswith(marker):
        return module
    # Twelve bytes precede the marker, the last four of which are the length of the signature.
    (length,) = struct.unpack(">I", module[-len(marker) - 4 : -len(marker)])
    return module[: -len(marker) - 12 - length]


def needed_libraries(programs: dict[str, bytes], libraries: dict[str, bytes]) -> list[str]:
    """Return the sonames that programs need directly or indirectly."""
    found: list[str] = []
    waiting = [(soname, name) for name, data in programs.items() for soname in elf_needed(data)]
    while waiting:
        soname, needed_by = waiting.pop()
        if soname in found or soname == LOADER:
            continue
        if soname not in libraries:
            raise BuildError(
                f"{needed_by} needs the library {soname}, which is in none of the packages "
                + ", ".join(LIBRARY_PACKAGES)
            )
        found.append(soname)
        waiting += [(name, soname) for name in elf_needed(libraries[soname])]
    return sorted(found)


def account_files(user: str, console_hash: str) -> list[GuestFile]:
    """Return passwd, shadow and related files: root cannot log in, the user may become root."""
    return [
        GuestFile("etc/passwd", f"root:x:0:0:root:/root:/bin/sh\n{user}:x:1000:1000:{user}:/home/{user}:/bin/sh\n"),
        GuestFile("etc/group", f"root:x:0:\ntty:x:5:\n{user}:x:1000:\n"),
        GuestFile("etc/shadow", f"root:*:20000::::::\n{user}:{console_hash or '*'}:20000::::::\n", 0o600),
        GuestFile("etc/doas.conf", f"permit nopass keepenv {user}\npermit nopass keepenv root\n", 0o600),
        GuestFile("etc/pam.d/doas", "".join(f"{kind} required pam_permit.so\n" for kind in PAM_KINDS)),
        GuestFile("etc/guest/user", f"{user}\n"),
        GuestFile("etc/hostname", "kilonova-guest\n"),
        GuestFile("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 kilonova-guest\n"),
        GuestFile("etc/shells", "/bin/sh\n"),
        GuestFile("etc/resolv.conf", ""),
    ]


class Builder:
    """A build in a private directory, which the caller removes."""

    def __init__(self, recipe: Recipe, work: Path) -> None:
        self.recipe = recipe
        self.work = work
        self.tree = work / "tree"
        self.raw = work / "disk.raw"
        self.versions: dict[str, str] = {}
        self.debs: dict[str, Path] = {}

    def build(self, out: Path, raw: bool = False) -> None:
        """Build the image into the file ``out``, as qcow2 or raw."""
        try:
            self.debs, self.versions = fetch(self.work, list(PACKAGES), KERNEL)
        except PackageError as error:
            raise BuildError(str(error)) from error
        kernel, initramfs = self._kernel_and_root()
        self._disk(kernel, initramfs)
        if raw:
            self.raw.replace(out)
        else:
            write_qcow2(self.raw, out)

    def _kernel_and_root(self) -> tuple[bytes, bytes]:
        kernel_files = extract(
            self.debs[KERNEL],
            lambda path: (
                path.startswith("boot/vmlinuz-")
                or path.endswith("/modules.builtin")
                or KERNEL_DIRECTORIES.search(path) is not None
            ),
        )
        kernel = next((content for path, (_, content) in kernel_files.items() if path.startswith("boot/")), b"")
        if not kernel:
            raise BuildError(f"{self.debs[KERNEL].name} has no boot/vmlinuz-*")
        builtin = {
            _module_name(line)
            for path, (_, content) in kernel_files.items()
            if path.endswith("/modules.builtin")
            for line in content.decode().splitlines()
        }
        packed = {_module_name(path): (path, content) for path, (_, content) in kernel_files.items() if ".ko" in path}
        modules = _Unpacked(packed)
        early = module_order(DISK_MODULES, modules, builtin, set())
        later = module_order(LATER_MODULES, modules, builtin, set(early))

        busybox = self._root(later, modules)
        return kernel, self._initramfs(early, modules, busybox)

    def _initramfs(self, order: list[str], modules: dict[str, bytes], busybox: bytes) -> bytes:
        directory, executable, plain = 0o040755, 0o100755, 0o100644
        entries = [Entry(name, directory) for name in ("bin", "dev", "proc", "root", "lib")]
        entries.append(Entry("bin/busybox", executable, busybox))
        for file in self.recipe.files:
            if file.path.startswith("initramfs/"):
                entries.append(Entry(file.path.removeprefix("initramfs/"), 0o100000 | file.mode, file.content.encode()))
        entries.append(Entry("modules", plain, "".join(f"{name}\n" for name in order).encode()))
        entries += [Entry(f"lib/{name}.ko", plain, modules[name]) for name in order]
        return gzip.compress(cpio(entries), compresslevel=9, mtime=0)

    def _root(self, order: list[str], modules: dict[str, bytes]) -> bytes:
        """Write the root file system; return busybox, which the initramfs needs too."""
        programs = {}
        for package in PROGRAM_PACKAGES:
            for path, (mode, content) in extract(self.debs[package], PROGRAMS.__contains__).items():
                programs[PROGRAMS[path]] = (mode, content)
        missing = sorted(set(PROGRAMS.values()) - set(programs))
        if missing:
            raise BuildError(f"the packages {', '.join(PROGRAM_PACKAGES)} have no {', '.join(missing)}")
        libraries: dict[str, bytes] = {}
        for package in LIBRARY_PACKAGES:
            files = extract(self.debs[package], lambda path: ".so" in path and "/gconv/" not in path)
            for path, (_, content) in files.items():
                libraries[Path(path).name] = content

        for directory in ("dev", "proc", "sys", "run", "tmp", "mnt", "var/log", "etc/dropbear", "usr/lib64"):
            (self.tree / directory).mkdir(parents=True)
        for name, target in (("bin", "usr/bin"), ("sbin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")):
            (self.tree / name).symlink_to(target)
        (self.tree / "usr/bin").mkdir(parents=True)
        (self.tree / "usr/sbin").symlink_to("bin")
        (self.tree / "var/run").symlink_to("/run")
        for path, (mode, content) in programs.items():
            self._write(path, content, mode)
        needed = needed_libraries({path: content for path, (_, content) in programs.items()}, libraries)
        for soname in needed:
            self._write(f"usr/lib/x86_64-linux-gnu/{soname}", libraries[soname], 0o755)
        self._write(f"usr/lib64/{LOADER}", libraries[LOADER], 0o755)
        for name in order:
            self._write(f"usr/lib/modules/{name}.ko", modules[name])
        self._write("usr/lib/modules/order", "".join(f"{name}\n" for name in order).encode())
        for file in account_files(self.recipe.user, self.recipe.console_hash):
            self._write(file.path, file.content.encode(), file.mode)
        for file in self.recipe.files:
            if not file.path.startswith("initramfs/"):
                self._write(file.path, file.content.encode(), file.mode)
        applets = self._run("busybox --list", [str(self.tree / "usr/bin/busybox"), "--list"]).split()
        for applet in applets:
            if applet not in NOT_BUSYBOX and not (self.tree / "usr/bin" / applet).exists():
                (self.tree / "usr/bin" / applet).symlink_to("busybox")
        (self.tree / "usr/bin/init").symlink_to("busybox")
        self._owners()
        return programs["usr/bin/busybox"][1]

    def _owners(self) -> None:
        """Set owner and mode where they are not root and 0755."""
        home = self.tree / "home" / self.recipe.user
        (home / ".ssh").mkdir(parents=True)
        (self.tree / "root").mkdir()
        for path, mode in ((home / ".ssh", 0o700), (self.tree / "root", 0o700), (self.tree / "etc/dropbear", 0o700)):
            path.chmod(mode)
        (self.tree / "tmp").chmod(0o1777)
        for path in (home, home / ".ssh"):
            os.chown(path, 1000, 1000)

    def _write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        target = self.tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)

    def _disk(self, kernel: bytes, initramfs: bytes) -> None:
        tools = self.work / "tools"
        for package in TOOL_PACKAGES:
            self._run("dpkg-deb", ["dpkg-deb", "--extract", str(self.debs[package]), str(tools)])
        boot_size = (-(-(len(kernel) + len(initramfs)) // MIB) + 2) * MIB
        boot = Partition(BOOT_START, max(boot_size, 8 * MIB), PARTITION_FAT16_LBA, bootable=True)
        root_start = boot.start + boot.size
        root = Partition(root_start, self.recipe.size_mib * MIB - root_start, PARTITION_LINUX)
        if root.size < 32 * MIB:
            raise BuildError(
                f"a disk of {self.recipe.size_mib} MiB leaves {root.size // MIB} MiB for the root file system, which "
                "needs 32 MiB; raise size_mib"
            )
        code = (tools / "usr/lib/syslinux/mbr/mbr.bin").read_bytes()
        with self.raw.open("wb") as disk:
            disk.truncate(self.recipe.size_mib * MIB)
            disk.write(boot_record(code, [boot, root], DISK_ID))

        files = {
            "vmlinuz": kernel,
            "initrd": initramfs,
            "syslinux.cfg": (
                "DEFAULT guest\nPROMPT 0\nLABEL guest\n LINUX vmlinuz\n INITRD initrd\n"
                f" APPEND {self.recipe.kernel_arguments}\n"
            ).encode(),
        }
        contents = self.work / "boot"
        contents.mkdir()
        for name, content in files.items():
            (contents / name).write_bytes(content)
        path = f"{tools}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        drive = f"{self.raw}@@{boot.start}"
        sectors = boot.size // 512
        # Heads and sectors per track only fill the FAT header: the boot loader uses sector numbers.
        geometry = ["-T", str(sectors), "-h", "64", "-s", "32", "-H", str(boot.start // 512)]
        self._run("mformat", ["mformat", "-i", drive, *geometry, "-c", "16", "-N", "4b4e4756", "::"], path)
        self._run("mcopy", ["mcopy", "-i", drive, *(str(contents / name) for name in files), "::"], path)
        self._run("syslinux", ["syslinux", "--install", "--offset", str(boot.start), str(self.raw)], path)
        self._run(
            "mke2fs",
            [
                "mke2fs", "-q", "-F", "-t", "ext4", "-L", "kilonova-guest", "-U", FILESYSTEM_UUID, "-m", "0",
                "-b", "1024", "-J", "size=4",
                "-E", f"offset={root.start},assume_storage_prezeroed=1,hash_seed={FILESYSTEM_UUID}",
                "-d", str(self.tree), str(self.raw), f"{root.size // 1024}k",
            ],
            path,
        )  # fmt: skip

    def _run(self, step: str, arguments: list[str], path: str = "/usr/sbin:/usr/bin:/sbin:/bin") -> str:
        program = shutil.which(arguments[0], path=path)
        if program is None:
            raise BuildError(f"{arguments[0]} is missing on this host; building the guest image needs it")
        # Without these, mtools reads the configuration of the host and rejects the size of the partition.
        environment = {"PATH": path, "MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1", "LC_ALL": "C.UTF-8"}
        done = subprocess.run([program, *arguments[1:]], check=False, capture_output=True, text=True, env=environment)
        if done.returncode:
            message = (done.stderr or done.stdout).strip()
            raise BuildError(f"{step} failed with exit status {done.returncode}: {message}")
        return done.stdout


def _module_name(path: str) -> str:
    return Path(path.strip()).name.split(".ko", 1)[0].replace("-", "_")


class _Unpacked(dict[str, bytes]):
    """Kernel modules by name, decompressed on first use."""

    def __init__(self, packed: dict[str, tuple[str, bytes]]) -> None:
        super().__init__()
        self._packed = packed

    def __contains__(self, name: object) -> bool:
        return name in self._packed

    def __missing__(self, name: str) -> bytes:
        path, content = self._packed[name]
        self[name] = without_signature(lzma.decompress(content) if path.endswith(".xz") else content)
        return self[name]
