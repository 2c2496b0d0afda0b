# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Keep a repository of Fernet keys that are derived from a secret and the time.

All controllers derive the same keys, each for itself. The key of a period signs; that of the next one is accepted
already, so that a clock may be ahead by a period, and old keys are accepted for as long as a token that they signed.

Also a program of its own on hosts, which a timer starts: it imports nothing but the standard library.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

DAY = 86400
# Days between keys that the variable keystone_fernet_rotation can choose. A period begins on a Monday where that fits.
PERIODS, MONDAY = (1, 7, 28), 3
# Keystone signs with the key of the highest number, and never with number 0. Room for keys that are accepted only.
STAGED, STEP = 0, 1000
# Of each key, when it was wanted last. Keystone reads only files whose names are numbers.
TIMES = "times.json"


@dataclass(frozen=True)
class Wanted:
    """The keys of a repository: the one that signs, the next one, and others that are accepted."""

    primary: str
    staged: str
    accepted: tuple[str, ...] = ()


@dataclass
class Plan:
    """What to write, in this order, and then to remove."""

    write: list[tuple[int, str]] = field(default_factory=list)
    remove: list[int] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)


def derive(seed: str, purpose: str) -> str:
    """Return a key in the form of Fernet."""
    derived = hmac.digest(seed.encode(), f"kilonova keystone/{purpose}".encode(), "sha256")
    return base64.urlsafe_b64encode(derived).decode()


def begin(now: float, days: int) -> int:
    """Return the day on which a period began, counted from 1970."""
    return (int(now // DAY) + MONDAY) // days * days - MONDAY


def token_keys(seed: str, others: Sequence[str], days: int, keep: float, now: float) -> Wanted:
    """Return the keys for tokens.

    others: seeds that hosts change from or to. days: the length of a period. keep: seconds that a token may live.
    """
    first = begin(now, days)
    signed = range(begin(now - keep, days), first, days)
    # A host that has another period yet, or no more.
    around = [begin(now, period) + ahead for period in PERIODS for ahead in (0, period)]
    accepted = [derive(seed, f"token/{day}") for day in (*signed, *around)]
    accepted += [derive(other, f"token/{day}") for other in others for day in (*signed, *around)]
    return Wanted(derive(seed, f"token/{first}"), derive(seed, f"token/{first + days}"), tuple(dict.fromkeys(accepted)))


def credential_keys(seed: str, others: Sequence[str]) -> Wanted:
    """Return the keys for stored credentials, which change with the seed only."""
    return Wanted(
        derive(seed, "credential"), derive(seed, "credential/next"), tuple(derive(one, "credential") for one in others)
    )


def digest(key: str) -> str:
    """Return what stands for a key in the file of times."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def plan(wanted: Wanted, there: Mapping[int, str], times: Mapping[str, float], keep: float, now: float) -> Plan:
    """Return what makes the keys that are there the wanted ones. Others stay for as long as something may need them.

    keep: seconds for which a key stays after it was wanted last; below 0, for ever.
    """
    done = Plan()
    numbers = {number: key for number, key in there.items() if number != STAGED}
    last = max(numbers, default=0)
    again = numbers.get(last) != wanted.primary
    if again:
        last += STEP
        done.write.append((last, wanted.primary))
    # A higher number than that of the primary key would sign.
    free = (number for number in range(1, last) if number not in numbers)
    done.write += [
        (next(free), key) for key in wanted.accepted if key not in (*numbers.values(), wanted.primary, wanted.staged)
    ]
    # Last: until then, it may hold the key that signs now.
    if there.get(STAGED) != wanted.staged:
        done.write.append((STAGED, wanted.staged))
    needed = {wanted.primary, *wanted.accepted}
    done.times = dict.fromkeys(map(digest, needed), now)
    newest = {key: number for number, key in sorted(numbers.items())}
    for number, key in numbers.items():
        # One that was never recorded may have signed until now.
        seen = done.times.setdefault(digest(key), min(times.get(digest(key), now), now))
        if newest[key] != number or (again and key == wanted.primary) or 0 <= keep < now - seen:
            done.remove.append(number)
    return done


def read(repository: Path) -> tuple[dict[int, str], dict[str, float]]:
    """Return the keys that are there by number, and when each was wanted last."""
    files = [path for path in repository.iterdir() if path.name.isdigit()] if repository.is_dir() else []
    try:
        times = {str(key): float(value) for key, value in json.loads((repository / TIMES).read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        times = {}
    return {int(path.name): path.read_text() for path in files}, times


def write(path: Path, text: str, uid: int, gid: int) -> None:
    """Write a file that only its owner may read, at once."""
    temporary = path.with_name(f"{path.name}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as stream:
        os.fchown(handle, uid, gid)
        os.fchmod(handle, 0o600)
        stream.write(text)
        stream.flush()
        os.fsync(handle)
    temporary.rename(path)


@contextmanager
def locked(repository: Path, uid: int, gid: int) -> Iterator[None]:
    """Make the directory, and let one process at a time change it."""
    if not repository.is_dir():
        repository.mkdir(mode=0o700)
        os.chown(repository, uid, gid)
    handle = os.open(repository, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def converge(repository: Path, wanted: Wanted, keep: float, uid: int, gid: int, now: float) -> list[str]:
    """Make the keys of a repository the wanted ones, and return the files that changed."""
    with locked(repository, uid, gid):
        there, times = read(repository)
        todo = plan(wanted, there, times, keep, now)
        for number, key in todo.write:
            write(repository / str(number), key, uid, gid)
        for number in todo.remove:
            (repository / str(number)).unlink()
        write(repository / TIMES, json.dumps(todo.times), uid, gid)
        return [str(repository / str(number)) for number in sorted({*dict(todo.write), *todo.remove})]


def main(arguments: Sequence[str]) -> None:
    """Converge the keys for tokens as a file says."""
    told = json.loads(Path(arguments[0]).read_text())
    now = time.time()
    wanted = token_keys(told["seed"], told["other_seeds"], told["period_days"], told["keep_seconds"], now)
    changed = converge(Path(told["repository"]), wanted, told["keep_seconds"], os.geteuid(), os.getegid(), now)
    print("\n".join(changed) or "unchanged")


if __name__ == "__main__":
    main(sys.argv[1:])
