# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The state that all kinds of cloud resources share while they are converged. Used by cloud_resources."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.kilonova.cloud.api import CloudApi, CloudError
from ansible.module_utils.kilonova.cloud.plan import PlanError

# The id of a resource that check mode would create.
PREDICTED = "(created by this run)"


@dataclass
class Convergence:
    """What one call did, or in check mode would do."""

    api: CloudApi
    project_id: str
    check_mode: bool
    server_timeout: int
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, dict[str, str]] = field(default_factory=dict)
    # Servers that were not created because their host is full.
    without_room: list[str] = field(default_factory=list)
    # What an operator has to resolve.
    unresolved: list[PlanError] = field(default_factory=list)
    # What check mode could not see: the first failure of each service.
    unseen: list[CloudError] = field(default_factory=list)

    def record(self, kind: str, name: str, action: str, before: Any, after: Any) -> None:
        self.actions.append(f"{kind} {name}: {action}")
        self.before[f"{kind} {name}"] = before
        self.after[f"{kind} {name}"] = after

    def keep(self, kind: str, name: str, identity: str) -> None:
        self.ids.setdefault(kind, {})[name] = identity

    @property
    def must_stop(self) -> bool:
        """Whether to make no further changes, because the call will fail."""
        return bool(self.unresolved) and not self.check_mode

    @contextmanager
    def resolving(self) -> Iterator[None]:
        """Collect a PlanError, so that the other resources are still converged or predicted."""
        try:
            yield
        except PlanError as error:
            self.unresolved.append(error)

    @contextmanager
    def seeing(self) -> Iterator[None]:
        """Collect a service's failure in check mode, so that the other services are still asked."""
        try:
            yield
        except CloudError as error:
            if not (self.check_mode and error.blinds):
                raise
            if error.layer not in {one.layer for one in self.unseen}:
                self.unseen.append(error)

    def side_by_side(self, *kinds: Callable[[Convergence], None]) -> None:
        """Converge kinds that do not need each other at the same time, and record their results in this order.

        Raises the first kind's error after all kinds have ended.
        """
        parts = [Convergence(self.api, self.project_id, self.check_mode, self.server_timeout) for _ in kinds]
        with ThreadPoolExecutor(max_workers=len(kinds)) as pool:
            calls = [pool.submit(kind, part) for kind, part in zip(kinds, parts, strict=True)]
        for part in parts:
            self.actions += part.actions
            self.warnings += part.warnings
            self.before |= part.before
            self.after |= part.after
            self.ids |= part.ids
            self.unresolved += part.unresolved
            self.unseen += part.unseen
        for call in calls:
            with self.seeing():
                call.result()
