# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Render configuration files on the control computer, for action plugins. Modules must not import this file."""

from __future__ import annotations

import base64
import os
import re
from collections import ChainMap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.kilonova.config import masking
from ansible.module_utils.kilonova.config.ini_files import IniError, merge_overrides
from ansible.plugins.action import ActionBase
from ansible.template import Templar, trust_as_template
from jinja2 import TemplateSyntaxError, pass_context
from jinja2.runtime import Context

PROJECT = Path(__file__).resolve().parents[3]
MANAGED = "Written by Ansible (Kilonova). Changes made here are undone by its next run."
PARTIAL = re.compile(r"{%-?\s*(?:include|import|from|extends)\s+['\"]([^'\"]+)['\"]")
# Keys of an entry that its finished text replaces.
RENDERED = ("src", "role", "content", "overrides", "overrides_name")


def remembering(templar: Templar) -> Templar:
    """Have a templar work each variable out when it is first needed, and keep its value; return it.

    For each value that it needs, Ansible works out all variables that this names. The maps of services name the same
    ones a hundred times, and what comes of it is the same. The context of a template keeps values until it is rendered;
    here, that of the first one serves all others.
    """

    @pass_context
    def keep_context(context: Context) -> None:
        templar.available_variables = context.parent

    templar.evaluate_expression(trust_as_template("keep_context()"), local_variables={"keep_context": keep_context})
    return templar


class FileRenderer:
    """Turns O(files) of M(config_files), as a user writes them, into what the module takes on the host."""

    def __init__(self, action: ActionBase, name: str = "config_files") -> None:
        """Take loader and templar from an action plugin; ``name`` begins its error messages."""
        self._action = action
        self._name = name

    def render(self, files: Any, task_vars: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the entries with their finished texts, in base64. Raises AnsibleActionFail."""
        if not isinstance(files, list) or not all(isinstance(item, dict) for item in files):
            raise self._error("files must be a list of mappings, one for each file", files)
        return [self._entry(item, task_vars) for item in files]

    def secret_forms(self, secrets: Any) -> list[str]:
        """Return all secrets in every form in which files write them. Raises AnsibleActionFail."""
        if not isinstance(secrets or [], list):
            raise self._error("secrets must be a list of strings", secrets)
        return list(dict.fromkeys(form for secret in secrets or [] for form in masking.secret_forms(str(secret))))

    def _error(self, message: str, where: Any = None) -> AnsibleActionFail:
        return AnsibleActionFail(f"{self._name}: {message}", obj=where)

    def _entry(self, item: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        dest, overrides = item.get("dest"), item.get("overrides") or {}
        if not isinstance(dest, str) or not dest.startswith("/"):
            raise self._error(f"dest must be an absolute path, not {dest!r}", item)
        result = {key: value for key, value in item.items() if key not in RENDERED}
        if item.get("state", "file") != "file":
            return result
        if ("src" in item) == ("content" in item):
            raise self._error(f"{dest} needs either src (a template) or content", item)
        value = self._template(item, dest, task_vars) if "src" in item else item["content"]
        text = self._text(value, dest)
        if overrides:
            name = str(item.get("overrides_name") or f"the overrides of {dest}")
            try:
                text = merge_overrides(text, overrides, str(item.get("src", dest)), name)
            except IniError as error:
                raise self._error(str(error)) from None
        result["encoded"] = base64.b64encode(with_final_newline(text).encode()).decode()
        return result

    def _template(self, item: dict[str, Any], dest: str, task_vars: dict[str, Any]) -> Any:
        src = item["src"]
        source = self._find_template(src, item.get("role"))
        searchpath = list(self._search_path(source, task_vars))
        try:
            template = trust_as_template(self._action._loader.get_text_file_contents(source))
            templar = self._action._templar.copy_with_new_env(
                searchpath=searchpath,
                available_variables=ChainMap(
                    {"template_path": src, "template_fullpath": source, "template_destpath": dest},
                    task_vars,
                    {"ansible_managed": MANAGED},
                ),
            )
            return templar.template(template, escape_backslashes=False, overrides={"trim_blocks": True})
        except AnsibleError as error:
            places = suspects(source, searchpath, str(error), error)
            where = f" (see {', '.join(places)})" if places else ""
            raise self._error(f"{source} (for {dest}) cannot be rendered: {error}{where}") from None

    def _text(self, value: Any, dest: str) -> str:
        # A template that is one expression may give a number; a list is a mistake.
        if value is None:
            return ""
        if isinstance(value, str | int | float):
            return str(value)
        raise self._error(f"the content of {dest} is a {type(value).__name__}, not a text")

    def _find_template(self, src: str, role: str | None) -> str:
        own = PROJECT / "roles" / str(role) / "templates" / src
        if role and own.is_file():
            return str(own)
        try:
            return str(self._action._find_needle("templates", src))
        except AnsibleError as error:
            shared = PROJECT / "templates" / src
            if shared.is_file():
                return str(shared)
            raise self._error(f"the template {src} does not exist: {error}") from error

    def _search_path(self, source: str, task_vars: dict[str, Any]) -> Iterator[str]:
        """Yield where {% include %} looks: as for ansible.builtin.template, then in the project's templates."""
        basedir = self._action._loader.get_basedir()
        for path in [*task_vars.get("ansible_search_path", []), basedir, os.path.dirname(source)]:
            yield os.path.join(path, "templates")
            yield path
        yield os.path.join(os.path.dirname(basedir), "templates")
        yield str(PROJECT / "templates")


def suspects(source: str, searchpath: list[str], message: str, error: BaseException | None = None) -> list[str]:
    """Return the places that a template error may come from, as C(path line N).

    Jinja gives the line of a syntax error only. For an undefined name, the lines that use it are searched for.
    """
    while error:
        if isinstance(error, TemplateSyntaxError):
            inner = next((path for path in with_partials(source, searchpath) if path.endswith(str(error.name))), source)
            return [f"{inner} line {error.lineno}"]
        error = error.__cause__ or error.__context__
    names = re.findall(r"'(\w+)' is undefined|has no attribute '(\w+)'|No filter named '(\w+)'", message)
    patterns = [re.compile(rf"\b{name}\b") for groups in names for name in groups if name]
    return [
        f"{path} line {number}"
        for path in (with_partials(source, searchpath) if patterns else [])
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1)
        if any(pattern.search(line) for pattern in patterns)
    ]


def with_partials(source: str, searchpath: list[str]) -> list[str]:
    """Return a template and the templates that it includes or imports by name."""
    found, queue = [], [source]
    while queue:
        path = queue.pop()
        if path in found:
            continue
        found.append(path)
        for name in PARTIAL.findall(Path(path).read_text(encoding="utf-8")):
            candidates = (os.path.join(directory, name) for directory in searchpath)
            queue += [candidate for candidate in candidates if os.path.isfile(candidate)][:1]
    return found


def with_final_newline(text: str) -> str:
    """End a text with a newline unless it is empty."""
    return text if not text or text.endswith("\n") else text + "\n"
