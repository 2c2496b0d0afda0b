# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Drive headless Chromium over its DevTools protocol, in a pipe, which no other user of this computer reaches."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Chromium's pipe has the descriptors 3 (to it) and 4 (from it).
START = ["sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null', "sh", "chromium"]
OPTIONS = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
NEEDED = ("chromium", "certutil")
TIMEOUT = 30
# A screen of text in VGA fits without being scaled.
SIZE = (720, 400)
# Events that say why a page fails.
REPORTED = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.loadingFailed")
# Characters of a US keyboard without and with shift, and the names of their keys.
PAIRS = {
    "-_": "Minus",
    "=+": "Equal",
    "[{": "BracketLeft",
    "]}": "BracketRight",
    "\\|": "Backslash",
    ";:": "Semicolon",
    "'\"": "Quote",
    "`~": "Backquote",
    ",<": "Comma",
    ".>": "Period",
    "/?": "Slash",
} | {f"{digit}{shifted}": f"Digit{digit}" for digit, shifted in enumerate(")!@#$%^&*(")}
SHIFT = 8


class BrowserError(Exception):
    """Chromium ended, refused a command or did not answer."""


def key_of(character: str) -> tuple[str, str, bool]:
    """Return what a key event names for a character: key, code, and whether shift is held."""
    if character == "\n":
        return "Enter", "Enter", False
    if character == " ":
        return " ", "Space", False
    if character.isascii() and character.isalpha():
        return character, f"Key{character.upper()}", character.isupper()
    for pair, code in PAIRS.items():
        if character in pair:
            return character, code, character == pair[1]
    raise ValueError(f"a US keyboard has no key for {character!r}")


class Chromium:
    """One page in a browser of its own, which trusts the authorities of its computer and those in a file, if any.

    It runs as nobody where the tests are root, and so keeps its sandbox.
    """

    def __init__(self, authority: str = "") -> None:
        missing = [name for name in NEEDED if not shutil.which(name)]
        if missing:
            raise BrowserError(f"this computer lacks {', '.join(missing)}; tools/setup browser installs them")
        self.events: list[dict[str, Any]] = []
        self._buffer = b""
        self._number = 0
        self._session = ""
        self._user: dict[str, Any] = {}
        self.home = Path(tempfile.mkdtemp(prefix="kilonova-chromium-"))
        self.errors = self.home / "errors"
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "LANG": "C.UTF-8",
        }
        if os.geteuid() == 0:
            shutil.chown(self.home, "nobody", "nogroup")
            self._user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        self.process: subprocess.Popen[bytes] | None = None
        try:
            if authority:
                self._trust(authority)
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all of its processes, and remove its files."""
        if self.process:
            with contextlib.suppress(BrowserError, OSError, subprocess.TimeoutExpired):
                self._session = ""
                self.send("Browser.close")
                self.process.wait(TIMEOUT)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
        shutil.rmtree(self.home)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        assert self.process and self.process.stdin
        self.process.stdin.write(json.dumps(command).encode() + b"\0")
        self.process.stdin.flush()
        deadline = time.monotonic() + TIMEOUT
        while True:
            message = self._message(deadline)
            if message.get("id") == self._number:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']}")
                return dict(message["result"])
            self.events.append(message)

    def open(self, url: str) -> str:
        """Open an address. Return the error, empty where the page came."""
        return str(self.send("Page.navigate", url=url).get("errorText", ""))

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait until a condition is true, and return what it returned."""
        deadline = time.monotonic() + seconds
        while not (answer := condition()):
            if time.monotonic() > deadline:
                raise BrowserError(f"{what} is not so after {seconds:g} s")
            time.sleep(0.1)
        return answer

    def type(self, text: str) -> None:
        """Press and release the keys of a text, with those of shift."""
        for character in text:
            key, code, shifted = key_of(character)
            modifiers = SHIFT if shifted else 0
            if shifted:
                self._press("keyDown", "Shift", "ShiftLeft", SHIFT)
            self._press("keyDown", key, code, modifiers)
            self._press("keyUp", key, code, modifiers)
            if shifted:
                self._press("keyUp", "Shift", "ShiftLeft", 0)

    def picture(self) -> bytes:
        """Return the page as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"])

    def seen(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of all events of a kind so far."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def report(self) -> str:
        """Return what the page and the browser complained of."""
        lines = [f"{event['method']}: {event['params']}" for event in self.events if event.get("method") in REPORTED]
        return "\n".join([*lines, self.errors.read_text(errors="replace")[-2000:]])

    def _press(self, kind: str, key: str, code: str, modifiers: int) -> None:
        self.send("Input.dispatchKeyEvent", type=kind, key=key, code=code, modifiers=modifiers)

    def _message(self, deadline: float) -> dict[str, Any]:
        assert self.process and self.process.stdout
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise BrowserError(f"Chromium does not answer: {self.errors.read_text(errors='replace')[-2000:]}")
            data = os.read(self.process.stdout.fileno(), 1 << 20)
            if not data:
                raise BrowserError(f"Chromium ended: {self.errors.read_text(errors='replace')[-2000:]}")
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(text))

    def _start(self) -> None:
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*START, *OPTIONS, f"--user-data-dir={self.home}/profile"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd="/",
                env=self._environment,
                start_new_session=True,
                **self._user,
            )
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)
        width, height = SIZE
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def _trust(self, authority: str) -> None:
        """Make an authority one for websites, in the store of the browser's user."""
        store = self.home / ".pki" / "nssdb"
        certutil = ["certutil", "-d", f"sql:{store}"]
        for command in (
            ["mkdir", "-p", str(store)],
            [*certutil, "-N", "--empty-password"],
            [*certutil, "-A", "-n", "cloud", "-t", "C,,", "-a"],
        ):
            subprocess.run(
                command, input=authority, text=True, check=True, cwd="/", env=self._environment, **self._user
            )
