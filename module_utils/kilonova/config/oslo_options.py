# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Check configuration files against the options that the installed OpenStack services register.

oslo-config-validator checks names only and skips [keystone_authtoken]. This also checks values, and options that
services register only when they run (keystoneauth plugins, Glance stores). The options come from the entry points
that oslo-config-generator uses (group C(oslo.config.opts)).

Services print, warn, patch the standard library and take seconds to import, so the check runs in a child process,
which gets the source of this file on standard input.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

# The child runs the sources of these modules one after the other, and has nothing to import.
with contextlib.suppress(ImportError):
    from ansible.module_utils.kilonova.config.ini_files import Assignment, IniError, parse, section_names
    from ansible.module_utils.kilonova.config.masking import MASK

ENTRY_POINTS = "oslo.config.opts"
TIMEOUT = 120
# Sections that glance-api adds to those in enabled_backends (glance/common/wsgi.py).
GLANCE_RESERVED_STORES = {"os_glance_staging_store": "file", "os_glance_tasks_store": "file"}
# Reads {"sources": [...], "files": [...]}, answers on the original standard output, which the services cannot reach.
_CHILD = """
import json, os, sys
answer = os.fdopen(os.dup(1), "w"); os.dup2(2, 1)
request = json.load(sys.stdin); space = {"__name__": "oslo_options_child"}
sys.modules["oslo_options_child"] = type(sys)("oslo_options_child")
for source in request["sources"]: exec(compile(source, "oslo_options", "exec"), space)
json.dump(space["answer"](request["files"]), answer); answer.flush(); os._exit(0)
"""

File = tuple[str, str, list[str]]
Problem = dict[str, str]


class OptionsUnavailable(Exception):
    """The check cannot run; the message says why and what to do."""


def installed_namespaces() -> set[str]:
    """Return the namespaces that the installed packages provide."""
    return {point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def describe(problem: Problem) -> str:
    """Return a problem as one line."""
    value = f" = {problem['value']}" if problem.get("value") else ""
    option = f" {problem['option']}{value}" if problem.get("option") else ""
    where = f" [{problem['section']}]{option}:" if problem.get("section") else ""
    suggestion = f" {problem['suggestion']}" if problem.get("suggestion") else ""
    return f"{problem['file']}:{where} {problem['why'].rstrip('.')}.{suggestion}"


def check(path_or_text: str, namespaces: list[str]) -> list[Problem]:
    """Return the problems of one file, given by its absolute path or its text. See check_files."""
    if path_or_text.startswith("/") and "\n" not in path_or_text:
        with open(path_or_text, encoding="utf-8") as stream:
            return check_files([(path_or_text, stream.read(), namespaces)])
    return check_files([("text", path_or_text, namespaces)])


def check_files(files: list[File], python: str = sys.executable) -> list[Problem]:
    """Return the problems of several files, each given as (path for messages, text, namespaces).

    A problem is {file, section, option, value, why, suggestion}; the value of a secret option is masked.
    Raises OptionsUnavailable if a namespace is not installed or a service cannot be imported.
    """
    known = installed_namespaces()
    missing = sorted({name for _, _, names in files for name in names} - known)
    if missing:
        raise OptionsUnavailable(
            f"No package on this host provides the options {', '.join(missing)}. Install the service first, or "
            f"correct the name (there are: {', '.join(sorted(known)) or 'none, oslo.config is not installed'})."
        )
    package = "ansible.module_utils.kilonova.config"
    sources = [_source(name) for name in (f"{package}.ini_files", f"{package}.masking", __name__)]
    try:
        done = subprocess.run(
            [python, "-W", "ignore", "-c", _CHILD],
            input=json.dumps({"sources": sources, "files": files}),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        return list(json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        raise OptionsUnavailable(f"Importing the services' options took more than {TIMEOUT} s.") from None
    except ValueError:
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise OptionsUnavailable(f"Importing the services' options failed:\n{last}") from None


def _source(module: str) -> str:
    """Return a Python module's source, from a file or from the zip archive that Ansible sends."""
    spec = importlib.util.find_spec(module)
    source = getattr(spec.loader, "get_source", lambda name: None)(module) if spec else None
    if not source:
        raise OptionsUnavailable(f"The source of {module} is not readable.")
    return str(source)


# What follows runs in the child.


def answer(files: list[File]) -> list[Problem]:
    """Return all problems of all files."""
    # Slow, since it reads the metadata of every installed package.
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    listings: dict[str, Any] = {}
    problems: list[Problem] = []
    for path, text, namespaces in files:

        def listing(name: str) -> Any:
            if name not in listings:
                listings[name] = load_namespace(points, name)
            return listings[name]

        problems += Checker(path, text, map(listing, namespaces)).problems()
    return problems


def load_namespace(points: importlib.metadata.EntryPoints, name: str) -> list[tuple[Any, list[Any]]]:
    """Return [(group, options)] of one entry point."""
    return list(next(iter(points.select(name=name))).load()())


class Checker:
    """Checks one file against the options of some namespaces.

    Stops loading namespaces, most of which import a service, once all options of the file are known.
    """

    def __init__(self, path: str, text: str, listings: Iterable[Any]) -> None:
        self.path = path
        self.text = text
        self.found: list[Problem] = []
        # {section: {name of an option with underscores: option}}
        self.options: dict[str, dict[str, Any]] = {}
        # {(section, name): (section and name of the option to use instead)}
        self.replaced: dict[tuple[str, str], tuple[str, str]] = {}
        self.listings = listings

    def register(self, section: str, options: Iterable[Any], override: bool = False) -> None:
        """Add options to a section. The first one of a name stays, unless override."""
        section = normal_section(section)
        known = self.options.setdefault(section, {})
        for option in options:
            names = {option.dest, option.name.replace("-", "_")}
            for name in names:
                if override or name not in known:
                    known[name] = option
            for old in getattr(option, "deprecated_opts", []):
                where = (normal_section(old.group or section), (old.name or option.dest).replace("-", "_"))
                if where[0] != section or where[1] not in names:
                    self.replaced.setdefault(where, (section, option.dest))

    def problems(self) -> list[Problem]:
        """Return everything that is wrong with the file."""
        try:
            assignments = parse(self.text, self.path)
            sections = [normal_section(name) for name in section_names(self.text, self.path)]
        except IniError as error:
            # The message begins with the file's name, as describe() does.
            return [_problem(self.path, why=str(error).removeprefix(f"{self.path}, "))]
        for assignment in assignments:
            assignment.section = normal_section(assignment.section)
        for listing in self.listings:
            for group, options in listing:
                self.register(_group_name(group), options)
            if self.knows_all(sections, assignments):
                break
        self.register_dynamic(assignments)
        replaced_sections = {section for section, _ in self.replaced}
        for section in sections:
            if section not in self.options and section not in replaced_sections:
                self.add(section, "", "", "unknown section", _closest(section, self.options))
        seen: set[tuple[str, str]] = set()
        for assignment in assignments:
            self.check_assignment(assignment, seen)
        self.check_references(assignments)
        return self.found

    def knows_all(self, sections: list[str], assignments: list[Assignment]) -> bool:
        """Return whether no further namespace is needed. A value with a dollar sign may refer to any option."""
        return all(section in self.options for section in sections) and all(
            self.known(one) and "$" not in one.value for one in assignments
        )

    def register_dynamic(self, assignments: list[Assignment]) -> None:
        """Add options that services register only after they have read the file."""
        values = {(a.section, a.option.replace("-", "_")): a.value for a in assignments}
        for (section, name), value in values.items():
            # auth_section names the section that holds the options of the authentication plugin.
            if name == "auth_section" and "auth_section" in self.options.get(section, {}):
                self.register(value, auth_options(values.get((value, "auth_type"), "password")))
            # Cinder lists the options of a plugin without the one that chooses it.
            if name == "auth_type" and {"auth_type", "auth_url"} & self.options.get(section, {}).keys():
                self.register(section, self.plugin_options(section, value), override=True)
        backends = values.get(("DEFAULT", "enabled_backends"))
        if backends is not None and "backend_defaults" in self.options:
            # Cinder's: a section each.
            for section in backends.split(","):
                for group in ("backend_defaults", "backend"):
                    self.register(section.strip(), self.options.get(group, {}).values())
        elif backends is not None and "enabled_backends" in self.options.get("DEFAULT", {}):
            stores = dict(item.strip().split(":", 1) for item in backends.split(",") if ":" in item)
            for section, driver in {**stores, **GLANCE_RESERVED_STORES}.items():
                self.register(section.strip(), self.store_options(section.strip(), driver.strip()))

    def plugin_options(self, section: str, plugin: str) -> list[Any]:
        """Return the options of a keystoneauth plugin; an unknown plugin is a problem."""
        try:
            return auth_options(plugin)
        except Exception as error:
            self.add(section, "auth_type", plugin, f"no such authentication plugin ({error})", "Usual is password.")
            return []

    def store_options(self, section: str, driver: str) -> list[Any]:
        """Return the options of a Glance store; an unknown driver is a problem."""
        try:
            points = importlib.metadata.entry_points(group="glance_store.drivers", name=driver)
            store = next(iter(points)).load()
        except (StopIteration, ImportError) as error:
            self.add("DEFAULT", "enabled_backends", f"{section}:{driver}", f"no such store driver ({error})", "")
            return []
        return [*(getattr(store, "OPTIONS", None) or []), *multi_store_options()]

    def check_assignment(self, item: Assignment, seen: set[tuple[str, str]]) -> None:
        name = item.option.replace("-", "_")
        option = self.options.get(item.section, {}).get(name)
        if option is None:
            instead = self.replaced.get((item.section, name))
            if instead:
                self.add(
                    item.section,
                    item.option,
                    self.shown(item, self.options[instead[0]][instead[1]]),
                    "deprecated name",
                    f"Use [{instead[0]}] {instead[1]}.",
                )
            elif item.section in self.options:
                suggestion = _closest(name, self.options[item.section]) or self.elsewhere(name)
                self.add(item.section, item.option, MASK, "unknown option", suggestion)
            return
        if option.deprecated_for_removal:
            reason = " ".join((option.deprecated_reason or "").split())
            since = f" since {option.deprecated_since}" if option.deprecated_since else ""
            self.add(
                item.section,
                item.option,
                self.shown(item, option),
                f"deprecated for removal{since}",
                reason or "Leave it out.",
            )
        if (item.section, name) in seen and not option.multi:
            self.add(
                item.section,
                item.option,
                self.shown(item, option),
                "given more than once; only the last counts",
                "Leave one.",
            )
        seen.add((item.section, name))
        if "$" not in item.value:
            self.check_value(item, option, item.value)

    def check_value(self, item: Assignment, option: Any, value: str) -> None:
        try:
            option.type(value)
        except (ValueError, TypeError) as error:
            why = "wrong value" if option.secret else f"wrong value, {error}"
            self.add(item.section, item.option, self.shown(item, option), why, f"It must be {_type_name(option)}.")

    def check_references(self, assignments: list[Assignment]) -> None:
        """Check values that refer to other options with a dollar sign, by letting oslo.config resolve them."""
        referring = [a for a in assignments if "$" in a.value and self.known(a)]
        if not referring:
            return
        from oslo_config import cfg

        conf = cfg.ConfigOpts()
        for section, options in self.options.items():
            for option in options.values():
                option.required = False  # another file may set it
                try:
                    conf.register_opt(option, None if section == "DEFAULT" else section)
                except cfg.Error:
                    continue  # registered differently by two namespaces: either one resolves a reference
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as stream:
            stream.write(self.text)
            stream.flush()
            try:
                conf([], project="check", default_config_files=[stream.name], default_config_dirs=[])
            except cfg.Error as error:
                self.found.append(_problem(self.path, why=str(error).splitlines()[0]))
                return
            for item in referring:
                self.check_reference(conf, item)

    def check_reference(self, conf: Any, item: Assignment) -> None:
        from oslo_config import cfg

        option = self.known(item)
        try:
            getattr(conf if item.section == "DEFAULT" else conf[item.section], option.dest)
        except (cfg.TemplateSubstitutionError, cfg.NoSuchOptError):
            self.add(
                item.section,
                item.option,
                self.shown(item, option),
                "refers to an option that does not exist",
                "Write $$ for a dollar sign that refers to nothing.",
            )
        except (cfg.ConfigFileValueError, cfg.ConfigFileParseError, ValueError, TypeError) as error:
            # The reason follows the place of the value.
            reason = str(error).rsplit("is not valid: ", 1)[-1]
            why = "wrong value" if option.secret else f"wrong value, {reason}"
            self.add(item.section, item.option, self.shown(item, option), why, f"It must be {_type_name(option)}.")

    def known(self, item: Assignment) -> Any:
        return self.options.get(item.section, {}).get(item.option.replace("-", "_"))

    def elsewhere(self, name: str) -> str:
        """Return a hint if another section has an option of this name."""
        sections = sorted(section for section, options in self.options.items() if name in options)
        if not sections:
            return "Remove it."
        return f"An option of this name is known in [{'], ['.join(sections[:3])}]."

    def shown(self, item: Assignment, option: Any) -> str:
        return MASK if option.secret else item.value

    def add(self, section: str, option: str, value: str, why: str, suggestion: str) -> None:
        self.found.append(_problem(self.path, section, option, value, why, suggestion))


def auth_options(plugin: str) -> list[Any]:
    """Return the options of a section with auth_type: those of the plugin and the common ones."""
    from keystoneauth1 import loading

    return [*loading.get_auth_plugin_conf_options(plugin), *loading.get_auth_common_conf_options()]


def multi_store_options() -> Iterator[Any]:
    """Yield the options that glance_store/driver.py adds to those of a store."""
    yield from getattr(importlib.import_module("glance_store.driver"), "_MULTI_BACKEND_OPTS", [])


def normal_section(name: str) -> str:
    """Return a section name in lower case, as oslo.config compares it, except for DEFAULT."""
    return name if name == "DEFAULT" else name.lower()


def _group_name(group: Any) -> str:
    return str(getattr(group, "name", group) or "DEFAULT")


def _type_name(option: Any) -> str:
    kind = option.type
    if hasattr(kind, "__name__"):
        return str(kind.__name__)
    return type(kind).__name__ if "object at" in str(kind) else str(kind)


def _closest(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else ""


def _problem(
    file: str, section: str = "", option: str = "", value: str = "", why: str = "", suggestion: str = ""
) -> Problem:
    return {"file": file, "section": section, "option": option, "value": value, "why": why, "suggestion": suggestion}
