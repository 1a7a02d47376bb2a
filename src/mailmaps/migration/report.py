"""What `mailmaps migrate` writes: the new settings, the lines of main.cf both ways, and MIGRATION.md."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mailmaps.migration import commands, words
from mailmaps.migration.configuration import Configuration
from mailmaps.migration.files import CfFile
from mailmaps.migration.plan import Change, Endpoints, Fate, Plan


@dataclass(frozen=True)
class Migration:
    """All that is to be written. `files` are the .cf files of the uses that move."""

    configuration: Configuration
    plan: Plan
    endpoints: Endpoints
    settings: str
    notes: list[str]
    files: list[CfFile]
    unsupported: list[str]


def write(migration: Migration, out: Path) -> list[Path]:
    """Write everything into the folder `out`, which is there and empty; the files in order."""
    changes, configuration = migration.plan.changes, migration.configuration
    there = commands.shell_lines(configuration.directory, commands.switch(changes, configuration.services))
    back = commands.shell_lines(configuration.directory, commands.back(changes, configuration.services))
    texts = {
        "MIGRATION.md": "\n".join(_page(migration, out)) + "\n",
        "mailmaps.toml": migration.settings,
        "main.cf.new": _lines(changes, [one.new for one in changes]),
        "main.cf.old": _lines(changes, [one.old for one in changes]),
        "switch.sh": _script("Have Postfix ask mailmaps", there, configuration.directory),
        "back.sh": _script(
            "Have Postfix ask PostgreSQL itself again, as before", back, configuration.directory
        ),
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    return [out / name for name in texts]


def _lines(changes: list[Change], values: list[str | None]) -> str:
    """Lines of main.cf, then those of master.cf as comments, since they belong into its services."""
    found = []
    for one, value in zip(changes, values, strict=True):
        if one.service:
            text = "no such line" if value is None else f"-o {{ {one.parameter} = {value} }}"
            found.append(f"# master.cf, {one.service}: {text}")
        else:
            found.append(f"# {one.parameter} is not set" if value is None else f"{one.parameter} = {value}")
    return "\n".join(found) + "\n"


def _script(what: str, lines: list[str], directory: Path) -> str:
    reload = shlex.join(["postfix", "-c", str(directory), "reload"])
    return "\n".join(
        ["#!/bin/sh", f"# {what}. Then: {reload}", "set -e", *lines, f'echo "now: {reload}"', ""]
    )


def _page(migration: Migration, out: Path) -> Iterator[str]:
    plan = migration.plan
    yield from (
        "# Moving to mailmaps",
        "",
        f"Written by `mailmaps migrate` from {migration.configuration.directory} (Postfix "
        f"{migration.configuration.version}). Nothing there has been touched. The commands below have been "
        "tried, there and back, on a copy of main.cf and master.cf. What each step means is in "
        "docs/migrating.md.",
        "",
        f"{_count(len(plan.moved), 'use')} of `pgsql:` to {_count(len(plan.tables), 'table')} of mailmaps; "
        f"{_count(len(plan.staying), 'use')} with PostgreSQL as before.",
        "",
    )
    yield from _moved(migration)
    yield from _staying(migration)
    yield from _written_out(plan.changes)
    yield from _access(migration.files)
    yield from _notes(migration.notes)
    yield from _steps(migration, out)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _moved(migration: Migration) -> Iterator[str]:
    if not migration.plan.moved:
        return
    yield from ("## What moves", "", *MOVED_HEADER)
    for fate in migration.plan.moved:
        assert fate.table is not None  # that is what moved means
        sources = "<br>".join(f"`{source}`" for source in fate.table.sources)
        where = migration.endpoints.of(fate.table)
        yield f"| {fate.use.place} | {fate.table.name} | {fate.table.parameter} | {sources} | `{where}` |"
    yield from ("", "`proxy:` is dropped: mailmaps holds the connections.", "")
    follows = sorted({f"`{fate.use.parameter}`" for fate in migration.plan.fates if fate.follows})
    if follows:
        yield from (f"As before, these are what they name: {', '.join(follows)}.", "")


MOVED_HEADER = (
    "| Postfix asks for | table | search order of | sources, in order | endpoint |",
    "| --- | --- | --- | --- | --- |",
)


def _staying(migration: Migration) -> Iterator[str]:
    if not migration.plan.staying and not migration.unsupported:
        return
    yield from ("## What stays, and why", "")
    for fate in migration.plan.staying:
        maps = ", ".join(f"`{text}`" for text in fate.segment.maps)
        yield f"* **{fate.use.place}**: {maps}: {fate.why}. {_advice(fate)}".rstrip()
    for line in migration.unsupported:
        yield f"* **{line}**: not PostgreSQL; mailmaps does not answer for it."
    yield ""


def _advice(fate: Fate) -> str:
    if fate.broken:
        return "Postfix cannot ask it today either. Put it right and run `mailmaps migrate` again."
    if "mixed list" in fate.why:
        return (
            "To move it and keep the order, bring the other tables' rows into the database and write them as "
            "one more .cf file at their place in the list. Or list mailmaps last, if the other tables hold "
            "nothing but whole addresses that nobody extends with recipient_delimiter."
        )
    if "refuses network tables" in fate.why and fate.use.parameter.startswith("virtual_"):
        return "With delivery by LMTP nobody reads it."
    return "Postfix goes on asking PostgreSQL itself."


def _written_out(changes: Iterable[Change]) -> Iterator[str]:
    reasons = [one for one in changes if one.why]
    if not reasons:
        return
    yield from ("## What is written besides", "")
    for one in reasons:
        place = f"master.cf {one.service} -o {one.parameter}" if one.service else one.parameter
        yield f"* `{place} = {_shortened(one.new)}`: {one.why}."
    yield ""


def _shortened(value: str) -> str:
    """A long value (proxy_read_maps has sixty parameters by default) without what only names others."""
    if len(value) <= LONGEST_VALUE:
        return value
    return "... " + " ".join(text for text in words.texts(value) if not text.startswith("$"))


LONGEST_VALUE = 500


def _access(files: list[CfFile]) -> Iterator[str]:
    closed = [(Path(file.source.removeprefix("pgsql:")), file) for file in files if file.access]
    if closed:
        yield from CLOSED
        groups = sorted({file.group for _, file in closed if file.group})
        if groups:
            yield f"SupplementaryGroups={' '.join(groups)}"
        yield "# or, where no group may read them, each file as a credential of its own name"
        yield from (f"#LoadCredential={path.name}:{path}" for path, _ in closed)
        yield from ("```", "")
        yield from (f"* `{path}`: {file.access}" for path, file in closed)
        yield ""
    if any(file.unix_socket for file in files):
        yield from (PEER, "")


CLOSED = (
    "## Who may read the .cf files",
    "",
    "Not everybody may, and that is right: they hold a password. The systemd unit runs mailmaps as a user of "
    "its own, so let it in, in one of these two ways, with `systemctl edit mailmaps`:",
    "",
    "```ini",
    "[Service]",
    "# the files' group, where it may read them",
)
PEER = (
    "Some files reach PostgreSQL by its unix socket. If pg_hba.conf says `peer` there, it goes by the "
    "system's user: that was postfix, and is now the daemon's own."
)


def _notes(notes: list[str]) -> Iterator[str]:
    if notes:
        yield from ("## What could not be taken over from main.cf", "", *(f"* {note}" for note in notes), "")


def _steps(migration: Migration, out: Path) -> Iterator[str]:
    directory = migration.configuration.directory
    at = shlex.quote(str(out))
    reload = shlex.join(["postfix", "-c", str(directory), "reload"])
    yield from (
        "## The way",
        "",
        "```sh",
        f"install -D -m 0644 {at}/mailmaps.toml /etc/mailmaps/mailmaps.toml",
        "mailmaps check                  # every file, every query, every setting",
        "systemctl start mailmaps        # or: mailmaps serve",
        "mailmaps compare --maillog /var/log/mail.log    # old and new, for the addresses you really have",
        f"sh {at}/switch.sh && {reload}",
        "```",
        "",
        "The way back, at any time:",
        "",
        "```sh",
        f"sh {at}/back.sh && {reload}",
        "```",
        "",
    )
