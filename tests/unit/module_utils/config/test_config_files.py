# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.config import config_files
from ansible.module_utils.kilonova.config.masking import MASK, secret_forms
from ansible.module_utils.testing import patch_module_args

OWNER, GROUP = str(os.getuid()), str(os.getgid())
SECRET = "p@:/%$#'\"\\ w"


def entry(dest: Path | str, text: str | None = "x\n", **more: Any) -> dict[str, Any]:
    encoded = {} if text is None else {"encoded": base64.b64encode(text.encode()).decode()}
    return {"dest": str(dest), "owner": OWNER, "group": GROUP, "mode": "0640", **encoded, **more}


def run(capsys: pytest.CaptureFixture[str], *files: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    with patch_module_args({"files": list(files), **arguments}), pytest.raises(SystemExit):
        config_files.run(AnsibleModule(argument_spec=config_files.ARGUMENT_SPEC, supports_check_mode=True))
    printed = capsys.readouterr()
    result = dict(json.loads(printed.out))
    result["output"] = printed.out + printed.err
    return result


def test_files_and_directories_are_installed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").write_text("old\n")
    files = [
        entry(tmp_path / "a" / "b", None, state="directory", mode="0750"),
        entry(tmp_path / "a" / "b" / "x.conf", "[a]\n"),
        entry(tmp_path / "old", None, state="absent"),
    ]
    result = run(capsys, *files)
    assert result["changed_files"] == [file["dest"] for file in files]
    assert (tmp_path / "a" / "b" / "x.conf").read_text() == "[a]\n"
    modes = [(tmp_path / name).stat().st_mode & 0o7777 for name in ("a", "a/b", "a/b/x.conf")]
    assert modes == [0o755, 0o750, 0o640]
    assert not (tmp_path / "old").exists()
    again = run(capsys, *files)
    assert (again["changed"], again["changed_files"]) == (False, [])


def test_a_wrong_mode_is_fixed_without_writing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x"
    path.write_text("x\n")
    path.chmod(0o666)
    before = path.stat().st_mtime_ns
    result = run(capsys, entry(path), _ansible_diff=True)
    assert (result["changed_files"], result["written_files"]) == ([str(path)], [])
    assert result["diff"][0]["before"] == "mode: 0666\n" and result["diff"][0]["after"] == "mode: 0640\n"
    assert (path.stat().st_mode & 0o7777, path.stat().st_mtime_ns) == (0o640, before)


def test_check_mode_predicts_on_a_bare_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "not" / "there" / "x"
    file = entry(path, options=["no.such.namespace"], group="no-such-group")
    result = run(capsys, file, _ansible_check_mode=True)
    assert (result["changed"], result["changed_files"]) == (True, [str(path)])
    # Ansible wraps its warnings to the width of the terminal.
    assert "was not checked: nothing on this host provides the options no.such.namespace yet" in " ".join(
        result["output"].split()
    )
    assert not (tmp_path / "not").exists()


def test_nothing_is_written_when_one_file_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dir").mkdir()
    result = run(
        capsys,
        entry(tmp_path / "first"),
        entry(tmp_path / "dir"),
        entry(tmp_path / "none" / "x", owner="no-such-user", group="no-such-group"),
    )
    assert result["failed"] and list(tmp_path.iterdir()) == [tmp_path / "dir"]
    assert result["msg"].splitlines() == [
        "Nothing was written:",
        f"- {tmp_path}/dir is a directory, not a file; remove it or choose another dest",
        f"- {tmp_path}/none/x: the user 'no-such-user' does not exist on this host; "
        "install the package that creates it first",
        f"- {tmp_path}/none/x: the group 'no-such-group' does not exist on this host; "
        "install the package that creates it first",
        f"- {tmp_path}/none/x: the directory {tmp_path}/none does not exist; "
        "install the package that owns it, or list it before the file with state: directory",
    ]


def test_nothing_is_written_when_a_file_fails_its_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = {"file": "/x.conf", "section": "a", "option": "b", "value": f"mysql://u:{SECRET}@h"}
    problem |= {"why": f"wrong value {SECRET}", "suggestion": ""}
    monkeypatch.setattr(config_files, "check_files", lambda files: [problem])
    result = run(capsys, entry(tmp_path / "y"), entry(tmp_path / "x", options=["n"]), secrets=secret_forms(SECRET))
    assert result["msg"].endswith("- /x.conf: [a] b = mysql://u:********@h: wrong value ********.")
    assert SECRET not in result["output"] and json.dumps(SECRET)[1:-1] not in result["output"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_stays_is_not_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    def check_files(files: list[tuple[str, str, list[str]]]) -> list[dict[str, str]]:
        checked.extend(path for path, _, _ in files)
        return []

    monkeypatch.setattr(config_files, "check_files", check_files)
    run(capsys, entry(tmp_path / "x", options=["n"]))
    run(capsys, entry(tmp_path / "x", options=["n"]), entry(tmp_path / "y", options=["n"]))
    assert checked == [str(tmp_path / "x"), str(tmp_path / "y")]


def test_backup_keeps_the_old_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("old\n")
    result = run(capsys, entry(tmp_path / "x"), backup=True)
    assert Path(result["backup_files"][str(tmp_path / "x")]).read_text() == "old\n"
    assert (tmp_path / "x").read_text() == "x\n"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "target").write_text("target\n")
    (tmp_path / "x").symlink_to(tmp_path / "target")
    assert run(capsys, entry(tmp_path / "x"))["changed"]
    assert not (tmp_path / "x").is_symlink() and (tmp_path / "target").read_text() == "target\n"


def test_the_diff_shows_no_secret_new_or_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "url = mysql://nova:{quoted}@h/nova\nPASS='{plain}'\nadmin_password = {plain}\nx = {x}\n"
    (tmp_path / "x").write_text(lines.format(quoted="old%40one", plain="old@one", x=1))
    new = lines.format(quoted=secret_forms(SECRET)[1], plain=SECRET, x=2)
    result = run(capsys, entry(tmp_path / "x", new), secrets=secret_forms(SECRET), _ansible_diff=True)
    shown = f"url = mysql://nova:{MASK}@h/nova\nPASS='{MASK}'\nadmin_password = {MASK}\nx = "
    assert result["diff"][0]["before"].endswith(shown + "1\n") and result["diff"][0]["after"].endswith(shown + "2\n")
    for form in [*secret_forms(SECRET), "old@one", "old%40one"]:
        assert json.dumps(form)[1:-1] not in result["output"]


def test_a_change_of_secrets_alone_is_visible(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("password = old\n")
    (tmp_path / "x").chmod(0o640)
    result = run(capsys, entry(tmp_path / "x", "password = brand-new\n"), secrets=["brand-new"], _ansible_diff=True)
    assert result["diff"][0]["before"] == f"(hidden values: old)\npassword = {MASK}\n"
    assert result["diff"][0]["after"] == f"(hidden values: new)\npassword = {MASK}\n"


@pytest.mark.parametrize("mode", ["rw", "0999", "u=rw", "0o644"])
def test_modes_are_octal(mode: str) -> None:
    assert config_files.parse_mode(None, "/x", "file") == 0o644
    with pytest.raises(ValueError, match="/x: mode '.*' is not an octal number in quotes"):
        config_files.parse_mode(mode, "/x", "file")


def test_check_mode_names_what_a_run_cannot_replace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    files = [entry(tmp_path / "dir"), entry(tmp_path / "file", None, state="directory"), entry(tmp_path / "other")]
    result = run(capsys, *files, _ansible_check_mode=True)
    assert [sentence.partition(";")[0] for sentence in result["needs_you"]] == [
        f"{tmp_path}/dir is a directory, not a file",
        f"{tmp_path}/file is not a directory",
    ]
    assert result["changed_files"] == [file["dest"] for file in files]


def test_calls_in_one_process_leave_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = os.umask(0o027)
    try:
        for check in (True, False):
            result = run(capsys, entry(tmp_path / "new" / "dir", None, state="directory"), _ansible_check_mode=check)
            assert result["changed"]
            assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "dir").is_dir()
