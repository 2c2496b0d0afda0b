# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The names of files of variables that cannot be read."""

from __future__ import annotations

from pathlib import Path

from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.template import Templar

from plugins.callback import inventory_files


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_files_that_ansible_reads(tmp_path: Path) -> None:
    hosts = write(tmp_path / "hosts.yml", "")
    read = [
        write(tmp_path / name, "a: 1\n") for name in ("group_vars/all/cloud.yml", "group_vars/lab", "host_vars/c.json")
    ]
    for name in ("group_vars/all/.cloud.yml.swp", "group_vars/all/cloud.yml~", "host_vars/.git/c.yml", "other/x.yml"):
        write(tmp_path / name, "a: 1\n")
    assert list(inventory_files.variable_files([str(hosts), str(tmp_path), "ctl1,"])) == read


def test_each_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    good = write(tmp_path / "good.yml", "a: 1\n")
    broken = write(tmp_path / "broken.yml", "a: 1\nb: [1, 2\nc: 3\n")
    secret = VaultSecret(b"password")
    encrypted = VaultLib([("default", secret)]).encrypt(b"a: 1\n", secret).decode()
    locked = write(tmp_path / "locked.yml", encrypted)
    loader = DataLoader()
    found = list(inventory_files.unreadable(loader, [good, broken, locked]))
    assert [text.split(": ")[0] for text in found] == [f"{broken}, line 3", str(locked)]
    assert "YAML parsing failed" in found[0]
    assert "vault" in found[1]


def test_what_ansible_reads_later_is_trusted(tmp_path: Path) -> None:
    path = write(tmp_path / "good.yml", 'a: "{{ 1 + 1 }}"\n')
    loader = DataLoader()
    assert list(inventory_files.unreadable(loader, [path])) == []
    value = loader.load_from_file(str(path), trusted_as_template=True)["a"]
    assert Templar(loader=loader).template(value) == 2
