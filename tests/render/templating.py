# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible's templating with what it repeats done once: compiling a template, and working out a variable.

For each value that it needs, Ansible compiles the text of its template, and works out all variables that this names.
The maps of services name the same ones a hundred times. What comes of it is the same: code follows from the text and
the delimiters, and a variable from other variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible._internal._templating._engine import TemplateOptions
from ansible._internal._templating._jinja_bits import (
    _TEMPLATE_OVERRIDE_FIELD_NAMES,
    AnsibleEnvironment,
    _TemplateCompileContext,
)
from ansible._internal._templating._lazy_containers import _AnsibleLazyTemplateMixin
from ansible._internal._templating._utils import TemplateContext
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from jinja2 import nodes

compile_anew = AnsibleEnvironment.compile
compiled: dict[tuple[Any, ...], Any] = {}


def compile_once(environment: AnsibleEnvironment, source: str | nodes.Template, *where: Any, **named: Any) -> Any:
    """AnsibleEnvironment.compile, once for each text, syntax and treatment of backslashes."""
    if not isinstance(source, str):
        return compile_anew(environment, source, *where, **named)
    context = _TemplateCompileContext.current(optional=True)
    syntax = tuple(getattr(environment, name) for name in _TEMPLATE_OVERRIDE_FIELD_NAMES)
    key = (str(source), where, tuple(named.items()), syntax, bool(context and context.escape_backslashes))
    if key not in compiled:
        compiled[key] = compile_anew(environment, source, *where, **named)
    return compiled[key]


def compile_templates_once() -> None:
    """Keep the code of templates for the rest of the process."""
    AnsibleEnvironment.compile = compile_once


def templar_with(loader: DataLoader, variables: Mapping[str, Any]) -> Templar:
    """A templar that works out each variable when it is first needed, and keeps its value."""
    templar = Templar(loader=loader)
    with TemplateContext(template_value=None, templar=templar._engine, options=TemplateOptions.DEFAULT):
        templar.available_variables = _AnsibleLazyTemplateMixin._try_create(dict(variables))
    return templar
