"""Lists of what there is, of any length: a cursor on the server, some hundred rows held here at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg

from mailmaps.database.administration import CannotWrite, open_work
from mailmaps.database.connect import BREAKS, Refused, reason

if TYPE_CHECKING:
    from mailmaps.config.settings import Settings

BATCH = 1000  # rows that are asked for at once

# $1: a pattern of LIKE, or NULL; $2: a folded domain, or NULL.

DOMAINS = """
   SELECT * FROM (
      SELECT 'domain' AS kind, d.domain, d.gid, coalesce(h.transport, d.transport) AS transport,
             NULL AS target, h.transport IS NOT NULL AS disabled
      FROM public.domains d
      LEFT JOIN mailmaps.disabled_domains h ON mailmaps.fold(h.domain) = mailmaps.fold(d.domain) COLLATE "C"
      UNION ALL
      SELECT 'alias', domain, NULL, NULL, target, false FROM mailmaps.domain_aliases
      UNION ALL
      SELECT 'relay', r.domain, NULL, coalesce(h.transport, r.transport), NULL, h.transport IS NOT NULL
      FROM mailmaps.relays r
      LEFT JOIN mailmaps.disabled_domains h ON mailmaps.fold(h.domain) = mailmaps.fold(r.domain) COLLATE "C"
   ) AS every
   WHERE ($1::text IS NULL OR domain LIKE $1) AND ($2::text IS NULL OR mailmaps.fold(domain) = $2)
   ORDER BY domain"""

ACCOUNTS = """
   SELECT a.username, a.email, d.domain, a.uid, a.gid, a.mailbox, a.quota,
          a.active COLLATE "C" IN ('1', 't', 'T', 'y', 'Y') AS active,
          coalesce(r.imap, true) AS imap, coalesce(r.pop3, true) AS pop3, coalesce(r.smtp, true) AS smtp,
          coalesce(r.sieve, true) AS sieve, coalesce(r.receive, true) AS receive
   FROM public.user_accounts a
   LEFT JOIN public.domains d ON d.gid = a.gid
   LEFT JOIN mailmaps.rights r ON r.username = a.username
   WHERE ($1::text IS NULL OR a.username LIKE $1 OR a.email LIKE $1)
     AND ($2::text IS NULL OR a.gid = (SELECT gid FROM public.domains WHERE mailmaps.fold(domain) = $2))
   ORDER BY a.username"""

ADDRESSES = """
   SELECT * FROM (
      SELECT u.alias AS address, u.username, false AS disabled FROM public.user_addresses u
      UNION ALL
      SELECT d.alias, d.username, true FROM mailmaps.disabled_addresses d
   ) AS every
   WHERE ($1::text IS NULL OR address LIKE $1 OR username LIKE $1)
     AND ($2::text IS NULL OR mailmaps.domain_of(mailmaps.fold(address)) COLLATE "C" = $2)
   ORDER BY address"""

FORWARDS = """
   SELECT * FROM (
      SELECT address, target, false AS disabled FROM mailmaps.forwards
      UNION ALL
      SELECT address, target, true FROM mailmaps.disabled_forwards
   ) AS every
   WHERE ($1::text IS NULL OR address LIKE $1 OR target LIKE $1)
     AND ($2::text IS NULL OR mailmaps.domain_of(mailmaps.fold(address)) COLLATE "C" = $2)
   ORDER BY address, target"""


# What `mailmaps import` takes, in the order in which one needs the other. Addresses that are their account's
# email come with the account.
_EXPORTS = (
    """SELECT 'domain' AS kind, d.domain, d.gid, coalesce(h.transport, d.transport) AS transport,
              CASE WHEN h.transport IS NOT NULL THEN true END AS disabled
       FROM public.domains d
       LEFT JOIN mailmaps.disabled_domains h ON mailmaps.fold(h.domain) = mailmaps.fold(d.domain) COLLATE "C"
       ORDER BY d.domain""",
    "SELECT 'alias' AS kind, domain, target FROM mailmaps.domain_aliases ORDER BY domain",
    """SELECT 'relay' AS kind, r.domain, coalesce(h.transport, r.transport) AS transport,
              CASE WHEN h.transport IS NOT NULL THEN true END AS disabled
       FROM mailmaps.relays r
       LEFT JOIN mailmaps.disabled_domains h ON mailmaps.fold(h.domain) = mailmaps.fold(r.domain) COLLATE "C"
       ORDER BY r.domain""",
    "SELECT 'recipient' AS kind, address FROM mailmaps.relay_recipients ORDER BY address",
    """SELECT 'account' AS kind, a.username, a.email AS address, d.domain, a.uid,
              mailmaps.mailbox_path(a.mailbox) AS mailbox, a.quota,
              a.active COLLATE "C" IN ('1', 't', 'T', 'y', 'Y') AS active, r.imap, r.pop3, r.smtp, r.sieve,
              r.receive, {password}
       FROM public.user_accounts a
       LEFT JOIN public.domains d ON d.gid = a.gid
       LEFT JOIN mailmaps.rights r ON r.username = a.username
       ORDER BY a.username""",
    """SELECT 'address' AS kind, u.alias AS address, u.username FROM public.user_addresses u
       JOIN public.user_accounts a ON a.username = u.username
       WHERE mailmaps.fold(u.alias) <> mailmaps.fold(a.email) ORDER BY u.alias""",
    "SELECT 'address' AS kind, alias AS address, username, true AS disabled FROM mailmaps.disabled_addresses "
    "ORDER BY alias",
    "SELECT 'forward' AS kind, address, target FROM mailmaps.forwards ORDER BY address, target",
    "SELECT 'forward' AS kind, address, target, true AS disabled FROM mailmaps.disabled_forwards "
    "ORDER BY address, target",
)
EXPORTS = tuple(query.replace("{password}", "NULL AS password_hash") for query in _EXPORTS)
HASHES = tuple(query.replace("{password}", "a.password AS password_hash") for query in _EXPORTS)


async def rows(settings: Settings, *queries: str) -> AsyncIterator[list[dict[str, Any]]]:
    """The rows of queries, all of one moment, in batches. Raises `CannotWrite`."""
    async for batch in filtered(settings, queries):
        yield batch


async def filtered(
    settings: Settings, queries: Sequence[str], *arguments: object
) -> AsyncIterator[list[dict[str, Any]]]:
    """The same, of queries with arguments."""
    work = await open_work(settings)
    try:
        await work.connection.transaction(isolation="repeatable_read", readonly=True).start()
        for query in queries:
            cursor = await work.connection.cursor(query, *arguments)
            while batch := await cursor.fetch(BATCH):
                yield [dict(record) for record in batch]
    except (Refused, TimeoutError, *BREAKS) as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise CannotWrite(f"database: {reason(error)}") from error
    finally:
        with suppress(asyncpg.InterfaceError):
            work.connection.terminate()


def pattern(typed: str | None) -> str | None:
    """A pattern of LIKE: `*` and `%` are any text, `?` is one character, all else is itself."""
    if typed is None:
        return None
    text = typed.replace("\\", "\\\\").replace("_", "\\_")
    return text.replace("*", "%").replace("?", "_")
