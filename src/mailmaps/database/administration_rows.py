"""What commands ask before they write: who has a name, which numbers are free, whose a mailbox is or was.

All of it inside the transaction of `mailmaps.database.administration.Work`, while no other command writes.
Names are folded and checked (`mailmaps.administration.names`). Raises what `Work` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailmaps.database.administration import CannotWrite

if TYPE_CHECKING:
    import asyncpg

    from mailmaps.database.administration import Work

# The first number of a new site, as in the how-to.
FIRST_NUMBER = 5001

# systemd's dynamic users, nobody, and (uid_t) -1 of 16 bits (https://systemd.io/UIDS-GIDS/).
RESERVED = range(61184, 65536)

LARGEST_NUMBER = 2**31 - 1  # the column is INTEGER

_HOLDER = """
   SELECT 'address' AS kind, u.username AS whose, u.alias AS name FROM public.user_addresses u
      WHERE mailmaps.fold(u.alias) COLLATE "C" = $1
   UNION ALL SELECT 'email', a.username, a.email FROM public.user_accounts a WHERE mailmaps.fold(a.email)
   COLLATE "C" = $1 UNION ALL SELECT 'disabled address', d.username, d.alias FROM mailmaps.disabled_addresses
   d
      WHERE mailmaps.fold(d.alias) COLLATE "C" = $1
   UNION ALL
   SELECT 'username', a.username, a.username FROM public.user_accounts a
      WHERE mailmaps.fold(a.username) COLLATE "C" = $1"""

_DOMAIN = """
   SELECT 'domain' AS kind, d.domain, d.gid, d.transport, NULL AS target, h.transport AS held
      FROM public.domains d LEFT JOIN mailmaps.disabled_domains h ON mailmaps.fold(h.domain) COLLATE "C" = $1
      WHERE mailmaps.fold(d.domain) COLLATE "C" = $1
   UNION ALL
   SELECT 'alias', a.domain, NULL, NULL, a.target, NULL FROM mailmaps.domain_aliases a
      WHERE mailmaps.fold(a.domain) COLLATE "C" = $1
   UNION ALL
   SELECT 'relay', r.domain, NULL, r.transport, NULL, h.transport
      FROM mailmaps.relays r LEFT JOIN mailmaps.disabled_domains h ON mailmaps.fold(h.domain) COLLATE "C" = $1
      WHERE mailmaps.fold(r.domain) COLLATE "C" = $1"""

_ACCOUNT = """
   SELECT a.username, a.uid, a.gid, d.domain, a.email, a.mailbox, a.quota,
          a.active COLLATE "C" IN ('1', 't', 'T', 'y', 'Y') AS active,
          coalesce(r.imap, true) AS imap, coalesce(r.pop3, true) AS pop3, coalesce(r.smtp, true) AS smtp,
          coalesce(r.sieve, true) AS sieve, coalesce(r.receive, true) AS receive,
          a.password IS NOT NULL AND a.password <> '' AS has_password
   FROM public.user_accounts a
   LEFT JOIN public.domains d ON d.gid = a.gid
   LEFT JOIN mailmaps.rights r ON r.username = a.username
   WHERE mailmaps.fold(a.username) COLLATE "C" = $1"""
_EXACT_ACCOUNT = _ACCOUNT.replace('mailmaps.fold(a.username) COLLATE "C"', "a.username")

# Boxes at a path, around it ($2: its parents) and within it ($3 to $4, as bytes sort).
_NEIGHBOURS = """
   SELECT mailmaps.mailbox_path(a.mailbox) AS path, a.username, a.uid, NULL::timestamptz AS until
      FROM public.user_accounts a
      WHERE mailmaps.mailbox_path(a.mailbox) COLLATE "C" = ANY ($1::text[])
         OR mailmaps.mailbox_path(a.mailbox) COLLATE "C" >= $2
            AND mailmaps.mailbox_path(a.mailbox) COLLATE "C" < $3
   UNION ALL
   (SELECT f.path, f.username, f.uid, f.until FROM mailmaps.former_mailboxes f
      WHERE f.path = $4 ORDER BY f.until DESC LIMIT 1)"""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has an address already: `kind` as a word, `whose` the account."""

    kind: str
    whose: str
    name: str

    def __str__(self) -> str:
        if self.kind == "username":
            return f"{self.name} is the username of an account, which logs in with it"
        return f"{self.name} is the {self.kind} of {self.whose}"


@dataclass(frozen=True, slots=True)
class DomainRow:
    """A domain of any kind: "domain", "alias" or "relay". `held`: its own transport, while it is disabled."""

    kind: str
    domain: str
    gid: int | None
    transport: str | None
    target: str | None
    held: str | None


@dataclass(frozen=True, slots=True)
class Former:
    """Whose a mailbox was, and until when (as text)."""

    username: str
    uid: int
    until: str


async def holders(work: Work, address: str) -> list[Holder]:
    """Who has an address, in any way."""
    return [Holder(*record) for record in await work.fetch(_HOLDER, address)]


async def find_domain(work: Work, domain: str) -> DomainRow | None:
    """The domain of this name, of whatever kind."""
    records = await work.fetch(_DOMAIN, domain)
    return DomainRow(*records[0]) if records else None


async def find_account(work: Work, username: str, *, exactly: bool = False) -> asyncpg.Record | None:
    """The account of this name (folded; `exactly`: as it is written), with its rights and its domain's name.

    Raises `CannotWrite` where several differ in case alone, as the how-to allowed.
    """
    records = await work.fetch(_EXACT_ACCOUNT if exactly else _ACCOUNT, username)
    if len(records) > 1:
        names = ", ".join(record["username"] for record in records)
        raise CannotWrite(f"several accounts have that name: {names}; rename one by SQL")
    return records[0] if records else None


async def former_owner(work: Work, path: str, username: str) -> Former | None:
    """Whose a mailbox has been. Raises `CannotWrite` where it is an account's now, or in or around one's."""
    parts = path.split("/")
    around = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    former = None
    for record in await work.fetch(_NEIGHBOURS, around, f"{path}/", f"{path}0", path):
        if record["until"] is not None:
            former = Former(record["username"], record["uid"], f"{record['until']:%Y-%m-%d}")
        elif record["username"] != username:
            how = (
                "is the mailbox"
                if record["path"] == path
                else f"is {'within' if path.startswith(record['path'] + '/') else 'around'} the mailbox"
            )
            raise CannotWrite(
                f"{path} {how} {record['path']} of {record['username']}: say another one with --mailbox"
            )
    return former


async def free_uid(work: Work, minimum: int, taken: Callable[[int], bool], number: int = 1) -> list[int]:
    """Uids that no account has or has had, and that are not `taken` on this system."""
    query = """SELECT greatest((SELECT max(uid) FROM public.user_accounts),
                               (SELECT max(uid) FROM mailmaps.former_mailboxes))"""
    return _next(await work.value(query), minimum, taken, "uid", number)


async def free_gid(work: Work, taken: Callable[[int], bool], number: int = 1) -> list[int]:
    """Gids that no domain has or has had."""
    query = """SELECT greatest((SELECT max(gid) FROM public.domains),
                               (SELECT max(gid) FROM public.user_accounts),
                               (SELECT max(gid) FROM mailmaps.former_domains),
                               (SELECT max(gid) FROM mailmaps.former_mailboxes))"""
    return _next(await work.value(query), 1, taken, "gid", number)


def _next(
    largest: int | None, minimum: int, taken: Callable[[int], bool], what: str, count: int
) -> list[int]:
    found: list[int] = []
    number = max(FIRST_NUMBER, minimum, (largest or 0) + 1)
    while len(found) < count:
        if number > LARGEST_NUMBER:
            raise CannotWrite(f"no {what} is left above those in use: say one")
        if number in RESERVED:
            number = RESERVED.stop
            continue
        if not taken(number):
            found.append(number)
        number += 1
    return found


async def uid_owner(work: Work, uid: int) -> str:
    """Who has or has had a uid, in words; empty: nobody."""
    query = """SELECT 'is the uid of ' || username FROM public.user_accounts WHERE uid = $1
               UNION ALL
               SELECT 'was the uid of ' || username || ', whose files may be there still'
               FROM mailmaps.former_mailboxes WHERE uid = $1 LIMIT 1"""
    return await work.value(query, uid) or ""


async def gid_owner(work: Work, gid: int) -> str:
    """The same of a gid."""
    query = """SELECT 'is the gid of ' || domain FROM public.domains WHERE gid = $1
               UNION ALL SELECT 'is the gid of ' || username FROM public.user_accounts WHERE gid = $1 UNION
               ALL SELECT 'was the gid of ' || domain FROM mailmaps.former_domains WHERE gid = $1 LIMIT 1"""
    return await work.value(query, gid) or ""


async def honours_active(work: Work) -> bool:
    """Whether `active` stops mail and logins (`database.honour_active`)."""
    return bool(await work.value("SELECT honour_active FROM mailmaps.settings"))
