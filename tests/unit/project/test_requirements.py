# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What the project needs is pinned, installed, and used."""

from __future__ import annotations

import importlib.metadata
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import install_collections

PROJECT = Path(__file__).resolve().parents[3]
# Part of ansible-core.
BUILTIN = {"ansible.builtin", "ansible.legacy"}


def entries(name: str) -> list[str]:
    """Return the lines of a requirements file without comments, continued lines joined."""
    lines = (PROJECT / name).read_text().replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def pins(name: str) -> list[Requirement]:
    """Return the requirements of a file made by `make pins`."""
    return [Requirement(entry.partition(" --hash")[0]) for entry in entries(name)]


def applicable(name: str) -> dict[str, str]:
    """Return package names and versions that a pinned file has for this Python."""
    return {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pins(name)
        if not pin.marker or pin.marker.evaluate()
    }


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


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-collections.txt"])
def test_pins_are_exact_and_have_hashes(name: str) -> None:
    pattern = r"[a-z0-9-]+==[0-9][A-Za-z0-9.!+-]*( ; [^#]+)?( --hash=sha256:[0-9a-f]{64})+"
    assert entries(name)
    assert [entry for entry in entries(name) if not re.fullmatch(pattern, entry)] == []


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_pins_cover_what_is_asked_for(name: str) -> None:
    pinned = pins(f"{name}.txt")
    for line in entries(f"{name}.in"):
        if line.startswith("-"):
            continue
        wanted = Requirement(line)
        fitting = [
            pin
            for pin in pinned
            if canonicalize_name(pin.name) == canonicalize_name(wanted.name)
            and wanted.specifier.contains(str(pin.specifier).removeprefix("=="))
        ]
        assert fitting, f"{name}.txt has no {wanted}: run make pins"


def test_deployments_and_tests_use_the_same_versions() -> None:
    deploy, dev = ({(pin.name, str(pin.specifier)) for pin in pins(f"requirements{x}.txt")} for x in ("", "-dev"))
    assert deploy - dev == set()


@pytest.mark.parametrize(("python", "release"), [("3.11", "2.19"), ("3.12", "2.21"), ("3.13", "2.21")])
def test_each_python_gets_its_ansible_core(python: str, release: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    versions = [
        str(pin.specifier)
        for pin in pins("requirements.txt")
        if pin.name == "ansible-core" and pin.marker and pin.marker.evaluate(environment)
    ]
    assert [version.rpartition(".")[0] for version in versions] == [f"=={release}"]


@pytest.mark.parametrize("name", sorted(applicable("requirements-dev.txt")))
def test_installed_package_is_the_pinned_one(name: str) -> None:
    assert importlib.metadata.version(name) == applicable("requirements-dev.txt")[name]


def packages_of(*names: str) -> set[str]:
    """Return the top-level import names that pinned files install."""
    provided = importlib.metadata.packages_distributions()
    wanted = set().union(*(applicable(name) for name in names))
    return {
        module
        for module, distributions in provided.items()
        if {canonicalize_name(distribution) for distribution in distributions} & wanted
    }


# Imports what runs on the control node during a deployment, without the packages that only tests need. Prints what
# the imported files of the project would import later, inside of functions.
CONTROL_NODE = """
import ast, importlib.util, json, pathlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"only requirements-dev.txt has {name}")

absent = set(json.loads(sys.argv[1]))
sys.meta_path.insert(0, Absent())
sys.path.insert(0, "")
import ansible.module_utils
ansible.module_utils.__path__.append("module_utils")
for path in [*pathlib.Path("plugins").glob("*/*.py"), *pathlib.Path("library").glob("lab_*.py")]:
    spec = importlib.util.spec_from_file_location(f"checked_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

later = {}
for name, module in sorted(sys.modules.items()):
    path = pathlib.Path(getattr(module, "__file__", None) or "")
    if not name.startswith(("checked_", "ansible.module_utils.kilonova")) or not path.is_file():
        continue
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    later[name] = sorted(imported & absent)
print(json.dumps(later))
"""


def test_control_node_needs_no_development_packages() -> None:
    absent = packages_of("requirements-dev.txt") - packages_of("requirements.txt")
    assert {"openstack", "libvirt", "pymysql", "pytest", "oslo_config", "requests"} <= absent
    assert absent.isdisjoint({"ansible", "yaml", "jinja2", "cryptography"})
    result = subprocess.run(
        [sys.executable, "-c", CONTROL_NODE, json.dumps(sorted(absent))],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    later = json.loads(result.stdout)
    assert len(later) > 20
    assert {name: packages for name, packages in later.items() if packages} == {}


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
