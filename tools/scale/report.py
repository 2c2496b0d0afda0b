# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The results of make bench-scale as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

Point = tuple[float, float]

# The column for the time of each play of site.yml, by the beginning of its name.
PHASES = (
    ("Create lab machines", "machine"),
    ("Reach hosts", "preflight"),
    ("Check ", "preflight"),
    ("Prepare hosts", "packages, bridge"),
    ("Start building", "control plane"),
    ("Prepare hypervisors", "hypervisor"),
    ("Deploy the control plane", "control plane"),
    ("Connect hosts to OVN", "network"),
    ("Deploy computes", "compute"),
    ("Map computes", "cell"),
    ("Create the first cloud", "control plane"),
    ("Gather facts", "verify"),
    ("Verify", "verify"),
    ("Print summary", "verify"),
)
COLUMNS = ("machine", "preflight", "packages, bridge", "hypervisor", "network", "compute", "cell", "verify")
RUN_PER_COMPUTE = "s of a run that changes nothing, per compute"
AIMS = {RUN_PER_COMPUTE: "<= 1.0"}


def phase_of(play: str) -> str:
    """Return the column of a play. Unknown plays have one as well, so that the sums are complete."""
    return next((phase for beginning, phase in PHASES if play.startswith(beginning)), "other")


def phases(plays: dict[str, float]) -> dict[str, float]:
    """Return seconds by column, from the seconds of a host by play."""
    total: dict[str, float] = {}
    for play, seconds in plays.items():
        total[phase_of(play)] = total.get(phase_of(play), 0.0) + seconds
    return total


def straight_line(points: Sequence[Point]) -> tuple[float, float]:
    """Return slope and intercept of the line of least squares. Raise ValueError if all points have one x."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        raise ValueError("a line needs points at two places")
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return slope, mean_y - slope * mean_x


def table(heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table. The first column is text, the others are numbers."""
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(shown, line)) + " |" for line in lines)


def shown(value: Any) -> str:
    """Return a value as a table shows it."""
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"  # noqa: PLR2004
    return "" if value is None else str(value)


def unchanged_points(results: dict[str, Any], verify: bool) -> list[Point]:
    """Return the median seconds of runs without a change, by number of computes."""
    runs = [run for run in results["runs"] if run["kind"] == "unchanged" and run["verify"] is verify]
    sizes = sorted({run["computes"] for run in runs})
    return [(size, median(run["seconds"] for run in runs if run["computes"] == size)) for size in sizes]


def added_points(results: dict[str, Any]) -> list[Point]:
    """Return the seconds of the run that added the last compute, by number of computes."""
    return [(run["computes"], run["seconds"]) for run in results["runs"] if run["kind"] == "add"]


def simulated_points(results: dict[str, Any], *path: str) -> list[Point]:
    """Return a measured value, by number of simulated computes."""
    points = []
    for size in results["sizes"]:
        value: Any = size
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None and size["simulation"]:
            points.append((size["simulated"], float(value)))
    return points


def runs_table(results: dict[str, Any]) -> str:
    """Return whole runs, by number of computes."""
    first = {run["computes"]: run["seconds"] for run in results["runs"] if run["kind"] == "first"}
    columns: list[dict[float, float]] = [
        first,
        dict(added_points(results)),
        dict(unchanged_points(results, True)),
        dict(unchanged_points(results, False)),
    ]
    sizes = sorted({size for column in columns for size in column})
    heading = (
        "Computes",
        "first deployment, s",
        "adding the last one, s",
        "no change, s",
        "no change, not verified, s",
    )
    return table(heading, [[str(int(size)), *(column.get(size) for column in columns)] for size in sizes])


def hosts_table(results: dict[str, Any]) -> str:
    """Return how long each host took in the run that added it to the cloud."""
    rows = []
    for run in results["runs"]:
        if run["kind"] == "unchanged":
            continue
        for name in run["added"]:
            host = run["hosts"].get(name)
            if host is None:
                continue
            spent = phases(host["plays"])
            others = sum(seconds for phase, seconds in spent.items() if phase not in COLUMNS)
            together = "" if len(run["added"]) == 1 else ", ".join(one for one in run["added"] if one != name)
            rows.append([name, together, *(spent.get(column) for column in COLUMNS), others or None, host["seconds"]])
    return table(("Host", "together with", *COLUMNS, "control plane", "in all, s"), rows)


def sizes_table(results: dict[str, Any], simulation: bool) -> str:
    """Return the controller at each size, with real or with simulated computes."""
    rows: list[list[Any]] = []
    for size in results["sizes"]:
        if size["simulation"] is not simulation:
            continue
        controller = size["controller"]
        rows.append(
            [
                str(size["simulated"] if simulation else size["computes"]),
                controller["memory_total_mib"],
                controller.get("cpu_total_per_minute"),
                controller["rabbitmq"]["connections"],
                controller["rabbitmq"]["channels"],
                controller["rabbitmq"]["queues"],
                controller["rabbitmq"]["memory_mib"],
                controller["rabbitmq"]["files"],
                controller["mariadb"]["threads_connected"],
                controller["mariadb"]["max_used_connections"],
                controller.get("queries_per_second"),
                controller["connections"]["ovn_southbound"],
            ]
        )
    heading = (
        "Simulated computes" if simulation else "Computes",
        "memory, MiB",
        "CPU s per idle minute",
        "RabbitMQ connections",
        "channels",
        "queues",
        "its memory, MiB",
        "its files",
        "MariaDB connections",
        "most so far",
        "queries/s",
        "to OVN southbound",
    )
    return table(heading, rows)


def lists_table(results: dict[str, Any]) -> str:
    """Return how long an administrator waits, by number of simulated computes."""
    rows = []
    for size in results["sizes"]:
        if size["simulation"]:
            lists = size.get("lists") or {}
            measured = (size.get("new"), size.get("up_seconds"), size.get("map_seconds"), *map(lists.get, LISTS))
            rows.append([str(size["simulated"]), *measured])
    heading = (
        "Simulated computes",
        "of them new",
        "until all are up, s",
        "mapping, s",
        "services (API), s",
        "(client), s",
        "hypervisors (API), s",
        "(client), s",
    )
    return table(heading, rows)


LISTS = ("api_services", "client_services", "api_hypervisors", "client_hypervisors")


def bursts_table(results: dict[str, Any]) -> str:
    """Return how long users wait for many servers at once."""
    rows = []
    for size in results["sizes"]:
        burst = size.get("burst")
        if burst:
            rows.append(
                [
                    size["simulated"],
                    f"{burst['active']}/{burst['asked']}",
                    burst["requests_seconds"],
                    burst["seconds"],
                    burst["computes_used"],
                    burst["delete_seconds"],
                ]
            )
    heading = (
        "Simulated computes",
        "servers ACTIVE",
        "requests accepted after, s",
        "ACTIVE after, s",
        "on computes",
        "deleted after, s",
    )
    return table(heading, rows)


def growth(results: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Return names, the increase with each further compute, and the value without computes."""
    series = {
        RUN_PER_COMPUTE: unchanged_points(results, True),
        "s of the same without verify, per compute": unchanged_points(results, False),
        "MiB of the controller, per simulated compute": simulated_points(results, "controller", "memory_total_mib"),
        "CPU s per idle minute of the controller, per simulated compute": simulated_points(
            results, "controller", "cpu_total_per_minute"
        ),
        "RabbitMQ connections, per simulated compute": simulated_points(
            results, "controller", "rabbitmq", "connections"
        ),
        "RabbitMQ queues, per simulated compute": simulated_points(results, "controller", "rabbitmq", "queues"),
        "RabbitMQ MiB, per simulated compute": simulated_points(results, "controller", "rabbitmq", "memory_mib"),
        "MariaDB connections, per simulated compute": simulated_points(
            results, "controller", "mariadb", "threads_connected"
        ),
        "MariaDB queries/s, per simulated compute": simulated_points(results, "controller", "queries_per_second"),
        "MiB of one simulated compute": simulated_points(results, "simulation_mib"),
    }
    return [(name, *straight_line(points)) for name, points in series.items() if len({x for x, _ in points}) > 1]


def growth_table(results: dict[str, Any]) -> str:
    """Return what grows, with the aim where there is one."""
    rows = [[name, f"{slope:.3g}", AIMS.get(name, ""), f"{rest:.4g}"] for name, slope, rest in growth(results)]
    return table(("What grows (line of least squares)", "each one adds", "aim", "without any"), rows)


def markdown(results: dict[str, Any]) -> str:
    """Return all tables."""
    parts = ["### Whole runs", runs_table(results), "### Seconds of each host", hosts_table(results)]
    if any(not size["simulation"] for size in results["sizes"]):
        parts += ["### The controller with real computes", sizes_table(results, False)]
    if any(size["simulation"] for size in results["sizes"]):
        parts += ["### The controller with simulated computes", sizes_table(results, True)]
        parts += ["### Starting and listing them", lists_table(results)]
        parts += ["### Servers on them", bursts_table(results)]
    parts += ["### Growth", growth_table(results), *results.get("remarks", [])]
    return "\n\n".join(parts) + "\n"
