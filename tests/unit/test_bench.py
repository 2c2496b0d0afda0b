# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from tools import bench

# As the callback prints it where the output is not a terminal.
OUTPUT = """\
TASK [mariadb : Start it] ******************************************************
Sunday 22 November 2026  18:00:00 +0000 (0:00:00.010)       0:00:12.340 *******
a line of a task's result that ends like one --- 9.99s

TASKS RECAP ********************************************************************
Sunday 22 November 2026  18:00:09 +0000 (0:00:01.000)       0:02:13.340 *******
===============================================================================
host : Install the packages ----------------------------------------- 123.45s
mariadb : A task whose name alone is longer than the whole line of seventy characters --- 1.50s
nova : Wait --------------------------------------------------------- 1234.56s
"""


def test_tasks_come_in_the_order_they_ran() -> None:
    assert bench.parse_profile(OUTPUT) == [
        ("host : Install the packages", 123.45),
        ("mariadb : A task whose name alone is longer than the whole line of seventy characters", 1.5),
        ("nova : Wait", 1234.56),
    ]


def test_output_of_a_run_that_never_came_to_its_recap() -> None:
    assert bench.parse_profile("host : x --- 1.00s\n") == []


def test_table_is_sorted_and_sums_up_what_it_leaves_out() -> None:
    lines = bench.table([("a", 1.0), ("b", 6.0), ("c", 2.0), ("d", 1.0)], 10.0, rows=2).splitlines()
    assert lines == [
        "     6.0 s  60.0%  b",
        "     2.0 s  20.0%  c",
        "     2.0 s  20.0%  the other 2 tasks",
        "    10.0 s  100.0%  in all",
    ]
