# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The lab's base image and package cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.lab import image as lab_image
from ansible.module_utils.kilonova.lab.computer import LabError

RECIPE = lab_image.Recipe("trixie", ("systemd", "openssh-server"))


def deb(path: Path, content: bytes = b"x" * 11, cut: int = 0) -> Path:
    members = b""
    for name, data in ((b"debian-binary", b"2.0\n"), (b"data.tar", content)):
        header = b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 0, 0, 0, b"100644", len(data))
        members += header + data + b"\n" * (len(data) % 2)
    whole = b"!<arch>\n" + members
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole[: len(whole) - cut])
    return path


def test_key_follows_the_recipe_but_not_the_order_of_packages():
    assert RECIPE.key == lab_image.Recipe("trixie", ("openssh-server", "systemd")).key
    assert RECIPE.key != lab_image.Recipe("trixie", ("systemd",)).key
    assert RECIPE.key != lab_image.Recipe("forky", RECIPE.packages).key


def test_no_mirror_is_named_unless_asked_for():
    assert RECIPE.command("out", "tmp")[-2:] == ["trixie", "out"]
    assert lab_image.Recipe("trixie", (), "http://m.example").command("out", "tmp")[-1] == "http://m.example"


def builder(calls: list[list[str]], fail: bool = False):
    def run(argv: list[str], timeout: float) -> None:
        calls.append(argv)
        Path(argv[-1]).write_text("partial" if fail else "image")
        if fail:
            raise LabError("no network")

    return run


def test_image_is_built_once(monkeypatch, tmp_path: Path):
    calls: list[list[str]] = []
    monkeypatch.setattr(lab_image, "run", builder(calls))
    (tmp_path / "images/work/left").mkdir(parents=True)  # of a killed run
    for _ in range(2):
        image, warnings = lab_image.ensure_image(RECIPE, 14, tmp_path)
        assert image.read_text() == "image"
        assert warnings == []
    assert len(calls) == 1
    assert not (tmp_path / "images/work").exists()


def test_old_image_is_built_anew_and_kept_if_that_fails(monkeypatch, tmp_path: Path):
    calls: list[list[str]] = []
    monkeypatch.setattr(lab_image, "run", builder(calls))
    image, _ = lab_image.ensure_image(RECIPE, 14, tmp_path)
    image.write_text("old")
    os.utime(image, (0, 0))
    monkeypatch.setattr(lab_image, "run", builder(calls, fail=True))
    image, warnings = lab_image.ensure_image(RECIPE, 14, tmp_path)
    assert image.read_text() == "old"
    assert "no network" in warnings[0]
    monkeypatch.setattr(lab_image, "run", builder(calls))
    assert lab_image.ensure_image(RECIPE, 14, tmp_path)[0].read_text() == "image"


def test_failed_first_build_leaves_no_image(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(lab_image, "run", builder([], fail=True))
    with pytest.raises(LabError, match="base image failed. no network"):
        lab_image.ensure_image(RECIPE, 14, tmp_path)
    assert not lab_image.image_path(RECIPE, tmp_path).exists()


@pytest.mark.parametrize("content", [b"even", b"odd"])
def test_complete_package(tmp_path: Path, content):
    assert lab_image.is_complete_package(deb(tmp_path / "a.deb", content))


@pytest.mark.parametrize("cut", [1, 30, 80])
def test_cut_package_is_not_complete(tmp_path: Path, cut):
    assert not lab_image.is_complete_package(deb(tmp_path / "a.deb", cut=cut))


def test_other_file_is_not_a_package(tmp_path: Path):
    (tmp_path / "a.deb").write_text("<html>portal</html>")
    assert not lab_image.is_complete_package(tmp_path / "a.deb")


def test_packages_go_from_one_machine_to_the_next_without_being_copied(tmp_path: Path):
    first, second, cache = tmp_path / "first", tmp_path / "second", tmp_path / "cache"
    package = deb(first / "a_1_amd64.deb")
    deb(first / "b_1_amd64.deb", cut=5)
    deb(first / "partial/c_1_amd64.deb")
    assert lab_image.collect_packages(first, cache) == 1
    assert lab_image.collect_packages(first, cache) == 0
    assert lab_image.provide_packages(second, cache) == 1
    assert (second / package.name).stat().st_ino == package.stat().st_ino
    assert sorted(path.name for path in (cache / "packages").iterdir()) == [package.name]


def test_damaged_cached_package_is_replaced(tmp_path: Path):
    archives, cache = tmp_path / "archives", tmp_path / "cache"
    deb(cache / "packages/a_1_amd64.deb", cut=3)
    package = deb(archives / "a_1_amd64.deb")
    assert lab_image.collect_packages(archives, cache) == 1
    assert (cache / "packages/a_1_amd64.deb").read_bytes() == package.read_bytes()


def test_old_versions_leave_the_cache(tmp_path: Path):
    for age, name in enumerate(["a_3_amd64", "a_2_amd64", "a_1_amd64", "a-b_1_amd64", "a_1_i386"]):
        os.utime(deb(tmp_path / f"{name}.deb"), (0, 1000 - age))
    assert [path.name for path in lab_image.superseded(tmp_path)] == ["a_1_amd64.deb"]
