# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Run a call in the background without delaying the end of the program.

Python waits for the threads of concurrent.futures when it ends. A module that has failed would have to wait for its
background calls, such as a request that Nova takes a minute to refuse.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Background(Generic[Answer]):
    """Starts a call at once, in a thread."""

    def __init__(self, call: Callable[[], Answer]) -> None:
        self._call = call
        self._answer: list[Answer] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._answer.append(self._call())
        except BaseException as error:
            self._error = error

    def result(self) -> Answer:
        """Wait for the call, and return what it returns or raise what it raises."""
        self._thread.join()
        if self._error:
            raise self._error
        return self._answer[0]
