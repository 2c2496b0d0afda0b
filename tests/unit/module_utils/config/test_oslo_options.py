# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The check runs in its child process, against a made-up package with entry points of oslo.config.

Its options have the attributes of oslo.config's; the test at the end uses oslo.config itself where it is installed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.config.oslo_options import (
    MASK,
    OptionsUnavailable,
    Problem,
    check,
    check_files,
    describe,
)

OPTIONS = """
import sys
print("junk on standard output")
sys.stdout.flush()

class Old:
    def __init__(self, name, group=None):
        self.name, self.group = name, group

class Opt:
    def __init__(self, name, type=str, secret=False, multi=False, old=(), removal=False, reason="", since=""):
        self.name, self.dest, self.type = name, name.replace("-", "_"), type
        self.secret, self.multi, self.deprecated_opts = secret, multi, list(old)
        self.deprecated_for_removal, self.deprecated_reason, self.deprecated_since = removal, reason, since

class Group:
    def __init__(self, name):
        self.name = name

def boolean(value):
    if value.lower() not in ("true", "false"):
        raise ValueError(f"Unexpected boolean value {value!r}")

def list_opts():
    return [
        (None, [Opt("debug", boolean), Opt("log-dir", old=[Old("logdir")]), Opt("alias", multi=True),
                Opt("transport_url", secret=True), Opt("pin", int, secret=True),
                Opt("strategy", removal=True, reason="Only one\\nis left.", since="21.0.0")]),
        (Group("Database"), [Opt("connection", secret=True, old=[Old("sql_connection", "DEFAULT"), Old(None, "sql")])]),
        ("vnc", [Opt("enabled", boolean), Opt("port", int)]),
    ]

def volume_opts():
    return [
        (None, [Opt("enabled_backends")]),
        ("backend_defaults", [Opt("volume_driver")]),
        ("backend", [Opt("backend_host")]),
    ]
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package whose entry points name its options, and options that cannot be imported."""
    (tmp_path / "fake_opts.py").write_text(OPTIONS)
    info = tmp_path / "fake-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[oslo.config.opts]\nfake.conf = fake_opts:list_opts\nbroken = fake_opts:nothing\n"
        "fake.volumes = fake_opts:volume_opts\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))


def found(text: str) -> list[str]:
    return [describe(problem) for problem in check(text, ["fake.conf"])]


def test_a_correct_file_has_no_problems(installed: None) -> None:
    text = "[DEFAULT]\ndebug = true\nlog-dir = /x\nalias = a\nalias = b\n[DATABASE]\nconnection = x\n[vnc]\nport = 1\n"
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[DEFAULT]\ndebgu = hunter2\n", "text: [DEFAULT] debgu = ********: unknown option. Did you mean debug?"),
        ("[DEFAULT]\nconnection = x\n", "text: [DEFAULT] connection = ********: unknown option. "
         "An option of this name is known in [database]."),
        ("[DEFAULT]\nwhatever = x\n", "text: [DEFAULT] whatever = ********: unknown option. Remove it."),
        ("[vcn]\n", "text: [vcn]: unknown section. Did you mean vnc?"),
        ("[default]\ndebug = true\n", "text: [default]: unknown section."),
        ("[vnc]\nenabled = maybe\n", "text: [vnc] enabled = maybe: wrong value, Unexpected boolean value 'maybe'. "
         "It must be boolean."),
        ("[DEFAULT]\npin = hunter2\n", "text: [DEFAULT] pin = ********: wrong value. It must be int."),
        ("[DEFAULT]\nlogdir = /x\n", "text: [DEFAULT] logdir = /x: deprecated name. Use [DEFAULT] log_dir."),
        ("[DEFAULT]\nsql_connection = hunter2\n", "text: [DEFAULT] sql_connection = ********: deprecated name. "
         "Use [database] connection."),
        ("[sql]\nconnection = hunter2\n", "text: [sql] connection = ********: deprecated name. "
         "Use [database] connection."),
        ("[DEFAULT]\nstrategy = x\n", "text: [DEFAULT] strategy = x: deprecated for removal since 21.0.0. "
         "Only one is left."),
        ("[vnc]\nport = 1\nport = 2\n", "text: [vnc] port = 2: given more than once; only the last counts. Leave one."),
        ("debug = true\n", "text: line 1: an option before the first [section]: 'debug...'."),
    ],
)  # fmt: skip
def test_a_problem_says_where_what_and_what_instead(installed: None, text: str, problem: str) -> None:
    assert [line.rstrip() for line in found(text)] == [problem]


def test_backends_of_volumes_have_sections_of_their_own(installed: None) -> None:
    text = "[DEFAULT]\nenabled_backends = ceph, other\n[ceph]\nvolume_driver = x\nbackend_host = y\nvolume_drive = z\n"
    assert [describe(problem) for problem in check(f"{text}[third]\n", ["fake.volumes"])] == [
        "text: [third]: unknown section. Did you mean other?",
        f"text: [ceph] volume_drive = {MASK}: unknown option. Did you mean volume_driver?",
    ]


def test_a_file_is_named_by_its_path(installed: None, tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("[vnc]\nport = x\n")
    problem: Problem = check(str(path), ["fake.conf"])[0]
    assert (problem["file"], problem["section"], problem["option"], problem["value"]) == (str(path), "vnc", "port", "x")


def test_all_files_are_checked_in_one_child(installed: None) -> None:
    files = [("one", "[a]\n", ["fake.conf"]), ("two", "[DEFAULT]\ntransport_url = x\nx = y\n", ["fake.conf"])]
    assert [(p["file"], p["value"]) for p in check_files(files)] == [("one", ""), ("two", MASK)]


def test_a_namespace_that_is_not_installed_is_named(installed: None) -> None:
    with pytest.raises(OptionsUnavailable, match=r"provides the options nova\.cnf\. Install .*fake\.conf"):
        check("[a]\n", ["fake.conf", "nova.cnf"])


def test_namespaces_are_imported_until_all_is_known(installed: None) -> None:
    names = ["fake.conf", "broken"]
    assert check("[vnc]\nport = 1\n", names) == []
    assert [describe(one) for one in check("[vnc]\nport = x\n", names)] == [
        "text: [vnc] port = x: wrong value, invalid literal for int() with base 10: 'x'. It must be int."
    ]
    for needs_more in ("[vnc]\nprot = 1\n", "[elsewhere]\n", "[vnc]\nport = $elsewhere\n"):
        with pytest.raises(OptionsUnavailable, match="has no attribute 'nothing'"):
            check(needs_more, names)


def test_an_import_that_fails_is_shown(installed: None) -> None:
    with pytest.raises(OptionsUnavailable, match="has no attribute 'nothing'"):
        check("[a]\n", ["broken"])


REAL_OPTIONS = """
from oslo_config import cfg

def list_opts():
    return [("api", [cfg.StrOpt("path", default="/x"), cfg.StrOpt("log"), cfg.IntOpt("workers", min=1),
                     cfg.IntOpt("threads"), cfg.StrOpt("needed", required=True), cfg.StrOpt("word", secret=True)])]
"""


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("log = $path/log\nword = a$$b\\$c\n", []),
        ("log = $nothing/x\n", ["refers to an option that does not exist"]),
        ("word = hunter$2two\nlog = ${nothing}\n", ["refers to an option that does not exist"]),
        ("workers = 0\n", ["wrong value, Should be greater than or equal to 1"]),
        ("path = many\nthreads = $path\n", ["wrong value, invalid literal for int() with base 10: 'many'"]),
        ("threads = $workers\nworkers = 2\n", []),
    ],
)
def test_values_are_read_as_oslo_config_reads_them(
    installed: None, tmp_path: Path, text: str, problems: list[str]
) -> None:
    pytest.importorskip("oslo_config", reason="oslo.config is not installed on this computer")
    (tmp_path / "fake_opts.py").write_text(REAL_OPTIONS)
    assert [problem["why"] for problem in check(f"[api]\n{text}", ["fake.conf"])] == problems
