# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Read and edit INI text in the dialect of oslo.config, keeping comments and order.

The dialect (oslo_config/iniparser.py, OpenStack 2025.1; uWSGI files fit it too):
C(key = value) or C(key: value); comments are whole lines that start with C(#) or C(;); an indented line continues the
value above; one pair of quotes around a value is dropped; a repeated option is a list (MultiStr); a repeated section
continues the first one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Overrides = Mapping[str, Mapping[str, Any]]

_HEADER = re.compile(r"^\[(.*)\]\s*$")


class IniError(ValueError):
    """Text is not INI, or overrides cannot be written as INI. The message says where and why."""


@dataclass
class Assignment:
    """One option in a file."""

    section: str
    option: str
    value: str
    line: int  # number of its first line, from 1
    count: int = 1  # of its lines, with continuation lines


@dataclass
class _Section:
    name: str
    header: int  # index of its header line
    last: int = 0  # index of its last line that is not blank or a comment
    assignments: list[Assignment] = field(default_factory=list)


def same_option(one: str, other: str) -> bool:
    """Compare option names as oslo.config does: C(auth-url) is C(auth_url)."""
    return one.replace("-", "_") == other.replace("-", "_")


def parse(text: str, name: str = "text") -> list[Assignment]:
    """Return every option of INI text in order. Raises IniError, with name and line, for text that is not INI."""
    return [assignment for section in _sections(text.splitlines(), name) for assignment in section.assignments]


def section_names(text: str, name: str = "text") -> list[str]:
    """Return the sections of INI text, each once, in order."""
    return list(dict.fromkeys(section.name for section in _sections(text.splitlines(), name)))


def _sections(lines: list[str], name: str) -> list[_Section]:
    sections: list[_Section] = []
    open_value: Assignment | None = None
    for index, line in enumerate(lines):
        number = index + 1
        if not line.strip() or line[0] in "#;":
            # A blank line or comment ends a value.
            open_value = None
        elif line[0].isspace():
            if open_value is None:
                raise IniError(f"{name}, line {number}: an indented line that continues no value: {_shape(line)}")
            open_value.value += "\n" + line.strip()
            open_value.count = number - open_value.line + 1
            sections[-1].last = index
        elif line[0] == "[":
            match = _HEADER.match(line)
            if not match or not match[1]:
                raise IniError(f"{name}, line {number}: a section header that is not [name]: {line.strip()}")
            sections.append(_Section(match[1], index, index))
            open_value = None
        else:
            if not sections:
                raise IniError(f"{name}, line {number}: an option before the first [section]: {_shape(line)}")
            open_value = _assignment(line, sections[-1].name, number, name)
            sections[-1].assignments.append(open_value)
            sections[-1].last = index
    return sections


def _assignment(line: str, section: str, number: int, name: str) -> Assignment:
    separator = min((at for at in (line.find("="), line.find(":")) if at >= 0), default=-1)
    if separator <= 0:
        raise IniError(f"{name}, line {number}: neither a comment, a [section] nor 'option = value': {_shape(line)}")
    return Assignment(section, line[:separator].strip(), _unquote(line[separator + 1 :].strip()), number)


def _shape(line: str) -> str:
    """Return the beginning of a line for an error message; the rest may be a secret."""
    word = line.strip().split(maxsplit=1)[0]
    return repr(word[:16] + ("..." if len(line.strip()) > len(word[:16]) else ""))


def _unquote(value: str) -> str:
    if value and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def quote_value(value: str) -> str:
    """Quote a value that oslo.config would otherwise trim or unquote."""
    if value != value.strip() or _unquote(value) != value:
        return f'"{value}"'
    return value


def format_value(value: Any) -> str:
    """Return a YAML value as oslo.config writes it; a mapping becomes C(k:v,k2:v2). Raises IniError."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        if "\n" not in value:
            return quote_value(str(value))
        parts = str(value).rstrip("\n").split("\n")
        if any(not part.strip() for part in parts):
            raise IniError("a value of several lines cannot contain an empty line")
        return "\n    ".join(part.strip() for part in parts)
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{format_value(item)}" for key, item in value.items())
    raise IniError(f"a {type(value).__name__} cannot be an option's value")


def check_overrides(overrides: Any, name: str = "overrides") -> None:
    """Raise IniError, naming the variable, unless overrides is {section: {option: scalar, list, mapping or null}}."""
    shape = f"write it as {name}: {{SECTION: {{option: value}}}}, for example {name}: {{DEFAULT: {{debug: true}}}}"
    if not isinstance(overrides, Mapping):
        raise IniError(f"{name} is a {_kind(overrides)}, not a mapping of sections; {shape}")
    for section, options in overrides.items():
        if not isinstance(section, str) or not section.strip() or set(section) & set("[]\n"):
            raise IniError(f"{name}: {section!r} is not a section name; {shape}")
        if not isinstance(options, Mapping):
            raise IniError(f"{name}: section {section!r} is a {_kind(options)}, not a mapping of options; {shape}")
        for option, value in options.items():
            if not isinstance(option, str) or not option.strip() or set(option) & set("=:[\n") or option[0] in "#;":
                raise IniError(f"{name}: {option!r} in section {section!r} is not an option name; {shape}")
            try:
                _values(value)
            except IniError as error:
                raise IniError(f"{name}: option {option!r} in section {section!r}: {error}") from None


def _kind(value: Any) -> str:
    names = {str: "string", bool: "boolean", int: "number", float: "number", list: "list", type(None): "null"}
    return next((text for kind, text in names.items() if isinstance(value, kind)), type(value).__name__)


def _values(value: Any) -> list[str]:
    """Return the values of an override, one for each line of the file; none for null."""
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return [format_value(item) for item in value]
    return [format_value(value)]


def merge_overrides(text: str, overrides: Overrides, name: str = "text", overrides_name: str = "overrides") -> str:
    """Return INI text with overrides applied; everything else stays the same.

    An existing option is replaced in place, a new one follows the last option of its section, a new section goes to
    the end, null removes an option, and a list repeats it. Raises IniError.
    """
    check_overrides(overrides, overrides_name)
    for section, options in overrides.items():
        for option, value in options.items():
            text = _set_option(text, section.strip(), option.strip(), _values(value), name)
    return text


def _set_option(text: str, section: str, option: str, values: list[str], name: str) -> str:
    lines = text.splitlines()
    sections = [candidate for candidate in _sections(lines, name) if candidate.name == section]
    new = [f"{option} = {value}" if value else f"{option} =" for value in values]
    old = [a for candidate in sections for a in candidate.assignments if same_option(a.option, option)]
    if old:
        for assignment in reversed(old[1:]):
            del lines[assignment.line - 1 : assignment.line - 1 + assignment.count]
        lines[old[0].line - 1 : old[0].line - 1 + old[0].count] = new
    elif sections:
        at = sections[0].last + 1
        lines[at:at] = new
    elif new:
        if lines and lines[-1].strip():
            lines.append("")
        lines += [f"[{section}]", *new]
    return "\n".join(lines) + "\n" if lines else ""
