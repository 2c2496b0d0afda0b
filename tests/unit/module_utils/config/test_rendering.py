# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.module_utils.kilonova.config.rendering import FileRenderer, suspects, with_final_newline


def test_an_undefined_name_is_found_in_partials(tmp_path: Path) -> None:
    (tmp_path / "main.j2").write_text("{% include 'part.j2' %}\n{% import 'main.j2' as m %}\n")
    (tmp_path / "part.j2").write_text("one\n{{ nothere }}\n")
    found = suspects(str(tmp_path / "main.j2"), [str(tmp_path)], "'nothere' is undefined")
    assert found == [f"{tmp_path}/part.j2 line 2"]


def test_texts_end_with_one_newline() -> None:
    assert [with_final_newline(text) for text in ("a", "a\n", "")] == ["a\n", "a\n", ""]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("x", "service_check: files must be a list of mappings"),
        ([{"dest": "x"}], "service_check: dest must be an absolute path, not 'x'"),
        ([{"dest": "/x", "src": "x", "content": "x"}], "service_check: /x needs either src"),
        ([{"dest": "/x", "content": ["x"]}], "service_check: the content of /x is a list, not a text"),
    ],
)
def test_errors_name_the_plugin_that_renders(files: Any, message: str) -> None:
    with pytest.raises(AnsibleActionFail) as failure:
        FileRenderer(None, "service_check").render(files, {})
    assert message in str(failure.value)


def test_files_of_several_services_are_rendered_by_one_renderer() -> None:
    renderer = FileRenderer(None)
    files = [
        {"dest": "/a", "content": "[x]\na = 1", "overrides": {"x": {"a": 2}}, "mode": "0600"},
        {"dest": "/b", "state": "directory"},
    ]
    rendered = [*renderer.render(files[:1], {}), *renderer.render(files[1:], {})]
    encoded = base64.b64encode(b"[x]\na = 2\n").decode()
    assert rendered == [{"dest": "/a", "mode": "0600", "encoded": encoded}, files[1]]
    assert renderer.secret_forms(["a", "a", ""]) == ["a"]
