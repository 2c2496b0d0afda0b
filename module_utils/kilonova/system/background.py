# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A call beside the others, which holds up nobody who does not want its answer any more.

Python waits at its end for the threads of concurrent.futures: a module that has failed would wait for what it had begun
beside, such as a request that Nova takes a minute to refuse.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Background(Generic[Answer]):
    """Begins a call at once, in a thread of its own."""

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
        """What the call returns, as soon as it does; raises what the call raised."""
        self._thread.join()
        if self._error:
            raise self._error
        return self._answer[0]
