# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Read interfaces(5) of ifupdown as blocks whose texts, joined, are the file again."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

STANZAS = {"iface", "mapping"}
ALLOW = re.compile(r"^(auto|allow-[a-z-]+)$")
OTHERS = {"source", "source-directory", "no-auto-down", "no-scripts", "rename", "template"}


class InterfacesError(Exception):
    """A file that cannot be changed as wanted; the message says what to do."""


@dataclass
class Block:
    """Whole lines of an interfaces file: a stanza, an auto line, or comments."""

    kind: str
    raw: str
    names: list[str] = field(default_factory=list)
    family: str = ""
    method: str = ""
    options: list[tuple[str, str]] = field(default_factory=list)

    def option(self, name: str) -> str:
        """Return the value of an option, or an empty string."""
        return next((value for key, value in self.options if normal(key) == name), "")


def normal(option: str) -> str:
    """Return an option's canonical name: bridge-ports and bridge_ports are the same."""
    return option.replace("-", "_") if option.startswith("bridge") else option


def logical_lines(text: str) -> list[tuple[str, str]]:
    """Return (raw, joined) of each line. A trailing backslash continues a line, except in a comment."""
    result: list[tuple[str, str]] = []
    raw = joined = ""
    for line in text.splitlines(keepends=True):
        body = line.rstrip("\n")
        raw += line
        if body.endswith("\\") and not (joined == "" and body.lstrip().startswith("#")):
            joined += body[:-1] + " "
            continue
        result.append((raw, joined + body))
        raw = joined = ""
    if raw:
        result.append((raw, joined))
    return result


def parse(text: str) -> list[Block]:
    """Split a file into blocks. Comments and blank lines between two stanzas form a separate block."""
    blocks: list[Block] = []
    pending = ""  # comments and blank lines that may belong to the next block
    current: Block | None = None

    def text_block() -> None:
        nonlocal pending
        if pending:
            blocks.append(Block("text", pending))
            pending = ""

    for raw, joined in logical_lines(text):
        words = joined.split()
        if not words or words[0].startswith("#"):
            pending += raw
            # A comment in column one and a blank line stand between stanzas.
            if not words or not joined[0].isspace():
                continue
            if current is not None and pending == raw:
                current.raw += pending
                pending = ""
            continue
        keyword = words[0]
        if keyword in STANZAS or ALLOW.match(keyword) or keyword in OTHERS:
            text_block()
            current = None
            if keyword == "iface":
                if len(words) < 2:
                    raise InterfacesError(f"line {joined.strip()!r} names no interface")
                family, method = (words[2], words[3]) if len(words) > 3 else ("", "")
                current = Block("iface", raw, [words[1]], family, method)
            elif keyword == "mapping":
                current = Block("mapping", raw, words[1:])
            elif ALLOW.match(keyword):
                blocks.append(Block(keyword, raw, words[1:]))
                continue
            else:
                blocks.append(Block(keyword, raw, words[1:]))
                continue
            blocks.append(current)
            continue
        if current is None:
            raise InterfacesError(f"line {joined.strip()!r} belongs to no stanza")
        current.raw += pending + raw
        pending = ""
        current.options.append((keyword, joined.strip()[len(keyword) :].strip()))
    text_block()
    return blocks


def sources(text: str) -> list[tuple[str, str]]:
    """Return (keyword, pattern) of each source and source-directory line."""
    return [(b.kind, name) for b in parse(text) if b.kind in ("source", "source-directory") for name in b.names]


def load(path: str, read: Callable[[str], str | None], expand: Callable[[str, str], Iterable[str]]) -> dict[str, str]:
    """Return {path: text} of the file and all that it sources; ``expand`` turns a source line into paths."""
    files: dict[str, str] = {}
    waiting = [path]
    while waiting:
        name = waiting.pop(0)
        if name in files:
            continue
        text = read(name)
        if text is None:
            continue
        files[name] = text
        for keyword, pattern in sources(text):
            waiting.extend(expand(keyword, pattern))
    return files


def cidrs(block: Block) -> list[str]:
    """Return the address of a static stanza as ADDRESS/PREFIX."""
    address, netmask = block.option("address"), block.option("netmask")
    if not address or block.method != "static":
        return []
    text = address if "/" in address else f"{address}/{netmask}" if netmask else address
    try:
        return [ipaddress.ip_interface(text).with_prefixlen]
    except ValueError as error:
        raise InterfacesError(f"address {text!r} of {block.names[0]} is not an address: {error}") from error
