"""Accounts out of a dictionary, for tests of what the service makes of them; it can be away, or slow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mailmaps.auth import passwords
from mailmaps.auth.accounts import Row
from mailmaps.auth.attempt import Password
from mailmaps.maps.address import fold
from mailmaps.maps.answer import CannotSay

SECRET = b"corr3ct horse"
HASH = passwords.make(SECRET, "SSHA512")  # quick


def row(
    username: str = "jawi_lx",
    login: str = "",
    *,
    by: str = "username",
    stored: str = HASH,
    uid: int | None = 5001,
    gid: int | None = 5001,
    mailbox: str | None = "lxtreme.nl/janwillem.janssen",
    quota: int | None = 25,
    active: bool = True,
    denied: Sequence[str] = (),
) -> Row:
    """A row of the view."""
    return Row(
        fold(login or username),
        username,
        Password(stored.encode()),
        by,
        uid,
        gid,
        mailbox,
        quota,
        active,
        frozenset(denied),
    )


class Accounts:
    """The rows, and what was asked."""

    def __init__(self, *rows: Row) -> None:
        self.rows = list(rows)
        self.asked: list[list[str]] = []
        self.away = ""
        self.gate = asyncio.Event()
        self.gate.set()

    async def find(self, logins: Sequence[str]) -> list[Row]:
        self.asked.append(list(logins))
        await self.gate.wait()
        if self.away:
            raise CannotSay(self.away)
        return [one for one in self.rows if one.login in logins]

    async def usernames(self) -> list[str]:
        if self.away:
            raise CannotSay(self.away)
        return sorted({one.username for one in self.rows})

    async def samples(self) -> list[Password]:
        if self.away:
            raise CannotSay(self.away)
        return [one.stored for one in self.rows]
