# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Put the collections of requirements.yml into a directory, without Ansible Galaxy.

They come out of the `ansible` package of the Python package index, which bundles them. Only those wanted are unpacked:
the whole bundle is 473 MB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parent.parent


def wanted_collections(requirements: Path) -> dict[str, str]:
    """Name and version of every collection in a requirements.yml. ValueError: one has no exact version."""
    wanted = {}
    for entry in yaml.safe_load(requirements.read_text())["collections"]:
        version = str(entry.get("version", ""))
        if not version or not version[0].isdigit() or "," in version:
            raise ValueError(f"{requirements.name}: {entry['name']} needs one exact version, not {version!r}")
        wanted[entry["name"]] = version
    return wanted


def installed_version(root: Path, name: str) -> str | None:
    """Version of a collection under root/ansible_collections, None where it is absent."""
    namespace, _, short = name.partition(".")
    manifest = root / "ansible_collections" / namespace / short / "MANIFEST.json"
    if not manifest.exists():
        return None
    return str(json.loads(manifest.read_text())["collection_info"]["version"])


def unpack(wheel: Path, root: Path, names: list[str]) -> None:
    """Unpack the named collections of an ansible wheel into root/ansible_collections."""
    prefixes = tuple(f"ansible_collections/{name.replace('.', '/')}/" for name in names)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(root, [member for member in archive.namelist() if member.startswith(prefixes)])


def problems(root: Path, wanted: dict[str, str]) -> list[str]:
    """What is missing or of another version under root, one sentence each."""
    found = {name: installed_version(root, name) for name in wanted}
    return [
        f"{name}: version {version} is wanted, the bundle has {found[name] or 'none'}"
        for name, version in wanted.items()
        if found[name] != version
    ]


def download(directory: Path) -> Path:
    """Download the bundle into a directory with pip, as pip is configured on this computer."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet"]
    bundle = ["--no-deps", "--dest", str(directory), "--requirement", str(PROJECT / "requirements-collections.txt")]
    subprocess.run([*pip, "download", *bundle], check=True)
    return next(directory.glob("ansible-*.whl"))


def main() -> int:
    """Install what is wanted into --into, replacing the directory. Returns 1 where a version differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--into", type=Path, required=True, metavar="DIRECTORY")
    target: Path = parser.parse_args().into
    wanted = wanted_collections(PROJECT / "requirements.yml")
    if target.exists() and not problems(target, wanted):
        return 0
    print(f"setup: unpacking {', '.join(wanted)}", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        fresh = Path(temporary, "collections")
        unpack(download(Path(temporary)), fresh, list(wanted))
        if found := problems(fresh, wanted):
            print("\n".join(f"setup: {problem}" for problem in found), file=sys.stderr)
            return 1
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
