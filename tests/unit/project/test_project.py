# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The project as a whole: headers, paths in documents, make targets, playbooks."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.kilonova.preflight.names import RETIRED

from tests.site_tasks import listed

PROJECT = Path(__file__).resolve().parents[3]
SKIPPED = {".git", ".venv", ".cache", "__pycache__", ".lab", "node_modules"}
PLAYBOOKS = sorted([PROJECT / "site.yml", *PROJECT.glob("playbooks/*.yml"), *PROJECT.glob("molecule/*/*.yml")])
PLAYBOOKS = [path for path in PLAYBOOKS if path.name not in {"molecule.yml"}]
DOCS = PROJECT / "docs"
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *DOCS.rglob("*.md")])
# Without the generated reference, which quotes paths of hosts and of examples.
WRITTEN = [path for path in DOCUMENTS if not path.is_relative_to(DOCS / "reference")]
LICENCE = "SPDX-License-Identifier: Apache-2.0"
HEADER = f"# Copyright the Kilonova authors\n# {LICENCE}\n"


def files(*suffixes: str) -> Iterator[Path]:
    """The project's own files."""
    for directory, names, found in os.walk(PROJECT):
        names[:] = [name for name in names if name not in SKIPPED]
        yield from (Path(directory, name) for name in found if not suffixes or name.endswith(suffixes))


def ignored(path: Path) -> bool:
    """Return whether a YAML file is an operator's: another inventory, or generated secrets."""
    top, below = path.relative_to(PROJECT).parts[0], path.relative_to(PROJECT).parts[1:2]
    return path.name == "secrets.yml" or (top == "inventory" and below[0] not in {"lab", "example"})


def relative(path: Path) -> str:
    """A path as test names show it."""
    return str(path.relative_to(PROJECT))


def test_licence_is_complete() -> None:
    text = (PROJECT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_python_files_name_the_licence() -> None:
    assert [relative(path) for path in files(".py") if LICENCE not in path.read_text()] == []


def test_yaml_files_begin_with_the_licence() -> None:
    own = [path for path in files(".yml", ".yaml", ".ansible-lint", ".yamllint") if not ignored(path)]
    assert len(own) > 150
    assert [relative(path) for path in own if not path.read_text().startswith(f"{HEADER}---\n")] == []


def test_scripts_can_be_executed() -> None:
    scripts = [path for path in files() if path.parent.name in {"tools", ".ci"} and path.read_bytes().startswith(b"#!")]
    assert scripts
    assert [relative(path) for path in scripts if not path.stat().st_mode & stat.S_IXUSR] == []


@pytest.mark.parametrize(
    "script", ["tools/setup", "tools/pins", "tools/molecule-test", "tools/bench/baseline.sh", ".ci/run"]
)
def test_shell_scripts_parse(script: str) -> None:
    subprocess.run(["bash", "-n", str(PROJECT / script)], check=True)


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=relative)
def test_every_play_and_task_is_named(playbook: Path) -> None:
    for play in yaml.safe_load(playbook.read_text()):
        assert play.get("name"), play
        for tasks in (play.get("pre_tasks"), play.get("tasks"), play.get("post_tasks"), play.get("handlers")):
            assert all(task.get("name") for task in tasks or [])


def imported(playbook: Path) -> set[Path]:
    """All playbooks that a playbook imports, and those that these import."""
    plays = yaml.safe_load(playbook.read_text())
    names = [play.get("ansible.builtin.import_playbook") or play.get("import_playbook") for play in plays]
    found = {(playbook.parent / name).resolve() for name in names if name}
    return found.union(*(imported(path) for path in found))


def test_ansible_lint_finds_the_playbooks_that_it_is_not_given() -> None:
    command = ["make", "--dry-run", "check-ansible"]
    recipe = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    left_out = {PROJECT / name for name in re.findall(r"':!([\w/]+\.yml)'", recipe)}
    assert PROJECT / "site.yml" in left_out and left_out < set(PLAYBOOKS)
    assert left_out <= set().union(*(imported(path) for path in set(PLAYBOOKS) - left_out))


# ansible-lint does it for every playbook, but without an inventory.
@pytest.mark.parametrize("inventory", ["inventory/lab", "inventory/example"])
def test_site_fits_the_inventory(inventory: str) -> None:
    result = listed(inventory)
    assert "WARNING" not in result.stderr, result.stderr


def links(document: Path) -> Iterator[str]:
    """Return the targets of a document's relative links, code blocks left out."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named_paths(document: Path) -> list[str]:
    """Return the project's paths that a document names in backquotes, such as `roles/nova/templates/x.j2`."""
    tops = {path.name for path in PROJECT.iterdir() if path.is_dir()} - SKIPPED
    found = re.findall(r"`([\w.-]+/[\w./*-]*)(?:::\w+)?`", document.read_text())
    # Documents call the reader's inventory mysite.
    return [name for name in found if name.partition("/")[0] in tops and "mysite" not in name and "mylab" not in name]


def broken_links(document: Path) -> list[str]:
    """Return links whose file or anchor does not exist."""
    broken = []
    for target in links(document):
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title, here\n[a](page.md#a-title-here) [b](#nowhere) [c](gone.md) [d](https://example.org)\n")
    assert broken_links(page) == ["#nowhere", "gone.md"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(document: Path) -> None:
    assert broken_links(document) == []


def test_every_page_is_linked() -> None:
    """docs/README.md links every page, of some directories only the index."""
    start = DOCS / "README.md"
    reached = {(DOCS / target.partition("#")[0]).resolve() for target in links(start)}
    indexes = {path for path in reached if path.name == "README.md" and path.is_relative_to(DOCS)}
    assert indexes
    reached |= {(index.parent / target.partition("#")[0]).resolve() for index in indexes for target in links(index)}
    assert [relative(path) for path in DOCS.rglob("*.md") if path not in reached | {start}] == []


@pytest.mark.parametrize("document", WRITTEN, ids=relative)
def test_named_paths_exist(document: Path) -> None:
    # A guide may write files of a role that it makes up.
    created = set(re.findall(r"^```\w+ title=(\S+)$", document.read_text(), re.MULTILINE))
    named = [name for name in named_paths(document) if name not in created]
    assert [name for name in named if not any(PROJECT.glob(name.rstrip("/")))] == []


def test_named_paths_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`roles/gone/x.yml` `tests/host/test_x.py::test_y` `inventory/mysite/hosts.yml` `/etc/roles/x` `a/b`"
    )
    assert named_paths(page) == ["roles/gone/x.yml", "tests/host/test_x.py"]
    assert sum(len(named_paths(document)) for document in WRITTEN) > 100


def role_variables() -> set[str]:
    """Return every variable of a role: options, defaults, vars."""
    found: set[str] = set()
    for path in [*PROJECT.glob("roles/*/defaults/**/*.yml"), *PROJECT.glob("roles/*/vars/**/*.yml")]:
        found |= set(yaml.safe_load(path.read_text()) or {})
    for path in PROJECT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            found |= set(entry.get("options") or {})
    return found


def unknown_variables(text: str, known: set[str]) -> set[str]:
    """Return what a text names in backquotes like a variable of a role and is none, with or without a value."""
    # The role service has no variables.
    roles = {path.name for path in (PROJECT / "roles").iterdir()} - {"service"} | {"flat", "fixed", "cloud"}
    named = re.findall(r"`(?:-e )?([a-z0-9]+(?:_[a-z0-9]+)+)(?:[:=][^`]*)?`", text)
    return {name for name in named if name.startswith(tuple(f"{role}_" for role in roles))} - known


def test_documented_variables_exist() -> None:
    known = role_variables() | {path.stem for path in PROJECT.glob("library/*.py")}
    known |= {path.name for path in (PROJECT / "roles").iterdir()} | {*RETIRED}
    # The seed map names options of 2013.
    pages = [path for path in WRITTEN if path.name != "seed-map.md"]
    found = {relative(path): unknown_variables(path.read_text(), known) for path in pages}
    assert {page: names for page, names in found.items() if names} == {}


def test_unknown_variables_are_found() -> None:
    text = "`nova_conf_overrides: {}` `nova_typo` `verify_typo=3` `not_one_of_ours` `nova-compute`"
    assert unknown_variables(text, {"nova_conf_overrides"}) == {"nova_typo", "verify_typo"}


def test_documented_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name for path in WRITTEN for name in re.findall(r"(?:`|^    )make ([a-z-]+)", path.read_text(), re.MULTILINE)
    }
    assert len(named) > 10
    assert named - targets == set()


def test_every_playbook_is_in_the_readme() -> None:
    readme = (PROJECT / "README.md").read_text()
    assert [path.name for path in PROJECT.glob("playbooks/*.yml") if f"playbooks/{path.name}" not in readme] == []


def test_seed_map_has_no_empty_cell() -> None:
    rows = [line for line in (DOCS / "internals" / "seed-map.md").read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    body = [row for row in cells if not set("".join(row)) <= set("-: ")]
    assert len(body) > 50
    assert [row for row in body if len(row) != 3 or not all(row)] == []


def test_tests_named_in_the_seed_map_exist() -> None:
    text = (DOCS / "internals" / "seed-map.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 30
    missing = [f"{path}::{test}" for path, test in named if f"def {test}(" not in (PROJECT / path).read_text()]
    assert missing == []


def test_nothing_but_the_lab_knows_about_containers() -> None:
    word = re.compile(r"nspawn|systemd-container|docker", re.IGNORECASE)
    outside = [
        relative(path)
        for directory in ("roles", "library", "module_utils", "plugins", "templates")
        for path in files(".py", ".yml", ".j2")
        if path.is_relative_to(PROJECT / directory) and "lab" not in re.split(r"[/_.]", relative(path))
        if word.search(path.read_text())
    ]
    assert outside == []


def test_make_lists_its_targets() -> None:
    result = subprocess.run(["make", "--no-print-directory"], cwd=PROJECT, capture_output=True, text=True, check=True)
    for target in ("setup", "cloud", "destroy", "check", "test"):
        assert re.search(rf"^ +{target} ", result.stdout, re.MULTILINE), target


def test_pytest_accepts_the_options_of_molecule(tmp_path: Path) -> None:
    configuration = yaml.safe_load((PROJECT / ".config" / "molecule" / "config.yml").read_text())
    verifier = configuration["verifier"]
    # Molecule joins them to a command line, long after the cloud was deployed.
    assert {name: value for name, value in verifier["options"].items() if not isinstance(value, (str, bool))} == {}
    arguments = [f"--{name}={value}" for name, value in verifier["options"].items() if isinstance(value, str)]
    places = {"${MOLECULE_SCENARIO_DIRECTORY}": "molecule/default", "${MOLECULE_PROJECT_DIRECTORY}": "."}
    for place, path in places.items():
        arguments = [argument.replace(place, path) for argument in arguments]
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", *arguments, str(tmp_path)]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, result.stdout + result.stderr
