# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""libvirt_secrets defines what is missing, corrects what differs, and leaves other secrets alone."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import libvirt_secrets
import pytest
from ansible.module_utils.kilonova.libvirt import secrets

NOVA, CINDER, OTHER = (f"00000000-0000-5000-8000-00000000000{number}" for number in (1, 2, 3))
KEY = base64.b64encode(b"the key of nova").decode()
WANTED = {"uuid": NOVA, "name": "client.nova", "value": KEY}


class LibvirtError(Exception):
    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code

    def get_error_code(self) -> int:
        return self.code


class Library:
    """The parts of the libvirt module that are used."""

    libvirtError = LibvirtError
    VIR_ERR_NO_SECRET = 66
    VIR_ERR_INVALID_SECRET = 65


class Secret:
    def __init__(self, host: Host, xml: str) -> None:
        self.host, self.xml, self.content = host, xml, b""
        self.uuid = xml.partition("<uuid>")[2].partition("</uuid>")[0]

    def UUIDString(self) -> str:
        return self.uuid

    def XMLDesc(self) -> str:
        return self.xml

    def value(self) -> bytes:
        if not self.content:
            raise LibvirtError("no value", Library.VIR_ERR_NO_SECRET)
        return self.content

    def setValue(self, value: bytes) -> None:
        self.content = value

    def undefine(self) -> None:
        self.host.secrets.remove(self)


class Host:
    """A libvirt with one secret for a usage, as libvirt has it."""

    def __init__(self) -> None:
        self.secrets: list[Secret] = []

    def listAllSecrets(self) -> list[Secret]:
        return list(self.secrets)

    def secretDefineXML(self, xml: str) -> Secret:
        new = Secret(self, xml)
        for one in self.secrets:
            if secrets.properties(one.xml)["name"] == secrets.properties(xml)["name"]:
                raise LibvirtError(f"a secret with UUID {one.uuid} already defined for use")
            if one.uuid == new.uuid:
                raise LibvirtError("cannot change the usage of a secret")
        self.secrets.append(new)
        return new

    def close(self) -> None:
        pass


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host()
    monkeypatch.setattr(secrets, "connect", lambda module, uri: (Library, found))
    monkeypatch.setattr(secrets, "find_spec", lambda name: object())
    return found


def state(host: Host) -> dict[str, bytes]:
    return {one.uuid: one.content for one in host.secrets}


def test_a_missing_secret_is_defined_once(host: Host, run_module: Callable[..., dict[str, Any]]) -> None:
    predicted = run_module(libvirt_secrets, check=True, secrets=[WANTED])
    assert predicted["changed"] and not host.secrets
    done = run_module(libvirt_secrets, secrets=[WANTED])
    assert done["changes"] == predicted["changes"] == [f"client.nova ({NOVA}): defined"]
    assert state(host) == {NOVA: b"the key of nova"}
    assert secrets.properties(host.secrets[0].xml) == {
        "ephemeral": "no",
        "private": "no",
        "type": "ceph",
        "name": "client.nova",
    }
    assert not run_module(libvirt_secrets, secrets=[WANTED])["changed"]


@pytest.mark.parametrize("value", [b"", b"another"])
def test_another_value_is_corrected(host: Host, run_module: Callable[..., dict[str, Any]], value: bytes) -> None:
    run_module(libvirt_secrets, secrets=[WANTED])
    host.secrets[0].content = value
    assert run_module(libvirt_secrets, check=True, secrets=[WANTED])["changed"]
    assert state(host) == {NOVA: value}
    assert run_module(libvirt_secrets, secrets=[WANTED])["changes"] == [f"client.nova ({NOVA}): another value"]
    assert state(host) == {NOVA: b"the key of nova"}


@pytest.mark.parametrize(
    "xml",
    [
        secrets.secret_xml(OTHER, "client.nova"),
        secrets.secret_xml(NOVA, "client.admin"),
        secrets.secret_xml(NOVA, "client.nova").replace('ephemeral="no"', 'ephemeral="yes"'),
        secrets.secret_xml(NOVA, "client.nova").replace('private="no"', 'private="yes"'),
    ],
    ids=["uuid", "usage", "ephemeral", "private"],
)
def test_another_definition_is_replaced(host: Host, run_module: Callable[..., dict[str, Any]], xml: str) -> None:
    host.secretDefineXML(xml).setValue(b"the key of nova")
    assert len(run_module(libvirt_secrets, check=True, secrets=[WANTED])["changes"]) == 2
    run_module(libvirt_secrets, secrets=[WANTED])
    assert state(host) == {NOVA: b"the key of nova"}
    assert not run_module(libvirt_secrets, secrets=[WANTED])["changed"]


def test_other_secrets_stay(host: Host, run_module: Callable[..., dict[str, Any]]) -> None:
    host.secretDefineXML(secrets.secret_xml(OTHER, "client.other")).setValue(b"of somebody else")
    run_module(libvirt_secrets, secrets=[WANTED])
    absent = [{"uuid": NOVA, "name": "client.nova"}, {"uuid": CINDER, "name": "client.cinder"}]
    assert run_module(libvirt_secrets, check=True, secrets=absent, state="absent")["changed"]
    done = run_module(libvirt_secrets, secrets=absent, state="absent")
    assert done["changes"] == [f"client.nova ({NOVA}): removed"]
    assert state(host) == {OTHER: b"of somebody else"}
    assert not run_module(libvirt_secrets, secrets=absent, state="absent")["changed"]


def test_values_are_in_no_result(host: Host, run_module: Callable[..., dict[str, Any]]) -> None:
    assert KEY not in str(run_module(libvirt_secrets, secrets=[WANTED]))


@pytest.mark.parametrize("value", ["", "not base64!"])
def test_a_key_that_is_none_is_refused(host: Host, run_module: Callable[..., dict[str, Any]], value: str) -> None:
    result = run_module(libvirt_secrets, secrets=[WANTED | {"value": value}])
    assert result["failed"] and not host.secrets


def test_a_host_without_libvirt_predicts_all(
    monkeypatch: pytest.MonkeyPatch, run_module: Callable[..., dict[str, Any]]
) -> None:
    monkeypatch.setattr(secrets, "find_spec", lambda name: None)
    assert run_module(libvirt_secrets, check=True, secrets=[WANTED])["changed"]
    assert not run_module(libvirt_secrets, check=True, secrets=[WANTED], state="absent")["changed"]
