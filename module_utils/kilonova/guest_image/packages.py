# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Download Debian packages with apt and read files from them without installing them.

Uses neither the lock nor the database of dpkg, so it can run while packages are being installed.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path


class PackageError(Exception):
    """A package could not be found, downloaded or read; the message says what to do."""


def _run(arguments: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=cwd, check=False, capture_output=True, text=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    )


def candidate_versions(shown: str) -> dict[str, str]:
    """Return {package: version} from the output of ``apt-cache show --no-all-versions``."""
    versions = {}
    for paragraph in shown.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version): (.+)$", paragraph, re.M))
        if len(fields) == 2:
            versions[fields["Package"]] = fields["Version"]
    return versions


class Apt:
    """apt with the sources and keys of the host, and with private package lists after refresh()."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.options: list[str] = []

    def refresh(self) -> None:
        """Fetch package lists into the work directory, leaving those of the host alone."""
        (self.work / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        self.options = [
            "-o", f"Dir::State::Lists={self.work}/lists",
            "-o", "Dir::Cache::pkgcache=",
            "-o", "Dir::Cache::srcpkgcache=",
        ]  # fmt: skip
        done = _run(["apt-get", "-qq", *self.options, "update"])
        if done.returncode:
            raise PackageError(
                f"apt-get update failed, so the guest image's packages cannot be found: {done.stderr.strip()}. "
                "Check that the host can reach its package sources, or set guest_image_url."
            )

    def versions(self, packages: list[str]) -> dict[str, str]:
        """Return the candidate versions of the packages that apt knows."""
        return candidate_versions(_run(["apt-cache", *self.options, "show", "--no-all-versions", *packages]).stdout)

    def dependency(self, package: str, prefix: str) -> str | None:
        """Return the first dependency of ``package`` with this prefix."""
        shown = _run(["apt-cache", *self.options, "show", "--no-all-versions", package]).stdout
        match = re.search(rf"^Depends: .*?\b({re.escape(prefix)}[a-z0-9.+-]+)", shown, re.M)
        return match.group(1) if match else None

    def download(self, packages: list[str], into: Path) -> str:
        """Download packages; return the errors of apt, '' if there were none."""
        into.mkdir(parents=True, exist_ok=True)
        done = _run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", *self.options, "download", *packages], into)
        return (done.stderr or done.stdout).strip() if done.returncode else ""


def fetch(work: Path, names: list[str], kernel: str) -> tuple[dict[str, Path], dict[str, str]]:
    """Download packages and the kernel image that the package ``kernel`` depends on.

    Return ({package: .deb file}, {package: version}); the first has the kernel image under the name ``kernel``.
    Uses the package lists of the host; fetches private ones once if those are missing or outdated.
    """
    apt = Apt(work)
    errors = ""
    for attempt in ("the host's package lists", "fresh package lists"):
        if attempt.startswith("fresh"):
            apt.refresh()
        image = apt.dependency(kernel, "linux-image-")
        versions = apt.versions([*names, *([image] if image else [])])
        missing = sorted({*names} - {*versions}) + ([] if image else [kernel])
        if missing:
            errors = f"apt does not know {', '.join(missing)}"
            continue
        wanted = [f"{name}={version}" for name, version in versions.items()]
        errors = apt.download(wanted, work / "debs")
        if not errors:
            debs = {}
            for path in (work / "debs").glob("*.deb"):
                package = path.name.split("_", 1)[0]
                debs[kernel if package == image else package] = path
            return debs, versions
    raise PackageError(
        f"The guest image's packages could not be downloaded: {errors}. Check the host's package sources "
        "(component main of the Debian release that it runs), or set guest_image_url to an image made elsewhere."
    )


def extract(deb: Path, wanted: Callable[[str], bool]) -> dict[str, tuple[int, bytes]]:
    """Return {path: (mode, content)} of the regular files of a package that ``wanted`` accepts.

    Paths have no leading slash and begin with usr/ as in a merged /usr. A symbolic link is replaced by the file that it
    points to, if that file is in the package and accepted.
    """
    files: dict[str, tuple[int, bytes]] = {}
    links: dict[str, str] = {}
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    damage = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpack:
        assert unpack.stdout is not None
        try:
            with tarfile.open(fileobj=unpack.stdout, mode="r|") as archive:
                for member in archive:
                    path = member.name.removeprefix("./")
                    path = path if path.startswith(("usr/", "boot/", "etc/")) else f"usr/{path}"
                    if not wanted(path):
                        continue
                    if member.issym():
                        links[path] = str(Path(path).parent / member.linkname)
                    elif member.isfile():
                        content = archive.extractfile(member)
                        assert content is not None
                        files[path] = (member.mode & 0o7777, content.read())
        except tarfile.TarError as error:
            damage = str(error)
        # The archive ends before the pipe does: let dpkg-deb finish.
        unpack.stdout.read()
    if unpack.returncode or damage:
        raise PackageError(
            f"dpkg-deb could not read {deb.name} (exit status {unpack.returncode}{damage and ', ' + damage}); "
            "the download is damaged"
        )
    for path, target in links.items():
        if target in files:
            files[path] = files[target]
    return files
