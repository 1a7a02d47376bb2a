"""Which account a login means, and what it is given: from the rows of the database to an `Account`.

A username counts before an address, the exact spelling of a username before one that folds alike, and a name
that could mean two accounts means none: that is "cannot say", since somebody has to mend it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mailmaps.auth.attempt import Account, Password
from mailmaps.maps.address import fold
from mailmaps.maps.answer import CannotSay
from mailmaps.maps.mailbox import mailbox_problem

# Which right a service needs, by the names that Dovecot and SASL programs have for it. Others (doveadm, say)
# need none.
RIGHT_OF = {
    "imap": "imap",
    "pop3": "pop3",
    "pop": "pop3",
    "smtp": "smtp",
    "submission": "smtp",
    "sieve": "sieve",
    "managesieve": "sieve",
    "lmtp": "receive",
    "lda": "receive",
    "quota-status": "receive",
}
# Who delivers asks by address, and means what virtual_mailbox_maps means by it.
DELIVERS = frozenset(service for service, right in RIGHT_OF.items() if right == "receive")
RIGHTS = ("imap", "pop3", "smtp", "sieve", "receive")

# uid_t and gid_t; the largest of all means "none".
_LARGEST_ID = (1 << 32) - 2


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the source of logins: `login` (folded) means the account `username`.

    `by` is "username" or "address", empty where the source does not say. `stored` is the password as the
    database has it. `denied` are the rights that the account does not have.
    """

    login: str
    username: str
    stored: Password
    by: str = ""
    uid: int | None = None
    gid: int | None = None
    mailbox: str | None = None
    quota: int | None = None
    active: bool = True
    denied: frozenset[str] = field(default=frozenset())

    def may(self, service: str) -> bool:
        """Whether the account may use a service."""
        return self.active and RIGHT_OF.get(service.lower()) not in self.denied

    def is_known_to(self, service: str) -> bool:
        """Whether a lookup by a service finds it: one that needs no right sees inactive accounts too."""
        return self.may(service) if service.lower() in RIGHT_OF else True


class Source(Protocol):
    """What the service needs of the database (`mailmaps.database.logins`)."""

    async def find(self, logins: Sequence[str]) -> list[Row]:
        """The rows of these logins, which are folded. Raises `CannotSay`."""

    async def usernames(self) -> list[str]:
        """Every account's username. Raises `CannotSay`."""

    async def samples(self) -> list[Password]:
        """A few of the stored passwords. Raises `CannotSay`."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where mail is, and what ids are taken: the settings `virtual_mailbox_base`, `virtual_minimum_uid` of
    [postfix] and `home_base` of [auth]; a base is absolute or empty."""

    mailbox_base: str = ""
    home_base: str = ""
    minimum_uid: int = 100


def spellings(user: str, realm: str, own_realm: str) -> tuple[str, ...]:
    """What may stand for a user in the database, in the order to try.

    saslauthd's clients split user@realm (facts/dovecot.md 4): it is joined before the bare name is tried, and
    that only in the realm of our users.
    """
    if not user:
        return ()
    joined = f"{user}@{realm}" if realm and "@" not in user else user
    local, at, domain = joined.rpartition("@")
    if at and local and own_realm and fold(domain) == fold(own_realm):
        return joined, local
    return (joined,)


def choose(rows: Sequence[Row], spelled: Iterable[str], kinds: Sequence[str]) -> Row | None:
    """The row that the first spelling with any means. Raises `CannotSay` where that is two accounts.

    `kinds` of names count ("username", "address"), the first of them first; a row without a kind is of any.
    """
    for spelling in spelled:
        mine = [row for row in rows if row.login == fold(spelling)]
        for some in _groups(mine, spelling, kinds):
            if len({row.username for row in some}) > 1:
                raise CannotSay("the login means several accounts", about_key=True)
            if len(set(some)) > 1:
                what = f"the account {some[0].username!a} has several rows that differ"
                raise CannotSay(what, about_key=True)
            if some:
                return some[0]
    return None


def _groups(rows: Sequence[Row], spelling: str, kinds: Sequence[str]) -> Iterator[list[Row]]:
    """Rows of which one is meant, in the order to look: an exact username before one that folds alike."""
    for kind in (*kinds, ""):
        of_kind = [row for row in rows if row.by == kind]
        if kind != "address":
            yield [row for row in of_kind if row.username == spelling]
        yield of_kind


def account(row: Row, places: Places) -> Account:
    """What the account is given. Raises `CannotSay` for what nobody should deliver to, or read, as it is."""
    for what, number, least in (("uid", row.uid, places.minimum_uid), ("gid", row.gid, 1)):
        if number is not None and not max(least, 1) <= number <= _LARGEST_ID:
            why = f"the {what} of {row.username!a} is {number}, which is not one for mailboxes"
            raise CannotSay(why, about_key=True)
    if not row.username or not row.username.isprintable():
        why = "a username is empty or has characters that no protocol carries"
        raise CannotSay(why, about_key=True)
    home = mail = None
    if row.mailbox is not None and places.mailbox_base:
        if problem := mailbox_problem(row.mailbox):
            raise CannotSay(f"the mailbox of {row.username!a}: {problem}", about_key=True)
        mail = _below(places.mailbox_base, row.mailbox)
        home = _below(places.home_base, row.mailbox) if places.home_base else f"{mail}/home"
    quota = None if row.quota is None else max(row.quota, 0)
    return Account(row.username, row.uid, row.gid, home, mail, quota)


def _below(base: str, mailbox: str) -> str:
    """As virtual(8) joins them (src/virtual/mailbox.c), without empty names and the "/" of a Maildir."""
    return "/".join([base.rstrip("/"), *(name for name in mailbox.split("/") if name)])
