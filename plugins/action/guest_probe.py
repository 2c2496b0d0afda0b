# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Listen on the control computer while the module guest_probe lets a guest connect to it.

The listener is part of the task's process, so it ends with the task.
"""

from __future__ import annotations

import secrets
import socket
import threading
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

LINE_BYTES = 200
CLIENT_SECONDS = 5.0
POLL_SECONDS = 0.2


class Listener:
    """Answers each connection that sends the token with ``peer ADDRESS``, the address that it came from."""

    def __init__(self, address: str) -> None:
        self.token = secrets.token_hex(16)
        self.peers: list[str] = []
        self._socket = socket.create_server((address, 0))
        self._socket.settimeout(POLL_SECONDS)
        self.address, self.port = self._socket.getsockname()[:2]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                client, (peer, *_) = self._socket.accept()
            except TimeoutError:
                continue
            with client:
                self._answer(client, peer)

    def _answer(self, client: socket.socket, peer: str) -> None:
        client.settimeout(CLIENT_SECONDS)
        line = b""
        try:
            while b"\n" not in line and len(line) < LINE_BYTES:
                data = client.recv(LINE_BYTES)
                if not data:
                    break
                line += data
            # Without the token, others who find the port get no answer.
            if secrets.compare_digest(line.strip(), self.token.encode()):
                self.peers.append(peer)
                client.sendall(f"peer {peer}\n".encode())
        except OSError:
            return  # The guest tries again.


class ActionModule(ActionBase):
    """Run the module, with a listener where ``outside_listen`` is given."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        address = str(arguments.get("outside_listen") or "")
        if not address:
            return result | self._execute_module(module_args=arguments, task_vars=task_vars)
        try:
            listener = Listener(address)
        except OSError as error:
            raise AnsibleActionFail(
                f"outside_listen: this computer cannot listen on {address}: {error}. Use one of its addresses "
                "that guests can reach, or leave it empty."
            ) from error
        arguments |= {
            "outside_address": listener.address,
            "outside_port": listener.port,
            "outside_token": listener.token,
        }
        with listener:
            result |= self._execute_module(module_args=arguments, task_vars=task_vars)
        if not result.get("failed") and result.get("outside_peer") not in listener.peers:
            result |= {
                "failed": True,
                "layer": "SNAT",
                "msg": f"SNAT: the guest says that it reached the outside as {result.get('outside_peer')}, but the "
                f"listener at {listener.address}:{listener.port} was reached by "
                f"{', '.join(listener.peers) or 'nobody'}.",
            }
        return result
