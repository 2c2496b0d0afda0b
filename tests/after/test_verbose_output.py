# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The output of a scenario with -vvv has no secret in any form."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import yaml

from tests.secret import secrets_of

PROJECT = Path(__file__).resolve().parents[2]
SCENARIO = os.environ.get("MOLECULE_SCENARIO_NAME", "default")
LOG = PROJECT / ".cache" / "molecule" / f"{SCENARIO}.log"
# Logs of the runs that the step prepare killed.
KILLED = PROJECT / ".cache" / "molecule" / f"{SCENARIO}-chaos" / "logs"
# From before the scenario rotated them.
BEFORE = PROJECT / ".cache" / "molecule" / "rotation" / "before.yml"
SECRETS = PROJECT / "molecule" / SCENARIO / "inventory" / "group_vars" / "all" / "secrets.yml"
# Every secret that a scenario brings begins with a random part of this length. The rest is the same in all of them.
RANDOM_LENGTH = 24


@pytest.fixture(scope="module")
def output() -> str:
    return LOG.read_text(errors="replace")


@pytest.fixture(scope="module")
def killed() -> str:
    return "".join(path.read_text(errors="replace") for path in sorted(KILLED.glob("*.log")))


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    path = BEFORE if SCENARIO == "default" and BEFORE.exists() else SECRETS
    return secrets_of(yaml.safe_load(path.read_text()))


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    """Those that a rotation made."""
    return secrets_of(yaml.safe_load(SECRETS.read_text()))


def forms(secret: str) -> set[str]:
    """Return a secret as it appears in URLs, in JSON, and cut off at a quote."""
    return {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], secret[:RANDOM_LENGTH]}


def test_the_run_was_verbose_and_complete(output: str) -> None:
    texts = (
        " EXEC ",
        "Register services, users and endpoints in the catalog",
        "Check the APIs, the guest, its consoles and its way out",
    )
    # An assertion on the output itself would print a hundred thousand lines.
    assert [text for text in texts if text not in output] == []


def test_secrets_are_hard_to_quote(secrets: dict[str, str]) -> None:
    assert len(secrets) > 10
    assert all(value.endswith("@:/%$#'\"\\ ") for value in secrets.values())


@pytest.mark.skipif(SCENARIO != "default", reason="only the scenario default kills runs")
def test_killed_runs_were_verbose(killed: str) -> None:
    assert " EXEC " in killed


def test_no_secret_was_printed(output: str, killed: str, secrets: dict[str, str], generated: dict[str, str]) -> None:
    text = output + killed
    values = [*secrets.items(), *generated.items()]
    assert sorted({name for name, value in values if any(form in text for form in forms(value))}) == []
