"""Logins out of a view: the builtin mailmaps.logins, or a site's own.

The contract of such a view (docs/schema.md): `login` (folded, as `key` of the others), `username`,
`password`; where the account needs them `uid`, `gid`, `mailbox`, `quota`; `by`, `active` and a column a right
may be left out. Numbers and truth come in whatever type the site has them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncpg

from mailmaps.auth.accounts import RIGHTS, Row
from mailmaps.auth.attempt import Password
from mailmaps.database.views import quote_name
from mailmaps.maps.answer import CannotSay

if TYPE_CHECKING:
    from mailmaps.database.pool import Pool

BUILTIN = "mailmaps.logins"

# Stored passwords that are asked for as samples.
SAMPLES = 16

# What counts as true where a column is text, as `active` of the how-to (schema/0007_receive.sql).
_TRUE = {"1", "t", "T", "y", "Y", "true", "yes", "on", "True", "TRUE", "YES"}


def needed_columns(backend: str) -> tuple[str, ...]:
    """What a view of logins must have for a backend of [auth]; PAM has its own passwords."""
    return ("login", "username") if backend == "pam" else ("login", "username", "password")


class LoginSource:
    """The view of `source` ("builtin" or "view:SCHEMA.NAME") as a `mailmaps.auth.accounts.Source`.

    A question takes at most `deadline` seconds. A row without one of `needed` columns is "cannot say".
    """

    def __init__(self, pool: Pool, source: str, deadline: float, needed: Sequence[str]) -> None:
        view = quote_name(BUILTIN if source == "builtin" else source.removeprefix("view:"))
        self._pool = pool
        self._needed = needed
        self._deadline = deadline
        self._find = f"SELECT * FROM {view} WHERE login = ANY($1::text[])"  # noqa: S608  # quoted
        once = (
            " WHERE by = 'username'" if source == "builtin" else ""
        )  # a row for each account, not each address
        self._usernames = f"SELECT DISTINCT username::text FROM {view}{once} ORDER BY 1"  # noqa: S608
        self._samples = f"SELECT password::text FROM {view} LIMIT {SAMPLES}"  # noqa: S608

    async def find(self, logins: Sequence[str]) -> list[Row]:
        """The rows of these logins. Raises `CannotSay`."""
        records = [dict(record) for record in await self._fetch(self._find, list(logins))]
        for missing in [name for name in self._needed if records and name not in records[0]]:
            raise CannotSay(f"the view of logins has no column {missing}")
        return [_row(record) for record in records]

    async def usernames(self) -> list[str]:
        """Every account's username. Raises `CannotSay`."""
        return [name for (name,) in await self._fetch(self._usernames) if name]

    async def samples(self) -> list[Password]:
        """A few of the stored passwords. Raises `CannotSay`."""
        return [_stored(value) for (value,) in await self._fetch(self._samples)]

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        try:
            async with asyncio.timeout(self._deadline):
                return await self._pool.fetch(query, *arguments)
        except TimeoutError:
            raise CannotSay(f"database: no answer within {self._deadline:g} s") from None


def _row(record: Mapping[str, Any]) -> Row:
    username = str(record["username"] or "")
    if not username:
        raise CannotSay("a row of the view of logins has no username", about_key=True)
    return Row(
        login=str(record["login"]),
        username=username,
        stored=_stored(record.get("password")),
        by=str(record.get("by") or ""),
        uid=_number(record, "uid", username),
        gid=_number(record, "gid", username),
        mailbox=None if record.get("mailbox") is None else str(record["mailbox"]),
        quota=_number(record, "quota", username),
        active=_is_true(record, "active", username),
        denied=frozenset(right for right in RIGHTS if not _is_true(record, right, username)),
    )


def _stored(value: object) -> Password:
    """NULL is no password, which nobody can give."""
    if isinstance(value, bytes):  # bytea
        return Password(value)
    return Password(b"" if value is None else str(value).encode())


def _number(record: Mapping[str, Any], column: str, username: str) -> int | None:
    value = record.get(column)
    if value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise CannotSay(f"{column} of {username!a} is no number", about_key=True) from None


def _is_true(record: Mapping[str, Any], column: str, username: str) -> bool:
    """A column that says yes or no; without it, yes; NULL is no. Raises `CannotSay` for what is neither."""
    value = record.get(column, True)
    if isinstance(value, asyncpg.BitString):
        value = value.as_string()
    elif isinstance(value, bytes):  # "char"
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        return value.strip() in _TRUE
    if value is None or isinstance(value, (bool, int, Decimal)):
        return bool(value)
    raise CannotSay(f"{column} of {username!a} is neither yes nor no", about_key=True)
