# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Renders all configuration files of a service here, and installs them with one module call on the host.

Documented in library/config_files.py.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import ansible.module_utils
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from jinja2 import TemplateSyntaxError

PROJECT = Path(__file__).resolve().parents[2]
# Ansible makes the project's module_utils importable in modules, not in the plugins that run here.
if str(PROJECT / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(PROJECT / "module_utils"))

from ansible.module_utils.kilonova.config.ini_files import IniError, merge_overrides

MODULE = "config_files"
# The fact that carries through a dry run what would have been written by now.
PENDING = "config_files_pending"
MANAGED = "Written by Ansible (Kilonova). Changes made here are undone by its next run."
PARTIAL = re.compile(r"{%-?\s*(?:include|import|from|extends)\s+['\"]([^'\"]+)['\"]")
SUBSTITUTED = ("src", "role", "content", "overrides", "overrides_name")


class ActionModule(ActionBase):
    """See DOCUMENTATION in library/config_files.py."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        files = arguments.get("files")
        if not isinstance(files, list) or not all(isinstance(item, dict) for item in files):
            raise AnsibleActionFail("config_files: files must be a list of mappings, one for each file", obj=files)
        arguments["files"] = [self._for_host(item, variables) for item in files]
        secrets = arguments.get("secrets") or []
        if not isinstance(secrets, list):
            raise AnsibleActionFail("config_files: secrets must be a list of strings")
        arguments["secrets"] = list(dict.fromkeys(form for secret in secrets for form in secret_forms(str(secret))))
        result: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=variables)
        if self._task.check_mode:
            earlier = variables.get("ansible_facts", {}).get(PENDING, [])
            pending = [*earlier, *result.get("written_files", [])]
            result["ansible_facts"] = {PENDING: list(dict.fromkeys(pending))}
        return result

    def _for_host(self, item: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """One entry of files as the module takes it: the finished text instead of what it is made from."""
        dest, overrides = item.get("dest"), item.get("overrides") or {}
        if not isinstance(dest, str) or not dest.startswith("/"):
            raise AnsibleActionFail(f"config_files: dest must be an absolute path, not {dest!r}", obj=item)
        result = {key: value for key, value in item.items() if key not in SUBSTITUTED}
        if item.get("state", "file") != "file":
            return result
        if ("src" in item) == ("content" in item):
            raise AnsibleActionFail(f"config_files: {dest} needs either src (a template) or content", obj=item)
        text = self._render(item, dest, variables) if "src" in item else as_text(item["content"], dest)
        if overrides:
            name = str(item.get("overrides_name") or f"the overrides of {dest}")
            try:
                text = merge_overrides(text, overrides, str(item.get("src", dest)), name)
            except IniError as error:
                raise AnsibleActionFail(f"config_files: {error}") from None
        result["encoded"] = base64.b64encode(with_final_newline(text).encode()).decode()
        return result

    def _render(self, item: dict[str, Any], dest: str, variables: dict[str, Any]) -> str:
        src = item["src"]
        source = self._find_template(src, item.get("role"))
        searchpath = list(self._search_path(source, variables))
        try:
            template = trust_as_template(self._loader.get_text_file_contents(source))
            templar = self._templar.copy_with_new_env(
                searchpath=searchpath,
                available_variables={
                    "ansible_managed": MANAGED,
                    **variables,
                    "template_path": src,
                    "template_fullpath": source,
                    "template_destpath": dest,
                },
            )
            rendered = templar.template(template, escape_backslashes=False, overrides={"trim_blocks": True})
        except AnsibleError as error:
            places = suspects(source, searchpath, str(error), error)
            where = f" (see {', '.join(places)})" if places else ""
            message = f"config_files: {source} (for {dest}) cannot be rendered: {error}{where}"
            raise AnsibleActionFail(message) from None
        return as_text(rendered, dest)

    def _find_template(self, src: str, role: str | None) -> str:
        own = PROJECT / "roles" / str(role) / "templates" / src
        if role and own.is_file():
            return str(own)
        try:
            return str(self._find_needle("templates", src))
        except AnsibleError as error:
            shared = PROJECT / "templates" / src
            if shared.is_file():
                return str(shared)
            raise AnsibleActionFail(f"config_files: the template {src} does not exist: {error}") from error

    def _search_path(self, source: str, variables: dict[str, Any]) -> Iterator[str]:
        """Where {% include %} and {% import %} look: as ansible.builtin.template does, then the project's templates."""
        basedir = self._loader.get_basedir()
        for path in [*variables.get("ansible_search_path", []), basedir, os.path.dirname(source)]:
            yield os.path.join(path, "templates")
            yield path
        yield os.path.join(os.path.dirname(basedir), "templates")
        yield str(PROJECT / "templates")


def suspects(source: str, searchpath: list[str], message: str, error: BaseException | None = None) -> list[str]:
    """Where a template error comes from, as C(path line N).

    Jinja tells the line of a syntax error. Ansible (2.19) evaluates undefined names after the template has run and no
    longer knows their line, so the lines that use the name are looked for, in partials too.
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
    """A template and the templates that it includes or imports by name."""
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


def as_text(value: Any, dest: str) -> str:
    """The text of a rendered template. A template that is one expression may give a number; a list is a mistake."""
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return str(value)
    raise AnsibleActionFail(f"config_files: the content of {dest} is a {type(value).__name__}, not a text")


def with_final_newline(text: str) -> str:
    """The text, ended by a newline unless it is empty."""
    return text if not text or text.endswith("\n") else text + "\n"


def secret_forms(secret: str) -> list[str]:
    """A secret as it may stand in a file: plain, quoted for a URL, escaped for oslo.config, INI, YAML, JSON or SQL."""
    if not secret:
        return []
    plain = [secret, quote(secret, safe=""), quote(secret), quote_plus(secret)]
    escaped = [
        secret.replace("\\", "\\\\"),
        secret.replace("\\", "\\\\").replace('"', '\\"'),
        secret.replace("\\", "\\\\").replace("'", "\\'"),
        secret.replace("'", "''"),
        secret.replace("'", "'\\''"),
    ]
    forms = [*plain, *escaped]
    for special, written in (("$", "$$"), ("$", "\\$"), ("%", "%%")):
        forms += [form.replace(special, written) for form in forms]
    return list(dict.fromkeys(forms))
