# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""tools/setup, with an interpreter that only records what pip is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
FILES = ("requirements.txt", "requirements-dev.txt", "requirements-collections.txt", "requirements.yml")
INTERPRETER = """#!/bin/bash
arguments=$*
case "$arguments" in
    --version) echo Python 3.13.5 ;;
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo venv >>"$LOG" ;;
    "-m pip --disable-pip-version-check --quiet --quiet install "*)
        [ ! -e "$BROKEN" ] || exit 1
        echo "install ${arguments##*--require-hashes }" >>"$LOG" ;;
    "- "*) cat >/dev/null ;;
    tools/install_collections.py*) mkdir -p "$3"; echo collections >>"$LOG" ;;
esac
"""
DEPLOY = "install --only-binary :all: --requirement requirements.txt"
DEV = "install --requirement requirements-dev.txt"


class Checkout:
    """A copy of what setup reads, and a record of what it did."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "checkout"
        self.log = directory / "log"
        self.broken = directory / "broken"
        self.python = directory / "python"
        (self.root / "tools").mkdir(parents=True)
        for name in ("tools/setup", "tools/install_collections.py", *FILES):
            shutil.copy(PROJECT / name, self.root / name)
        self.python.write_text(INTERPRETER)
        self.python.chmod(0o755)
        self.programs = directory / "programs"
        self.programs.mkdir()
        for program in ("gcc", "pkg-config", "ssh"):
            (self.programs / program).symlink_to("/bin/true")

    def setup(self, *level: str) -> list[str]:
        """Run setup, and return what it made the interpreter do."""
        self.log.write_text("")
        subprocess.run(
            [self.root / "tools" / "setup", *level],
            env={
                "PATH": f"{self.programs}:{os.environ['PATH']}",
                "PYTHON": str(self.python),
                "LOG": str(self.log),
                "BROKEN": str(self.broken),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
        )
        return self.log.read_text().splitlines()

    def change(self, name: str) -> None:
        """Change a requirements file."""
        with (self.root / name).open("a") as stream:
            stream.write("# changed\n")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_deployments_get_no_more_than_they_need(checkout: Checkout) -> None:
    assert checkout.setup() == ["venv", DEPLOY]
    assert checkout.setup() == []


def test_development_adds_to_a_deployment(checkout: Checkout) -> None:
    checkout.setup()
    assert checkout.setup("dev") == [DEV, "collections"]
    assert checkout.setup("dev") == []


def test_a_deployment_leaves_development_packages_alone(checkout: Checkout) -> None:
    assert checkout.setup("dev") == ["venv", DEV, "collections"]
    assert checkout.setup() == []
    checkout.change("requirements-dev.txt")
    assert checkout.setup() == []
    assert checkout.setup("dev") == [DEV, "collections"]


def test_removed_collections_are_installed_again(checkout: Checkout) -> None:
    checkout.setup("dev")
    shutil.rmtree(checkout.root / ".cache")
    assert checkout.setup("dev") == [DEV, "collections"]


def test_a_development_environment_stays_one_when_pins_change(checkout: Checkout) -> None:
    checkout.setup("dev")
    checkout.change("requirements.txt")
    assert checkout.setup() == [DEV, "collections"]
    assert checkout.setup("dev") == []


def test_changed_pins_are_installed(checkout: Checkout) -> None:
    checkout.setup()
    checkout.change("requirements-dev.txt")
    assert checkout.setup() == []
    checkout.change("requirements.txt")
    assert checkout.setup() == [DEPLOY]


@pytest.mark.parametrize("level", [[], ["dev"]])
def test_an_interrupted_setup_starts_over(checkout: Checkout, level: list[str]) -> None:
    checkout.setup(*level)
    checkout.change("requirements.txt")
    checkout.broken.touch()
    with pytest.raises(subprocess.CalledProcessError) as failure:
        checkout.setup(*level)
    assert b"setup: pip could not install requirements" in failure.value.stderr
    checkout.broken.unlink()
    assert checkout.setup() == ["venv", DEPLOY]


def test_a_moved_checkout_gets_a_new_environment(checkout: Checkout, tmp_path: Path) -> None:
    checkout.setup()
    checkout.root = checkout.root.rename(tmp_path / "moved")
    assert checkout.setup() == ["venv", DEPLOY]


def test_an_unknown_level_is_refused(checkout: Checkout) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        checkout.setup("production")
    assert b"unknown level production" in failure.value.stderr


def test_only_development_needs_a_compiler(checkout: Checkout) -> None:
    python = checkout.python
    python.write_text(INTERPRETER.replace("esac", "    *Python.h*) exit 1 ;;\nesac"))
    # Fails instead of installing anything.
    (checkout.programs / "apt-get").symlink_to("/bin/false")
    assert checkout.setup() == ["venv", DEPLOY]
    with pytest.raises(subprocess.CalledProcessError) as failure:
        checkout.setup("dev")
    assert b"python3-dev" in failure.value.stderr


def test_an_old_python_is_refused(checkout: Checkout) -> None:
    checkout.python.write_text('#!/bin/bash\n[ "$1" != --version ] || echo Python 3.9.2\nexit 1\n')
    with pytest.raises(subprocess.CalledProcessError) as failure:
        checkout.setup()
    assert b"needs Python 3.11 or newer" in failure.value.stderr and b"Python 3.9.2" in failure.value.stderr


def test_only_what_the_browser_lacks_is_installed(checkout: Checkout) -> None:
    for program in ("dirname", "tr", "id", "apt-get"):
        # Fails instead of installing anything.
        target = "/bin/false" if program == "apt-get" else shutil.which(program)
        (checkout.programs / program).symlink_to(str(target))
    command = [str(checkout.root / "tools" / "setup"), "browser"]
    environment = {"PATH": str(checkout.programs)}
    (checkout.programs / "chromium").symlink_to("/bin/true")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "libnss3-tools" in done.stderr and "chromium" not in done.stderr
    (checkout.programs / "certutil").symlink_to("/bin/true")
    subprocess.run(command, env=environment, check=True)
