# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The plot of make bench-scale as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Any

from tools.scale.report import Point, added_points, simulated_points, unchanged_points

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 62, 44
# Distinguishable with colour blindness; markers differ as well.
COLOURS = ("#0b5fa5", "#b5470c", "#2f7d32")
INK, FAINT, PAPER = "#1f2328", "#d0d7de", "#ffffff"


@dataclass
class Panel:
    """One of the diagrams."""

    title: str
    across: str
    series: list[tuple[str, list[Point]]]


def ticks(highest: float, most: int = 6) -> list[float]:
    """Return round numbers from 0 to at least the highest, in at most so many steps."""
    if highest <= 0:
        return [0.0, 1.0]
    decade = 10.0 ** (math.floor(math.log10(highest)) - 1)
    step = next(decade * factor for factor in (1, 2, 2.5, 5, 10, 20, 25, 50, 100) if highest <= decade * factor * most)
    return [round(step * number, 10) for number in range(math.ceil(highest / step - 1e-9) + 1)]


def marker(kind: int, x: float, y: float, colour: str) -> str:
    """Return the marker of a series."""
    if kind == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    if kind == 1:
        return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="{colour}"/>'
    return f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z" fill="{colour}"/>'


def text(x: float, y: float, content: str, anchor: str = "start", size: int = 12, more: str = "") -> str:
    """Return a text element."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" {more}>{escape(content)}</text>'


def draw(panel: Panel, left: float, top: float) -> list[str]:
    """Return a panel as SVG elements. Both axes begin at 0."""
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
    """Return all panels."""

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
    """Return the plot, with a background so that dark pages can show it."""
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
