"""The PostgreSQL of a run, and the sites in it: mailmaps' schema over the how-to's tables, filled.

Contract: everything lies below one private folder. mailmaps logs in as `mailreader`, as it would anywhere;
Postfix (and the load generator that stands in for many of it) as `postfix_reader`, trusted without a
password, so that the two can be told apart in the server's log and its list of connections. So are the roles
of logins: `mailauth` for mailmaps, `dovecot_reader` for a Dovecot that asks PostgreSQL itself; and those of
sending: `mailwriter` for mailmaps, `policyd` for policyd-rate-limit.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from mailmaps.demo.data import BIG_DOMAIN
from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.demo.site import READER, Site

POSTFIX_READER = "postfix_reader"
DOVECOT_READER = "dovecot_reader"
POLICYD = "policyd"
MAILAUTH, MAILWRITER = "mailauth", "mailwriter"  # the names that the schema's grants know
TRUSTED = (POSTFIX_READER, DOVECOT_READER, POLICYD, MAILAUTH, MAILWRITER)

# More than PostgreSQL's 100, which Postfix's processes and the longest row of connections here exceed.
MOST_CONNECTIONS = 400

GRANTS = f"""
GRANT SELECT ON domains, user_addresses, postfix_aliases, postfix_mailboxes TO {POSTFIX_READER};
GRANT SELECT ON user_accounts TO {DOVECOT_READER}
"""

# The how-to's files (transport, virtual, mailboxes), and one that asks a table by its index, no join.
FILES = {
    "transport": ("domains", "transport", "domain"),
    "virtual": ("postfix_aliases", "address", "alias"),
    "mailboxes": ("postfix_mailboxes", "mailbox", "address"),
    "indexed": ("user_addresses", "username", "alias"),
}


def postfix_statement(name: str) -> str:
    """What Postfix sends for a file of `FILES` (src/global/db_common.c:555-569)."""
    table, select, where = FILES[name]
    return f"SELECT {select} FROM {table} WHERE {where}='%s' "  # noqa: S608  # the words above


@dataclass(frozen=True, slots=True)
class Dataset:
    """One database with so many accounts of two addresses each: userN@ and first.lastN@."""

    accounts: int
    database: str
    dsn: str
    owner_dsn: str
    password_file: Path
    files: Mapping[str, Path]

    @property
    def addresses(self) -> int:
        return 2 * self.accounts

    def known(self, count: int, seed: int) -> list[str]:
        """Addresses picked at random, all different while there are enough."""
        chance = random.Random(seed)
        everything = range(self.addresses)
        enough = count <= self.addresses
        picked = chance.sample(everything, count) if enough else chance.choices(everything, k=count)
        return [self.address(number) for number in picked]

    def address(self, number: int) -> str:
        """Address `number` of all."""
        return f"{'first.last' if number % 2 else 'user'}{number // 2}@{BIG_DOMAIN}"

    def owner(self, address: str) -> str:
        """What virtual_alias_maps says of a known address."""
        return address.replace("first.last", "user")

    def unknown(self, count: int, run: str) -> list[str]:
        """Addresses of the domain that exist nowhere and that no other `run` asks."""
        return [f"nobody-{run}-{number}@{BIG_DOMAIN}" for number in range(count)]


class Cluster:
    """The server; `with Cluster(folder) as cluster`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.postgres = EmbeddedPostgres(folder / "postgres")

    def __enter__(self) -> Cluster:
        self.postgres.start()
        try:
            self._prepare()
        except BaseException:
            self.postgres.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.postgres.stop()

    @property
    def log(self) -> Path:
        """The server's log; each line begins with the role."""
        return self._folder / "postgres" / "log"

    def fetch(self, query: str, *arguments: object, database: str = "postgres") -> list[Any]:
        """Run one statement as the superuser."""
        return asyncio.run(_fetch(self.postgres.dsn(database), query, arguments))

    def load(self, accounts: int) -> Dataset:
        """Make the site with so many accounts."""
        site = Site(self._folder, self.postgres, accounts)
        settings = asyncio.run(site.prepare())
        database = f"mail_{accounts}"
        self.fetch(GRANTS, database=database)
        self.fetch("VACUUM ANALYZE", database=database)
        return Dataset(
            accounts,
            database,
            settings.database.dsn,
            self.postgres.dsn(database),
            Path(settings.database.password_file),
            {name: self._cf_file(name, database) for name in FILES},
        )

    def _prepare(self) -> None:
        self.fetch(f"CREATE ROLE {READER} LOGIN")
        for role in TRUSTED:
            self.fetch(f"CREATE ROLE {role} LOGIN")
        self.fetch(f"ALTER SYSTEM SET max_connections = {MOST_CONNECTIONS}")
        self.fetch("ALTER SYSTEM SET log_line_prefix = '%u '")
        hba = self.postgres.data / "pg_hba.conf"
        hba.write_text(f"host all {','.join(TRUSTED)} 127.0.0.1/32 trust\n" + hba.read_text())
        self.postgres.stop()
        self.postgres.start()

    def _cf_file(self, name: str, database: str) -> Path:
        table, select, where = FILES[name]
        path = self._folder / f"{database}-{name}.cf"
        path.write_text(
            f"hosts = inet:127.0.0.1:{self.postgres.port}\nuser = {POSTFIX_READER}\npassword = none\n"
            f"dbname = {database}\ntable = {table}\nselect_field = {select}\nwhere_field = {where}\n"
        )
        path.chmod(0o644)
        return path


async def _fetch(dsn: str, query: str, arguments: tuple[object, ...]) -> list[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(query, *arguments) if arguments else await _plain(connection, query)
    finally:
        await connection.close()


async def _plain(connection: Any, query: str) -> list[Any]:
    if query.lstrip().upper().startswith("SELECT"):
        return list(await connection.fetch(query))
    await connection.execute(query)
    return []
