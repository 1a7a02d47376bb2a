"""What the shipped mailmaps.toml says in its comments, section by section.

The rule it reads by: settings that stand below one comment share it, to the next comment or empty line. A
comment above a section's header, or one that an empty line parts from what follows, is about the section.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.resources import files


@dataclass
class Group:
    """Settings that share one comment. `comment` has a string a line, without "# "."""

    comment: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


@dataclass
class Described:
    """A section of the shipped file: its name ("" for the top), the comment above it, and its settings."""

    name: str
    comment: list[str] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)


def shipped() -> str:
    """The text of the shipped mailmaps.toml."""
    return files("mailmaps").joinpath("mailmaps.toml").read_text(encoding="utf-8")


def describe(text: str) -> dict[str, Described]:
    """The sections of a TOML file by name, in its order. A commented-out `# name = value` counts as set."""
    section = Described("")
    found = {"": section}
    group = Group()
    blocks: list[list[str]] = []  # of comments, about what comes next
    after_blank = True
    for line in text.splitlines():
        if header := re.match(r"\[([\w.]+)\]", line):
            section = found.setdefault(header[1], Described(header[1]))
            section.comment, blocks, group = _joined(blocks), [], Group()
        elif assignment := re.match(r"(?:# )?(\w+) = ", line):
            if after_blank or blocks or not group.names:
                group = Group(blocks.pop() if blocks and not after_blank else [])
                section.groups.append(group)
                section.comment, blocks = section.comment + _joined(blocks), []
            group.names.append(assignment[1])
        elif line.startswith("#"):
            if after_blank or not blocks:
                blocks.append([])
            blocks[-1].append(line.removeprefix("#").removeprefix(" "))
        after_blank = not line
    return found


def _joined(blocks: list[list[str]]) -> list[str]:
    return [line for block in blocks for line in ([""] if block is not blocks[0] else []) + block]
