"""Postfix's part of `mailmaps check` beside the settings: does each of its programs read the right table?

An address is looked up by smtpd(8), then by cleanup(8), then by virtual(8). They agree while all of them go
through one door: ask the daemon, or read the files of `mailmaps filemaps`. What one door knows, the other may
not know yet, and then mail that was accepted bounces.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mailmaps import postconf
from mailmaps.cli import main_cf
from mailmaps.cli.main_cf import Endpoints, Reader
from mailmaps.cli.our_tables import WORD, OurTables
from mailmaps.cli.postfix import FILE_TYPES, OF_VIRTUAL, READERS
from mailmaps.cli.socket_checks import may
from mailmaps.config import Settings
from mailmaps.filemaps.folder import is_followed, withheld
from mailmaps.filemaps.targets import QUEUED, listable, targets
from mailmaps.findings import Finding, Level


def table_findings(
    settings: Settings, config_dir: Path, found_readers: list[Reader] | None = None
) -> list[Finding]:
    """What does not fit in main.cf and master.cf. Raises `PostconfError`."""
    readers = main_cf.readers(config_dir) if found_readers is None else found_readers
    files = _Files(settings.filemaps.directory)
    endpoints = Endpoints(settings)
    findings: list[Finding] = []
    if settings.delivery == "virtual":
        for reader in readers:
            if reader.program == "virtual":
                findings += _refused(reader, settings)
                findings += _apart(reader, files)
                findings += _limit(reader)
    findings += _mixed(readers, files, endpoints, settings)
    findings += _not_expanded(readers, settings)
    findings += _not_queued(readers, files, settings)
    named = _named(config_dir, files)
    findings += _missing(named)
    findings += _abandoned(named, settings)
    findings += _unreadable(readers, files)
    if named:
        findings += _unfollowed(Path(settings.filemaps.directory))
    if named and not findings:
        findings.append(Finding(Level.OK, "postfix", "it reads files that are there and fit together"))
    return findings


def _unfollowed(folder: Path) -> list[Finding]:
    """Files that nobody keeps current say what was once."""
    try:
        if is_followed(folder):
            return [
                Finding(
                    Level.ERROR, str(folder), f"{why}, and do not", "mailmaps filemaps --force, if it shall"
                )
                for why in withheld(folder)
            ]
    except OSError:
        pass  # nobody ever has, or it is not for us to see
    remedy = "start mailmaps-filemaps.service, or have cron run `mailmaps filemaps`"
    return [Finding(Level.WARNING, str(folder), "nobody keeps the files current at this moment", remedy)]


class _Files:
    """The files of `mailmaps filemaps` that a value of main.cf names."""

    def __init__(self, directory: str) -> None:
        types = "|".join(FILE_TYPES)
        self._pattern = re.compile(
            rf"(?<![^\s,{{:])({types}):{re.escape(directory.rstrip('/'))}/([^\s,{{}}]+)"
        )
        self._directory = Path(directory)

    def named_in(self, value: str) -> list[str]:
        """Their names, without the type's ending."""
        return [name for _, name in self._pattern.findall(value)]

    def paths_in(self, value: str) -> dict[str, Path]:
        """The files themselves, by the words that name them."""
        return {
            found[0]: self._directory / f"{found[2]}.{found[1]}" for found in self._pattern.finditer(value)
        }


def _refused(reader: Reader, settings: Settings) -> Iterator[Finding]:
    for parameter in OF_VIRTUAL:
        if tables := Endpoints.any_in(reader.values.get(parameter, "")):
            yield Finding(
                Level.ERROR,
                reader.service,
                f"{parameter} has {tables[0]}, which virtual(8) refuses: mail is deferred with 4.3.5",
                f"mailmaps postfix-config --map-type {settings.filemaps.type} prints what it takes",
            )


def _apart(reader: Reader, files: _Files) -> Iterator[Finding]:
    """One owner for all mailboxes (`static:`) does not change, so it goes with everything."""
    said = {name: value for name in OF_VIRTUAL if not _is_static(value := reader.values.get(name, ""))}
    ours = [name for name, value in said.items() if files.named_in(value)]
    others = [name for name in said if name not in ours]
    if ours and others:
        yield Finding(
            Level.ERROR,
            reader.service,
            f"{' and '.join(ours)} from our files, {' and '.join(others)} from elsewhere: "
            "mail for a mailbox that one does not know yet is deferred or bounces",
            "let all of virtual_mailbox_maps, virtual_uid_maps and virtual_gid_maps be files",
        )


def _is_static(value: str) -> bool:
    return value.startswith("static:") and len(value.split()) == 1


def _limit(reader: Reader) -> Iterator[Finding]:
    words = [reader.values.get(name, "") for name in ("virtual_mailbox_limit", "message_size_limit")]
    if not all(word.isdecimal() for word in words):
        return  # not a number: Postfix's own matter
    limit, message = map(int, words)
    if limit and (not message or limit < message):
        bound = f"message_size_limit ({message})" if message else "message_size_limit (0, no limit)"
        yield Finding(
            Level.ERROR,
            reader.service,
            f"virtual_mailbox_limit ({limit}) is less than {bound}: virtual(8) cannot start",
            "virtual_mailbox_limit = 0",
        )


def _mixed(
    readers: list[Reader], files: _Files, endpoints: Endpoints, settings: Settings
) -> Iterator[Finding]:
    """Services that ask the daemon for what a later one reads in a file, or the other way round."""

    def by_file(program: str, parameter: str) -> list[Reader]:
        return [r for r in readers if r.program == program and files.named_in(r.values.get(parameter, ""))]

    def asked(reader: Reader, parameter: str) -> Iterator[str]:
        return iter(endpoints.ours_in(reader.values.get(parameter, ""))[:1])

    if settings.delivery == "virtual" and by_file("virtual", "virtual_mailbox_maps"):
        found = [
            (reader, parameter, table, "virtual(8) finds its mailboxes")
            for reader in readers
            for parameter in _ASKED_BEFORE_VIRTUAL.get(reader.program, ())
            for table in asked(reader, parameter)
        ]
    else:
        found = [
            (reader, "virtual_alias_maps", table, f"{other}(8) finds aliases")
            for reader in readers
            for other in {"smtpd": ["cleanup"], "cleanup": ["smtpd"]}.get(reader.program, [])
            if by_file(other, "virtual_alias_maps")
            for table in asked(reader, "virtual_alias_maps")
        ]
    for reader, parameter, table, finds in found:
        yield Finding(
            Level.ERROR,
            reader.service,
            f"{parameter} asks the daemon ({table}), but {finds} in files: "
            "either may know what the other does not know yet, and accepted mail bounces",
            f"files for all of them: mailmaps postfix-config --map-type {settings.filemaps.type}",
        )


_ASKED_BEFORE_VIRTUAL = {
    "smtpd": ("virtual_mailbox_maps", "virtual_alias_maps"),
    "cleanup": ("virtual_alias_maps",),
    "virtual": (),
}


def _not_expanded(readers: list[Reader], settings: Settings) -> Iterator[Finding]:
    """smtpd(8) accepts by its own list of tables, and its cleanup(8) may have another by `-o`."""
    ours = OurTables(settings)
    cleanups = {reader.name: reader for reader in readers if reader.program == "cleanup"}
    for reader in readers:
        cleanup = cleanups.get(f"{reader.values.get('cleanup_service_name', 'cleanup')}/unix")
        if reader.program != "smtpd" or cleanup is None:
            continue
        expanded = WORD.findall(cleanup.values.get("virtual_alias_maps", ""))
        for word in WORD.findall(reader.values.get("virtual_alias_maps", "")):
            if word not in expanded and ours.named(word) is None:
                yield Finding(
                    Level.ERROR,
                    reader.service,
                    f"virtual_alias_maps has {word}, which is not in that of {cleanup.name}: aliases that it "
                    "alone has are accepted, and bounce",
                    f"postconf -P '{cleanup.name}/virtual_alias_maps={','.join([*expanded, word])}'",
                )


def _not_queued(readers: list[Reader], files: _Files, settings: Settings) -> Iterator[Finding]:
    for queued in READERS:
        if queued.program == "virtual" and settings.delivery != "virtual":
            continue
        for reader in readers:
            names = files.named_in(reader.values.get(queued.parameter, ""))
            plain = [name for name in names if not name.endswith(QUEUED)]
            if reader.program == queued.program and plain:
                value = reader.values[queued.parameter]
                wanted = re.sub(rf"(/{re.escape(plain[0])})(?![^\s,{{}}])", rf"\1{QUEUED}", value, count=1)
                wanted = re.sub(r"[\s,]+", ",", wanted)  # -P takes no blanks
                yield Finding(
                    Level.WARNING,
                    reader.service,
                    f"{queued.parameter} is {plain[0]}, not {plain[0]}{QUEUED}: "
                    f"mail in the queue for {_REMOVED[queued.parameter]} that was just removed bounces",
                    f"postconf -P '{reader.service.removeprefix('master.cf ')}/{queued.parameter}={wanted}'",
                )
            if reader.program == "smtpd" and len(plain) < len(names):
                yield Finding(
                    Level.ERROR,
                    reader.service,
                    f"{queued.parameter} has the file for mail in the queue ({QUEUED}): "
                    f"mail for {_REMOVED[queued.parameter]} that was removed is accepted, and may bounce",
                    f"only {queued.program}(8) reads it, by -o in master.cf",
                )


_REMOVED = {"virtual_mailbox_maps": "a mailbox", "virtual_alias_maps": "an alias"}


def _named(config_dir: Path, files: _Files) -> dict[str, tuple[str, Path]]:
    """Where each file is named first, and the file."""
    values = [("main.cf", value) for value in postconf.parameters(config_dir, expanded=True).values()]
    values += [
        (f"master.cf {one.service}", one.value) for one in postconf.all_overrides(config_dir, expanded=True)
    ]
    found: dict[str, tuple[str, Path]] = {}
    for where, value in values:
        for word, path in files.paths_in(value).items():
            found.setdefault(word, (where, path))
    return found


def _missing(named: dict[str, tuple[str, Path]]) -> Iterator[Finding]:
    for word, (where, path) in named.items():
        try:
            path.stat()
        except FileNotFoundError:
            yield Finding(Level.ERROR, where, f"{word}: there is no {path}", "mailmaps filemaps writes it")
        except OSError as error:
            yield Finding(Level.WARNING, where, f"{path}: {error.strerror}")


def _abandoned(named: dict[str, tuple[str, Path]], settings: Settings) -> Iterator[Finding]:
    """Files that nobody keeps current; they may be there, from before a change of the settings."""
    written = {f"{target.file}.{settings.filemaps.type}" for target in targets(listable(settings))}
    for word, (where, path) in named.items():
        if path.name not in written:
            yield Finding(
                Level.ERROR,
                where,
                f"{word}: with these settings mailmaps filemaps does not write {path.name}",
                f"mailmaps postfix-config --map-type {settings.filemaps.type} prints what it writes",
            )


def _unreadable(readers: list[Reader], files: _Files) -> Iterator[Finding]:
    """virtual(8) opens its tables as mail_owner, not as root as the others do (virtual.c, post_init)."""
    for reader in readers:
        if reader.program != "virtual":
            continue
        owner = reader.values.get("mail_owner", "postfix")
        for word, path in files.paths_in(
            " ".join(reader.values.get(name, "") for name in OF_VIRTUAL)
        ).items():
            with suppress(OSError, KeyError):  # what is missing is named already
                folder = may(owner, path.parent.stat(), stat.S_IXOTH)
                if folder and may(owner, path.stat(), stat.S_IROTH):
                    continue
                yield Finding(
                    Level.ERROR,
                    reader.service,
                    f"{word} cannot be read by {owner}, as whom virtual(8) opens it: mail is deferred",
                    "filemaps.mode and filemaps.group" if folder else f"chmod 755 {path.parent}",
                )
