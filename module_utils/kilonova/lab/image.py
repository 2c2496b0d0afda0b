# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Base image and package cache of the labs, both in /var/cache/kilonova/lab."""

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


def image_path(recipe: Recipe, cache: Path = CACHE) -> Path:
    return cache / "images" / f"{recipe.suite}-{recipe.key}.tar"


def is_fresh(image: Path, max_age_days: float, now: float | None = None) -> bool:
    try:
        built = image.stat().st_mtime
    except FileNotFoundError:
        return False
    return (time.time() if now is None else now) - built < max_age_days * DAY


def ensure_image(recipe: Recipe, max_age_days: float, cache: Path = CACHE) -> tuple[Path, list[str]]:
    """Build the base image if it is missing or too old; return it and warnings."""
    image = image_path(recipe, cache)
    with locked(cache / "images" / ".lock"):
        if is_fresh(image, max_age_days):
            return image, []
        work = image.parent / "work"  # left by a killed run: the lock says that it is not in use
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        partial = work / image.name
        try:
            run(recipe.command(str(partial), str(work)), timeout=1800)
            partial.replace(image)
        except LabError as error:
            if not image.exists():
                raise LabError(f"Building the base image failed. {error}") from None
            days = (time.time() - image.stat().st_mtime) / DAY
            return image, [f"The base image is {days:.0f} days old and could not be built again: {error}"]
        finally:
            shutil.rmtree(work, ignore_errors=True)
        for other in image.parent.glob("*.tar"):
            # Other checkouts may use other recipes; an image not built for two periods is unused.
            if other != image and not is_fresh(other, 2 * max_age_days):
                other.unlink()
        return image, []


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
        for old in superseded(store):
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


def superseded(store: Path, keep: int = KEPT_VERSIONS) -> list[Path]:
    """Return all but the newest versions of each package, by the time of publication that apt sets."""
    groups: dict[str, list[Path]] = {}
    for package in store.glob("*.deb"):
        name = re.sub(r"_[^_]*_", "_", package.name, count=1)
        groups.setdefault(name, []).append(package)
    old: list[Path] = []
    for versions in groups.values():
        old += sorted(versions, key=lambda path: path.stat().st_mtime, reverse=True)[keep:]
    return old
