"""Who has mail at a site: domains, mailboxes and aliases, the same for every schema.

Contract: `POPULATION` holds something for each branch that a lookup can take: several targets, catch-alls,
a domain that stands for another, entries that name themselves, rows with an extension, owner- and
-request, quoted local parts in both spellings, rows that no folded key can find, chains, loops, inactive
rows, people elsewhere. Addresses stand as a database has them; LATIN-1 is the most that Debian 12's
Postfix can read (its connections are LATIN1, src/global/dict_pgsql.c of 3.7), what goes beyond is in
`BEYOND_LATIN1`.
"""

from __future__ import annotations

from dataclasses import dataclass

MAIN = "main.test"
SECOND = "second.test"
CATCH = "catch.test"
ALIAS = "alias.test"
"""Stands for `MAIN`."""
CATCH_ALIAS = "caught.test"
"""Stands for `CATCH`."""
DASHED = "dash-ed.test"
"""With a delimiter of main.cf in its name."""
RELAY = "relay.test"
CLOSED = "closed.test"
"""Exists and is not active, where the schema knows that."""
OWN = "localhost"
"""Has the transport that the schema gives by default, without a host: the one name that resolves."""
ELSEWHERE = "elsewhere.test"

VIRTUAL = (MAIN, SECOND, CATCH, DASHED, OWN)
DOMAIN_ALIASES = {ALIAS: MAIN, CATCH_ALIAS: CATCH}

MAILBOX_USERS = (
    "ann",
    "bob",
    "eve",
    "a.b",
    "dash-ed",
    "owner-list",
    "list-request",
    "postmaster",
    "bob+box",
    "eve-box",
    "jör\xc3g",
    "müller",
    '"jan van"',
    "per%cent",
    "bang!path",
    "o'neil",
    "back\\slash",
    '"back\\\\slash"',
    "under_score",
    "UPPER",
    "*",
)

ALIASES: dict[str, tuple[str, ...]] = {
    # what everybody has
    f"info@{MAIN}": (f"ann@{MAIN}",),
    f"team@{MAIN}": (f"ann@{MAIN}", f"bob@{MAIN}", f"eve@{SECOND}"),
    f"away@{MAIN}": (f"someone@{ELSEWHERE}",),
    f"copy@{MAIN}": (f"ann@{MAIN}", f"someone@{ELSEWHERE}"),
    f"abuse@{MAIN}": (f"postmaster@{MAIN}",),
    f"mailer-daemon@{MAIN}": (f"ann@{SECOND}",),
    f"double-bounce@{MAIN}": (f"ann@{SECOND}",),
    f"nobody.home@{MAIN}": (f"not.here@{MAIN}",),
    f"moved@{MAIN}": (f"moved@{SECOND}",),
    f"across@{SECOND}": (f"bob@{ALIAS}", f"any.body@{CATCH_ALIAS}", f"x@{RELAY}"),
    f"to.relay@{SECOND}": (f"deep@sub.{RELAY}",),
    f"to.closed@{SECOND}": (f"ann@{CLOSED}",),
    f"to.own@{SECOND}": (f"ann@{OWN}",),
    # lists of every spelling
    f"spaced@{MAIN}": (f"ann@{MAIN} , bob@{MAIN}  eve@{SECOND}",),
    f"named@{MAIN}": (f"Ann Bee <ann@{MAIN}>, bob@{MAIN} (a comment)",),
    f"quoted@{MAIN}": (f'"john doe"@{SECOND}', f'"jan van"@{MAIN}'),
    f"bare.target@{MAIN}": ("ann",),
    f"upper.target@{MAIN}": ("Ann@Main.TEST",),
    f"extended.target@{MAIN}": (f"ann+from@{MAIN}", f"eve-from@{SECOND}"),
    # of these Postfix makes one broken address (mail_addr_map.c:149-161), nothing, and what was meant
    f"glued@{MAIN}": (f"@{SECOND}", f"bob@{MAIN}"),
    f"glued.last@{MAIN}": (f"bob@{MAIN}", f"@{SECOND}"),
    f"empty@{MAIN}": ("",),
    f"trailing@{MAIN}": (f"ann@{MAIN} ",),
    f"whole.domain@{MAIN}": (f"@{SECOND}",),
    # extensions: rows that have one, rows that get one
    f"info+exact@{MAIN}": (f"bob@{MAIN}",),
    f"info-exact@{MAIN}": (f"bob@{SECOND}",),
    f"info+@{MAIN}": (f"eve@{MAIN}",),
    f"list@{MAIN}": (f"ann@{MAIN}", f"bob@{SECOND}"),
    f"owner-list@{MAIN}": (f"bob@{MAIN}",),
    f"owner@{MAIN}": (f"eve@{SECOND}",),
    f"list-request@{MAIN}": (f"eve@{MAIN}",),
    f"members-request@{SECOND}": (f"bob@{SECOND}",),
    f"members@{SECOND}": (f"ann@{SECOND}", f"ann@{MAIN}"),
    # chains and rings
    f"chain1@{MAIN}": (f"chain2@{MAIN}",),
    f"chain2@{MAIN}": (f"chain3@{SECOND}", f"bob@{MAIN}"),
    f"chain3@{SECOND}": (f"team@{MAIN}",),
    f"self@{MAIN}": (f"self@{MAIN}", f"ann@{MAIN}"),
    f"ring1@{MAIN}": (f"ring2@{MAIN}",),
    f"ring2@{MAIN}": (f"ring1@{MAIN}",),
    # catch-alls; who has a mailbox below them needs an entry for himself
    f"@{CATCH}": (f"ann@{MAIN}",),
    f"real@{CATCH}": (f"real@{CATCH}",),
    f"eve@{CATCH}": (f"bob@{CATCH}", f"eve@{CATCH}"),
    f"bob@{CATCH}": (f"bob@{CATCH}",),
    # quoting: Postfix's external form, and the internal one
    f'"jan van"@{SECOND}': (f"ann@{MAIN}",),
    f"jan van@{DASHED}": (f"bob@{MAIN}",),
    f'"at@sign"@{MAIN}': (f"bob@{MAIN}",),
    f"at@sign@{SECOND}": (f"bob@{SECOND}",),
    f'"two..dots"@{MAIN}': (f"eve@{MAIN}",),
    f'"comma,"@{MAIN}': (f"eve@{MAIN}", f"ann@{MAIN}"),
    f"o'brien@{MAIN}": (f"o'neil@{MAIN}",),
    f"under_score@{SECOND}": (f"under_score@{MAIN}",),
    f"per%cent@{SECOND}": (f"per%cent@{MAIN}",),
    # local parts alone; asked for local domains only, and for the domain lists never
    "webmaster": (f"ann@{MAIN}",),
    "webmaster+ext": (f"bob@{MAIN}",),
    "dash": (f"eve@{MAIN}",),
    # eight bits: as Postfix 3.7 reads UTF-8, and as it is
    f"j\xc3\xb6rg@{MAIN}": (f"ann@{MAIN}",),
    f"jörg@{SECOND}": (f"bob@{MAIN}",),
    f"françois@{MAIN}": (f"müller@{MAIN}",),
    "ann@m\xc3\xbcnchen.test": (f"eve@{MAIN}",),
    # no key that is folded finds these
    f"Capital@{MAIN}": (f"ann@{MAIN}",),
    f"ÄPFEL@{MAIN}": (f"ann@{MAIN}",),
}

INACTIVE_ALIASES: dict[str, tuple[str, ...]] = {
    f"closed@{MAIN}": (f"ann@{MAIN}",),
    f"closed@{CATCH}": (f"bob@{MAIN}",),
    f"ann+off@{MAIN}": (f"bob@{MAIN}",),
}

UNALIASED = tuple(
    f"{user}@{domain}" for user in ("only.box", '"only box"', "only+box") for domain in (MAIN, SECOND, CATCH)
)
"""Mailboxes that no alias names: the other ones are found among the aliases before they are looked for."""

INACTIVE_MAILBOXES = (f"asleep@{MAIN}", f"asleep@{CATCH}", f"asleep@{SECOND}")

BEYOND_LATIN1: dict[str, tuple[str, ...]] = {
    f"οδυσσεύς@{MAIN}": (f"ann@{MAIN}",),
    f"почта@{SECOND}": (f"οδυσσεύς@{MAIN}", f"bob@{MAIN}"),
    f"straße@{MAIN}": (f"bob@{MAIN}",),
    f"strasse@{MAIN}": (f"eve@{MAIN}",),
    "ann@münchen.test": (f"müller@{MAIN}",),
    "@пример.test": (f"почта@{SECOND}",),
}
"""Rows for a Postfix that speaks UTF-8 to PostgreSQL; 3.7 would see an SQL error and be blocked for 60 s."""


@dataclass(frozen=True)
class Population:
    """Addresses by what they are; an alias has its targets in order. A mailbox forwards to itself, as the
    administration tools have it, unless it is one of `unaliased`."""

    mailboxes: tuple[str, ...]
    aliases: dict[str, tuple[str, ...]]
    unaliased: tuple[str, ...] = UNALIASED
    inactive_mailboxes: tuple[str, ...] = INACTIVE_MAILBOXES
    inactive_aliases: tuple[tuple[str, tuple[str, ...]], ...] = tuple(INACTIVE_ALIASES.items())

    @property
    def keys(self) -> tuple[str, ...]:
        """Everything that stands in a row."""
        inactive = (*self.inactive_mailboxes, *(address for address, _ in self.inactive_aliases))
        return (*self.mailboxes, *self.unaliased, *self.aliases, *inactive)


def population(beyond_latin1: bool = False) -> Population:
    """The people of every site; `beyond_latin1` for a Postfix that can read their names."""
    return Population(_mailboxes(), ALIASES | BEYOND_LATIN1 if beyond_latin1 else ALIASES)


def _mailboxes() -> tuple[str, ...]:
    main = [f"{user}@{MAIN}" for user in MAILBOX_USERS]
    second = [f"{user}@{SECOND}" for user in MAILBOX_USERS[::2]]
    few = [f"{user}@{domain}" for domain in (CATCH, DASHED, OWN, CLOSED) for user in ("ann", "bob", "eve")]
    return (*main, *second, *few, f"real@{CATCH}", f"bob@{SECOND}", f"moved@{SECOND}", f"self@{MAIN}")


def domain_of(address: str) -> str:
    """The part after the last `@`; empty for a bare local part."""
    return address.rpartition("@")[2] if "@" in address else ""
