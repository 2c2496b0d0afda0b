# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The callback plugin prebuild, in a run of Ansible that says what it loads and when."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.executor.module_common import _CachedModule

from plugins.callback import prebuild

PROJECT = Path(__file__).resolve().parents[2]
PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Use filters and tests of Ansible's and a filter of the project's
      ansible.builtin.debug:
        msg: "{{ [1] | ansible.builtin.flatten | map('string') | first }}{{ 'x@' | oslo_value }}"
      when: 1 is ansible.builtin.number
"""


def test_what_every_task_needs_is_loaded_before_the_first_one(tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    variables = {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_DEBUG": "1", "ANSIBLE_LOCALHOST_WARNING": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", str(tmp_path / "play.yml")],
        env=inherited | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    loaded = r"Loading (?:FilterModule|TestModule|ActionModule) '[^']*' from (\S+\.py)(?! \(found_in_cache=True)"
    before, begins, task = done.stdout.partition(" in run() - task ")
    assert begins and "ok: [localhost]" in task
    # What a worker looks up again and finds in memory counts for nothing.
    early = set(re.findall(loaded, before))
    assert {Path(path).name for path in early} >= {"core.py", "cloud.py", "config_files.py"}
    assert {path for path in re.findall(loaded, task) if "/filter/" in path or "/test/" in path} == set()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packed modules are kept, of a project with one module, for a run with a directory of its own."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "look.py").write_text("one")
    monkeypatch.setattr(prebuild, "LIBRARY", library)
    monkeypatch.setattr(prebuild, "SOURCES", (library,))
    monkeypatch.setattr(prebuild.C, "DEFAULT_LOCAL_TMP", str(tmp_path / "run"))
    return tmp_path / "kept" / prebuild.fingerprint()


def test_a_later_run_takes_what_was_packed(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not prebuild.take(kept)
    name = "ansible.legacy.look-ZIP_DEFLATED-none"
    prebuild.packed().mkdir(parents=True)
    for file in (name, f"{name}.lock", "ansible.legacy.other-ZIP_DEFLATED-none"):
        (prebuild.packed() / file).write_text("packed")
    (kept.parent / "of older sources").mkdir(parents=True)
    # Twice, as by two runs at the same time.
    for _ in range(2):
        prebuild.keep(kept)
        assert [path.name for path in kept.parent.iterdir()] == [kept.name]
        assert kept.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(prebuild.C, "DEFAULT_LOCAL_TMP", str(tmp_path / "later"))
    assert prebuild.take(kept)
    assert [(path.name, path.read_text()) for path in prebuild.packed().iterdir()] == [(name, "packed")]


def run_module(packed: bytes, tmp_path: Path) -> str:
    """What a packed module prints when Python runs it as Ansible lets it run."""
    (tmp_path / "module.zip").write_bytes(packed)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import ansible.legacy.look as look; print(look.__file__)"
    command = [sys.executable, "-I", "-c", code, str(tmp_path / "module.zip")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def dump(path: Path, entries: dict[str, bytes]) -> None:
    """A packed module as Ansible keeps it."""
    zip_data = base64.b64encode(prebuild.archive_of(entries))
    _CachedModule(zip_data=zip_data, metadata=None, source_mapping={}).dump(str(path))


def entries_in(path: Path) -> dict[str, bytes]:
    return prebuild.entries_of(base64.b64decode(_CachedModule.load(str(path)).zip_data))


LOOK = {"ansible/__init__.py": b"", "ansible/legacy/__init__.py": b"", "ansible/legacy/look.py": b"print('looked')"}


def test_packed_modules_are_imported_from_where_the_host_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = tmp_path / "kept_code.py"
    keeper.write_text(prebuild.KEEPER.read_text().replace("/run/kilonova", str(tmp_path / "host")))
    monkeypatch.setattr(prebuild, "KEEPER", keeper)
    packed = tmp_path / "packed"
    packed.mkdir()
    dump(packed / "look", LOOK)
    dump(packed / "other", {"ansible/__init__.py": b"", "ansible/legacy/other.py": b"2"})
    prebuild.let_hosts_keep(packed)
    archive = prebuild.archive_of(entries_in(packed / "look"))
    kept = f"looked\n{tmp_path}/host/code/"
    # The first call unpacks, the second one finds it there, with its byte code.
    for _ in range(2):
        assert run_module(archive, tmp_path).startswith(kept)
    (directory,) = (tmp_path / "host" / "code").iterdir()
    assert list((directory / "ansible" / "legacy" / "__pycache__").glob("look.*.pyc"))
    assert not (directory / "ansible" / "legacy" / "other.py").exists()
    # Where nothing can be kept, the module is complete.
    (tmp_path / "host").chmod(0o777)
    assert run_module(archive, tmp_path) == f"looked\n{tmp_path}/module.zip/ansible/legacy/look.py\n"


@pytest.mark.parametrize("other", ["not a packed module", "another source of the same name", "no package ansible"])
def test_what_is_packed_in_another_way_stays_as_it_is(tmp_path: Path, other: str) -> None:
    dump(tmp_path / "look", LOOK)
    if other == "not a packed module":
        (tmp_path / "other").write_text(other)
    else:
        entries = {"ansible/__init__.py": b"1"} if other.startswith("another") else {"look.py": b""}
        dump(tmp_path / "other", entries)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    prebuild.let_hosts_keep(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_sources_have_another_name() -> None:
    name = prebuild.sources_name([LOOK, {"ansible/__init__.py": b""}])
    assert name == prebuild.sources_name([LOOK]) != ""
    assert prebuild.sources_name([{**LOOK, "ansible/legacy/look.py": b"print('another')"}]) not in ("", name)


def test_other_sources_are_packed_anew(kept: Path) -> None:
    (prebuild.LIBRARY / "look.py").write_text("another one")
    assert prebuild.fingerprint() != kept.name


def test_what_cannot_be_taken_leaves_nothing(kept: Path) -> None:
    kept.mkdir(parents=True)
    (kept / "one").write_text("one")
    (kept / "broken").symlink_to("nowhere")
    assert not prebuild.take(kept) and not prebuild.packed().exists()
