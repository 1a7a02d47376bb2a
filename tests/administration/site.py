"""A place to run a mail domain in: our schema, the role mailadmin, a base for mailboxes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.conftest import Database

from mailmaps.administration import accounts, addresses, domains
from mailmaps.administration.accounts import NewAccount
from mailmaps.administration.step import Change, Prepare, carry_out
from mailmaps.config import Settings, parse

TABLES = (
    "public.domains",
    "public.user_accounts",
    "public.user_addresses",
    "mailmaps.forwards",
    "mailmaps.domain_aliases",
    "mailmaps.relays",
    "mailmaps.relay_recipients",
    "mailmaps.rights",
    "mailmaps.disabled_domains",
    "mailmaps.disabled_addresses",
    "mailmaps.disabled_forwards",
)


def settings_of(
    database: Database,
    base: Path | None = None,
    files: Path | None = None,
    kind: str = "lmdb",
    more: str = "",
) -> Settings:
    """As a postmaster would have them."""
    return parse(
        f'''
[database]
dsn = "{database.reader_dsn}"
admin_dsn = "{database.admin_dsn}"
[filemaps]
directory = "{files or "/nonexistent"}"
type = "{kind}"
[postfix]
recipient_delimiter = "+"
virtual_mailbox_base = "{base or ""}"
{more}
'''
    )


class Domain:
    """Does what the commands do."""

    def __init__(
        self, database: Database, base: Path | None = None, files: Path | None = None, kind: str = "lmdb"
    ) -> None:
        self.database = database
        self.settings = settings_of(database, base, files, kind)
        self.base = base

    async def do(self, prepare: Prepare) -> Change:
        return await carry_out(self.settings, prepare)

    async def account(self, username: str, email: str, **more: Any) -> Change:
        given = {"password": None, "folder": self.base is not None} | more
        return await self.do(accounts.add(NewAccount(username, email, **given), 100))

    async def domain(self, name: str = "ex.org") -> Change:
        return await self.do(domains.add(name, None, None))

    async def address(self, username: str, *more: str) -> Change:
        return await self.do(addresses.add(username, more))

    async def forward(self, address: str, *targets: str) -> Change:
        return await self.do(addresses.add_forward(address, targets))

    async def picture(self) -> dict[str, Any]:
        """All that there is: rows, and folders."""
        found: dict[str, Any] = {}
        for table in TABLES:
            rows = await self.database.connection.fetch(f"SELECT t::text FROM {table} AS t ORDER BY 1")
            found[table] = [row[0] for row in rows]
        if self.base is not None:
            found["folders"] = sorted(
                f"{path.relative_to(self.base)} {path.stat().st_uid}" for path in self.base.rglob("*")
            )
        return found

    async def value(self, query: str, *arguments: object) -> Any:
        return await self.database.connection.fetchval(query, *arguments)


async def raises(kind: type[BaseException], doing: Awaitable[Any]) -> str:
    """The text of what it raises."""
    try:
        await doing
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)
