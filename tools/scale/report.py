# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What make bench-scale measured, as Markdown tables and as a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import Any

Point = tuple[float, float]

# Plays of site.yml, in its order, by the beginning of their name, and the column that their time goes to.
PHASES = (
    ("Create lab machines", "machine"),
    ("Reach the hosts", "preflight"),
    ("Check everything", "preflight"),
    ("Prepare the hosts", "packages, bridge"),
    ("Begin to make", "control plane"),
    ("Prepare the hypervisors", "hypervisor"),
    ("Deploy the control plane", "control plane"),
    ("Deploy the network", "network"),
    ("Deploy the computes", "compute"),
    ("Let the cell know", "cell"),
    ("Bring up the first cloud", "control plane"),
    ("Get to know", "verify"),
    ("Verify", "verify"),
    ("Say what was seen", "verify"),
)
COLUMNS = ("machine", "preflight", "packages, bridge", "hypervisor", "network", "compute", "cell", "verify")


def phase_of(play: str) -> str:
    """The column of a play; what is unknown here must not vanish from the sums."""
    return next((phase for beginning, phase in PHASES if play.startswith(beginning)), "other")


def phases(plays: dict[str, float]) -> dict[str, float]:
    """Seconds by phase, from a host's seconds by play."""
    total: dict[str, float] = {}
    for play, seconds in plays.items():
        total[phase_of(play)] = total.get(phase_of(play), 0.0) + seconds
    return total


def straight_line(points: Sequence[Point]) -> tuple[float, float]:
    """Slope and intercept of the line of least squares. Raises ValueError where all points have one x."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        raise ValueError("a line needs points at two places")
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return slope, mean_y - slope * mean_x


def table(heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(shown, line)) + " |" for line in lines)


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"  # noqa: PLR2004
    return "" if value is None else str(value)


def unchanged_points(results: dict[str, Any], verify: bool) -> list[Point]:
    """Computes and the median seconds of the runs that changed nothing."""
    runs = [run for run in results["runs"] if run["kind"] == "unchanged" and run["verify"] is verify]
    sizes = sorted({run["computes"] for run in runs})
    return [(size, median(run["seconds"] for run in runs if run["computes"] == size)) for size in sizes]


def added_points(results: dict[str, Any]) -> list[Point]:
    """How many computes there were with the added one, and the seconds of the run that added it."""
    return [(run["computes"], run["seconds"]) for run in results["runs"] if run["kind"] == "add"]


def simulated_points(results: dict[str, Any], *path: str) -> list[Point]:
    """Simulated computes and what was measured on the controller with them."""
    points = []
    for size in results["sizes"]:
        value: Any = size
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None and size["simulation"]:
            points.append((size["simulated"], float(value)))
    return points


def runs_table(results: dict[str, Any]) -> str:
    """The whole runs, by the number of computes."""
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
    """How long each host took in the run that made it part of the cloud."""
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
    """The controller at each size, with real computes or with simulated ones."""
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
    """What an administrator waits for, by the number of simulated computes."""
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
    """What users wait for: many servers at once."""
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
    """What, how much of it each further compute takes, and how much there is without any."""
    series = {
        "s of a run that changes nothing, per compute": unchanged_points(results, True),
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
    rows = [[name, f"{slope:.3g}", f"{rest:.4g}"] for name, slope, rest in growth(results)]
    return table(("What grows (line of least squares)", "each one adds", "without any"), rows)


def markdown(results: dict[str, Any]) -> str:
    """All tables."""
    parts = ["### Whole runs", runs_table(results), "### Each host's own time, in seconds", hosts_table(results)]
    if any(not size["simulation"] for size in results["sizes"]):
        parts += ["### The controller with real computes", sizes_table(results, False)]
    if any(size["simulation"] for size in results["sizes"]):
        parts += ["### The controller with simulated computes", sizes_table(results, True)]
        parts += ["### Starting and listing them", lists_table(results)]
        parts += ["### Servers on them", bursts_table(results)]
    parts += ["### Growth", growth_table(results), *results.get("remarks", [])]
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------- the plot
WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 62, 44
# Told apart by people who see colours differently, and by their markers.
COLOURS = ("#0b5fa5", "#b5470c", "#2f7d32")
INK, FAINT, PAPER = "#1f2328", "#d0d7de", "#ffffff"


@dataclass
class Panel:
    title: str
    across: str
    series: list[tuple[str, list[Point]]]


def ticks(highest: float, most: int = 6) -> list[float]:
    """Round numbers from 0 to at least the highest, at most so many steps."""
    if highest <= 0:
        return [0.0, 1.0]
    decade = 10.0 ** (math.floor(math.log10(highest)) - 1)
    step = next(decade * factor for factor in (1, 2, 2.5, 5, 10, 20, 25, 50, 100) if highest <= decade * factor * most)
    return [round(step * number, 10) for number in range(math.ceil(highest / step - 1e-9) + 1)]


def marker(kind: int, x: float, y: float, colour: str) -> str:
    if kind == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    if kind == 1:
        return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="{colour}"/>'
    return f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z" fill="{colour}"/>'


def text(x: float, y: float, content: str, anchor: str = "start", size: int = 12, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" {more}>{escape(content)}</text>'


def draw(panel: Panel, left: float, top: float) -> list[str]:
    """One panel as SVG elements; both axes begin at 0."""
    across = sorted({x for _, points in panel.series for x, _ in points})
    x_ticks = ticks(max(across, default=1.0))
    y_ticks = ticks(max((y for _, points in panel.series for _, y in points), default=1.0))

    def at(point: Point) -> Point:
        x = left + LEFT + point[0] / x_ticks[-1] * (WIDTH - LEFT - RIGHT)
        return x, top + HEIGHT - BOTTOM - point[1] / y_ticks[-1] * (HEIGHT - TOP - BOTTOM)

    parts = [text(left + 14, top + 24, panel.title, size=14, more='font-weight="600"')]
    begin = left + 14.0
    for number, (name, points) in enumerate(panel.series):
        if len(panel.series) > 1 and points:
            parts += [marker(number, begin + 5, top + 42, COLOURS[number]), text(begin + 14, top + 46, name)]
            begin += 30 + 6.6 * len(name)
    for value in y_ticks:
        (x, y), (end, _) = at((0, value)), at((x_ticks[-1], value))
        parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{end:.1f}" y2="{y:.1f}" stroke="{FAINT}"/>')
        parts.append(text(x - 6, y + 4, f"{value:,g}", "end", 11))
    for value in across:
        x, y = at((value, 0))
        parts.append(text(x, y + 16, f"{value:g}", "middle", 11))
    x, y = at((x_ticks[-1] / 2, 0))
    parts.append(text(x, y + 34, panel.across, "middle"))
    for number, (_, points) in enumerate(panel.series):
        places = [at(point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[number]}" stroke-width="2"/>')
        parts += [marker(number, x, y, COLOURS[number]) for x, y in places]
    return parts


def panels(results: dict[str, Any]) -> list[Panel]:
    def of(*path: str) -> list[Point]:
        return simulated_points(results, "controller", *path)

    return [
        Panel(
            "site.yml, seconds",
            "computes",
            [
                ("adding one", added_points(results)),
                ("no change", unchanged_points(results, True)),
                ("no change, not verified", unchanged_points(results, False)),
            ],
        ),
        Panel(
            "Connections to the controller",
            "simulated computes",
            [
                ("RabbitMQ", of("rabbitmq", "connections")),
                ("MariaDB", of("mariadb", "threads_connected")),
            ],
        ),
        Panel("Controller's memory, MiB (PSS)", "simulated computes", [("memory", of("memory_total_mib"))]),
        Panel(
            "Controller's CPU, seconds per idle minute",
            "simulated computes",
            [("CPU", of("cpu_total_per_minute"))],
        ),
    ]


def svg(results: dict[str, Any]) -> str:
    """The plot. On paper of its own, so that it can be read on dark pages too."""
    wanted = [panel for panel in panels(results) if any(points for _, points in panel.series)]
    rows = -(-len(wanted) // 2)
    width, height = WIDTH * 2, HEIGHT * max(rows, 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="Helvetica, Arial, sans-serif" fill="{INK}" role="img">',
        "<title>Kilonova: what grows with the number of computes</title>",
        f'<rect width="{width}" height="{height}" rx="6" fill="{PAPER}" stroke="{FAINT}"/>',
    ]
    for number, panel in enumerate(wanted):
        parts += draw(panel, WIDTH * (number % 2), HEIGHT * (number // 2))
    return "\n".join([*parts, "</svg>"]) + "\n"
