# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Byte-compile Python packages in parallel to dpkg.

The postinst script of each Python package runs py3compile while dpkg waits, some hundred times in a deployment. Here
the scripts find a program of the same name that only queues its arguments. The real py3compile works through the queue
on the other processors, and finishes after dpkg. The next call finishes a queue that was interrupted.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

DIRECTORY = "/var/lib/kilonova/py3compile"
PROGRAM = "/usr/bin/py3compile"
# Search path that apt sets for scripts of packages (DPkg::Path in apt.conf(5)).
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POLL_SECONDS = 0.2
LAST_LINES = 5


class ByteCompiler:
    """A context around dpkg. ``path`` is the search path for the scripts of packages."""

    def __init__(self, directory: str = DIRECTORY, program: str = PROGRAM, processors: int | None = None) -> None:
        self.program = program
        self.programs = os.path.join(directory, "bin")
        self.queue = os.path.join(directory, "queue")
        self.path = f"{self.programs}:{PATH}"
        self.processors = processors or len(os.sched_getaffinity(0))
        self.problems: list[str] = []
        self._read = 0
        self._ended = threading.Event()
        self._calls: list[tuple[str, Future[None]]] = []
        # dpkg itself keeps one processor busy.
        self._pool = ThreadPoolExecutor(max(1, self.processors - 1))
        self._watch = threading.Thread(target=self._follow, daemon=True)

    def waiting(self) -> list[str]:
        """Return the queued calls, each once."""
        try:
            with open(self.queue, encoding="utf-8") as stream:
                return list(dict.fromkeys(line for line in stream.read().splitlines() if line.strip()))
        except FileNotFoundError:
            return []

    def finish(self) -> None:
        """Finish a queue that was interrupted."""
        with ThreadPoolExecutor(self.processors) as pool:
            list(pool.map(self._compile, self.waiting()))
        self._forget()

    def __enter__(self) -> ByteCompiler:
        os.makedirs(self.programs, mode=0o755, exist_ok=True)
        stand_in = os.path.join(self.programs, os.path.basename(self.program))
        text = (
            "#!/bin/sh\n"
            "# Queues calls for the real program while Kilonova installs packages.\n"
            f"printf '%s\\n' \"$*\" >>{shlex.quote(self.queue)}\n"
        )
        descriptor = os.open(f"{stand_in}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(descriptor, 0o755)
            stream.write(text)
        os.rename(f"{stand_in}.new", stand_in)
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._watch.join()
        # dpkg has ended, so that all processors are free.
        with ThreadPoolExecutor(self.processors) as rest:
            for line, call in self._calls:
                if call.cancel():
                    rest.submit(self._compile, line)
        self._pool.shutdown()
        self._forget()

    def _follow(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self._take()
        self._take()

    def _take(self) -> None:
        """Start the calls that were queued since the last time. Incomplete lines wait."""
        try:
            with open(self.queue, "rb") as stream:
                stream.seek(self._read)
                text = stream.read()
        except FileNotFoundError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode().splitlines():
            self._calls.append((line, self._pool.submit(self._compile, line)))

    def _compile(self, line: str) -> None:
        done = subprocess.run(
            [self.program, *shlex.split(line)], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            last = (done.stdout + done.stderr).strip().splitlines()[-LAST_LINES:]
            self.problems.append("\n".join([f"{self.program} {line} ended with {done.returncode}:", *last]))

    def _forget(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.queue)
