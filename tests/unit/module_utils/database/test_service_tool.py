# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The private directory in which a tool runs, and its output."""

from __future__ import annotations

import configparser
import getpass
import os
import time
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.config.urls import database_url
from ansible.module_utils.kilonova.database.service_tool import (
    ServiceTool,
    ToolError,
    last_lines,
    render,
    secrets_of,
    url_with_login_file,
)

UGLY = "@:/%$#'\"\\ "
URL = database_url("t_user", UGLY, "127.0.0.1", "t_db", charset="utf8")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="changing to a system user needs root")


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
