"""Rows and addresses on which two Postfix instances have to agree, the same on every run.

Contract: `rows(seed)` is what stands in the tables, `addresses(seed)` whom a stranger writes to. Both
come from the same small vocabulary, so that most addresses meet a row at some step of the search: with
its extension, without it, as a bare local part, as a catch-all, after one rewriting or several.

Left out on purpose: a list that contains `@other` (Postfix makes one broken address of it, facts 4.6;
mailmaps completes each target) and rows whose key is not folded (`pgsql:` can never find them).
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

LOCAL = "local.test"
"""In mydestination, so that bare local parts are asked for it."""

ORIGIN = "origin.test"
"""myorigin: where a target without a domain ends, and the other domain with bare local parts."""

CATCH_ALLS = ("catch.test", "alias.test")
VIRTUAL = ("one.test", "two.test", *CATCH_ALLS)
DOMAINS = (*VIRTUAL, LOCAL, "relay.test")
STRANGE_DOMAINS = ("sub.relay.test", "sub.one.test", ORIGIN, "[127.0.0.1]")

USERS = (
    "ann",
    "bob",
    "eve",
    "owner-list",
    "list-request",
    "list",
    "postmaster",
    "mailer-daemon",
    "double-bounce",
    "a.b",
    "dash-ed",
    "all",
    "moved",
    "error",
    "chain1",
    "chain2",
    '"jan van"',
    '"comma,"',
    '"at@sign"',
    '"two..dots"',
    '"back\\\\slash"',
    '"quo\\"te"',
    "per%cent",
    "bang!path",
)
EXTENSIONS = ("", "", "+ext", "+Ext", "+", "-", "-x", "+a-b", "-a+b", "-request", "+owner-", "++")
STRANGE_EXTENSIONS = ("+x%y", "+x!y", "+a b", "+a@b", "+c,d", "+<x>", "+(c)", "+:", '+\\"q', "+.", "+..")
"""What a stranger may put there, and what must not become an operator on its way through a rewriting."""

NEEDS_QUOTES = re.compile(r'[ @,<>():"]|\.\.|\.$')

SPECIAL_ADDRESSES = (
    "+ext@one.test",
    "-@one.test",
    "owner-@one.test",
    "-request@one.test",
    "owner-list+x@one.test",
    "list-request+x@one.test",
    "postmaster+x@one.test",
    "POSTMASTER-x@one.test",
    "ann@ONE.test",
    "ANN+EXT@One.Test",
    "ann@one.test.",
    "ann@bob@one.test",
    "ann+x@bob@one.test",
    '"ann@bob"@one.test',
    '"ann"@one.test',
    '"ann+ext"@one.test',
    '"ann +ext"@one.test',
    '""@one.test',
    '"+ext"@one.test',
    "ann%two.test@one.test",
    "ann",
    "ann+ext",
    "postmaster",
    "@one.test",
    "nobody@nowhere.test",
    "x" * 64 + "@one.test",
    "x" * 300 + "+ext@one.test",
    "x" * 900 + "@catch.test",
    "ann+" + "y" * 900 + "@one.test",
    "loop@one.test",
    "loop+ext@one.test",
    "grow@one.test",
    "wide@one.test",
    "wide+ext@one.test",
    "noaddress@one.test",
    "noaddress+ext@one.test",
)

FIXED_ALIASES = (
    ("ann@one.test", "bob@two.test"),
    ("ann+exact@one.test", "exact@two.test"),
    ("bob@one.test", "@two.test"),
    ("eve@one.test", "eve@outside.test, Bob <bob@two.test> all@two.test"),
    ("owner-list@one.test", "o+p@two.test"),
    ('"jan van"@one.test', '"john doe"@two.test'),
    ("jan van@two.test", "internal@two.test"),
    ("a.b@one.test", "bare"),
    ("per%cent@one.test", "x%two.test"),
    ("bang!path@one.test", "two.test!x"),
    ("@catch.test", "all@two.test"),
    ("eve@catch.test", "eve@catch.test"),
    ("@alias.test", "@one.test"),
    ("ann", "bare-ann@two.test"),
    ("bob+ext", "bare-bob-ext@two.test"),
    ('"jan van"', "bare-jan@two.test"),
    ("loop@one.test", "pool@one.test"),
    ("pool@one.test", "loop@one.test"),
    ("grow@one.test", "grow+x@one.test"),
    ("wide@one.test", ",".join(f"w{i}@two.test" for i in range(60))),
    ("noaddress@one.test", ", ,"),
    ("one.test", "a-domain-is-no-address@two.test"),
)

VALUES = (
    "bob@two.test",
    "all@two.test,list@two.test",
    "eve@outside.test",
    "d+e@two.test",
    "bare",
    "ann@local.test",
    "@two.test",
    "@outside.test",
    "Ann Bee <ann.bee@two.test>",
    "ann@two.test (a comment), bob@two.test",
    "group: ann@two.test, bob@two.test;",
    '"john doe"@two.test',
    '"john \\"x\\" doe"@two.test eve@two.test',
    "Upper@Two.Test",
    "user%two.test",
    "user%one.test@two.test",
    "two.test!user",
    "ann@[127.0.0.1]",
    "ann@one.test",
    "chain2@one.test",
)


class Row(NamedTuple):
    key: str
    value: str


def rows(seed: int, transports: tuple[str, str]) -> dict[str, list[Row]]:
    """Rows by table; `transports` are two ways of delivery that a test can tell apart."""
    rng = random.Random(seed)
    first, second = transports
    return {
        "virtual_mailbox_domains": [Row(domain, "x") for domain in VIRTUAL],
        "relay_domains": [Row("relay.test", "x"), Row(".one.test", "x")],
        "virtual_alias_maps": _aliases(rng),
        "virtual_mailbox_maps": _mailboxes(rng),
        "relay_recipient_maps": _mailboxes(rng),
        "transport_maps": [
            Row("outside.test", second),
            Row("bob@two.test", first),
            Row("d@two.test", "error:5.1.1 gone"),
            Row("moved@one.test", second),
            Row("error@one.test", "error:5.2.1 closed"),
            Row(".relay.test", second),
            Row("relay.test", first),
            Row("one.test", ":"),
            Row(".one.test", second),
            Row("127.0.0.1]", second),
            Row(".0.0.1]", second),
        ],
        "smtpd_sender_login_maps": _logins(rng),
    }


def addresses(seed: int, count: int) -> list[str]:
    """Recipients in external form: all special ones and `count` of the others."""
    rng = random.Random(seed)
    made = [_address(rng) for _ in range(count)]
    return list(dict.fromkeys([*SPECIAL_ADDRESSES, *made]))


def senders(seed: int, count: int) -> list[str]:
    """Sender addresses, the null one among them."""
    rng = random.Random(seed + 1)
    return list(dict.fromkeys(["", *SPECIAL_ADDRESSES[:26], *(_address(rng) for _ in range(count))]))


def _aliases(rng: random.Random) -> list[Row]:
    found = dict(FIXED_ALIASES)
    for _ in range(90):
        found.setdefault(_key(rng), rng.choice(VALUES))
    return [Row(*item) for item in found.items()]


def _mailboxes(rng: random.Random) -> list[Row]:
    keys = {"all@two.test", "bob@two.test", "@catch.test", "@sub.relay.test"}
    keys |= {_key(rng) for _ in range(150)}
    return [Row(key, "box/") for key in sorted(keys)]


def _logins(rng: random.Random) -> list[Row]:
    found = {_key(rng): rng.choice(("ann", "bob", "ann,bob", "ann bob", "ANN")) for _ in range(150)}
    return [Row(*item) for item in sorted(found.items())]


def _key(rng: random.Random) -> str:
    """A row's key: an address, now and then a bare local part; folded, quoted or not.

    Catch-alls are few and fixed: one more of them answers for every unknown user of its domain.
    """
    kind = rng.random()
    domain = rng.choice(DOMAINS)
    local = _local_part(rng, rng.choice(EXTENSIONS) if kind < 0.4 else "")
    if local.startswith('"') and kind > 0.7:
        local = local[1:-1].replace("\\", "")  # the internal form, which smtpd asks too
    return (local if kind < 0.2 else f"{local}@{domain}").lower()


def _address(rng: random.Random) -> str:
    domain = rng.choice(DOMAINS if rng.random() < 0.85 else STRANGE_DOMAINS)
    extension = rng.choice(EXTENSIONS if rng.random() < 0.7 else STRANGE_EXTENSIONS)
    address = f"{_local_part(rng, extension)}@{domain}"
    return address.swapcase() if rng.random() < 0.1 else address


def _local_part(rng: random.Random, extension: str) -> str:
    user = rng.choice(USERS)
    if user.endswith('"'):
        return f'{user[:-1]}{extension}"'
    return f'"{user}{extension}"' if NEEDS_QUOTES.search(extension) else user + extension
