# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""What answers guests at 169.254.169.254 limits what they send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

ASK = """
import http.client, subprocess, sys
QUESTION = '''
import http.client, json, sys
def ask(method, path, header):
    connection = http.client.HTTPConnection("169.254.169.254", timeout=30)
    connection.request(method, "/" + "p" * path, headers={"header": "h" * header})
    return connection.getresponse().status
print(json.dumps([ask(*one) for one in json.loads(sys.argv[1])]))
'''
spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
answers = {}
for name in (name for name in spaces if name.startswith("ovnmeta-")):
    done = subprocess.run(
        ["ip", "netns", "exec", name, sys.executable, "-c", QUESTION, json.dumps(ARGUMENTS[0])],
        capture_output=True, text=True, check=True,
    )
    answers[name] = json.loads(done.stdout)
print(json.dumps(answers))
"""
RUNNING = """
import pathlib
found = {}
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        arguments = (process / "cmdline").read_bytes().decode().split("\\0")
        status = (process / "status").read_text()
    except OSError:
        continue
    if arguments[0] == "haproxy" and "kilonova-metadata" in arguments[2]:
        text = pathlib.Path(arguments[2]).read_text()
        lines = [" ".join(line.split()) for line in text.splitlines()]
        found[pathlib.Path(arguments[2]).stem] = [lines, status.split("Uid:")[1].split()[0]]
print(json.dumps(found))
"""


@pytest.mark.on("compute")
def test_haproxies_say_themselves_who_asks(host: Any, run_python: Callable[..., Any]) -> None:
    """All of them run with the rules, as their own user, before Neutron's header is added."""
    names = host.check_output("ip netns list").split()
    networks = {name.removeprefix("ovnmeta-") for name in names if name.startswith("ovnmeta-")}
    found = run_python(RUNNING)
    assert found.keys() == networks
    user = host.check_output("id --user haproxy")
    for network, (lines, runs_as) in found.items():
        rules = [line for line in lines if line.startswith("http-request")]
        added = rules.index(f"http-request add-header X-OVN-Network-ID {network}")
        assert rules.index("http-request del-header x- -m beg") < added
        assert rules.index("http-request del-header _ -m sub") < added
        assert runs_as == user
    assert host.check_output("/usr/local/libexec/kilonova/metadata/haproxy --unlimited") == "{}"


@pytest.mark.on("compute")
def test_requests_that_the_agent_would_not_read_whole_are_refused(run_python: Callable[..., Any]) -> None:
    """Asked where HAProxy listens: the agent knows no guest of this address (404)."""
    # Method, length of the path, length of a header.
    answers = run_python(ASK, [["GET", 1, 1], ["GET", 1, 4096], ["GET", 4096, 1], ["DELETE", 1, 1]])
    assert answers == dict.fromkeys(answers, [404, 431, 414, 405])
