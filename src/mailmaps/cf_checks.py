"""The `.cf` files' part of `mailmaps check`: can each be read, by the daemon too, and asked?"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress

from mailmaps import cf_files
from mailmaps.config.settings import Settings
from mailmaps.database.cf_source import CfDatabase, CfSource
from mailmaps.database.plans import Scan, cf_scans, scan_findings
from mailmaps.findings import Finding, Level
from mailmaps.maps.answer import CannotSay
from mailmaps.maps.cf_text import CfError
from mailmaps.maps.pgsql_cf import CfTable, Place

REMEDY = "SupplementaryGroups= or LoadCredential= in the unit, see systemd/README.md"


async def cf_findings(settings: Settings, read_by_daemon: Collection[str]) -> list[Finding]:
    """Try every file; `read_by_daemon` are the sources that a running daemon is known to have read."""
    findings: list[Finding] = []
    databases: dict[Place, CfDatabase] = {}
    scans: list[tuple[str, Scan]] = []
    try:
        for name in cf_files.sources(settings):
            if name not in read_by_daemon:
                findings += _access(name)
            try:
                table = cf_files.read(name, settings.postfix)
            except CfError as error:
                findings += [Finding(Level.ERROR, name, problem) for problem in error.problems]
                continue
            if table.place not in databases:
                databases[table.place] = CfDatabase(table.place, settings.database)
                databases[table.place].start()
            asked = await _asked(name, table, databases[table.place], settings)
            findings.append(asked)
            if asked.level is Level.OK:
                scans += [(name, scan) for scan in await cf_scans(databases[table.place], table)]
    finally:
        await asyncio.gather(*(database.close() for database in databases.values()))
    return findings + scan_findings(scans)


async def _asked(name: str, table: CfTable, database: CfDatabase, settings: Settings) -> Finding:
    source = CfSource(name, table, database, at_once=1)
    try:
        async with asyncio.timeout(settings.database.connect_timeout + settings.database.lookup_deadline):
            await source.prepare()
    except CannotSay as error:
        return Finding(Level.ERROR, name, str(error), "does the query work in psql, as the file's user?")
    except TimeoutError:
        return Finding(Level.ERROR, name, "no answer from its database within the deadlines")
    remembered = f"; changes with time, remembered for {settings.cache.volatile_ttl:g} s"
    return Finding(Level.OK, name, "can be asked" + (remembered if source.volatile else ""))


def _access(name: str) -> Iterator[Finding]:
    """A file that not everybody may read, as befits its password, the daemon may not read either."""
    path = name.removeprefix(cf_files.PREFIX)
    with suppress(OSError):  # what is missing is said by whoever reads it
        status = os.stat(path)  # noqa: PTH116  # "name" of main.cf is a path too, of nothing
        if path.startswith("/") and not status.st_mode & stat.S_IROTH:
            mode = f"{stat.S_IMODE(status.st_mode):04o} {_user(status.st_uid)}:{_group(status.st_gid)}"
            yield Finding(Level.WARNING, name, f"{mode}: can the daemon's user read it?", REMEDY)


def _user(number: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return str(number)


def _group(number: int) -> str:
    with suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return str(number)
