# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The state of a rotation in the file of secrets: pure functions of its content.

The file is written before what it describes, and each stage may be repeated: a killed rotation goes on from the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROTATION, SECOND = "secrets_rotation", "secrets_second_accounts"
# add: new secrets open as well. use: everything uses them, and the old ones still open. remove: the old ones do not.
STAGES = ("add", "use", "remove")
# One value only is accepted, or nobody but its holder needs it: there is nothing to add first.
AT_ONCE = ("admin", "metadata")
# Classes whose accounts have two names, and the secret of those of computes.
IN_TURN = ("keystone", "rabbitmq")
COMPUTE_SEED = "nova_compute_seed"

Content = Mapping[str, Any]
Classes = Mapping[str, Sequence[str]]


class RotationError(ValueError):
    """A rotation that cannot begin."""


def words_of(wanted: str | Sequence[str]) -> list[str]:
    """Return the words in a list or in a text with commas."""
    words = wanted.split(",") if isinstance(wanted, str) else wanted
    return list(dict.fromkeys(text for word in words if (text := "".join(str(word)).strip())))


def check_words(words: Sequence[str], classes: Classes) -> None:
    """Refuse words that are no class. Raises RotationError."""
    if unknown := [word for word in words if word not in classes]:
        raise RotationError(
            f"rotate = {','.join(unknown)}: there are no such secrets. Nothing has been changed. Write one or more of "
            f"{', '.join(classes)}, with commas, or leave it out to rotate all of them."
        )


def check_given(names: Sequence[str], content: Content, used: Mapping[str, Any], path: str) -> None:
    """Refuse secrets that are not in the file, or that another place overrides. Raises RotationError."""
    absent = [name for name in names if name not in content]
    overridden = [name for name in names if name in content and used.get(name, content[name]) != content[name]]
    if absent or overridden:
        raise RotationError(
            f"{', '.join(absent + overridden)}: set elsewhere than in {path}, and a rotation writes new values there. "
            "Nothing has been changed. Move them into that file."
        )


def begin(content: Content, classes: Classes, words: Sequence[str], generate: Callable[[], str]) -> dict[str, Any]:
    """Return the content with a rotation, the one that has begun already if there is one. Raises RotationError."""
    check_words(words, classes)
    if begun := content.get(ROTATION):
        if words and set(words) != set(begun["classes"]):
            chosen_words = ",".join(begun["classes"])
            raise RotationError(
                f"A rotation of {chosen_words} has begun and is in stage {begun['stage']}. Nothing has been changed. "
                f"Let it end first: run this playbook without rotate, or with -e rotate={chosen_words}."
            )
        return dict(content)
    chosen = [word for word in classes if not words or word in words]
    names = dict.fromkeys(name for word in chosen for name in classes[word])
    rotation = {"stage": "add", "classes": chosen, "other": {name: generate() for name in names}}
    started = {**content, ROTATION: rotation}
    return advance(started, "use") if set(chosen) <= set(AT_ONCE) else started


def advance(content: Content, stage: str) -> dict[str, Any]:
    """Return the content in a stage if it is in the one before it, and unchanged otherwise: no stage is left out."""
    rotation = content.get(ROTATION)
    if not rotation or STAGES.index(rotation["stage"]) + 1 != STAGES.index(stage):
        return dict(content)
    other = rotation["other"]
    result: dict[str, Any] = {**content, ROTATION: {**rotation, "stage": stage}}
    if rotation["stage"] == "add":
        result |= other
        result[ROTATION]["other"] = {name: content[name] for name in other}
        changed = {word for word in IN_TURN if word in rotation["classes"]}
        changed |= {"compute"} if COMPUTE_SEED in other else set()
        result[SECOND] = sorted(changed.symmetric_difference(content.get(SECOND, [])))
    return result


def end(content: Content) -> dict[str, Any]:
    """Return the content without a rotation that is in its last stage."""
    done = content.get(ROTATION, {}).get("stage") == STAGES[-1]
    return {name: value for name, value in content.items() if name != ROTATION or not done}
