# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A guest's console in Chromium, on this computer: the page connects by itself, shows the guest and takes keys.

KILONOVA_CONSOLE_PICTURE=docs/operate/console.png keeps the picture that the documentation shows.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.host.chromium import Chromium
from tests.host.conftest import PROJECT

# An emulated guest, on a computer that has other things to do.
PATIENCE = 60
# Where a failure leaves the screen: Molecule's directory of the scenario.
FAILURE = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", PROJECT / ".cache"), "console.png")
# Records everything that noVNC's status bar says, and how: from the first moment, since the bar hides itself.
STATUS = """
window.kilonova = [];
document.addEventListener("DOMContentLoaded", () => {
    const bar = document.getElementById("noVNC_status");
    const note = () => window.kilonova.push([bar.className, bar.textContent]);
    new MutationObserver(note).observe(bar, {attributes: true, childList: true, subtree: true});
    note();
});
"""
TOKEN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# A page that has just begun has no element yet.
CONNECTED = "!!document.documentElement?.classList.contains('noVNC_connected')"
BARS = "document.querySelectorAll('#noVNC_status.noVNC_open, #noVNC_control_bar.noVNC_open').length"
# The screen as rows of characters' cells, each cell a string of its pixels. The guest's font is VGA's, 16 pixels high.
CELLS = """(() => {
    const canvas = document.querySelector("#noVNC_container canvas");
    if (!canvas || !canvas.width || !canvas.height) return [];
    const {width, height} = canvas, columns = width === 720 ? 9 : 8, rows = [];
    const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    for (let top = 0; top + 16 <= height; top += 16) {
        const row = [];
        for (let left = 0; left + columns <= width; left += columns) {
            let cell = "";
            for (let y = top; y < top + 16; y++)
                for (let x = left; x < left + columns; x++) cell += pixels[4 * (y * width + x) + 1] > 96 ? 1 : 0;
            row.push(cell);
        }
        rows.push(row);
    }
    return rows;
})()"""

Rows = list[list[str]]


def blank(cell: str) -> bool:
    return "1" not in cell


def trimmed(rows: Rows) -> Rows:
    """Return the rows down to the last that has something."""
    while rows and all(map(blank, rows[-1])):
        rows = rows[:-1]
    return rows


class Font:
    """Cells of the characters that were seen. One that is unknown is learned where all others of the text fit."""

    def __init__(self) -> None:
        self.cells: dict[str, str] = {}

    def reads(self, rows: Rows, *lines: str) -> bool:
        """Whether the screen ends with these lines. The cursor may follow."""
        learned, last = dict(self.cells), trimmed(rows)[-len(lines) :]
        if len(last) != len(lines):
            return False
        for row, line in zip(last, lines, strict=True):
            if any(not blank(cell) for cell in row[len(line) + 2 :]):
                return False
            for cell, character in zip(row, line, strict=False):
                if blank(cell) != (character == " "):
                    return False
                if character != " " and learned.setdefault(character, cell) != cell:
                    return False
        if len(set(learned.values())) != len(learned):
            return False
        self.cells = learned
        return True


@contextmanager
def explained(browser: Chromium, host: Any) -> Iterator[None]:
    """Show what the browser and the proxy say when something fails, and keep the picture."""
    try:
        yield
    except BaseException:
        print(TOKEN.sub("TOKEN", browser.report()))
        print(host.run("journalctl --no-pager --lines=40 --unit=nova-novncproxy.service").stdout)
        FAILURE.parent.mkdir(parents=True, exist_ok=True)
        FAILURE.write_bytes(browser.picture())
        print(f"The page is in {FAILURE}")
        raise


def console_url(site: Any, host: Any) -> str:
    command = "openstack --os-cloud admin console url show --novnc %s -f value -c url"
    return str(host.check_output(command, site.server)).strip()


def test_chromium_refuses_an_authority_that_it_does_not_know(site: Any) -> None:
    with Chromium() as browser:
        assert browser.open(f"https://{site.api_address}:6080/") == "net::ERR_CERT_AUTHORITY_INVALID"


def test_the_console_is_used_in_a_browser(site: Any, host: Any, generated_secrets: dict[str, str]) -> None:
    password = generated_secrets["guest_image_console_password"]
    token = secrets.token_hex(4)
    command = f"echo kilonova {token} | sudo tee /dev/console"
    name = site.server.replace("_", "-").lower()
    shell = f"{site.guest_user}@{name}:~$"
    font = Font()
    with Chromium(host.file(site.authority).content_string) as browser, explained(browser, host):

        def shows(*lines: str) -> bool:
            return font.reads(browser.evaluate(CELLS), *lines)

        def wait_for(*lines: str) -> None:
            browser.wait(lambda: shows(*lines), PATIENCE, f"{lines} at the end of the screen")

        browser.send("Page.addScriptToEvaluateOnNewDocument", source=STATUS)
        assert browser.open(console_url(site, host)) == ""
        # Without a click.
        browser.wait(lambda: browser.evaluate(CONNECTED), PATIENCE, "the page has connected")
        assert browser.evaluate("window.isSecureContext")
        said = browser.evaluate("window.kilonova")
        assert said and not [one for one in said if "error" in one[0] or "warn" in one[0]], said
        sockets = [one["url"] for one in browser.seen("Network.webSocketCreated")]
        assert len(sockets) == 1 and sockets[0].startswith(f"wss://{site.api_address}:6080/vnc.html?token=")

        # Until the guest has asked for its name, the prompt has that of the image.
        browser.wait(
            lambda: any(
                shows(f"Kilonova test guest {one} /dev/tty1", "", f"{one} login:") for one in (name, "kilonova-guest")
            ),
            PATIENCE,
            "a login prompt at the end of the screen",
        )
        browser.type("\n")
        prompt = (f"Kilonova test guest {name} /dev/tty1", "", f"{name} login:")
        wait_for(*prompt)
        browser.type(f"{site.guest_user}\n")
        wait_for(f"{name} login: {site.guest_user}", "Password:")
        browser.type(f"{password}\n")
        wait_for(shell)
        browser.type(f"{command}\n")
        wait_for(f"{shell} {command}", f"kilonova {token}", shell)
        log = host.check_output("openstack --os-cloud admin console log show %s", site.server)
        assert f"kilonova {token}" in log
        if path := os.environ.get("KILONOVA_CONSOLE_PICTURE"):
            browser.wait(lambda: not browser.evaluate(BARS), PATIENCE, "noVNC has hidden its bars")
            Path(path).write_bytes(browser.picture())
        browser.type("exit\n")
        wait_for(*prompt)
