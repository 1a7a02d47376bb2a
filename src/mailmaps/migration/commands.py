"""The `postconf` commands that switch a site, and those that bring it back.

Each is a list of words after `postconf -c DIRECTORY`; for people they are quoted for sh(1). The order keeps
every moment in between harmless: a process reads main.cf whenever it starts, `-o` counts after a reload. So
what virtual(8) keeps is in force before main.cf changes, and main.cf changes in one stroke.

`postconf -P` takes no value with white space in it ("-Pe does not accept whitespace"), so a service whose
values have some is written as a whole with `postconf -M`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from mailmaps.migration.plan import Change
from mailmaps.postconf import Service

Command = tuple[str, ...]


def switch(changes: Iterable[Change], services: dict[str, Service]) -> list[Command]:
    """The commands that write the new values: master.cf, then main.cf."""
    main_cf, by_service = _sorted(changes)
    found: list[Command] = []
    for service, of_service in by_service.items():
        if _has_blanks(of_service):
            found.append(("-M", f"{service}={_with_overrides(services[service].line, of_service)}"))
        else:
            found += [("-P", f"{service}/{one.parameter}={one.new}") for one in of_service]
    if main_cf:
        found.append(("-e", *(f"{one.parameter}={one.new}" for one in main_cf)))
    return found


def back(changes: Iterable[Change], services: dict[str, Service]) -> list[Command]:
    """The commands that write the old values, exactly; what was not there goes. main.cf, then master.cf."""
    main_cf, by_service = _sorted(changes)
    found: list[Command] = []
    if old := [f"{one.parameter}={one.old}" for one in main_cf if one.old is not None]:
        found.append(("-e", *old))
    if new := [one.parameter for one in main_cf if one.old is None]:
        found.append(("-X", *new))
    for service, of_service in by_service.items():
        if _has_blanks(of_service):
            found.append(("-M", f"{service}={services[service].line}"))
            continue
        for one in of_service:
            name = f"{service}/{one.parameter}"
            found.append(("-PX", name) if one.old is None else ("-P", f"{name}={one.old}"))
    return found


def shell_lines(directory: Path, commands: Iterable[Command]) -> list[str]:
    """The commands for sh(1), with a reload where main.cf comes after master.cf."""
    found: list[str] = []
    postfix = shlex.join(["postfix", "-c", str(directory)])
    for option, *words in commands:
        if option == "-e" and found:
            found.append(f"if {postfix} status 2>/dev/null; then {postfix} reload; fi")
        separator = " " if len(words) == 1 else " \\\n    "
        start = shlex.join(["postconf", "-c", str(directory), option])
        found.append(separator.join([start, *map(shlex.quote, words)]))
    return found


def _sorted(changes: Iterable[Change]) -> tuple[list[Change], dict[str, list[Change]]]:
    ordered = sorted(changes, key=lambda one: one.service)
    groups = {service: list(group) for service, group in groupby(ordered, key=lambda one: one.service)}
    return groups.pop("", []), groups


def _has_blanks(changes: list[Change]) -> bool:
    return any(re.search(r"\s", value) for one in changes for value in (one.old or "", one.new))


def _with_overrides(line: str, changes: list[Change]) -> str:
    """An entry of master.cf with the new values in place of the old ones, or at its end."""
    tokens = list(_tokens(line))
    pending = {one.parameter: _option(one) for one in changes}
    for number in range(1, len(tokens)):
        name = re.match(r"\{?\s*(\w+)\s*=", tokens[number]) if tokens[number - 1] == "-o" else None
        if name is not None and name[1] in pending:
            tokens[number] = pending[name[1]]
    written = set(tokens)
    missing = [option for option in pending.values() if option not in written]
    return " ".join([*tokens, *(word for option in missing for word in ("-o", option))])


def _option(change: Change) -> str:
    text = f"{change.parameter}={change.new}"
    return f"{{{text}}}" if re.search(r"\s", text) else text


def _tokens(line: str) -> Iterator[str]:
    """Words at white space, braces kept together."""
    depth, word = 0, ""
    for char in line:
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char.isspace() and depth == 0:
            if word:
                yield word
            word = ""
        else:
            word += char
    if word:
        yield word
