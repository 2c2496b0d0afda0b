# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The state of a rotation: no value is lost or made twice, wherever it is killed."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from ansible.module_utils.kilonova.preflight import secret_rotation as rotation

CLASSES = {
    "rabbitmq": ["nova_messaging_password", "nova_compute_seed"],
    "database": ["nova_database_password"],
    "admin": ["keystone_admin_password"],
}
OLD = {name: f"old {name}" for names in CLASSES.values() for name in names} | {"other_secret": "kept"}


def begin(content: dict[str, Any], words: list[str]) -> dict[str, Any]:
    numbers = count(1)
    return rotation.begin(content, CLASSES, words, lambda: f"new {next(numbers)}")


def test_all_secrets_change_once_and_the_old_ones_are_forgotten() -> None:
    added = begin(OLD, [])
    state = added["secrets_rotation"]
    assert {name: added[name] for name in OLD} == OLD, "nothing uses a new secret yet"
    assert (state["stage"], state["classes"]) == ("add", list(CLASSES))
    assert set(state["other"]) == set(OLD) - {"other_secret"}
    used = rotation.advance(added, "use")
    assert {name: used[name] for name in state["other"]} == state["other"]
    assert used["secrets_rotation"]["other"] == {name: OLD[name] for name in state["other"]}
    removed = rotation.advance(used, "remove")
    assert removed["secrets_rotation"]["stage"] == "remove"
    ended = rotation.end(removed)
    assert ended == OLD | state["other"] | {"secrets_second_accounts": ["compute", "rabbitmq"]}
    assert "secrets_rotation" not in ended


def test_accounts_are_used_in_turn() -> None:
    content: dict[str, Any] = dict(OLD)
    found = []
    for words in (["rabbitmq"], ["database"], ["rabbitmq"]):
        content = rotation.end(rotation.advance(rotation.advance(begin(content, words), "use"), "remove"))
        found.append(content.get("secrets_second_accounts", []))
    assert found == [["compute", "rabbitmq"], ["compute", "rabbitmq"], []]


@pytest.mark.parametrize("words", [[], ["rabbitmq", "database"]])
def test_a_killed_rotation_goes_on_with_its_values(words: list[str]) -> None:
    added = begin(OLD, ["database", "rabbitmq"])
    assert begin(added, words) == added
    assert rotation.end(added) == rotation.advance(added, "remove") == added, "no stage is left out"
    used = rotation.advance(added, "use")
    assert begin(used, words) == used
    assert rotation.advance(used, "use") == used
    removed = rotation.advance(used, "remove")
    assert begin(removed, words) == removed == rotation.advance(removed, "use")
    assert rotation.end(used) == used, "only the last stage ends"
    assert rotation.end(rotation.end(removed)) == rotation.end(removed)


def test_another_rotation_waits() -> None:
    with pytest.raises(rotation.RotationError, match=r"database has begun .* stage add.*-e rotate=database"):
        begin(begin(OLD, ["database"]), ["rabbitmq"])


def test_without_anything_to_add_new_secrets_are_used_at_once() -> None:
    used = begin(OLD, ["admin"])
    assert used["secrets_rotation"] == {
        "stage": "use",
        "classes": ["admin"],
        "other": {"keystone_admin_password": "old keystone_admin_password"},
    }
    assert used["keystone_admin_password"] == "new 1"
    assert used["secrets_second_accounts"] == []


def test_words() -> None:
    assert rotation.words_of("rabbitmq, database,,rabbitmq") == ["rabbitmq", "database"]
    assert rotation.words_of(["fernet"]) == ["fernet"]
    with pytest.raises(rotation.RotationError) as error:
        begin(OLD, ["databases", "rabbitmq"])
    assert "rotate = databases:" in str(error.value)
    assert "rabbitmq, database, admin" in str(error.value)
    assert "Nothing has been changed" in str(error.value)


def test_a_secret_that_is_set_elsewhere_is_refused() -> None:
    used = OLD | {"nova_compute_seed": "of host_vars"}
    content = {name: value for name, value in OLD.items() if name != "nova_messaging_password"}
    with pytest.raises(rotation.RotationError) as error:
        rotation.check_given(CLASSES["rabbitmq"], content, used, "/srv/secrets.yml")
    assert "nova_messaging_password, nova_compute_seed: set elsewhere than in /srv/secrets.yml" in str(error.value)
    assert "host_vars" not in str(error.value) and "old" not in str(error.value)
    rotation.check_given(CLASSES["rabbitmq"], OLD, OLD, "/srv/secrets.yml")
