"""What the database tells the report: which domains are ours, and which accounts nobody has used.

Domains are read by the lookups' role, accounts (login and username, never a hash) by that of logins. What
cannot be asked is left out and said; no report waits for a database longer than `PATIENCE`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailmaps.config.load import SettingsError
from mailmaps.config.settings import Settings
from mailmaps.database.connect import BREAKS, ConnectError, Refused, auth_database, connect
from mailmaps.database.logins import BUILTIN
from mailmaps.database.views import quote_name
from mailmaps.maps.address import fold
from mailmaps.report.logins import DAY, Logins

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

# Seconds for each of the two questions: a million accounts, sorted, take some.
PATIENCE = 120.0

# Dormant accounts that are named, those not seen for longest first.
MOST_NAMED = 100

# Rows that are fetched at a time.
_BATCH = 2000


@dataclass(frozen=True)
class Dormant:
    """Accounts without a login since `days` days, or `why` they are not known.

    `named` are some of them with the day (since the epoch) of the last login, -1 when none is known.
    """

    days: int
    accounts: int = 0
    count: int = 0
    named: list[tuple[int, str]] = field(default_factory=list)
    why: str = ""


async def our_domains(settings: Settings) -> frozenset[str] | str:
    """Every domain that the tables have for us, in lower case; or why that is not known."""
    found: set[str] = set()

    async def ask() -> None:
        connection = await connect(settings.database)
        try:
            for table in ("virtual_mailbox_domains", "relay_domains"):
                sources = settings.tables[table].sources if table in settings.tables else []
                for source in sources:
                    view = _view(source, f"mailmaps.{table}")
                    if view:
                        rows = await connection.fetch(f'SELECT "key"::text FROM {quote_name(view)}')  # noqa: S608  # quoted
                        found.update(key.lower() for (key,) in rows if key)
        finally:
            await _close(connection)

    why = await _tried(ask())
    if why or not found:
        return why or "no table of domains is a view"
    return frozenset(found)


async def dormant_accounts(settings: Settings, days: int, logins: Logins, now: float) -> Dormant:
    """Who has not logged in for `days` days.

    Nobody is called so before logins were looked at for that long.
    """
    before = int(now // DAY) - days
    if int(logins.since // DAY) > before:
        return Dormant(days, why="too early")
    search = _Search({fold(name): day for name, day in logins.last.items()}, before, settings.auth.realm)

    async def ask() -> None:
        connection = await connect(auth_database(settings.database))
        view = _view(settings.auth.source, BUILTIN)
        active = " WHERE active" if view == BUILTIN else ""
        query = f"SELECT login::text, username::text FROM {quote_name(view)}{active} ORDER BY 2"  # noqa: S608  # quoted
        try:
            async with connection.transaction(readonly=True):
                async for login, username in connection.cursor(query, prefetch=_BATCH):
                    search.row(login or "", username or "")
        finally:
            await _close(connection)

    if why := await _tried(ask()):
        return Dormant(days, why=why)
    search.end()
    named = sorted((-day, name) for day, name in search.named)
    return Dormant(days, search.accounts, search.count, named)


class _Search:
    """Goes through rows in the order of their usernames, so that no list of all accounts is needed."""

    def __init__(self, last: dict[str, int], before: int, realm: str) -> None:
        self._last = last
        self._before = before
        self._realm = fold(realm)
        self._username: str | None = None
        self._day = -1
        self.accounts = self.count = 0
        self.named: list[tuple[int, str]] = []

    def row(self, login: str, username: str) -> None:
        """One way in which an account may log in."""
        if username != self._username:
            self.end()
            self._username, self._day = username, self._seen(fold(username))
        self._day = max(self._day, self._seen(fold(login)))

    def _seen(self, name: str) -> int:
        day = self._last.get(name, -1)
        return (
            max(day, self._last.get(f"{name}@{self._realm}", -1)) if self._realm and "@" not in name else day
        )

    def end(self) -> None:
        """The account is complete."""
        if self._username is None:
            return
        self.accounts += 1
        if self._day < self._before:
            self.count += 1
            push = heapq.heappush if len(self.named) < MOST_NAMED else heapq.heappushpop
            push(self.named, (-self._day, self._username))
        self._username = None


def _view(source: str, builtin: str) -> str:
    if source == "builtin":
        return builtin
    return source.removeprefix("view:") if source.startswith("view:") else ""


async def _tried(asking: Coroutine[object, object, None]) -> str:
    """Why it failed, empty when it did not."""
    try:
        async with asyncio.timeout(PATIENCE):
            await asking
    except TimeoutError:
        return f"no answer within {PATIENCE:.0f} s"
    except (ConnectError, SettingsError, Refused, *BREAKS) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=5)
    except (TimeoutError, *BREAKS):
        connection.terminate()
