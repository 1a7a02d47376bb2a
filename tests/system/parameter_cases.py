"""Rows and questions for the parameters that are tables only where a site makes them so.

Contract: `rows(seed)` is what stands in the tables; the other functions are what a stranger says. All come
from one small vocabulary, so that most questions meet a row at some step of the search and many meet none.
The value of an access row names its key: the reply tells which row answered.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

LOCAL = "local.test"
"""In mydestination, so that bare local parts are asked for it."""

ORIGIN = "origin.test"
"""myorigin."""

ALIAS = "alias.test"
"""A virtual alias domain."""

GENERIC = "gen.test"
"""What lmtp(8) shows of it to others is another domain."""

DOMAINS = (LOCAL, ORIGIN, ALIAS, GENERIC, "out.test", "sub.out.test", "a.sub.out.test", "dot.example")
STRANGE_DOMAINS = ("[127.0.0.1]", "OUT.test", "out.test.", "sub.alias.test", "elsewhere.test")

USERS = ("ann", "bob", "eve", "list", "owner-list", "list-request", "postmaster", "a.b",
         '"jan van"', '"at@sign"', '"comma,"', "dash-ed")  # fmt: skip
EXTENSIONS = ("", "", "+ext", "+Ext", "+a-b", "-x", "+")

TABLES = (
    "canonical_maps",
    "sender_canonical_maps",
    "recipient_canonical_maps",
    "sender_bcc_maps",
    "recipient_bcc_maps",
    "relocated_maps",
    "sender_dependent_relayhost_maps",
    "sender_dependent_default_transport_maps",
    "lmtp_generic_maps",
    "local_recipient_maps",
    "virtual_alias_domains",
    "virtual_alias_maps",
    "mydestination",
    "mynetworks",
    "fast_flush_domains",
    "header_checks",
    "check_client_access",
    "check_reverse_client_hostname_access",
    "check_helo_access",
    "check_sender_access",
    "check_recipient_access",
    "check_etrn_access",
)

LISTS = {
    "l-one": "ann@out.test",
    "l-at": "@out.test",
    "l-first": "@out.test, two@dot.example",
    "l-inside": "one@local.test, @out.test",
    "l-twice": "@out.test,@dot.example",
    "l-bare": "@out.test, bare",
    "l-middle": "one@local.test, @out.test, two@out.test",
    "l-name": "@out.test, Name <two@out.test>",
    "l-comma": "@out.test,",
    '"l quoted"': "@out.test, two@out.test",
}
"""Local part and value of virtual aliases: `@other` alone, at the start of a list and inside one."""

NETWORKS = (
    "192.0.2.1", "192.0.2", "198.51", "203", "2001:db8::1", "2001:db8:0:1", "2001:db8", "2001:db9:", "::1",
    "0.0.1", "127.0.0.2", "127.0.1",
)  # fmt: skip
HOSTS = ("mail.good.test", "good.test", ".dotted.test", "unknown", "example", ".example", "1", ".1", "0.0.1]",
         ".0.1]", "localhost", "127.0.0.9", "192.0.2")  # fmt: skip

CLIENT_ADDRESSES = (
    "127.0.0.1", "127.0.0.2", "127.0.1.7", "127.5.0.1", "192.0.2.1", "192.0.2.9", "192.0.20.1",
    "198.51.100.7", "203.0.113.5", "8.8.8.8", "IPV6:2001:db8::1", "IPV6:2001:db8:0:1::5",
    "IPV6:2001:db8::2:5", "IPV6:2001:db9::1", "IPV6:::1", "IPV6:fe80::1",
)  # fmt: skip
CLIENT_NAMES = (
    "[UNAVAILABLE]", "mail.good.test", "Other.Good.Test", "good.test", "x.dotted.test", "a.b.dotted.test",
    "dotted.test", "host.example", "bad.test", "localhost", "a.mail.good.test",
)  # fmt: skip
HELO_NAMES = (
    "mail.good.test", "MAIL.Good.test", "x.good.test", "x.dotted.test", "dotted.test", "host.example",
    "host.example.", "127.0.0.9", "8.127.0.1", "[127.0.0.1]", "[127.0.1.1]", "192.0.2.1", "::1", "unknown",
    "bad", "a..good.test", ".", "999.0.0.1", "1.2.3.4.good.test",
)  # fmt: skip
ETRN_NAMES = ("mail.good.test", "x.good.test", "X.dotted.test", "dotted.test", "host.example", "bad.test",
              "quick.test", "x.quick.test", "y.x.quick.test", "Y.Y.dotted.test")  # fmt: skip


class Row(NamedTuple):
    key: str
    value: str


class Route(NamedTuple):
    """Where the sender-dependent tables lead."""

    relayhost: str
    transport: str


def rows(seed: int, route: Route) -> dict[str, list[Row]]:
    """Rows by table."""
    rng = random.Random(seed)
    canonical = ("canon@out.test", "@out.test", "bare-canon", '"new jan"@out.test', "canon+x@local.test")
    return {
        "canonical_maps": _mapped(rng, 25, canonical, {"@elsewhere.test": "@canon.test"}),
        "sender_canonical_maps": _mapped(
            rng, 25, ("canon-s@out.test", "@gen.test"), {"eve": "bare-s@out.test"}
        ),
        "recipient_canonical_maps": _mapped(
            rng, 25, ("canon-r@out.test", "@gen.test"), {"eve": "bare-r@out.test"}
        ),
        "sender_bcc_maps": _mapped(
            rng, 30, ("copy-s@out.test",), {"@sub.out.test": "copy-sub@out.test", **_forms("copy-f@out.test")}
        ),
        "recipient_bcc_maps": _mapped(
            rng, 30, ("Copy-R+x@local.test",), {"@sub.out.test": "copy-sub@out.test"}
        ),
        "relocated_maps": _mapped(rng, 25, ("new@home.test",), {"@elsewhere.test": "nowhere"}),
        "sender_dependent_relayhost_maps": _mapped(
            rng, 45, (route.relayhost, "DUNNO"), {"<>": route.relayhost, **_forms(route.relayhost)}
        ),
        "sender_dependent_default_transport_maps": _mapped(
            rng, 45, (route.transport, "DUNNO"), {"@dot.example": route.transport, **_forms("DUNNO")}
        ),
        "lmtp_generic_maps": [
            Row("ann@gen.test", "public@shown.test"),
            Row("bob+ext@gen.test", "exact@shown.test"),
            Row('"jan van"@gen.test', '"jan shown"@shown.test'),
            Row("comma,@gen.test", "never@shown.test"),  # generic maps are asked in external form only
            Row("@gen.test", "@shown.test"),
            Row("bob", "bare-bob@shown.test"),
        ],
        "local_recipient_maps": _mapped(rng, 60, ("x",), {"canon@local.test": "x"}, (LOCAL, "[127.0.0.1]")),
        "virtual_alias_domains": [Row(ALIAS, "x"), Row(f".{ALIAS}", "no parent of a string list")],
        "virtual_alias_maps": [Row(f"{user}@{ALIAS}", value) for user, value in LISTS.items()],
        "mydestination": [Row(LOCAL, "x")],
        "mynetworks": [Row(key, "x") for key in ("127.0.0.1", *NETWORKS[:5], *HOSTS[:3])],
        "fast_flush_domains": [Row(key, "x") for key in ("good.test", ".dotted.test", "quick.test")],
        "header_checks": [Row("X-Check: Bad", "REJECT bad"), Row("x-check: folded", "REJECT folded")],
        "check_client_access": _access((*NETWORKS, "good.test", ".example")),
        "check_reverse_client_hostname_access": _access((".dotted.test", "mail.good.test", "8.8", "fe80:")),
        "check_helo_access": _access(HOSTS),
        "check_sender_access": _mail_access(rng),
        "check_recipient_access": _mail_access(rng),
        "check_etrn_access": _access(("mail.good.test", ".x.test", ".example", "example")),
    }


def addresses(seed: int, count: int) -> list[str]:
    """Addresses in external form."""
    rng = random.Random(seed)
    lists = [f"{_with(user, extension)}@{ALIAS}" for user in LISTS for extension in ("", "+x")]
    special = [*lists, "+ext@out.test", "ann", "eve+x", "ann@out@sub.out.test"]
    return list(dict.fromkeys([*special, *(_address(rng) for _ in range(count))]))


def envelopes(seed: int, count: int) -> list[tuple[str, str]]:
    """Sender and recipient of messages; the null sender is one of them."""
    rng = random.Random(seed + 1)
    recipients = addresses(seed + 2, count)
    senders = ["", '"in out+ext"@forms.test', *(_address(rng) for _ in recipients[2:])]
    return list(zip(senders, recipients, strict=True))


def clients() -> list[tuple[str, str]]:
    """Name and address of SMTP clients, as XCLIENT spells them."""
    named = [(name, "8.8.4.4") for name in CLIENT_NAMES]
    both = [("x.dotted.test", "192.0.2.1"), ("good.test", "192.0.2.9"), ("bad.test", "203.0.113.5")]
    return [*named, *both, *((CLIENT_NAMES[0], address) for address in CLIENT_ADDRESSES)]


def _mapped(
    rng: random.Random,
    count: int,
    values: tuple[str, ...],
    fixed: Mapping[str, str],
    domains: tuple[str, ...] = DOMAINS,
) -> list[Row]:
    found = dict(fixed)
    for _ in range(count):
        found.setdefault(_key(rng, domains), rng.choice(values))
    return [Row(*item) for item in found.items()]


def _forms(value: str) -> dict[str, str]:
    """The internal form of the whole address comes before the external form without the extension."""
    return {'"in out"@forms.test': "DUNNO@out.test", "in out+ext@forms.test": value}


def _access(keys: tuple[str, ...]) -> list[Row]:
    return [Row(key, f"REJECT by {key}") for key in keys]


def _mail_access(rng: random.Random) -> list[Row]:
    fixed = ("<>", "sub.out.test", ".out.test", "example", ".example", "0.0.1]", "bob@", "eve+ext@",
             '"jan van"@', "at@sign@", "@out.test")  # fmt: skip
    found = {key: f"REJECT by {key}" for key in fixed}
    for _ in range(30):
        key = _key(rng, DOMAINS)
        found.setdefault(key, rng.choice(("DUNNO", f"REJECT by {key}")))
    return [Row(*item) for item in found.items()]


def _key(rng: random.Random, domains: tuple[str, ...]) -> str:
    """A row's key: an address, now and then a bare local part; folded, quoted or not."""
    kind = rng.random()
    local = _local_part(rng, rng.choice(EXTENSIONS) if kind < 0.4 else "")
    if local.startswith('"') and kind > 0.7:
        local = local[1:-1]  # the internal form, which is asked after the external one
    return (local if kind < 0.15 else f"{local}@{rng.choice(domains)}").lower()


def _address(rng: random.Random) -> str:
    domain = rng.choice(DOMAINS if rng.random() < 0.85 else STRANGE_DOMAINS)
    address = f"{_local_part(rng, rng.choice(EXTENSIONS))}@{domain}"
    return address.swapcase() if rng.random() < 0.1 else address


def _local_part(rng: random.Random, extension: str) -> str:
    return _with(rng.choice(USERS), extension)


def _with(user: str, extension: str) -> str:
    return f'{user[:-1]}{extension}"' if user.endswith('"') else user + extension
