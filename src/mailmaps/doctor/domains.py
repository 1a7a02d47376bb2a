"""Every domain of ours, for `mailmaps check`: does its postmaster get mail, and is it ours in one way only?

RFC 5321 4.5.1 wants a postmaster for each domain that a server takes mail for. Postfix warns of a domain that
is in two classes with each mail (resolve.c:496-505, "do not list domain ... in BOTH"), and the first decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mailmaps import cf_files
from mailmaps.config import SettingsError
from mailmaps.database import key_columns
from mailmaps.database.connect import (
    BREAKS,
    READING_SETTINGS,
    ConnectError,
    Refused,
    connect_to_listen,
    reason,
)
from mailmaps.database.listing import read_rows
from mailmaps.doctor.asking import CannotTell, End, Lookups, lookups
from mailmaps.doctor.counted import Counted
from mailmaps.doctor.main_cf_domains import class_findings
from mailmaps.findings import Finding, Level
from mailmaps.maps.address import fold
from mailmaps.maps.cf_text import CfError
from mailmaps.maps.row_bytes import Rows
from mailmaps.maps.search import Rules
from mailmaps.maps.sources import plain_view_of

if TYPE_CHECKING:
    from mailmaps.config import Settings

# Domains asked about at a time: they share statements.
TOGETHER = 200

# Values of a column that are taken for keys of a `.cf` file, which cannot be read whole.
MOST_KEYS = 10_000

_CLASSES = ("virtual_alias_domains", "relay_domains")


async def domain_findings(
    settings: Settings, rules: Rules, *, most: int | None, config_dir: Path | None = None
) -> list[Finding]:
    """What is wrong with any domain, and with what `.cf` files say of addresses.

    Postfix's own lists are those of `config_dir` (None: of postfix.config_directory).
    """
    counted, listed = Counted(most), list[Finding]()
    folder = config_dir or Path(settings.postfix.config_directory)
    try:
        domains = await _keys(settings, "virtual_mailbox_domains", rules)
        relays = sorted(set(await _keys(settings, "relay_domains", rules)).difference(domains))
        async with lookups(settings, rules) as asked:
            for first in range(0, len(domains), TOGETHER):
                some = domains[first : first + TOGETHER]
                await asyncio.gather(*(_domain(asked, rules, one, counted) for one in some))
            await _queried_aliases(settings, asked, counted)
            listed += await asyncio.to_thread(_listed, domains, rules, counted, folder, relays)
    except (ConnectError, CannotTell, SettingsError) as error:
        return await _not_looked_at(str(error), rules, folder)
    except (Refused, *BREAKS, TimeoutError) as error:
        return await _not_looked_at(reason(error), rules, folder)
    found = listed + counted.findings()
    if domains and not found:
        text = f"{len(domains):,}: the postmaster of each gets mail, and each is ours in one way"
        found.append(Finding(Level.OK, "domains", text))
    return found


async def _not_looked_at(why: str, rules: Rules, folder: Path) -> list[Finding]:
    """Without our domains it still shows whether one of Postfix's lists has all there are."""
    said = Finding(Level.WARNING, "domains", f"not looked at: {why}", "mend what is named above")
    return [said, *await asyncio.to_thread(_listed, [], rules, Counted(), folder)]


def _listed(
    domains: list[str], rules: Rules, counted: Counted, config_dir: Path, relays: Sequence[str] = ()
) -> list[Finding]:
    return list(class_findings(domains, rules, counted, config_dir, relays))


async def _domain(asked: Lookups, rules: Rules, domain: str, counted: Counted) -> None:
    value = await asked.found("virtual_mailbox_domains", domain)
    if value is None:
        return  # known and answers nothing, or a row that a `.cf` query leaves out
    for other in _CLASSES:
        if await asked.found(other, domain) is not None:
            text = f"{domain} is in virtual_mailbox_domains and in {other}: Postfix warns with each mail"
            remedy = f"take it out of {other}; virtual_alias_domains counts before virtual_mailbox_domains"
            counted.add(Level.WARNING, "domains", f"in {other} too", text, remedy)
    if rules.resolves_here(domain):
        text = f"{domain} is in virtual_mailbox_domains and in mydestination, which counts: no mailbox of it "
        text += "gets anything"
        counted.add(Level.ERROR, "domains", "in mydestination too", text, "take it out of mydestination")
        return
    way = await asked.way(f"postmaster@{domain}")
    if way.end is not End.BOX:
        where = "" if way.last == f"postmaster@{domain}" else f", by {way.last}"
        text = f"postmaster@{domain} leads to {way.end.value}{where}"
        remedy = "an address or a forward to somebody who reads it (RFC 5321 4.5.1)"
        counted.add(Level.WARNING, "domains", "postmaster", text, remedy)


async def _queried_aliases(settings: Settings, asked: Lookups, counted: Counted) -> None:
    """Aliases that `.cf` files know, as far as the columns they ask have them."""
    keys = await _cf_keys(settings, "virtual_alias_maps")
    for first in range(0, len(keys), TOGETHER):
        some = keys[first : first + TOGETHER]
        for key, way in zip(some, await asyncio.gather(*map(asked.way, some)), strict=True):
            if way.end is End.CIRCLE:
                remedy = "Postfix gives up after 1000 steps, and mail to it waits (451): take a target out"
                counted.add(Level.ERROR, "aliases", "circle", f"{key} leads to a circle of aliases", remedy)
            elif way.end is End.NOBODY and way.last != key:
                text = f"{key} leads to {way.last}, which nobody has"
                remedy = "mail to it bounces; take the row out, or make the mailbox"
                counted.add(Level.WARNING, "aliases", "nobody has", text, remedy)


async def _keys(settings: Settings, parameter: str, rules: Rules) -> list[str]:
    """The domains in all sources of a table. Raises what reading them does."""
    found = set(await _cf_keys(settings, parameter))
    views = [
        plain_view_of(name, source)
        for name, table in settings.tables.items()
        for source in table.sources
        if table.parameter == parameter and not cf_files.is_cf(source)
    ]
    if views:
        connection = await connect_to_listen(settings.database, READING_SETTINGS)
        try:

            def take(rows: Rows) -> None:
                found.update(key.decode(errors="surrogateescape") for key in rows.all_keys)

            for view in views:
                await read_rows(connection, view, {}, take)
        finally:
            connection.terminate()  # what failed may hang
    return sorted(domain for domain in found if _is_domain(domain))


def _is_domain(key: str) -> bool:
    """Not `.example.com`, which stands for subdomains, and no address."""
    return bool(key) and not key.startswith((".", "@")) and "@" not in key


async def _cf_keys(settings: Settings, parameter: str) -> Sequence[str]:
    """Keys that the queries of `.cf` files can know: what their columns hold, folded."""
    found: dict[str, None] = {}
    for table in settings.tables.values():
        if table.parameter != parameter:
            continue
        for source in filter(cf_files.is_cf, table.sources):
            try:
                read = cf_files.read(source, settings.postfix)
                values = await key_columns.values(read, settings.database, MOST_KEYS)
            except (CfError, key_columns.KeysUnknown):
                continue  # named where the file is tried
            found |= dict.fromkeys(fold(one) for one in values.get("s", []))
    return list(found)
