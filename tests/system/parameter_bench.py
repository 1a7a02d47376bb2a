"""Two private Postfixes on the same tables, of which any parameter may be one: `pgsql:` and mailmaps.

Contract: `filled` puts the rows of parameter_cases into PostgreSQL; `pair_of` gives the two, alike in
main.cf but for their tables. Every access table has its list of restrictions, and a client that says
EHLO `TRUSTED` passes them all, so that its mail reaches the other tables. `Caller` is a client with a name
and an address of one's choice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import asyncpg
from tests.system.daemon import Daemon, Value
from tests.system.lmtp_sink import LmtpSink
from tests.system.parameter_cases import LOCAL, ORIGIN, TABLES, Row
from tests.system.postfix import PrivatePostfix
from tests.system.smtp import Dialog

TRUSTED = "trusted.test"
"""The HELO name of those whom no access table judges."""

Sinks = Mapping[str, LmtpSink]
"""By name: `local` for local recipients, `default` for all others unless a table leads elsewhere."""


class Setting(NamedTuple):
    """How mailmaps is asked, what it has its rows from, and what is in both main.cf."""

    map_type: str
    source: str
    rules: Mapping[str, Value]


class Pair(NamedTuple):
    """Postfix with pgsql:, Postfix with mailmaps, and where the mail of both ends."""

    fixed: PrivatePostfix
    pattern: PrivatePostfix
    sinks: Sinks


class Caller(Dialog):
    """A session under a HELO name and, by XCLIENT, a client's name and address."""

    def __init__(self, port: int, helo: str = "client.test", xclient: str = "") -> None:
        super().__init__(port)
        self._helo = helo
        self._xclient = xclient

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if self._xclient:
            reply = await self.say(f"XCLIENT {self._xclient}")
            assert reply.code == 220, reply
        await self.say(f"EHLO {self._helo}")
        return self


async def filled(dsn: str, made: Mapping[str, list[Row]]) -> None:
    """Make a table `plain_NAME` of each."""
    connection = await asyncpg.connect(dsn)
    try:
        for table, lines in made.items():
            await connection.execute(f"CREATE TABLE plain_{table} (key text, value text)")
            await connection.copy_records_to_table(f"plain_{table}", records=lines)
    finally:
        await connection.close()


@asynccontextmanager
async def pair_of(setting: Setting, dsn: str, sinks: Sinks) -> AsyncIterator[Pair]:
    """Start both, and the mailmaps."""
    known: dict[str, Value] = {
        "myorigin": ORIGIN,
        "mydestination": [LOCAL],
        "inet_interfaces": ["127.0.0.1"],
        **setting.rules,
    }
    async with AsyncExitStack() as stack:
        fixed = PrivatePostfix({})
        stack.callback(fixed.stop)
        files = {table: _pgsql(fixed, table, dsn) for table in TABLES}
        sources = files if setting.source == "pgsql" else {t: f"view:public.plain_{t}" for t in TABLES}
        # A list with @other means what Postfix makes of it only where a pgsql: file gave it.
        sources = {**sources, "virtual_alias_maps": files["virtual_alias_maps"]}
        settings: dict[str, Mapping[str, Value]] = {"database": {"dsn": dsn}, "postfix": known}
        daemon = stack.enter_context(
            Daemon(settings, tables={table: [source] for table, source in sources.items()})
        )
        fixed.settings.update(_main_cf(files, known, sinks))
        maps = {table: daemon.map(setting.map_type, table) for table in TABLES}
        pattern = PrivatePostfix(_main_cf(maps, known, sinks))
        await stack.enter_async_context(fixed)
        await stack.enter_async_context(pattern)
        yield Pair(fixed, pattern, sinks)


def _main_cf(maps: Mapping[str, str], known: Mapping[str, Value], sinks: Sinks) -> dict[str, str]:
    """main.cf with `maps` as its tables."""
    clients = ("check_client_access", "check_reverse_client_hostname_access")
    return {
        **{name: _value(value) for name, value in known.items()},
        **{name: table for name, table in maps.items() if not name.startswith("check_")},
        "local_transport": sinks["local"].nexthop,
        # Without a next hop of its own, or sender_dependent_relayhost_maps would not count.
        "default_transport": "lmtp",
        "relayhost": sinks["default"].nexthop.removeprefix("lmtp:"),
        "inet_protocols": "all",
        "smtpd_authorized_xclient_hosts": "127.0.0.1",
        "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
        "smtpd_client_restrictions": _checks(maps, *clients),
        "smtpd_helo_restrictions": _checks(maps, "check_helo_access"),
        "smtpd_sender_restrictions": _checks(maps, "check_sender_access"),
        "smtpd_recipient_restrictions": _checks(maps, "check_recipient_access"),
        "smtpd_etrn_restrictions": _checks(maps, "check_etrn_access"),
        # a@b@c is refused as a relay attempt otherwise, and would not reach a table.
        "allow_untrusted_routing": "yes",
        # Each process has a connection to PostgreSQL for each of its tables, and there are 100 in all.
        "default_process_limit": "3",
    }


def _checks(maps: Mapping[str, str], *names: str) -> str:
    trusted = f"check_helo_access inline:{{{TRUSTED}=OK}}"
    return ", ".join([trusted, *(f"{name} {maps[name]}" for name in names)])


def _value(value: Value) -> str:
    """A setting of [postfix] as main.cf spells it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, str | int | float) else ", ".join(value)


def _pgsql(postfix: PrivatePostfix, table: str, dsn: str) -> str:
    """The name of a pgsql: table that asks for exactly the key (one `%s`, facts 3.2)."""
    parts = urlsplit(dsn)
    file = postfix.write(
        f"{table}.cf",
        f"hosts = {parts.hostname}:{parts.port}\n"
        f"user = {parts.username}\n"
        f"password = {parts.password or ''}\n"
        f"dbname = {parts.path[1:]}\n"
        f"query = SELECT value FROM plain_{table} WHERE key = '%s'\n",
    )
    return f"pgsql:{file}"
