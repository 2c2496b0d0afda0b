# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest

from tools import role_reference

PROJECT = Path(__file__).resolve().parents[3]


def test_reference_is_up_to_date() -> None:
    wanted = role_reference.pages(PROJECT / "roles")
    assert role_reference.outdated(wanted, role_reference.PAGES) == [], "run make reference"


def test_every_role_has_a_page() -> None:
    roles = {path.parent.parent.name for path in (PROJECT / "roles").glob("*/tasks/main.yml")}
    assert roles <= {name.removesuffix(".md") for name in role_reference.pages(PROJECT / "roles")}


def test_rows_show_type_default_and_meaning() -> None:
    options = {
        "x_timeout": {"type": "int", "description": "Seconds, see C(a|b).", "default": 3, "choices": [3, 4]},
        "x_items": {
            "type": "list",
            "elements": "dict",
            "description": ["One.", "Two."],
            "default": [],
            "options": {"name": {"type": "str", "required": True, "description": "Name."}},
        },
        "x_secret": {"type": "str", "required": True, "no_log": True, "description": "Secret."},
        "x_derived": {"type": "str", "description": "Derived."},
    }
    assert role_reference.rows(options, {"x_derived": "{{ a\n  + b }}"}) == [
        "| `x_timeout` | int | `3` | Seconds, see `a\\|b`. One of `3`, `4`. |",
        "| `x_items` | list of dict | `[]` | One. Two. |",
        "| `x_items[].name` | str | required | Name. |",
        "| `x_secret` | str | generated | Secret. |",
        "| `x_derived` | str | `{{ a + b }}` | Derived. |",
    ]


def test_empty_text_is_shown_as_such() -> None:
    assert role_reference.code("") == "`''`"


def test_a_page_of_no_role_is_outdated(tmp_path: Path) -> None:
    (tmp_path / "gone.md").write_text("")
    (tmp_path / "same.md").write_text("same")
    assert role_reference.outdated({"same.md": "same", "new.md": ""}, tmp_path) == ["gone.md", "new.md"]


def test_defaults_may_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "defaults" / "main").mkdir(parents=True)
    (tmp_path / "defaults" / "main" / "a.yml").write_text("a: 1\n")
    (tmp_path / "defaults" / "main" / "b.yml").write_text("b: 2\n")
    assert role_reference.load_defaults(tmp_path) == {"a": 1, "b": 2}


def test_update_writes_removes_and_names_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(role_reference, "PROJECT", tmp_path)
    directory = tmp_path / "pages"
    directory.mkdir()
    (directory / "gone.md").write_text("")
    assert role_reference.update({"new.md": "text"}, directory, check=True)
    assert [path.name for path in directory.iterdir()] == ["gone.md"]
    assert role_reference.update({"new.md": "text"}, directory, check=False)
    assert [(path.name, path.read_text()) for path in directory.iterdir()] == [("new.md", "text")]
    assert not role_reference.update({"new.md": "text"}, directory, check=True)
    assert "pages/gone.md is outdated" in capsys.readouterr().out
