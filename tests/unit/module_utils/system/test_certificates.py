# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Certificates as sockets serve them, against TLS servers of the test."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.system import certificates

from plugins.filter import pki

SECRET = "x" * 32
Serve = Callable[..., int]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serve a certificate of some days on a port of loopback, from its first day on."""
    listeners = []

    def on_a_port(days: float, farewells: list[bytes] | None = None) -> int:
        text = pki.pki_certificate(SECRET, "front", "api", days=days, now=datetime.now(UTC))
        (tmp_path / "pem").write_text(text + pki.pki_key(SECRET, "front", "api"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "pem")
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    with context.wrap_socket(connection, server_side=True) as secure:
                        if farewells is not None:
                            secure.sendall(b"\1")
                            farewells.append(secure.recv(1024))
                except OSError:
                    return  # The client does not trust the certificate.

        threading.Thread(target=answer, daemon=True).start()
        return int(listener.getsockname()[1])

    yield on_a_port
    for listener in listeners:
        listener.close()


def ask(
    tmp_path: Path,
    port: int,
    authority: str = "front",
    secrets: Sequence[str] = (SECRET,),
    farewell: str | None = None,
) -> certificates.Found:
    (tmp_path / "ca.pem").write_text(pki.pki_authority(secrets, authority))
    trusted = str(tmp_path / "ca.pem")
    return certificates.ask("the APIs", "haproxy.service", "127.0.0.1", port, trusted, farewell=farewell)


def test_the_days_that_are_left(serve: Serve, tmp_path: Path) -> None:
    found = ask(tmp_path, serve(3000))
    assert found.days is not None and 1000 <= found.days <= 3000
    assert found.reason == ""


def test_the_server_ends_the_connection_after_a_farewell(serve: Serve, tmp_path: Path) -> None:
    farewells: list[bytes] = []
    found = ask(tmp_path, serve(3000, farewells), farewell="0000001c 20008086")
    assert found.reason == ""
    assert farewells == [b"\0\0\0\x1c\x20\0\x80\x86"]


def test_a_certificate_that_ends_soon(serve: Serve, tmp_path: Path) -> None:
    found = ask(tmp_path, serve(6))
    assert found.days is not None and 2 <= found.days < 6
    assert found.reason == f"serves a certificate that ends in {found.days} days"


@pytest.mark.parametrize("secrets", [[SECRET, "y" * 32], ["y" * 32, SECRET]])
def test_one_of_two_authorities(serve: Serve, tmp_path: Path, secrets: list[str]) -> None:
    assert ask(tmp_path, serve(3000), secrets=secrets).reason == ""


def test_another_authority(serve: Serve, tmp_path: Path) -> None:
    found = ask(tmp_path, serve(3000), authority="libvirt")
    assert found.days is None
    assert found.reason.startswith("serves no certificate that can be trusted (")


def test_a_socket_that_is_opened_later(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").write_text(pki.pki_authority((SECRET,), "front"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = {"title": "x", "unit": "x.service", "address": "127.0.0.1", "authority": str(tmp_path / "ca.pem")}
        closed = asked | {"port": listener.getsockname()[1]}
    opened = asked | {"port": serve(3000)}
    monkeypatch.setattr(certificates.time, "sleep", lambda _: closed.update(opened))
    (found,) = certificates.ask_all([closed], patience=60)
    assert found.reason == "" and not found.refused
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = asked | {"port": listener.getsockname()[1]}
    (found,) = certificates.ask_all([gone])
    assert found.refused


def test_a_socket_that_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert ask(tmp_path, port).reason == f"does not listen at 127.0.0.1:{port}"
    assert "No such file" in certificates.ask("x", "x.service", "127.0.0.1", port, str(tmp_path / "none")).reason
