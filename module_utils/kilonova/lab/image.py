# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Base images and package cache of the labs, both in /var/cache/kilonova/lab."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.kilonova.lab.computer import CACHE, LabError, locked, run

DAY = 86400
AR_MAGIC = b"!<arch>\n"
AR_HEADER = 60
KEPT_VERSIONS = 2


@dataclass(frozen=True)
class Recipe:
    """The inputs of a base image."""

    suite: str
    packages: tuple[str, ...]
    mirror: str = ""

    @property
    def key(self) -> str:
        text = json.dumps([self.suite, sorted(self.packages), self.mirror, self.command("-", "-")])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        return f"{self.suite}-{self.key}"

    def command(self, output: str, temporary: str) -> list[str]:
        # Both options stay in the image, where they only make dpkg and apt faster. Without a mirror, the sources are
        # the suite, its updates and its security updates.
        return [
            "env",
            f"TMPDIR={temporary}",
            "mmdebstrap",
            "--variant=minbase",
            f"--include={','.join(sorted(self.packages))}",
            "--dpkgopt=force-unsafe-io",
            '--aptopt=Acquire::Languages "none"',
            self.suite,
            output,
            *([self.mirror] if self.mirror else []),
        ]


def images_of(recipe: Recipe, images: Path) -> list[Path]:
    """Return the images of a recipe, the newest first."""
    return sorted(images.glob(f"{recipe.name}-*.root"), key=lambda path: path.stat().st_mtime, reverse=True)


def is_fresh(image: Path, max_age_days: float, now: float | None = None) -> bool:
    built = image.stat().st_mtime
    return (time.time() if now is None else now) - built < max_age_days * DAY


def link_image(recipe: Recipe, max_age_days: float, link: Path, cache: Path = CACHE) -> list[str]:
    """Let a link point to the base image, which is built if it is missing or too old; return warnings.

    An image is a directory that does not change any more, because machines use it as the lower layer of their files.
    """
    images, warnings = cache / "images", []
    # Labs with other recipes need not wait.
    with locked(images / f".{recipe.name}.lock"):
        images.chmod(0o700)  # The programs in it do not get security updates.
        found = images_of(recipe, images)
        if not (found and is_fresh(found[0], max_age_days)):
            try:
                build_image(recipe, images)
            except LabError as error:
                if not found:
                    raise LabError(f"Building the base image failed. {error}") from None
                days = (time.time() - found[0].stat().st_mtime) / DAY
                warnings = [f"The base image is {days:.0f} days old and could not be built again: {error}"]
        with locked(images / ".lock"):
            link.unlink(missing_ok=True)
            link.symlink_to(images_of(recipe, images)[0])
            remove_unused(recipe, max_age_days, images, link)
    return warnings


def build_image(recipe: Recipe, images: Path) -> None:
    work = images / f"{recipe.name}.work"
    remove_directory(work)  # left by a killed run: the lock says that it is not in use
    work.mkdir()
    try:
        run(recipe.command(str(work / "root"), str(work)), timeout=1800)
        os.utime(work / "root")
        (work / "root").rename(images / f"{recipe.name}-{int(time.time())}.root")
    finally:
        remove_directory(work)


def remove_unused(recipe: Recipe, max_age_days: float, images: Path, link: Path) -> None:
    """Remove images that no machine uses and no lab will: there is a newer one, or none was built for two periods."""
    # The link is in LABS/ID/machines/NAME.
    used = {other.resolve() for other in link.parents[3].glob(f"*/machines/*/{link.name}")} | {link.resolve()}
    newest = images_of(recipe, images)[0]
    for image in images.glob("*.root"):
        superseded = image != newest and image.name.startswith(f"{recipe.name}-")
        if image.resolve() not in used and (superseded or not is_fresh(image, 2 * max_age_days)):
            remove_directory(image)
    for archive in images.glob("*.tar"):  # Of older versions of Kilonova.
        archive.unlink()


def remove_directory(path: Path) -> None:
    if path.exists():
        run(["rm", "-rf", "--one-file-system", str(path)])


# ------------------------------------------------------------------ packages
def is_complete_package(path: Path) -> bool:
    """Return whether the sizes of the members of a .deb (an ar archive) add up to that of the file."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as stream:
            if stream.read(len(AR_MAGIC)) != AR_MAGIC:
                return False
            position = len(AR_MAGIC)
            while position < size:
                stream.seek(position)
                header = stream.read(AR_HEADER)
                if len(header) != AR_HEADER or header[58:60] != b"`\n":
                    return False
                length = int(header[48:58])
                position += AR_HEADER + length + length % 2
            return position == size
    except (OSError, ValueError):
        return False


def share_file(source: Path, target: Path) -> None:
    """Link target to source, or copy it where a link is not possible."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.link(source, partial)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
            raise
        shutil.copy2(source, partial)
    partial.replace(target)
    # Renaming a link over a link to the same file does nothing.
    partial.unlink(missing_ok=True)


def _differ(one: Path, other: Path) -> bool:
    try:
        theirs = other.stat()
    except FileNotFoundError:
        return True
    ours = one.stat()
    return (ours.st_ino, ours.st_dev) != (theirs.st_ino, theirs.st_dev) and ours.st_size != theirs.st_size


def collect_packages(archives: Path, cache: Path = CACHE) -> int:
    """Add the packages that a machine has downloaded to the cache; return their number."""
    store = cache / "packages"
    store.mkdir(parents=True, exist_ok=True)
    added = 0
    for package in archives.glob("*.deb"):
        if _differ(package, store / package.name) and is_complete_package(package):
            share_file(package, store / package.name)
            added += 1
    if added:
        for old in outdated(store):
            old.unlink(missing_ok=True)
    return added


def provide_packages(archives: Path, cache: Path = CACHE) -> int:
    """Fill the apt cache of a machine from the shared one; return the number of packages. apt checks their sizes."""
    archives.mkdir(parents=True, exist_ok=True)
    given = 0
    for package in (cache / "packages").glob("*.deb"):
        if not (archives / package.name).exists():
            share_file(package, archives / package.name)
            given += 1
    return given


def outdated(store: Path, keep: int = KEPT_VERSIONS) -> list[Path]:
    """Return all but the newest versions of each package, by the time of publication that apt sets."""
    groups: dict[str, list[Path]] = {}
    for package in store.glob("*.deb"):
        name = re.sub(r"_[^_]*_", "_", package.name, count=1)
        groups.setdefault(name, []).append(package)
    old: list[Path] = []
    for versions in groups.values():
        old += sorted(versions, key=lambda path: path.stat().st_mtime, reverse=True)[keep:]
    return old
