# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Converge keypairs."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.kilonova.cloud import plan
from ansible.module_utils.kilonova.cloud.converge import Convergence


def converge_keypairs(work: Convergence, wanted: list[dict[str, Any]]) -> None:
    existing = work.api.listing("compute", "/os-keypairs", "keypairs") if wanted else []
    known = {item["keypair"]["name"]: item["keypair"] for item in existing}
    for one in wanted:
        with work.resolving():
            _converge(work, one, known.get(one["name"]))


def _converge(work: Convergence, one: dict[str, Any], current: dict[str, Any] | None) -> None:
    name = one["name"]
    public_key = one["public_key"] or _read_key(work, one["public_key_file"])
    if public_key is None:
        work.record("keypair", name, "created", None, {"public_key_file": one["public_key_file"]})
        return
    problem = plan.public_key_problem(public_key)
    if problem:
        raise plan.PlanError(f"the public key of the keypair '{name}' cannot be used: {problem}.")
    if current and plan.same_key(current["public_key"], public_key):
        return
    before = {"public_key": current["public_key"].strip()} if current else None
    work.record("keypair", name, "replaced" if current else "created", before, {"public_key": public_key.strip()})
    if work.check_mode:
        return
    if current:
        work.api.delete("compute", f"/os-keypairs/{name}")
    body = {"name": name, "type": "ssh", "public_key": public_key.strip()}
    work.api.post("compute", "/os-keypairs", {"keypair": body})


def _read_key(work: Convergence, path: str) -> str | None:
    """Return the key in a file; None in check mode when the file does not exist yet."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        if work.check_mode:
            return None
        raise plan.PlanError(f"the public key file {path} does not exist on this host.") from None
