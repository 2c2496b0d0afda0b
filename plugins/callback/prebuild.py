# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Does once, or beside the first tasks, what Ansible would do again in each task."""

from __future__ import annotations

DOCUMENTATION = r"""
name: prebuild
type: aggregate
short_description: Load plugins once, and pack the project's modules beforehand on another processor
version_added: "0.1.0"
author: The Kilonova authors (@kilonova)
description:
  - Ansible runs each task in a process of its own, a copy of the one that reads the playbook. Plugins that were not
    loaded before are loaded in each copy, and are lost with it. The filters alone take 45 ms, twice what a skipped task
    takes without. So the plugins that nearly every task needs are loaded when a playbook begins.
  - Before Ansible first runs a module, it packs it with what it imports, which takes a quarter of a second of one
    processor for each. A run with little to do waits for that more than for anything else.
  - Packs the modules of the project in a process of its own when a playbook begins, into the run's own cache,
    where the tasks then find them. What is not there in time, or cannot be packed, is packed as ever.
  - Keeps what it has packed in C(.cache/prebuild) of the project, for later runs with the same sources and the same
    Ansible, which then pack nothing.
  - What is kept tells the host to keep its sources, too, below C(/run/kilonova/code), where only root reads and writes.
    Python on the host then compiles them once and not in every call, a tenth of a second for each.
  - Prints nothing. Packs nothing on a computer with one processor.
requirements:
  - allowed in configuration (C(callback_plugins))
"""

import base64
import contextlib
import dataclasses
import hashlib
import io
import os
import pickle
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ansible.constants as C
import ansible.release
from ansible.executor.module_common import modify_module
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import action_loader
from ansible.template import Templar, trust_as_template

PROJECT = Path(__file__).resolve().parents[2]
LIBRARY = PROJECT / "library"
SOURCES = (LIBRARY, PROJECT / "module_utils")
ACTIONS = PROJECT / "plugins" / "action"
# What tells that Ansible's packed modules are not what this was written for (ansible-core 2.19).
UNKNOWN_SHAPE = (AttributeError, KeyError, TypeError, ValueError, pickle.PickleError, zipfile.BadZipFile)
PACKAGE = "ansible"
KEEPER = PROJECT / "module_utils" / "kept_code.py"
KEPT = PROJECT / ".cache" / "prebuild"
# In the order in which a deployment needs them; the others follow.
FIRST = ("preflight_facts", "apt_packages", "network_bridge", "config_files", "systemd_units", "guest_image")


def load() -> None:
    """Load what the workers would load, each for itself."""
    # All filters and all tests are loaded when the first of them is used.
    templar = Templar(loader=DataLoader(), variables={})
    templar.template(trust_as_template("{{ 1 | default(1) is number }}"))
    for name in ("normal", *(path.stem for path in ACTIONS.glob("*.py"))):
        action_loader.get(name, class_only=True)


def modules() -> list[str]:
    """The project's modules, those that come first first."""
    return sorted((path.stem for path in LIBRARY.glob("*.py")), key=lambda name: (name not in FIRST, name))


def pack(name: str) -> None:
    """Pack one module into the run's cache."""
    modify_module(
        module_name=name,
        module_path=str(LIBRARY / f"{name}.py"),
        module_args={},
        templar=Templar(loader=DataLoader(), variables={}),
        task_vars={},
        module_compression=C.DEFAULT_MODULE_COMPRESSION,
    )


def packed() -> Path:
    """Where this run's tasks look for packed modules."""
    return Path(C.DEFAULT_LOCAL_TMP) / "ansiballz_cache"


def fingerprint() -> str:
    """Another one for all that could make a packed module another one."""
    files = [(path, path.stat()) for source in SOURCES for path in sorted(source.glob("*.py"))]
    about = [ansible.release.__version__, ansible.release.__file__, sys.version, C.DEFAULT_MODULE_COMPRESSION]
    about += [f"{path} {stat.st_mtime_ns} {stat.st_size}" for path, stat in files]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]


def take(kept: Path) -> bool:
    """Give the run what an earlier one has packed. Whether there was any."""
    try:
        shutil.copytree(kept, packed(), dirs_exist_ok=True)
    except OSError:
        # There is none, or it was replaced meanwhile. Half a file would not be recognised as such.
        shutil.rmtree(packed(), ignore_errors=True)
        return False
    return True


def entries_of(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def archive_of(entries: Mapping[str, bytes]) -> bytes:
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in entries.items():
            packed.writestr(name, content)
    return result.getvalue()


def sources_name(archives: Iterable[Mapping[str, bytes]]) -> str:
    """A name for what all archives have together, another one for other sources; empty where two of them differ."""
    together: dict[str, bytes] = {}
    for entries in archives:
        for name, content in entries.items():
            if together.setdefault(name, content) != content:
                return ""
    text = "\n".join(f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in sorted(together.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def kept_by_the_host(entries: Mapping[str, bytes], sources: str, module: str) -> dict[str, bytes]:
    """The same module, which imports Ansible's package from where the host keeps it (module_utils/kept_code.py)."""
    begin = f"\nfrom {PACKAGE}.{KEEPER.stem} import locate\n__path__ = locate(__path__, {sources!r}, {module!r})\n"
    start = f"{PACKAGE}/__init__.py"
    return {
        **entries,
        start: entries[start] + begin.encode(),
        f"{PACKAGE}/{KEEPER.name}": KEEPER.read_bytes(),
    }


def let_hosts_keep(directory: Path) -> None:
    """Let hosts keep packed modules' sources. Where Ansible packs them in another shape, they stay as they are."""
    try:
        modules = {path: pickle.loads(path.read_bytes()) for path in sorted(directory.iterdir())}
        archives = {path: entries_of(base64.b64decode(module.zip_data)) for path, module in modules.items()}
        sources = sources_name(archives.values())
        if not sources:
            return
        packed = {path: archive_of(kept_by_the_host(entries, sources, path.name)) for path, entries in archives.items()}
        made = {
            path: pickle.dumps(dataclasses.replace(modules[path], zip_data=base64.b64encode(archive)))
            for path, archive in packed.items()
        }
    except UNKNOWN_SHAPE:
        return
    for path, content in made.items():
        path.write_bytes(content)


def keep(kept: Path) -> None:
    """Keep what this run has packed, in place of what was kept before."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=kept.parent))
    for name in modules():
        for path in packed().glob(f"*.{name}-*"):
            if not path.name.endswith((".lock", "-part")):
                shutil.copy(path, new)
    let_hosts_keep(new)
    # Complete or not at all. It fails where another run has done it at the same time.
    with contextlib.suppress(OSError):
        new.rename(kept)
    for other in kept.parent.iterdir():
        if other != kept:
            shutil.rmtree(other, ignore_errors=True)


class CallbackModule(CallbackBase):
    """Entry point for Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "prebuild"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        load()
        kept = KEPT / fingerprint()
        if take(kept) or len(os.sched_getaffinity(0)) < 2:
            return
        run = os.getpid()
        if os.fork():
            return
        try:
            # Whoever reads the run's output must not wait for this process, nor may it go on after a short run.
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(nothing, stream)
            for name in modules():
                if os.getppid() != run:
                    return
                pack(name)
            keep(kept)
        finally:
            os._exit(0)
