# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What the project needs is pinned, installed, and used."""

from __future__ import annotations

import importlib.metadata
import io
import json
import re
import zipfile
from pathlib import Path

import pytest
import yaml

from tools import install_collections

PROJECT = Path(__file__).resolve().parents[3]
PINNED = dict(line.split("==") for line in (PROJECT / "requirements.txt").read_text().split("\n") if "==" in line)
# Part of ansible-core.
BUILTIN = {"ansible.builtin", "ansible.legacy"}


def normal(name: str) -> str:
    """A package name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def stated(name: str) -> list[str]:
    """Lines of a requirements file that are not comments."""
    return [line for line in (PROJECT / name).read_text().splitlines() if line and not line.startswith("#")]


def used_collections() -> set[str]:
    """Collections whose modules, plugins or callbacks the project names."""
    text = ""
    for pattern in (
        "site.yml",
        "ansible.cfg",
        "playbooks/**/*.yml",
        "roles/**/*.yml",
        "molecule/**/*.yml",
        "tools/*.py",
        "tools/bench/*.py",
    ):
        text += "".join(path.read_text() for path in PROJECT.glob(pattern) if path.is_file())
    named = re.findall(r"\b((?:ansible|community|openstack)\.[a-z_]+)\.[a-z_]+\b", text)
    return {name for name in named if name.split(".")[1] not in {"cfg", "log"}} - BUILTIN


def test_every_requirement_is_pinned_exactly() -> None:
    assert [
        line for line in stated("requirements.txt") if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!+-]*", line)
    ] == []


def test_pins_cover_what_is_asked_for() -> None:
    pinned = {normal(name): version for name, version in PINNED.items()}
    for line in stated("requirements.in"):
        name, _, version = line.partition("==")
        assert normal(name) in pinned, f"{name} is not in requirements.txt: run make pins"
        assert not version or pinned[normal(name)] == version, f"requirements.txt has another {name}: run make pins"


@pytest.mark.parametrize("name", sorted(PINNED))
def test_installed_package_is_the_pinned_one(name: str) -> None:
    assert importlib.metadata.version(name) == PINNED[name]


def test_collections_are_those_that_are_used() -> None:
    assert set(install_collections.wanted_collections(PROJECT / "requirements.yml")) == used_collections()


def test_installed_collections_are_the_wanted_ones() -> None:
    root = PROJECT / ".cache" / "collections"
    wanted = install_collections.wanted_collections(PROJECT / "requirements.yml")
    assert install_collections.problems(root, wanted) == []


def collection_bundle(path: Path, versions: dict[str, str]) -> Path:
    """A wheel like that of the package ansible."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, version in versions.items():
            manifest = json.dumps({"collection_info": {"version": version}})
            archive.writestr(f"ansible_collections/{name.replace('.', '/')}/MANIFEST.json", manifest)
        archive.writestr("ansible_collections/ansible_community.py", "")
    return path


def test_only_wanted_collections_are_unpacked(tmp_path: Path) -> None:
    bundle = collection_bundle(tmp_path / "x.whl", {"a.b": "1.0.0", "a.bc": "1.0.0", "c.d": "2.0.0"})
    install_collections.unpack(bundle, tmp_path, ["a.b"])
    assert [path.name for path in (tmp_path / "ansible_collections" / "a").iterdir()] == ["b"]
    assert install_collections.problems(tmp_path, {"a.b": "1.0.0"}) == []


def test_a_missing_and_a_differing_collection_are_named(tmp_path: Path) -> None:
    install_collections.unpack(collection_bundle(tmp_path / "x.whl", {"a.b": "1.0.0"}), tmp_path, ["a.b"])
    assert install_collections.problems(tmp_path, {"a.b": "1.0.1", "c.d": "2.0.0"}) == [
        "a.b: version 1.0.1 is wanted, the bundle has 1.0.0",
        "c.d: version 2.0.0 is wanted, the bundle has none",
    ]


@pytest.mark.parametrize("version", ["", ">=1.0", "1.0,<2", "*"])
def test_a_collection_needs_an_exact_version(tmp_path: Path, version: str) -> None:
    requirements = tmp_path / "requirements.yml"
    stream = io.StringIO()
    yaml.safe_dump({"collections": [{"name": "a.b", "version": version}]}, stream)
    requirements.write_text(stream.getvalue())
    with pytest.raises(ValueError, match="one exact version"):
        install_collections.wanted_collections(requirements)
