# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Kill a first deployment at random moments and check that the next run converges.

The moments follow from the seed and the tasks of site.yml: one at random in each of as many equal parts of the
deployment as there are kills. One machine takes several kills (a life): it is killed, resumed, killed further on, then
deployed to the end, deployed again without a change, and checked. See docs/operate/interruption.md.

Uses a lab named chaos, or with --inventory another lab, and no other hosts.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tools.chaos.campaign import Chaos, Finding
from tools.chaos.lab import Lab, own_inventory
from tools.chaos.moments import PROJECT, draw, list_tasks, until

CACHE = PROJECT / ".cache" / "chaos"


def arguments_of() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-life", type=int, default=5, help="kills per bare machine")
    parser.add_argument("--until", default="", metavar="TEXT", help="no kill after the last task with this in its name")
    parser.add_argument("--inventory", type=Path, help="an inventory of another lab")
    parser.add_argument("--output", type=Path, default=CACHE, help="directory for the results and logs")
    parser.add_argument("--leave", action="store_true", help="end after the last kill, without the run to the end")
    parser.add_argument("--keep", action="store_true", help="leave the last machine")
    parser.add_argument("--keep-going", action="store_true", help="continue after a finding")
    return parser.parse_args()


def main() -> int:
    """Kill, resume, check and report. Return 1 if anything failed."""
    arguments = arguments_of()
    lab = Lab.of(arguments.inventory.resolve() if arguments.inventory else own_inventory(CACHE / "inventory"))
    tasks = list_tasks(lab.inventory)
    lives = draw(until(tasks, arguments.until), arguments.kills, arguments.per_life, arguments.seed)
    chaos = Chaos(lab, tasks, arguments.seed, arguments.keep_going, arguments.output.resolve() / "logs")
    record = arguments.output.resolve() / f"seed{arguments.seed}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    for old in chaos.logs.glob("*.log"):
        old.unlink()
    chaos.say(f"{arguments.kills} kills in {len(lives)} lives, seed {arguments.seed}, logs in {chaos.logs}")
    try:
        for life, moments in enumerate(lives, 1):
            if not arguments.inventory:
                chaos.destroy(life)
                lab.secrets.unlink(missing_ok=True)
            chaos.live(life, moments, arguments.leave)
            record.write_text(json.dumps(chaos.record(), indent=1) + "\n")
        if not (arguments.inventory or arguments.keep or arguments.leave):
            chaos.destroy(len(lives))
    except Finding:
        chaos.settle("unknown", False)
        chaos.say("stopped, and left the machine for inspection (--keep-going continues after a finding)")
    record.write_text(json.dumps(chaos.record(), indent=1) + "\n")
    print(f"\n{chaos.table()}\n{record}")
    print(f"{len(chaos.kills) + len(chaos.checks) - chaos.failed} passed, {chaos.failed} failed", flush=True)
    return int(bool(chaos.failed or chaos.findings))


if __name__ == "__main__":
    sys.exit(main())
