# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Controllers that derive keys, each with a clock of its own, accept each other's tokens."""

from __future__ import annotations

import base64
import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from ansible.module_utils.kilonova.cloud import derived_keys as keys

SEED, OTHER = "seed" * 8, "other" * 8
# A Monday, at midnight.
MONDAY = 1_767_571_200.0
TOKEN = 3600 + 172800
KEEP = TOKEN + keys.DAY
HOUR = 3600.0


class Controller:
    """A key repository, as a timer keeps it."""

    def __init__(self, path: Path, days: int = 7, slow: float = 0.0) -> None:
        self.path, self.days, self.slow = path, days, slow
        self.seed, self.others = SEED, [""][1:]

    def run(self, now: float) -> list[str]:
        clock = now - self.slow
        wanted = keys.token_keys(self.seed, self.others, self.days, KEEP, clock)
        return keys.converge(self.path, wanted, KEEP, os.geteuid(), os.getegid(), clock)

    @property
    def there(self) -> dict[int, str]:
        return keys.read(self.path)[0]

    @property
    def signs(self) -> str:
        return self.there[max(self.there)]

    def accepts(self, key: str) -> bool:
        return key in self.there.values()


def test_a_key_has_the_form_of_fernet() -> None:
    assert len(base64.urlsafe_b64decode(keys.derive(SEED, "token/1"))) == 32
    assert len({keys.derive(seed, what) for seed in (SEED, OTHER) for what in ("token/1", "token/2")}) == 4


def test_periods_begin_on_mondays() -> None:
    first = keys.begin(MONDAY, 7)
    assert {keys.begin(MONDAY + hours * HOUR, 7) for hours in range(7 * 24)} == {first}
    assert keys.begin(MONDAY - 1, 7) == first - 7 and keys.begin(MONDAY + 7 * keys.DAY, 7) == first + 7
    assert first * keys.DAY == MONDAY


@pytest.mark.parametrize("slow", [-40 * 60.0, 40 * 60.0])
def test_every_token_is_accepted_by_all_for_as_long_as_it_lives(tmp_path: Path, slow: float) -> None:
    controllers = [Controller(tmp_path / "a"), Controller(tmp_path / "b", slow=slow)]
    tokens: list[tuple[float, str]] = []
    for hour in range(24 * 24):
        now = MONDAY + hour * HOUR
        # Not at the same time.
        for controller in controllers[:: 1 if hour % 2 else -1]:
            controller.run(now)
            tokens += [(now, one.signs) for one in controllers if one.path.exists()]
            alive = {key for made, key in tokens if now - made <= TOKEN}
            assert all(one.accepts(key) for one in controllers if one.path.exists() for key in alive)
    assert len({key for _, key in tokens}) in (4, 5)
    assert all(len(one.there) <= 9 for one in controllers), "old keys are removed"


@pytest.mark.parametrize(("before", "after"), list(pairwise((1, 7, 28, 1))))
def test_another_period_makes_no_token_invalid(tmp_path: Path, before: int, after: int) -> None:
    controllers = [Controller(tmp_path / name, before) for name in "ab"]
    tokens: list[tuple[float, str]] = []
    for hour in range(20 * 24):
        now = MONDAY + hour * HOUR
        if hour == 100:
            controllers[0].days = after
        if hour == 102:
            controllers[1].days = after
        for controller in controllers:
            controller.run(now)
            tokens.append((now, controller.signs))
        alive = {key for made, key in tokens if now - made <= TOKEN}
        assert all(one.accepts(key) for one in controllers for key in alive)


def test_another_seed_makes_no_token_invalid(tmp_path: Path) -> None:
    controllers = [Controller(tmp_path / name) for name in "ab"]
    tokens: list[tuple[float, str]] = []
    # Accept the new one, use it, forget the old one: one host after the other, within minutes.
    changes = [(SEED, []), (SEED, [OTHER]), (OTHER, [SEED]), (OTHER, [])]
    for step, (seed, others) in enumerate(changes):
        for number, controller in enumerate(controllers):
            controller.seed, controller.others = seed, others
            now = MONDAY + step * 600 + number * 60
            controller.run(now)
            tokens += [(now, one.signs) for one in controllers if one.path.exists()]
            alive = {key for made, key in tokens if now - made <= TOKEN}
            assert all(one.accepts(key) for one in controllers if one.path.exists() for key in alive)
    old = keys.token_keys(SEED, [], 7, KEEP, now)
    for controller in controllers:
        controller.run(now + KEEP + 2 * HOUR)
        assert not {old.primary, old.staged, *old.accepted} & set(controller.there.values())


def test_keys_that_were_not_derived_stay_for_as_long_as_their_tokens(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    for name in ("0", "1", "2"):
        (tmp_path / "keys" / name).write_text(f"random {name}")
    controller = Controller(tmp_path / "keys")
    controller.run(MONDAY)
    assert controller.signs == keys.token_keys(SEED, [], 7, KEEP, MONDAY).primary
    assert controller.accepts("random 1") and controller.accepts("random 2")
    controller.run(MONDAY + TOKEN)
    assert controller.accepts("random 2")
    controller.run(MONDAY + KEEP + HOUR)
    assert not controller.accepts("random 2")


def test_no_key_signs_that_is_only_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "1").write_text("random 1")
    controller = Controller(tmp_path / "keys")
    controller.others = [OTHER]
    signed, write = [], keys.write

    def watched(path: Path, *rest: object) -> None:
        write(path, *rest)  # type: ignore[arg-type]
        signed.append(controller.signs)

    monkeypatch.setattr(keys, "write", watched)
    for now in (MONDAY, MONDAY + 7 * keys.DAY):
        controller.run(now)
    first, second = (keys.token_keys(SEED, [], 7, KEEP, now).primary for now in (MONDAY, MONDAY + 7 * keys.DAY))
    assert list(dict.fromkeys(signed)) == [first, second]


def test_a_second_run_writes_no_key(tmp_path: Path) -> None:
    controller = Controller(tmp_path / "keys")
    assert controller.run(MONDAY)
    before = controller.there
    assert controller.run(MONDAY + HOUR) == [] and controller.there == before


def test_a_clock_that_was_wrong_by_a_year(tmp_path: Path) -> None:
    controller = Controller(tmp_path / "keys")
    controller.run(MONDAY)
    right = controller.signs
    controller.run(MONDAY + 365 * keys.DAY)
    assert controller.signs != right
    controller.run(MONDAY + HOUR)
    assert controller.signs == right


def test_it_runs_as_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {
        "repository": str(tmp_path / "keys"),
        "seed": SEED,
        "other_seeds": [],
        "period_days": 1,
        "keep_seconds": KEEP,
    }
    (tmp_path / "told.json").write_text(json.dumps(told))
    keys.main([str(tmp_path / "told.json")])
    assert f"{tmp_path}/keys/{keys.STEP}" in capsys.readouterr().out.splitlines()
    keys.main([str(tmp_path / "told.json")])
    assert capsys.readouterr().out == "unchanged\n"
