"""`mailmaps import`: lines of a file against what is there, and into the tables, many in one statement.

The lines are copied into a temporary table; statements then say of each whether it is new, the same or
changed, and name what cannot be. Nothing is written while one line is refused. Triggers of the tables run
once a statement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg

from mailmaps.database.administration import CannotWrite
from mailmaps.database.administration_rows import honours_active
from mailmaps.database.connect import BREAKS, Refused, reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailmaps.database.administration import Work

COLUMNS = (
    "line", "kind", "domain", "username", "address", "target", "transport", "gid", "uid", "mailbox", "quota",
    "active", "imap", "pop3", "smtp", "sieve", "receive", "disabled", "password_hash", "has_plain",
    "default_mailbox",
)  # fmt: skip

_TABLE = """
CREATE TEMPORARY TABLE lines (
   line integer PRIMARY KEY, kind text NOT NULL, domain text, username text, address text, target text,
   transport text, gid integer, uid integer, mailbox text, quota integer, active boolean, imap boolean,
   pop3 boolean, smtp boolean, sieve boolean, receive boolean, disabled boolean, password_hash text,
   has_plain boolean, default_mailbox text,
   is_new boolean, differs text, new_uid integer, new_gid integer, path text COLLATE "C"
) ON COMMIT DROP"""

_PREPARE = """
UPDATE lines SET domain = coalesce(domain, mailmaps.domain_of(address)),
                 path = coalesce(mailbox, default_mailbox) WHERE kind = 'account';
CREATE INDEX ON lines (domain); CREATE INDEX ON lines (username); CREATE INDEX ON lines (address);
CREATE INDEX ON lines (path); CREATE INDEX ON lines (uid);
ANALYZE lines;
"""

# What is there, by the names of the lines. The columns of `there` are compared where a line has a value.
_STATES = (
    ("domain", """
     SELECT l.line, concat_ws(', ',
        CASE WHEN l.transport <> coalesce(h.transport, d.transport) THEN 'transport' END,
        CASE WHEN l.gid <> d.gid THEN 'gid' END,
        CASE WHEN l.disabled <> (h.transport IS NOT NULL) THEN 'disabled' END) AS differs
     FROM lines l JOIN public.domains d ON mailmaps.fold(d.domain) COLLATE "C" = l.domain
     LEFT JOIN mailmaps.disabled_domains h ON mailmaps.fold(h.domain) COLLATE "C" = l.domain"""),
    ("alias", """
     SELECT l.line, concat_ws(', ', CASE WHEN mailmaps.fold(a.target) <> l.target THEN 'target' END) AS
     differs
     FROM lines l JOIN mailmaps.domain_aliases a ON mailmaps.fold(a.domain) COLLATE "C" = l.domain"""),
    ("relay", """
     SELECT l.line, concat_ws(', ',
        CASE WHEN l.transport <> coalesce(h.transport, r.transport) THEN 'transport' END,
        CASE WHEN l.disabled <> (h.transport IS NOT NULL) THEN 'disabled' END) AS differs
     FROM lines l JOIN mailmaps.relays r ON mailmaps.fold(r.domain) COLLATE "C" = l.domain
     LEFT JOIN mailmaps.disabled_domains h ON mailmaps.fold(h.domain) COLLATE "C" = l.domain"""),
    ("recipient", """
     SELECT l.line, '' AS differs
     FROM lines l JOIN mailmaps.relay_recipients r ON mailmaps.fold(r.address) COLLATE "C" = l.address"""),
    ("account", """
     SELECT l.line, concat_ws(', ',
        CASE WHEN l.address <> mailmaps.fold(a.email) THEN 'address' END,
        CASE WHEN l.domain IS DISTINCT FROM mailmaps.fold(d.domain) THEN 'domain' END,
        CASE WHEN l.uid <> a.uid THEN 'uid' END,
        CASE WHEN l.mailbox <> mailmaps.mailbox_path(a.mailbox) THEN 'mailbox' END,
        CASE WHEN l.quota <> a.quota THEN 'quota' END,
        CASE WHEN l.active <> (a.active COLLATE "C" IN ('1', 't', 'T', 'y', 'Y')) THEN 'active' END,
        CASE WHEN l.imap <> coalesce(r.imap, true) THEN 'imap' END,
        CASE WHEN l.pop3 <> coalesce(r.pop3, true) THEN 'pop3' END,
        CASE WHEN l.smtp <> coalesce(r.smtp, true) THEN 'smtp' END,
        CASE WHEN l.sieve <> coalesce(r.sieve, true) THEN 'sieve' END,
        CASE WHEN l.receive <> coalesce(r.receive, true) THEN 'receive' END,
        CASE WHEN l.has_plain THEN 'password' END,
        CASE WHEN l.password_hash <> coalesce(a.password, '') THEN 'password_hash' END) AS differs
     FROM lines l JOIN public.user_accounts a ON mailmaps.fold(a.username) COLLATE "C" = l.username
     LEFT JOIN public.domains d ON d.gid = a.gid
     LEFT JOIN mailmaps.rights r ON r.username = a.username"""),
    ("address", """
     SELECT l.line, concat_ws(', ',
        CASE WHEN l.username <> mailmaps.fold(u.username) THEN 'username' END,
        CASE WHEN l.disabled <> u.off THEN 'disabled' END) AS differs
     FROM lines l JOIN (
        SELECT alias, username, false AS off FROM public.user_addresses
        UNION ALL SELECT alias, username, true FROM mailmaps.disabled_addresses
     ) AS u ON mailmaps.fold(u.alias) COLLATE "C" = l.address"""),
    ("forward", """
     SELECT l.line, concat_ws(', ', CASE WHEN l.disabled <> f.off THEN 'disabled' END) AS differs
     FROM lines l JOIN (
        SELECT address, target, false AS off FROM mailmaps.forwards
        UNION ALL SELECT address, target, true FROM mailmaps.disabled_forwards
     ) AS f ON mailmaps.fold(f.address) COLLATE "C" = l.address AND mailmaps.fold(f.target) = l.target"""),
)  # fmt: skip

# Each gives line, column and what is wrong. $1: --update.
_PROBLEMS = (
    # Twice in the file.
    """SELECT line, CASE WHEN kind = 'account' THEN 'username'
                         WHEN kind IN ('domain', 'alias', 'relay') THEN 'domain' ELSE 'address' END,
              'is in line ' || first || ' already'
       FROM (SELECT line, kind, min(line) OVER (PARTITION BY CASE
                WHEN kind IN ('domain', 'alias', 'relay') THEN 'domain' ELSE kind END,
                CASE kind WHEN 'account' THEN username WHEN 'address' THEN address
                          WHEN 'recipient' THEN address WHEN 'forward' THEN address || ' ' || target
                          ELSE domain END) AS first
             FROM lines) AS f WHERE line <> first""",
    # Domains that are of another kind.
    """SELECT l.line, 'domain', 'is a domain of another kind already'
       FROM lines l WHERE kind IN ('domain', 'alias', 'relay') AND (
          kind <> 'domain' AND EXISTS (
             SELECT FROM public.domains d WHERE mailmaps.fold(d.domain) COLLATE "C" = l.domain)
          OR kind <> 'alias' AND EXISTS (
             SELECT FROM mailmaps.domain_aliases d WHERE mailmaps.fold(d.domain) COLLATE "C" = l.domain)
          OR kind <> 'relay' AND EXISTS (
             SELECT FROM mailmaps.relays d WHERE mailmaps.fold(d.domain) COLLATE "C" = l.domain))""",
    """SELECT l.line, 'gid', 'is the gid of ' || d.domain || ', or was'
       FROM lines l JOIN (
          SELECT gid, domain FROM public.domains UNION ALL SELECT gid, domain FROM mailmaps.former_domains
       ) AS d ON d.gid = l.gid WHERE l.kind = 'domain' AND l.is_new""",
    """SELECT line, 'gid', 'is in line ' || first || ' already'
       FROM (SELECT line, min(line) OVER (PARTITION BY gid) AS first FROM lines
             WHERE kind = 'domain' AND gid IS NOT NULL) AS f WHERE line <> first""",
    """SELECT l.line, 'target', l.target || ' is no domain of ours'
       FROM lines l WHERE kind = 'alias'
         AND NOT EXISTS (SELECT FROM public.domains d WHERE mailmaps.fold(d.domain) COLLATE "C" = l.target)
         AND NOT EXISTS (SELECT FROM lines d WHERE d.kind = 'domain' AND d.domain = l.target)""",
    """SELECT l.line, 'address', 'its domain ' || l.domain || ' is no domain with accounts'
       FROM lines l WHERE kind = 'account'
         AND NOT EXISTS (SELECT FROM public.domains d WHERE mailmaps.fold(d.domain) COLLATE "C" = l.domain)
         AND NOT EXISTS (SELECT FROM lines d WHERE d.kind = 'domain' AND d.domain = l.domain)""",
    """SELECT l.line, 'address', 'is in a domain that is not ours'
       FROM lines l WHERE (kind = 'address' OR kind = 'forward')
         AND NOT EXISTS (SELECT FROM public.domains d
                         WHERE mailmaps.fold(d.domain) COLLATE "C" = mailmaps.domain_of(l.address))
         AND NOT EXISTS (SELECT FROM mailmaps.domain_aliases d
                         WHERE mailmaps.fold(d.domain) COLLATE "C" = mailmaps.domain_of(l.address))
         AND NOT EXISTS (SELECT FROM lines d WHERE d.kind IN ('domain', 'alias')
                         AND d.domain = mailmaps.domain_of(l.address))
         AND (kind = 'address' OR (
            NOT EXISTS (SELECT FROM mailmaps.relays d
                        WHERE mailmaps.fold(d.domain) COLLATE "C" = mailmaps.domain_of(l.address))
            AND NOT EXISTS (SELECT FROM lines d WHERE d.kind = 'relay'
                            AND d.domain = mailmaps.domain_of(l.address))))""",
    """SELECT l.line, 'username', 'there is no account ' || l.username
       FROM lines l WHERE kind = 'address'
         AND NOT EXISTS (SELECT FROM public.user_accounts a WHERE mailmaps.fold(a.username) COLLATE "C" =
         l.username)
         AND NOT EXISTS (SELECT FROM lines a WHERE a.kind = 'account' AND a.username = l.username)""",
    # An address that another has: in the tables, or in the file.
    """SELECT l.line, 'address', 'is an address of ' || u.username
       FROM lines l JOIN (
          SELECT mailmaps.fold(alias) COLLATE "C" AS key, username FROM public.user_addresses
          UNION ALL SELECT mailmaps.fold(alias) COLLATE "C", username FROM mailmaps.disabled_addresses
          UNION ALL SELECT mailmaps.fold(email) COLLATE "C", username FROM public.user_accounts
          UNION ALL SELECT mailmaps.fold(username) COLLATE "C", username FROM public.user_accounts
       ) AS u ON u.key = l.address
       WHERE l.kind IN ('account', 'address') AND mailmaps.fold(u.username) <> l.username""",
    """SELECT l.line, 'address', 'is an address of ' || o.username || ' in line ' || o.line
       FROM lines l JOIN lines o ON o.address = l.address AND o.username <> l.username
       WHERE l.kind IN ('account', 'address') AND o.kind IN ('account', 'address')
         AND (o.line < l.line OR o.kind = 'account' AND l.kind = 'address')""",
    "SELECT line, 'target', 'is the address itself' FROM lines WHERE kind = 'forward' AND address = target",
    """SELECT l.line, 'username', 'is an address of another account'
       FROM lines l WHERE l.kind = 'account' AND strpos(l.username, '@') > 0 AND (
          EXISTS (SELECT FROM public.user_addresses u WHERE mailmaps.fold(u.alias) COLLATE "C" = l.username
                  AND mailmaps.fold(u.username) <> l.username)
          OR EXISTS (SELECT FROM mailmaps.disabled_addresses u
                     WHERE mailmaps.fold(u.alias) COLLATE "C" = l.username
                       AND mailmaps.fold(u.username) <> l.username)
          OR EXISTS (SELECT FROM public.user_accounts u
                     WHERE mailmaps.fold(u.email) COLLATE "C" = l.username
                       AND mailmaps.fold(u.username) <> l.username)
          OR EXISTS (SELECT FROM lines o WHERE o.address = l.username AND o.username <> l.username
                     AND o.kind IN ('account', 'address')))""",
    """SELECT l.line, 'uid', 'is the uid of ' || a.username || ', or was'
       FROM lines l JOIN (
          SELECT uid, username FROM public.user_accounts
          UNION ALL SELECT uid, username FROM mailmaps.former_mailboxes
       ) AS a ON a.uid = l.uid WHERE l.kind = 'account' AND l.is_new""",
    """SELECT line, 'uid', 'is in line ' || first || ' already'
       FROM (SELECT line, min(line) OVER (PARTITION BY uid) AS first FROM lines
             WHERE kind = 'account' AND uid IS NOT NULL) AS f WHERE line <> first""",
    """SELECT l.line, 'mailbox',
              l.path || ' was the mailbox of ' || f.username || ', whose mail may be there still'
       FROM lines l JOIN mailmaps.former_mailboxes f ON f.path = l.path WHERE l.kind = 'account' AND
       l.is_new""",
    """SELECT l.line, 'mailbox', l.path || ' is the mailbox of ' || a.username || ', or within or around it'
       FROM lines l CROSS JOIN LATERAL (
          SELECT a.username FROM public.user_accounts a
          WHERE mailmaps.mailbox_path(a.mailbox) COLLATE "C" = l.path
             OR mailmaps.mailbox_path(a.mailbox) COLLATE "C" >= l.path || '/'
                AND mailmaps.mailbox_path(a.mailbox) COLLATE "C" < l.path || '0'
          UNION ALL
          SELECT a.username
          FROM generate_series(1, cardinality(string_to_array(l.path, '/')) - 1) AS depth
          JOIN public.user_accounts a ON mailmaps.mailbox_path(a.mailbox) COLLATE "C"
             = array_to_string((string_to_array(l.path, '/'))[:depth], '/') LIMIT 1) AS a
       WHERE l.kind = 'account' AND l.is_new""",
    """SELECT l.line, 'mailbox', l.path || ' is the mailbox of line ' || o.line || ', or within it'
       FROM lines l
       CROSS JOIN LATERAL generate_series(1, cardinality(string_to_array(l.path, '/'))) AS depth
       JOIN lines o ON o.kind = 'account' AND o.line <> l.line
          AND o.path = array_to_string((string_to_array(l.path, '/'))[:depth], '/')
       WHERE l.kind = 'account' AND l.is_new AND (o.path <> l.path OR o.line < l.line)""",
    # What is there and other.
    """SELECT line, differs, 'is other than what is there; --update changes it' FROM lines
       WHERE NOT is_new AND differs <> '' AND NOT $1""",
    """SELECT line, what, 'is other than what is there, and not changed here' FROM lines,
          unnest(string_to_array(differs, ', ')) AS what
       WHERE $1 AND NOT is_new AND (kind = 'domain' AND what = 'gid'
          OR kind = 'account' AND what IN ('address', 'domain', 'uid', 'mailbox')
          OR kind = 'address' AND what = 'username')""",
)

# In this order; $1 of those that have it is the transport of a domain that is on hold. A statement finds the
# lines that are new, or changed in what it writes.
_WRITE = (
    """INSERT INTO public.domains (gid, domain, transport)
       SELECT coalesce(gid, new_gid), domain, coalesce(transport, 'virtual:') FROM lines
       WHERE kind = 'domain' AND is_new ORDER BY line""",
    """INSERT INTO mailmaps.relays (domain, transport)
       SELECT domain, coalesce(transport, 'relay:') FROM lines WHERE kind = 'relay' AND is_new ORDER BY
       line""",
    # Out of hold first, so that a transport that is given counts; those that shall wait go back.
    """UPDATE public.domains d SET transport = coalesce(l.transport, h.transport, d.transport)
       FROM lines l LEFT JOIN mailmaps.disabled_domains h ON mailmaps.fold(h.domain) COLLATE "C" = l.domain
       WHERE l.kind = 'domain' AND l.differs <> '' AND mailmaps.fold(d.domain) COLLATE "C" = l.domain""",
    """UPDATE mailmaps.relays d SET transport = coalesce(l.transport, h.transport, d.transport)
       FROM lines l LEFT JOIN mailmaps.disabled_domains h ON mailmaps.fold(h.domain) COLLATE "C" = l.domain
       WHERE l.kind = 'relay' AND l.differs <> '' AND mailmaps.fold(d.domain) COLLATE "C" = l.domain""",
    """WITH held AS (
          DELETE FROM mailmaps.disabled_domains h USING lines l
          WHERE l.kind IN ('domain', 'relay') AND l.differs <> ''
            AND mailmaps.fold(h.domain) COLLATE "C" = l.domain RETURNING l.line)
       UPDATE lines SET disabled = coalesce(lines.disabled, true) FROM held WHERE lines.line = held.line""",
    """INSERT INTO mailmaps.disabled_domains (domain, transport)
       SELECT d.domain, d.transport FROM lines l
       JOIN (SELECT domain, transport, 'domain' AS kind FROM public.domains
             UNION ALL SELECT domain, transport, 'relay' FROM mailmaps.relays) AS d
          ON d.kind = l.kind AND mailmaps.fold(d.domain) COLLATE "C" = l.domain
       WHERE l.disabled AND (l.is_new OR l.differs <> '')""",
    """UPDATE public.domains d SET transport = $1 FROM lines l
       WHERE l.kind = 'domain' AND l.disabled AND (l.is_new OR l.differs <> '')
         AND mailmaps.fold(d.domain) COLLATE "C" = l.domain""",
    """UPDATE mailmaps.relays d SET transport = $1 FROM lines l
       WHERE l.kind = 'relay' AND l.disabled AND (l.is_new OR l.differs <> '')
         AND mailmaps.fold(d.domain) COLLATE "C" = l.domain""",
    """INSERT INTO mailmaps.domain_aliases (domain, target)
       SELECT l.domain, d.domain FROM lines l
       JOIN public.domains d ON mailmaps.fold(d.domain) COLLATE "C" = l.target
       WHERE l.kind = 'alias' AND l.is_new ORDER BY line""",
    """UPDATE mailmaps.domain_aliases a SET target = d.domain
       FROM lines l JOIN public.domains d ON mailmaps.fold(d.domain) COLLATE "C" = l.target
       WHERE l.kind = 'alias' AND l.differs <> '' AND mailmaps.fold(a.domain) COLLATE "C" = l.domain""",
    """INSERT INTO mailmaps.relay_recipients (address)
       SELECT address FROM lines WHERE kind = 'recipient' AND is_new ORDER BY line""",
    """INSERT INTO public.user_accounts (username, uid, gid, password, email, mailbox, quota, active)
       SELECT l.username, coalesce(l.uid, l.new_uid), d.gid, l.password_hash, l.address, l.path,
              coalesce(l.quota, 0), CASE WHEN coalesce(l.active, true) THEN '1' ELSE '0' END
       FROM lines l JOIN public.domains d ON mailmaps.fold(d.domain) COLLATE "C" = l.domain
       WHERE l.kind = 'account' AND l.is_new ORDER BY line""",
    """UPDATE public.user_accounts a
       SET quota = coalesce(l.quota, a.quota), password = coalesce(l.password_hash, a.password),
           active = CASE l.active WHEN true THEN '1' WHEN false THEN '0' ELSE a.active END
       FROM lines l
       WHERE l.kind = 'account' AND l.differs <> '' AND mailmaps.fold(a.username) COLLATE "C" = l.username""",
    """INSERT INTO mailmaps.rights AS r (username, imap, pop3, smtp, sieve, receive)
       SELECT a.username, coalesce(l.imap, o.imap, true), coalesce(l.pop3, o.pop3, true),
              coalesce(l.smtp, o.smtp, true), coalesce(l.sieve, o.sieve, true),
              coalesce(l.receive, o.receive, true)
       FROM lines l JOIN public.user_accounts a ON mailmaps.fold(a.username) COLLATE "C" = l.username
       LEFT JOIN mailmaps.rights o ON o.username = a.username
       WHERE l.kind = 'account' AND (l.is_new AND NOT (coalesce(l.imap, true) AND coalesce(l.pop3, true)
             AND coalesce(l.smtp, true) AND coalesce(l.sieve, true) AND coalesce(l.receive, true))
          OR l.differs ~ 'imap|pop3|smtp|sieve|receive')
       ON CONFLICT (username) DO UPDATE SET imap = excluded.imap, pop3 = excluded.pop3, smtp = excluded.smtp,
          sieve = excluded.sieve, receive = excluded.receive""",
    """DELETE FROM public.user_addresses u USING lines l
       WHERE l.kind = 'address' AND l.differs <> '' AND l.disabled
         AND mailmaps.fold(u.alias) COLLATE "C" = l.address""",
    """DELETE FROM mailmaps.disabled_addresses u USING lines l
       WHERE l.kind = 'address' AND l.differs <> '' AND NOT l.disabled
         AND mailmaps.fold(u.alias) COLLATE "C" = l.address""",
    """INSERT INTO public.user_addresses (username, alias)
       SELECT a.username, l.address FROM (
          SELECT username, address, min(line) AS line FROM lines
          WHERE is_new AND kind = 'account'
             OR kind = 'address' AND (is_new OR differs <> '') AND NOT coalesce(disabled, false)
          GROUP BY username, address) AS l
       JOIN public.user_accounts a ON mailmaps.fold(a.username) COLLATE "C" = l.username ORDER BY l.line""",
    """INSERT INTO mailmaps.disabled_addresses (username, alias)
       SELECT a.username, l.address FROM lines l
       JOIN public.user_accounts a ON mailmaps.fold(a.username) COLLATE "C" = l.username
       WHERE l.kind = 'address' AND l.disabled AND (l.is_new OR l.differs <> '')""",
    """DELETE FROM mailmaps.forwards f USING lines l
       WHERE l.kind = 'forward' AND l.differs <> '' AND l.disabled AND f.key = l.address COLLATE "C"
         AND mailmaps.fold(f.target) = l.target""",
    """DELETE FROM mailmaps.disabled_forwards f USING lines l
       WHERE l.kind = 'forward' AND l.differs <> '' AND NOT l.disabled
         AND mailmaps.fold(f.address) COLLATE "C" = l.address AND mailmaps.fold(f.target) = l.target""",
    """INSERT INTO mailmaps.forwards (address, target)
       SELECT address, target FROM lines WHERE kind = 'forward' AND (is_new OR differs <> '') AND NOT
       coalesce(disabled, false) ORDER BY line""",
    """INSERT INTO mailmaps.disabled_forwards (address, target)
       SELECT address, target FROM lines
       WHERE kind = 'forward' AND (is_new OR differs <> '') AND disabled ORDER BY line""",
)


@dataclass
class Counts:
    """How many lines of each kind are new, changed and the same, and what is wrong (line, column, text)."""

    new: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    same: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[int, str, str]] = field(default_factory=list)


async def copy_in(work: Work, records: Iterable[tuple[Any, ...]]) -> None:
    """Copy the lines in, as `COLUMNS` has them. Raises `CannotWrite`, and what `records` raises."""
    await work.fetch(_TABLE)
    try:
        await work.connection.copy_records_to_table("lines", records=_one_by_one(records), columns=COLUMNS)
        await work.connection.execute(_PREPARE)
    except (Refused, TimeoutError, asyncpg.DataError, *BREAKS) as error:
        raise CannotWrite(f"database: {reason(error)}") from error


async def _one_by_one(records: Iterable[tuple[Any, ...]]) -> AsyncIterator[tuple[Any, ...]]:
    for record in records:
        yield record


async def judge(work: Work, *, update: bool) -> Counts:
    """Say of all lines what they are, and what is wrong with them."""
    for kind, there in _STATES:
        await work.fetch(
            f"""UPDATE lines SET is_new = s.line IS NULL, differs = coalesce(s.differs, '')
                FROM lines AS l LEFT JOIN ({there} WHERE l.kind = '{kind}') AS s ON s.line = l.line
                WHERE lines.line = l.line AND l.kind = '{kind}'"""  # noqa: S608  # ours
        )
    await work.fetch("ANALYZE lines")
    counts = Counts()
    for record in await work.fetch(
        """SELECT kind, count(*) FILTER (WHERE is_new) AS new,
                  count(*) FILTER (WHERE differs <> '') AS changed,
                  count(*) FILTER (WHERE NOT is_new AND differs = '') AS same FROM lines GROUP BY kind"""
    ):
        kind = record["kind"]
        counts.new[kind], counts.changed[kind] = record["new"], record["changed"]
        counts.same[kind] = record["same"]
    for query in _PROBLEMS:
        arguments = (update,) if "$1" in query else ()
        counts.problems += [tuple(record) for record in await work.fetch(query, *arguments)]
    if not await honours_active(work):
        query = """SELECT line, 'active', 'is not honoured here (database.honour_active)'
                   FROM lines WHERE NOT active"""
        counts.problems += [tuple(record) for record in await work.fetch(query)]
    counts.problems = sorted(set(counts.problems))
    return counts


async def give_numbers(work: Work, uids: Callable[[int], Any], gids: Callable[[int], Any]) -> None:
    """Give numbers to new domains and accounts that have none; `uids(n)` gives n free ones."""
    for kind, given, column, find in (
        ("domain", "gid", "new_gid", gids),
        ("account", "uid", "new_uid", uids),
    ):
        where = f"kind = '{kind}' AND is_new AND {given} IS NULL"
        wanted = await work.value(f"SELECT count(*) FROM lines WHERE {where}")  # noqa: S608
        if wanted:
            await work.fetch(
                f"""UPDATE lines SET {column} = n.number
                    FROM (SELECT line, row_number() OVER (ORDER BY line) AS place FROM lines WHERE {where})
                    AS p JOIN unnest($1::integer[]) WITH ORDINALITY AS n (number, place) USING (place)
                    WHERE lines.line = p.line""",  # noqa: S608
                await find(wanted),
            )


async def take_hashes(work: Work, hashes: Iterable[tuple[int, str]]) -> None:
    """The hashes of lines that have a plain password."""
    lines, stored = zip(*hashes, strict=True)
    await work.fetch(
        """UPDATE lines SET password_hash = h.stored
           FROM unnest($1::integer[], $2::text[]) AS h (line, stored) WHERE lines.line = h.line""",
        list(lines),
        list(stored),
    )


async def write(work: Work, hold: str, progress: Callable[[int, int], None]) -> None:
    """Write all lines; `hold` is the transport of a domain that waits."""
    for number, query in enumerate(_WRITE, 1):
        arguments = (hold,) if "$1" in query else ()
        await work.fetch(query, *arguments)
        progress(number, len(_WRITE))
