# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The lab's base images and package cache."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
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


@dataclass
class Labs:
    """The directories of labs, and a build of images that is counted."""

    path: Path
    builds: int = 0
    failing: bool = False

    @property
    def images(self) -> list[Path]:
        return sorted((self.path / "cache/images").glob("*.root"))

    def run(self, argv: list[str], timeout: float = 0) -> None:
        if argv[0] == "rm":
            shutil.rmtree(argv[-1])
            return
        self.builds += 1
        Path(argv[-1]).mkdir()
        if self.failing:
            raise LabError("no network")

    def link(self, machine: str, recipe: lab_image.Recipe = RECIPE) -> tuple[Path, list[str]]:
        """Create a machine; return its image and warnings."""
        link = self.path / "lab/0f0f0f0f/machines" / machine / "image"
        link.parent.mkdir(parents=True, exist_ok=True)
        warnings = lab_image.link_image(recipe, 14, link, self.path / "cache")
        return link.resolve(strict=True), warnings

    def age(self, days: float) -> None:
        """Make all images older. Their names have seconds in them."""
        links = list(self.path.glob("lab/*/machines/*/image"))
        for image in self.images:
            built = image.stat().st_mtime - days * lab_image.DAY
            name, _, _ = image.name.rpartition("-")
            older = image.rename(image.with_name(f"{name}-{int(built)}.root"))
            os.utime(older, (built, built))
            for link in links:
                if os.readlink(link) == str(image):
                    link.unlink()
                    link.symlink_to(older)


@pytest.fixture
def labs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Labs:
    labs = Labs(tmp_path)
    monkeypatch.setattr(lab_image, "run", labs.run)
    return labs


def test_image_is_built_once(labs: Labs):
    left = labs.path / f"cache/images/{RECIPE.name}.work"  # of a killed run
    (left / "root").mkdir(parents=True)
    assert labs.link("a") == labs.link("b")
    assert labs.builds == 1
    assert not left.exists()


def test_old_image_is_built_anew_and_kept_while_a_machine_uses_it(labs: Labs):
    labs.link("a")
    labs.age(15)
    (old,) = labs.images
    new, warnings = labs.link("b")
    assert warnings == []
    assert labs.images == [old, new]
    labs.link("a")
    assert labs.images == [new]


def test_old_image_is_kept_if_no_other_can_be_built(labs: Labs):
    labs.link("a")
    labs.age(15)
    labs.failing = True
    image, warnings = labs.link("b")
    assert labs.images == [image]
    assert "15 days old" in warnings[0]
    assert "no network" in warnings[0]


def test_image_of_another_recipe_is_kept_for_two_periods(labs: Labs):
    labs.link("a", lab_image.Recipe("forky", ("systemd",)))
    labs.age(20)
    labs.link("a")
    assert len(labs.images) == 2
    labs.age(10)
    labs.link("a")
    assert [image.name.startswith(RECIPE.name) for image in labs.images] == [True]


def test_failed_first_build_leaves_no_image(labs: Labs):
    labs.failing = True
    with pytest.raises(LabError, match="base image failed. no network"):
        labs.link("a")
    assert labs.images == []


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
    assert [path.name for path in lab_image.outdated(tmp_path)] == ["a_1_amd64.deb"]
