# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Measure what grows with the number of computes, real and simulated.

Real computes are lab machines, added with site.yml --limit. Timed are the first deployment, the run that adds the last
of 2, 4 and 8 computes, and a run that changes nothing at each size.

Simulated computes are nova-compute services with the fake driver of Nova, all on one real compute. They show the
control plane with more computes than fit on this computer, and are removed before the second real compute is added.

Results go to .cache/bench-scale: a JSON file per measurement, the plot, and all logs.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.scale import plot, report
from tools.scale.bench import Bench
from tools.scale.lab import DIRECTORY, PROJECT, Failed
from tools.scale.plan import sizes


def show(results: dict[str, Any], target: Path) -> None:
    """Print the tables and write the plot."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(plot.svg(results))
    print(f"\n{report.markdown(results)}\nThe plot is in {target}.")


def arguments_of(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="bench-scale", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--computes", type=sizes, default=[1, 2, 4, 8], help="numbers of real computes (%(default)s)")
    parser.add_argument("--simulated", type=sizes, default=[25, 50, 100, 200], help="of simulated ones (%(default)s)")
    parser.add_argument("--burst", type=int, default=50, help="servers to boot at each simulated size; 0 for none")
    parser.add_argument("--rounds", type=int, default=1, help="runs without a change at each size, for the median")
    parser.add_argument("--idle-seconds", type=float, default=60, help="seconds of CPU time to count")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds that a playbook may take")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=["hosts", "simulation"],
        default=["hosts", "simulation"],
        help="hosts, simulation or both; simulation alone uses the lab that --keep left",
    )
    parser.add_argument("--keep", action="store_true", help="leave the lab")
    parser.add_argument("--show", type=Path, metavar="JSON", help="only show the results of an earlier measurement")
    parser.add_argument("--svg", type=Path, default=DIRECTORY / "scale.svg", help="file for the plot (%(default)s)")
    return parser.parse_args(given)


def ended(*_: Any) -> None:
    """End on SIGTERM like on a failure, so that the lab is removed."""
    raise Failed("ended by SIGTERM")


def main() -> int:
    """Measure and show. Return 1 if a step failed or a run changed something it must not."""
    options = arguments_of()
    if options.show:
        show(json.loads(options.show.read_text()), options.svg)
        return 0
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    signal.signal(signal.SIGTERM, ended)
    try:
        bench.run()
    except (Failed, subprocess.TimeoutExpired) as error:
        bench.failed = True
        bench.remark(f"Failed: {error}")
    finally:
        bench.save()
        if not options.keep:
            bench.lab.destroy()
    show(bench.results, options.svg)
    print(f"The results are in {(DIRECTORY / bench.stamp).relative_to(PROJECT)}.json.")
    return int(bench.failed)


if __name__ == "__main__":
    sys.exit(main())
