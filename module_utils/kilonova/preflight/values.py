# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the values of variables against the options they are for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.kilonova.config.ini_files import IniError, check_overrides
from ansible.module_utils.kilonova.preflight.messages import HIDDEN, message
from ansible.module_utils.kilonova.preflight.roles import Known

WORDS = {
    "str": "text",
    "int": "a whole number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "float": "a number",
}
EXAMPLES = {
    "int": "a number such as 1",
    "bool": "true or false",
    "list": "a list such as [a, b]",
    "dict": "a mapping such as {a: b}",
}
SCALARS = (str, int, float, bool)
# Variables with options for a file without sections, and who reads it.
WITHOUT_SECTIONS = {"libvirt_qemu_conf": "libvirt", "rabbitmq_conf_overrides": "RabbitMQ"}


def kind_of(value: object) -> str:
    """Return the type of a value in words."""
    if value is None:
        return "empty"
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float"), (str, "str"), (dict, "dict"), (list, "list")):
        if isinstance(value, kind):
            return WORDS[name]
    return type(value).__name__


def may_be_empty(option: Mapping[str, Any]) -> bool:
    """Return whether an option allows an empty text: by its default, or because its description says so."""
    text = option.get("description", "")
    text = " ".join(text) if isinstance(text, list) else str(text)
    return option.get("default") == "" or bool(re.search(r"\bempty\b", text, re.IGNORECASE))


def check_type(name: str, value: object, option: Mapping[str, Any]) -> list[str]:
    """Check one value against its option."""
    wanted = str(option.get("type", "str"))
    shown = HIDDEN if option.get("no_log") else value
    instead = f"Write {EXAMPLES.get(wanted, 'a text')}"
    if option.get("choices"):
        instead = f"Write one of: {', '.join(str(choice) for choice in option['choices'])}"
    why = f"this must be {WORDS.get(wanted, wanted)} and is {kind_of(value)}"
    if value is None:
        return [message(name, shown, why, f"{instead}, or remove the line to have the default")]
    if wanted == "raw":
        return []
    # Ansible would turn a list into text, and text with commas into a list.
    if isinstance(value, (list, tuple)) != (wanted == "list") or isinstance(value, dict) != (wanted == "dict"):
        return [message(name, shown, why, instead)]
    spec = {
        key: option[key] for key in ("type", "choices", "elements", "options", "required_together") if key in option
    }
    result = ArgumentSpecValidator({name: spec}).validate({name: value})
    if result.error_messages:
        if isinstance(value, SCALARS):
            reason = "this is not one of the values that it can have" if option.get("choices") else why
            return [message(name, shown, reason, instead)]
        details = HIDDEN if option.get("no_log") else "; ".join(result.error_messages)
        return [message(name, shown, f"an element does not fit ({details})", "See docs/roles for its form")]
    if wanted in ("str", "path") and not str(value).strip() and not option.get("no_log") and not may_be_empty(option):
        return [message(name, shown, "this must not be empty", "Write a text, or remove the line to have the default")]
    return []


def check_types(values: Mapping[str, object], known: Known) -> list[str]:
    """Check every value that the inventory sets against its option."""
    return [
        text
        for name in sorted(values)
        if name in known.options
        for text in check_type(name, values[name], known.options[name])
    ]


def check_override_forms(values: Mapping[str, object]) -> list[str]:
    """Report options for configuration files that cannot be written to one."""
    found = []
    for name in with_sections(values):
        value = values[name]
        if isinstance(value, dict):
            try:
                check_overrides(value, name)
            except IniError as error:
                found.append(f"{error}.")
    for name, reader in WITHOUT_SECTIONS.items():
        options = values.get(name)
        if isinstance(options, dict):
            why, instead = f"{reader} has no empty value", "Write a value, or remove the line"
            found += [message(f"{name}.{key}", None, why, instead) for key in options if options[key] is None]
    return found


def with_sections(values: Mapping[str, object]) -> list[str]:
    """Return the names of variables with options in sections."""
    return sorted(name for name in values if name.endswith("_overrides") and name not in WITHOUT_SECTIONS)


def note_removed_options(values: Mapping[str, object]) -> list[str]:
    """Note options that null removes from a configuration file, since an empty line in YAML is null too."""
    return [
        f"{name}: [{section}] {option} is empty (null), which removes the option from the file. Write '' for an empty "
        "value."
        for name in with_sections(values)
        if isinstance(value := values[name], dict)
        for section, options in value.items()
        if isinstance(options, dict)
        for option in options
        if options[option] is None
    ]
