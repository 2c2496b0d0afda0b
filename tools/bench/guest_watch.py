# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Report when the first guest of this host answers ping. Starts on the bare host, before there is a cloud.

Takes the address of the guest from the OVN northbound database as soon as Neutron has written it, and pings it five
times a second. Prints that it watches, and at the end the address and when it was known and answered, on the clock that
all machines on a computer share (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

DATABASE = Path("/run/ovn/ovnnb_db.sock")
QUERY = ["ovn-nbctl", "--timeout=5", "--format=json", "--columns=external_ids", "list", "Logical_Switch_Port"]
LOOK_SECONDS = 0.5
PING_SECONDS = "0.2"


def guest_address(text: str) -> str:
    """Return the address of the first guest port in the output of ovn-nbctl; "" if there is none."""
    for (external_ids,) in json.loads(text)["data"] if text.strip() else []:
        about = dict(external_ids[1])
        if about.get("neutron:device_owner", "").startswith("compute:") and about.get("neutron:cidrs"):
            return str(about["neutron:cidrs"].split()[0].partition("/")[0])
    return ""


def wait_for_address(deadline: float) -> str:
    while time.monotonic() < deadline:
        if DATABASE.exists():
            # Fails while the database starts; then there is no guest either.
            listed = subprocess.run(QUERY, capture_output=True, text=True, check=False)
            address = guest_address(listed.stdout) if listed.returncode == 0 else ""
            if address:
                return address
        time.sleep(LOOK_SECONDS)
    return ""


def wait_for_answer(address: str, deadline: float) -> bool:
    seconds = max(1, round(deadline - time.monotonic()))
    command = ["timeout", str(seconds), "ping", "-n", "-i", PING_SECONDS, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as ping:
        assert ping.stdout
        answered = any("bytes from" in line for line in ping.stdout)
        ping.terminate()
    return answered


def main() -> None:
    deadline = time.monotonic() + float(sys.argv[1])
    print(json.dumps({"watching": True}), flush=True)
    address = wait_for_address(deadline)
    known = time.monotonic()
    answered = bool(address) and wait_for_answer(address, deadline)
    print(
        json.dumps({"address": address, "known": known, "answered": time.monotonic() if answered else None}), flush=True
    )


if __name__ == "__main__":
    main()
