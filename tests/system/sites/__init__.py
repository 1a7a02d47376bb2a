"""Sites as they are out there: a schema, its rows, and the pgsql_table(5) files that its project publishes.

Contract: a `Site` is all that Postfix knows of one: which parameter of main.cf has which files, in which
order, and the text of each file. The queries are the project's own, word for word; of the schemas there
are only the columns that the queries name, with their types. `fill` puts the same `Population` into each
schema, and beside it what only this schema can hold.

    transport_maps = pgsql:transport_maps_user.cf, pgsql:transport_maps_maillist.cf, ...
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import asyncpg
from tests.system.sites.population import Population

__all__ = ["SERVICES", "Connection", "Login", "Site", "insert"]

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SERVICES = ("virtual", "smtp", "relay", "dovecot", "mlmmj")
"""Transports that the rows may name. All are LMTP clients here, and what has no host of its own (mail for
`localhost`) goes to the sink of the transport's name."""

Fill = Callable[[Connection, Population, Mapping[str, int]], Awaitable[None]]
"""Makes schema and rows; the ports are those of the sinks, by name."""

Adapt = Callable[[Connection, str, bool], Awaitable[None]]
"""Tells the schema of recipient_delimiter and owner_request_special."""


class Login(NamedTuple):
    """How a `.cf` file logs in to the database; the fields are its parameters."""

    hosts: str
    user: str
    password: str
    dbname: str


@dataclass(frozen=True)
class Site:
    """One site. `tables` gives for each parameter its value in main.cf, item by item; what ends in `.cf` is
    one of `files`."""

    name: str
    files: Mapping[str, str]
    tables: Mapping[str, Sequence[str]]
    fill: Fill
    main_cf: Mapping[str, str] = field(default_factory=dict)
    known: Sequence[str] = ()
    """Keys of rows beside the population's."""
    senders: Sequence[tuple[str, str]] = ()
    """(login, sender) of people who write themselves."""
    copied_domains: frozenset[str] = frozenset()
    """Domains with rows in recipient_bcc_maps: a copy does not tell which recipient caused it."""
    views: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What mailmaps has as the sources of each table, where these are views; otherwise it has the files."""
    adapt: Adapt | None = None

    def sources(self, table: str) -> list[str]:
        """The files of a table, in order."""
        return [item for item in self.tables[table] if item.endswith(".cf")]

    def main_cf_value(self, table: str, items: Sequence[str]) -> str:
        """The value of a parameter that has `items` where the site has its files."""
        literal = [item for item in self.tables[table] if not item.endswith(".cf")]
        return ", ".join([*literal, *items])

    def file(self, name: str, login: Login) -> str:
        """A file as it is published, with our own login."""
        text = self.files[name]
        for parameter, value in login._asdict().items():
            text = re.sub(rf"(?m)^({parameter}\s*=).*", rf"\g<1> {value}", text)
        return text


async def insert(connection: Connection, table: str, columns: str, rows: Sequence[Sequence[object]]) -> None:
    """Insert rows, each with the values of `columns` ("a, b")."""
    places = ", ".join(f"${number}" for number, _ in enumerate(columns.split(","), 1))
    await connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({places})", rows)
