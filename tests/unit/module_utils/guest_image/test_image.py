# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Options of guest_image, idempotence, and downloads over a real HTTP server."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import http.server
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.guest_image import build, image
from ansible.module_utils.testing import patch_module_args

PAYLOAD = b"QFI\xfb\0\0\0\3" + bytes(16) + (1 << 30).to_bytes(8, "big") + os.urandom(300_000)
CHECKSUM = "sha256:" + hashlib.sha256(PAYLOAD).hexdigest()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the module with options; return its result."""

    def call(check: bool = False, **options: Any) -> dict[str, Any]:
        with patch_module_args({**options, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            image.run(AnsibleModule(argument_spec=image.ARGUMENT_SPEC, supports_check_mode=True))
        result = json.loads(capsys.readouterr().out)
        assert isinstance(result, dict)
        return result

    return call


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server with an image; yields its URL and the paths that were asked for."""
    directory = tmp_path / "www"
    directory.mkdir()
    (directory / "cirros.img").write_bytes(PAYLOAD)
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(directory))) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}", asked
        web.shutdown()
        thread.join()


def test_image_from_a_web_server(run: Any, server: tuple[str, list[str]], tmp_path: Path) -> None:
    url, asked = server
    path = tmp_path / "images" / "cirros.qcow2"
    options = {"path": str(path), "source": f"{url}/cirros.img", "checksum": CHECKSUM}

    predicted = run(check=True, **options)
    assert predicted["changed"] and not path.exists() and asked == []

    first = run(**options)
    assert first["changed"] and path.read_bytes() == PAYLOAD
    assert (first["disk_format"], first["virtual_size"], first["size"]) == ("qcow2", 1 << 30, len(PAYLOAD))
    assert first["sha256"] == CHECKSUM.removeprefix("sha256:")
    assert f"{url}/cirros.img" in first["diff"]["after"]

    second = run(**options)
    assert not second["changed"] and asked == ["/cirros.img"]
    assert (second["sha256"], second["disk_format"]) == (first["sha256"], first["disk_format"])
    assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith(".building")] == []


def test_wrong_checksum_keeps_the_old_image(run: Any, server: tuple[str, list[str]], tmp_path: Path) -> None:
    url, _ = server
    path = tmp_path / "image"
    assert run(path=str(path), source=f"{url}/cirros.img", checksum=CHECKSUM)["changed"]

    result = run(path=str(path), source=f"{url}/cirros.img", checksum="sha256:" + "0" * 64)
    assert result["failed"]
    assert CHECKSUM.removeprefix("sha256:") in result["msg"] and "0" * 64 in result["msg"]
    assert "It was not kept" in result["msg"]
    assert path.read_bytes() == PAYLOAD
    assert not run(path=str(path), source=f"{url}/cirros.img", checksum=CHECKSUM)["changed"]


def test_missing_file_on_the_server(run: Any, server: tuple[str, list[str]], tmp_path: Path) -> None:
    result = run(path=str(tmp_path / "image"), source=f"{server[0]}/other.img", checksum=CHECKSUM)
    assert result["failed"] and "/other.img could not be downloaded" in result["msg"] and "404" in result["msg"]


def test_image_from_a_file_of_the_host(run: Any, tmp_path: Path) -> None:
    source = tmp_path / "own.img"
    source.write_bytes(b"\xeb" * 4096)
    checksum = "sha512:" + hashlib.sha512(b"\xeb" * 4096).hexdigest()
    result = run(path=str(tmp_path / "image"), source=str(source), checksum=checksum)
    assert result["changed"] and (result["disk_format"], result["virtual_size"]) == ("raw", 4096)
    assert run(path=str(tmp_path / "image"), source=f"file://{source}", checksum=checksum)["changed"]
    absent = run(path=str(tmp_path / "new"), source=str(tmp_path / "absent"), checksum=checksum)
    assert absent["failed"] and str(tmp_path / "absent") in absent["msg"]


@pytest.mark.parametrize("checksum", ["", "md5:abc", "sha256:123", "0" * 64])
def test_image_without_a_usable_checksum(run: Any, tmp_path: Path, checksum: str) -> None:
    result = run(path=str(tmp_path / "image"), source="http://127.0.0.1:1/x", checksum=checksum)
    assert result["failed"] and "needs 'sha256:'" in result["msg"]


class FakeBuilder:
    """Stands for the build, which needs package sources: writes what it was asked to build."""

    def __init__(self, recipe: build.Recipe, work: Path) -> None:
        self.recipe, self.work, self.versions = recipe, work, {"busybox-static": "1.37"}

    def build(self, out: Path, raw: bool = False) -> None:
        if self.recipe.kernel_arguments == "fail":
            raise build.BuildError("mke2fs failed with exit status 1: no space")
        out.write_text(f"{'raw' if raw else 'qcow2'} {self.recipe!r}")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Options for a build by the stand-in."""
    monkeypatch.setattr(image, "Builder", FakeBuilder)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return {
        "path": str(tmp_path / "images" / "guest.qcow2"),
        "console_password": "p@:/%$#'\"\\ s",
        "files": [{"path": "initramfs/init", "content": "#!/bin/sh\n", "mode": "0755"}],
    }


def test_build_again_only_when_something_changed(run: Any, built: dict[str, Any]) -> None:
    assert run(**built)["changed"]
    assert not run(**built)["changed"]
    for change in (
        {"user": "other"},
        {"size_mib": 600},
        {"console_password": "another"},
        {"console_password": ""},
        {"files": [{"path": "initramfs/init", "content": "#!/bin/ash\n", "mode": "0755"}]},
        {"files": [{"path": "initramfs/init", "content": "#!/bin/ash\n", "mode": "0700"}]},
    ):
        options = {**built, **change}
        assert run(check=True, **options)["changed"], change
        assert run(**options)["changed"], change
        assert not run(**options)["changed"], change


def test_a_raw_image_is_another_one(run: Any, built: dict[str, Any]) -> None:
    run(**built)
    result = run(**built, raw=True)
    assert result["changed"] and '"format": "raw"' in result["diff"]["after"]
    assert Path(built["path"]).read_text().startswith("raw ")
    assert not run(**built, raw=True)["changed"] and run(**built)["changed"]


def test_an_image_of_another_format_is_converted(
    run: Any, server: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(module: AnsibleModule, command: list[str]) -> tuple[int, str, str]:
        assert command[:6] == ["qemu-img", "convert", "-f", "qcow2", "-O", "raw"]
        assert Path(command[6]).read_bytes() == PAYLOAD
        Path(command[7]).write_bytes(b"raw" * 500)
        return 0, "", ""

    monkeypatch.setattr(AnsibleModule, "run_command", convert)
    options = {"path": str(tmp_path / "image"), "source": f"{server[0]}/cirros.img", "checksum": CHECKSUM, "raw": True}
    result = run(**options)
    assert (result["disk_format"], result["virtual_size"]) == ("raw", 1500)
    assert not run(**options)["changed"]
    monkeypatch.setattr(AnsibleModule, "run_command", lambda module, command: (1, "", "no such format"))
    assert "no such format" in run(**{**options, "path": str(tmp_path / "other")})["msg"]


def test_damaged_image_is_built_again(run: Any, built: dict[str, Any]) -> None:
    run(**built)
    with open(built["path"], "ab") as file:
        file.write(b"x")
    result = run(**built)
    assert result["changed"] and "changed since it was built" in result["diff"]["before"]


def test_password_is_nowhere(run: Any, built: dict[str, Any]) -> None:
    result = run(**built)
    directory = Path(built["path"]).parent
    record = directory / "guest.qcow2.json"
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(built["path"]).stat().st_mode) == 0o640
    for text in (record.read_text(), Path(built["path"]).read_text(), json.dumps(result)):
        assert built["console_password"] not in text
    hashed = json.loads(record.read_text())["console_hash"]
    assert build.password_hash(built["console_password"], hashed) == hashed


def test_failed_build_says_so_and_leaves_nothing(run: Any, built: dict[str, Any]) -> None:
    result = run(**{**built, "kernel_arguments": "fail"})
    assert result["failed"] and "mke2fs failed with exit status 1: no space" in result["msg"]
    assert [entry.name for entry in Path(built["path"]).parent.iterdir()] == [".lock"]


def test_left_over_of_a_killed_build_is_removed(run: Any, built: dict[str, Any]) -> None:
    left_over = Path(built["path"]).parent / ".building-killed"
    left_over.mkdir(parents=True)
    (left_over / "disk.raw").write_text("half")
    assert run(**built)["changed"] and not left_over.exists()


def test_build_that_went_on_after_its_run_was_killed_is_taken(
    run: Any, built: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock = Path(built["path"]), fcntl.flock
    builds = []

    class CountingBuilder(FakeBuilder):
        def build(self, out: Path, raw: bool = False) -> None:
            builds.append(out)
            super().build(out, raw)

    monkeypatch.setattr(image, "Builder", CountingBuilder)

    def wait_for_the_earlier_call(*arguments: Any) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        assert run(**built)["changed"]
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", wait_for_the_earlier_call)
    result = run(**built)
    # One more build would have another salt, and the image in use would change.
    assert len(builds) == 1
    assert result["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_upgrade_compares_versions(run: Any, built: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run(**built)
    monkeypatch.setattr(image, "new_versions", lambda record, work: {"libc6": "2.42"})
    assert not run(**built)["changed"]
    result = run(**{**built, "upgrade": True})
    assert result["changed"] and "2.42" in result["diff"]["after"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": []}, "no initramfs/init"),
        ({"user": "root"}, "user is 'root'"),
        ({"user": "Bad User"}, "user is 'Bad User'"),
        ({"files": [{"path": "initramfs/init", "content": ""}, {"path": "../x", "content": ""}]}, "'../x'"),
        ({"files": [{"path": "initramfs/init", "content": "", "mode": "u+x"}]}, "'u+x'"),
    ],
)
def test_options_that_cannot_be(run: Any, built: dict[str, Any], change: dict[str, Any], message: str) -> None:
    result = run(**{**built, **change})
    assert result["failed"] and message in result["msg"]


def test_other_architecture(run: Any, built: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    result = run(**built)
    assert result["failed"] and "this host is aarch64" in result["msg"] and "source" in result["msg"]


def test_a_mode_is_corrected_without_a_build(run: Any, built: dict[str, Any]) -> None:
    run(**built)
    image = Path(built["path"])
    inode = image.stat().st_ino
    image.chmod(0o644)
    result = run(**built)
    assert result["changed"] and '"mode": "0644"' in result["diff"]["before"]
    assert (stat.S_IMODE(image.stat().st_mode), image.stat().st_ino) == (0o640, inode)
    assert not run(**built)["changed"]
