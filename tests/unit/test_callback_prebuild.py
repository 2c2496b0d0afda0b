# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The callback plugin prebuild, in a run of Ansible that says what it loads and when."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import zipfile
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


def archive_of(source: str, byte_code: bytes | None = None) -> bytes:
    """A zip file with one module; with its byte code, or with the one given."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("look.py", source)
        if byte_code is not None:
            archive.writestr("look.pyc", byte_code)
    return made.getvalue()


def imported(archive: bytes, path: Path) -> str:
    """What the module in a zip file prints."""
    path.write_bytes(archive)
    command = [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import look", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_byte_code_is_imported_in_place_of_its_source(tmp_path: Path) -> None:
    complete = prebuild.with_byte_code(archive_of("print('source')"), {})
    assert imported(complete, tmp_path / "complete.zip") == "source\n"
    with zipfile.ZipFile(io.BytesIO(complete)) as archive:
        byte_code = archive.read("look.pyc")
    assert imported(archive_of("print('not read')", byte_code), tmp_path / "byte_code.zip") == "source\n"
    # Another Python's begins with another number, and the source counts.
    other = b"\0\0" + byte_code[2:]
    assert imported(archive_of("print('compiled')", other), tmp_path / "other.zip") == "compiled\n"


def test_packed_modules_get_byte_code(tmp_path: Path) -> None:
    module = _CachedModule(zip_data=base64.b64encode(archive_of("one = 1")), metadata=None, source_mapping={})
    module.dump(str(tmp_path / "module"))
    (tmp_path / "unknown").write_text("not a packed module")
    prebuild.add_byte_code(tmp_path)
    found = _CachedModule.load(str(tmp_path / "module"))
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(found.zip_data))) as archive:
        assert archive.namelist() == ["look.py", "look.pyc"]
    assert (tmp_path / "unknown").read_text() == "not a packed module"


def test_other_sources_are_packed_anew(kept: Path) -> None:
    (prebuild.LIBRARY / "look.py").write_text("another one")
    assert prebuild.fingerprint() != kept.name


def test_what_cannot_be_taken_leaves_nothing(kept: Path) -> None:
    kept.mkdir(parents=True)
    (kept / "one").write_text("one")
    (kept / "broken").symlink_to("nowhere")
    assert not prebuild.take(kept) and not prebuild.packed().exists()
