# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Break controllers of a cloud that has three, one after the other, and check that nothing is lost and all comes back.

The faults and the hosts follow from the seed. During each one, clients send requests and write, and a guest pings
another. Acknowledged writes are looked for afterwards, and verification has to pass without anybody's doing. See
docs/operate/high-availability.md.

Uses a lab named chaos-ha, or with --inventory another lab, and no other hosts.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tools.chaos.lab import Lab
from tools.chaos.moments import PROJECT
from tools.chaos_ha.faults import FAULTS, Fault, draw
from tools.chaos_ha.observer import Observer, Seen
from tools.chaos_ha.site import Failed, Site, own_inventory

CACHE = PROJECT / ".cache" / "chaos-ha"
# Seconds to see the cloud at rest, before a fault.
REST = 5
WHOLE_AGAIN = 600


@dataclass(frozen=True)
class Result:
    """A fault, and what came of it."""

    fault: str
    host: str
    whole_after: float = 0.0  # seconds from the end of the fault to a verification that passed
    seen: Seen | None = None
    finding: str = ""

    def row(self) -> str:
        """Return a row of the table."""
        seen = self.seen
        if not seen:
            return f"| {self.fault} | {self.host} | | | | | | {self.finding} |"
        return (
            f"| {self.fault} | {self.host} | {seen.away:.1f} | {seen.refused} of {seen.requests} | {seen.stalled:.1f} "
            f"| {seen.lost} of {seen.acknowledged} | {seen.pings_lost} of {seen.pings} "
            f"| {self.finding or f'{self.whole_after:.0f}'} |"
        )


HEADER = (
    "| fault | host | s without an answer | refused | s without a write | acknowledged writes lost | packets lost "
    "| s until verified |\n|---|---|---:|---:|---:|---:|---:|---:|"
)


def judge(result: Result) -> str:
    """Return what must not have happened, but did."""
    seen = result.seen
    if result.finding or not seen:
        return result.finding
    if seen.lost:
        return f"{seen.lost} acknowledged writes are lost"
    if seen.pings_lost:
        return f"{seen.pings_lost} packets between guests are lost"
    return ""


def strike(site: Site, observer: Observer, fault: Fault, chance: random.Random) -> Result:
    """Make one fault, end it, wait until all is whole, and return what was seen."""
    host = fault.choose(site, chance)
    result = Result(fault.name, host)
    observer.begin()
    time.sleep(REST)
    fault.begin(site, host)
    time.sleep(fault.hold)
    fault.end(site, host)
    began = time.monotonic()
    whole = site.verify(WHOLE_AGAIN)
    result = replace(result, whole_after=time.monotonic() - began, seen=observer.end())
    return replace(result, finding="" if whole else f"verification failed, its log is in {site.logs}")


def arguments_of() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="chaos-ha", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--faults", type=int, default=20, help=f"number of faults, at most {len(FAULTS)}")
    parser.add_argument("--only", default="", metavar="REGEX", help="all faults whose names match this expression")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inventory", type=Path, help="an inventory of another lab, whose cloud is deployed already")
    parser.add_argument("--output", type=Path, default=CACHE, help="directory for the results and logs")
    parser.add_argument("--keep", action="store_true", help="leave the machines")
    parser.add_argument("--keep-going", action="store_true", help="continue after a finding")
    return parser.parse_args()


def main() -> int:
    """Deploy, break, check and report. Return 1 if anything was found."""
    arguments = arguments_of()
    output = arguments.output.resolve()
    logs = output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    lab = Lab.of(arguments.inventory.resolve() if arguments.inventory else own_inventory(CACHE / "inventory"))
    site = Site(lab, logs)
    faults = [fault for fault in FAULTS if re.search(arguments.only, fault.name)]
    faults = faults if arguments.only else draw(arguments.faults, arguments.seed)
    chance = random.Random(arguments.seed)
    if not arguments.inventory:
        say(f"deploying, log in {logs}")
        if site.playbook("site.yml"):
            say(f"site.yml failed; its log is in {logs}")
            return 1
    results: list[Result] = []
    # The clients have to be stopped whatever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    observer = Observer(site)
    try:
        for number, fault in enumerate(faults, 1):
            say(f"{number} of {len(faults)}: {fault.name}")
            try:
                result = strike(site, observer, fault, chance)
            except Failed as error:
                observer.stop()
                result = Result(fault.name, "", finding=str(error))
            results.append(replace(result, finding=judge(result)))
            say(results[-1].row())
            (output / f"seed{arguments.seed}.json").write_text(
                json.dumps([asdict(one) for one in results], indent=1) + "\n"
            )
            if results[-1].finding and not arguments.keep_going:
                say("stopped, and left the machines for inspection (--keep-going continues after a finding)")
                break
        else:
            observer.close()
            if not (arguments.inventory or arguments.keep):
                site.playbook("playbooks/destroy.yml")
    finally:
        observer.stop()
        print("\n".join([HEADER, *(one.row() for one in results)]))
        failed = sum(bool(one.finding) for one in results)
        print(f"{len(results) - failed} passed, {failed} failed", flush=True)
    return int(bool(failed or len(results) < len(faults)))


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
