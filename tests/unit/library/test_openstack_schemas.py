# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Migration scripts, schemas of the parameters, and the private place in which a tool runs."""

from __future__ import annotations

import configparser
import getpass
import os
import time
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.config.urls import database_url
from ansible.module_utils.kilonova.database.alembic_scripts import (
    heads,
    parse_revision,
    pending,
    read_revisions,
    unknown,
)
from ansible.module_utils.kilonova.database.schemas import KINDS, kind_of
from ansible.module_utils.kilonova.database.service_tool import (
    ServiceTool,
    ToolError,
    last_lines,
    render,
    secrets_of,
    url_with_login_file,
)
from openstack_schemas import parse_schemas

UGLY = "@:/%$#'\"\\ "
URL = database_url("t_user", UGLY, "127.0.0.1", "t_db", charset="utf8")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="changing to a system user needs root")


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """Two branches, the second of which depends on the first, as in Glance."""
    texts = {
        "a.py": "revision = 'a'\ndown_revision = None\n\ndef upgrade():\n    revision = 'not this one'\n",
        "sub/b.py": "import sqlalchemy\nrevision: str = 'b'\ndown_revision = ('a',)\nbranch_labels = ('expand',)\n",
        "sub/c.py": "revision = 'c'\ndown_revision = 'a'\ndepends_on = 'b'\n",
        "sub/d.py": "revision = 'd'\ndown_revision = 'b'\n",
        "__init__.py": "",
    }
    (tmp_path / "sub").mkdir()
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_scripts_are_read_without_being_run(scripts: Path) -> None:
    revisions = read_revisions(str(scripts))
    assert sorted(revisions) == ["a", "b", "c", "d"]
    assert heads(revisions) == ["c", "d"]
    assert parse_revision("import no_such_package\nrevision = 'x'\n") is not None


def test_pending_follows_dependencies(scripts: Path) -> None:
    revisions = read_revisions(str(scripts))
    assert pending(revisions, []) == {"a", "b", "c", "d"}
    assert pending(revisions, ["c"]) == {"d"}
    assert pending(revisions, ["d"]) == {"c"}
    assert pending(revisions, ["c", "d"]) == set()
    assert unknown(revisions, ["c", "future"]) == ["future"]


def test_a_directory_without_scripts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no migration scripts"):
        read_revisions(str(tmp_path))


def test_kinds() -> None:
    assert kind_of("nova_cell0") == kind_of("nova_cell12")
    assert kind_of("nova_cell0") != kind_of("nova_api")
    assert all("{config}" in kind.command for kind in KINDS.values())
    with pytest.raises(ValueError, match="'cinder' is none of keystone"):
        kind_of("cinder")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": "glance", "connection": "sqlite:///x"}], "of the schema glance cannot be used: the scheme"),
        ([{"name": "glance", "connection": URL}] * 2, "listed more than once: glance"),
    ],
)
def test_wrong_parameters_are_explained(entries: list[dict[str, str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_schemas(entries)


def test_the_login_leaves_the_url() -> None:
    url = url_with_login_file(URL, "/run/x.cnf")
    assert url == "mysql+pymysql://127.0.0.1:3306/t_db?charset=utf8&read_default_file=/run/x.cnf"


def test_the_end_of_an_output_has_no_secret_and_no_long_statement() -> None:
    output = f"1\n2\nError: {UGLY}! and {URL} or rabbit://u:pass@h\n"
    output += "(1050, 'exists')\n[SQL: \nCREATE TABLE x (\n" + "a\n" * 50 + ")\n\n]\n(Background on this error)\n"
    text = last_lines(output, secrets_of(URL), lines=5)
    assert "1050" in text
    assert "[SQL: CREATE TABLE x ( ...]" in text
    assert not any(secret in text for secret in (UGLY, "%40", ":pass@"))


def tool(tmp_path: Path, timeout: float = 20) -> ServiceTool:
    return ServiceTool(getpass.getuser(), "schema-test", "key", timeout, run_directory=str(tmp_path / "run"))


PRINT_CONFIGURATION = [
    "python3",
    "-c",
    "import os, sys; f = sys.argv[2]; d = sys.argv[4]; print(open(f).read()); print(open(d + '/database.cnf').read());"
    "print(oct(os.stat(f).st_mode & 0o777), oct(os.stat(d).st_mode & 0o777), os.environ.keys(), sys.argv)",
    "{config}",
]


@ROOT
def test_a_tool_gets_its_secrets_in_private_files_only(tmp_path: Path) -> None:
    work = tool(tmp_path)
    with work.locked():
        output = work.run(PRINT_CONFIGURATION, {"DEFAULT": {"x": "a$b"}}, {"database": (URL, "file")})
    assert "x = a\\$b" in output
    assert "0o600 0o700" in output
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(output[output.index("[client]") : output.index("0o600")])
    assert parser["client"]["password"] == f'"{UGLY}"'
    assert UGLY not in output.splitlines()[-1]
    assert [path.name for path in (tmp_path / "run").iterdir()] == [Path(work.base).name + ".lock"]


@ROOT
def test_a_failing_tool_leaves_nothing_behind_and_its_output_is_kept(tmp_path: Path) -> None:
    work = tool(tmp_path)
    with work.locked(), pytest.raises(ToolError, match="python3 ended with code 3") as caught:
        work.run(["python3", "-c", "print('why'); raise SystemExit(3)"], {})
    assert caught.value.output == "why\n"
    assert not os.path.exists(work.base)


@ROOT
def test_a_slow_tool_is_left_alone_and_waited_for_by_the_next_call(tmp_path: Path) -> None:
    marker = tmp_path / "done"
    # The tool runs as this user in a directory of its own, so the marker's path has to be absolute.
    slow = ["python3", "-c", f"import time, pathlib; time.sleep(1.2); pathlib.Path({str(marker)!r}).touch()"]
    first = tool(tmp_path, timeout=0.3)
    with first.locked(), pytest.raises(ToolError, match=r"still runs as process \d+ after 0.3 s"):
        first.run(slow, {})
    impatient = tool(tmp_path, timeout=0.1)
    with pytest.raises(ToolError, match="an earlier run is still at work"), impatient.locked():
        pass
    started = time.monotonic()
    with tool(tmp_path).locked():
        assert marker.exists()
    assert time.monotonic() - started < 10


def test_an_unknown_user_or_command_is_named(tmp_path: Path) -> None:
    work = ServiceTool("no-such-user", "w", "k", 1, run_directory=str(tmp_path))
    with work.locked(), pytest.raises(ToolError, match="system user no-such-user does not exist"):
        work.run(["true"], {})
    work = tool(tmp_path)
    with work.locked(), pytest.raises(ToolError, match="no-such-tool is not installed"):
        work.run(["no-such-tool"], {})


def test_rendering_escapes() -> None:
    assert render({"a": {"b": "$x", "c": " y"}, "d": {}}) == '[a]\nb = \\$x\nc = " y"\n[d]\n'
