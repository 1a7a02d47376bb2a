"""Whom strangers write to, and as whom: the same addresses for the same seed.

Contract: `recipients` are addresses in the form that SMTP has them (RFC 5321, quoted where it must be, and
sometimes where it need not). Most start from a row of the site and are then bent: an extension, another
domain, upper case, quotes, a second `@`, odd bytes. Bytes that are not UTF-8 are in them as surrogates
(PEP 383). Which bytes occur is `EightBit`'s to say.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from enum import Enum

from tests.system.differential.settings import LOCAL, ORIGIN
from tests.system.sites.population import (
    ALIAS,
    CATCH,
    CATCH_ALIAS,
    CLOSED,
    DASHED,
    ELSEWHERE,
    MAIN,
    RELAY,
    SECOND,
    VIRTUAL,
)

STRANGER = "probe@sender.test"
"""A sender that no table knows."""


class EightBit(Enum):
    """Which bytes over 127 occur in addresses."""

    UTF8 = "well-formed UTF-8"
    RAW = "any"


DOMAINS = (*VIRTUAL, ALIAS, CATCH_ALIAS, RELAY, CLOSED, LOCAL)
STRANGE_DOMAINS = (
    f"sub.{RELAY}",
    f"deep.sub.{MAIN}",
    ORIGIN,
    ELSEWHERE,
    "[127.0.0.1]",
    "[192.0.2.1]",
    "asleep.test",
    "backup.test",
    "sub.backup.test",
    "test",
    f"{MAIN}.",
    "münchen.test",
    "пример.test",
    "xn--mnchen-3ya.test",
)
STRANGERS = ("nobody", "not.here", "x", "zoe", "root", "webmaster", "dash", "any.body", "members", "list")
EXTENSIONS = (
    "+ext",
    "+Ext",
    "+",
    "-",
    "-x",
    "+a-b",
    "-a+b",
    "-request",
    "+owner-",
    "++",
    "--",
    "+x+y",
    "+tag",
)
STRANGE_EXTENSIONS = (
    "+x%y",
    "+x!y",
    "+a b",
    "+a@b",
    "+c,d",
    "+<x>",
    "+(c)",
    "+:",
    '+\\"q',
    "+.",
    "+..",
    "+'",
)
PREFIXES = ("owner-", "+", "-", "owner-+")
SUFFIXES = ("-request", "-request+x", "+x-request")
CONTROLS = ("\t", "\x01", "\x7f", "\x1b", "\x0c")
LETTERS = ("é", "ß", "İ", "ſ", "Ä", "ø", "ο", "ς", "Σ", "я", "中", "😀", "e\u0301", "\u00ad", "ŉ")
RAW_BYTES = ("\udcff", "\udce9", "\udcc3", "\udc80", "\udcf6")

NEEDS_QUOTES = re.compile(r'[\x00-\x20\x7f@,<>():;"\\\[\]]|\.\.|^\.|\.$|^$')

SPECIAL = (
    f"+ext@{MAIN}",
    f"-@{MAIN}",
    f"owner-@{MAIN}",
    f"-request@{MAIN}",
    f"owner-list+x@{MAIN}",
    f"owner-list-x@{MAIN}",
    f"list-request+x@{MAIN}",
    f"members-request@{SECOND}",
    f"postmaster+x@{MAIN}",
    f"POSTMASTER-x@{MAIN}",
    f"Postmaster@{MAIN}",
    f"Mailer-Daemon+x@{MAIN}",
    f"double-bounce@{MAIN}",
    f"ann@{MAIN}.",
    f"ann@bob@{MAIN}",
    f"at+x@sign@{SECOND}",
    f'"at@sign"@{SECOND}',
    f'"ann"@{MAIN}',
    f'"ann+ext"@{MAIN}',
    f'"jan van+ext"@{SECOND}',
    f'"jan van"@{DASHED}',
    f'"Jan Van"@{MAIN}',
    f'""@{MAIN}',
    f'"+ext"@{MAIN}',
    f'"o\'neil"@{MAIN}',
    f'"\\a\\n\\n"@{MAIN}',
    f"ann%{SECOND}@{MAIN}",
    f"{SECOND}!ann",
    "ann",
    "webmaster",
    "webmaster+ext",
    f"webmaster@{LOCAL}",
    f"webmaster+other@{ORIGIN}",
    "webmaster@[127.0.0.1]",
    "postmaster",
    f"@{MAIN}",
    f"@{CATCH},@{SECOND}:ann@{MAIN}",
    f"x@dash-ed.{MAIN}",
    f"any+ext@{CATCH}",
    f'"any body"@{CATCH}',
    f'"any body+ext"@{CATCH_ALIAS}',
    f"Any+Ext@{CATCH_ALIAS}",
    f"info+ext@{ALIAS}",
    f"only.box@{ALIAS}",
    f"only.box+ext@{ALIAS}",
    f"any%body@{CATCH}",
    f"any_body+%@{CATCH}",
    f"loop+x@{MAIN}",
    "x" * 64 + f"@{MAIN}",
    "x" * 300 + f"+ext@{CATCH}",
    "x" * 960 + f"@{CATCH}",
    "x" * 960 + f"@{ALIAS}",
    "info+" + "y" * 900 + f"@{MAIN}",
    "info+" + "y" * 1500 + f"@{MAIN}",
    "ann@" + "d" * 300 + ".test",
    "ann@" + "sub." * 60 + RELAY,
)
"""Asked in every choice of settings."""

OWN_MESSAGE = re.compile(r"^(grow|nothing|glued|afar|percent|bang)\b", re.IGNORECASE)
"""What makes Postfix refuse a whole message, or may."""

LONG = 250
"""Characters from which an address may grow past a limit of Postfix, which costs the whole message."""


def needs_own_message(address: str) -> bool:
    """Whether a recipient may spoil the message for the others."""
    return len(address) > LONG or OWN_MESSAGE.search(address.lstrip('"')) is not None


def recipients(rng: random.Random, known: tuple[str, ...], eight_bit: EightBit, count: int) -> list[str]:
    """The special ones, some rows' own keys, and as many others as make `count`; none twice."""
    found = dict.fromkeys(SPECIAL[:count])
    found |= dict.fromkeys(rng.sample(known, min(len(known), (count - len(found)) // 3)))
    while len(found) < count:
        found[_recipient(rng, known, eight_bit)] = None
    return list(found)


def senders(rng: random.Random, known: tuple[str, ...], eight_bit: EightBit, count: int) -> list[str]:
    """The same for MAIL FROM; the null sender is one of them, and few are special."""
    made = [_recipient(rng, known, eight_bit) for _ in range(count)]
    return list(dict.fromkeys(["", STRANGER, *rng.sample(SPECIAL, min(len(SPECIAL), count // 4)), *made]))


def _recipient(rng: random.Random, known: tuple[str, ...], eight_bit: EightBit) -> str:
    local, domain = _split(rng.choice(known)) if rng.random() < 0.75 else (rng.choice(STRANGERS), MAIN)
    if not local:
        local = rng.choice(STRANGERS)
    if rng.random() < 0.3 or not domain:
        domain = rng.choice(DOMAINS if rng.random() < 0.8 else STRANGE_DOMAINS)
    for bend in _bends(rng, eight_bit):
        local = bend(local)
    quoted = NEEDS_QUOTES.search(local) is not None and rng.random() < 0.95
    address = f"{_quote(local) if quoted or rng.random() < 0.04 else local}@{domain}"
    return _cased(rng, address)


def _bends(rng: random.Random, eight_bit: EightBit) -> Iterator[Callable[[str], str]]:
    """What is done to a local part; most get an extension or nothing."""
    if rng.random() < 0.45:
        extension = rng.choice(EXTENSIONS if rng.random() < 0.75 else STRANGE_EXTENSIONS)
        yield lambda local: local + extension
    if rng.random() < 0.04:
        yield lambda local: rng.choice(PREFIXES) + local
    if rng.random() < 0.04:
        yield lambda local: local + rng.choice(SUFFIXES)
    if rng.random() < 0.06:
        odd = [CONTROLS, LETTERS, LETTERS] + [RAW_BYTES] * (2 if eight_bit is EightBit.RAW else 0)
        yield lambda local: _inserted(rng, local, rng.choice(rng.choice(odd)))
    if rng.random() < 0.02:
        yield lambda local: local + rng.choice(("x", "y.z")) * rng.randrange(10, 400)


def _inserted(rng: random.Random, local: str, text: str) -> str:
    where = rng.randrange(len(local) + 1)
    return local[:where] + text + local[where:]


def _split(key: str) -> tuple[str, str]:
    """A row's key as internal local part and domain; a bare local part has no domain."""
    local, at, domain = key.rpartition("@")
    local = local if at else domain
    if len(local) > 1 and local.startswith('"') and local.endswith('"'):
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    return local, domain if at else ""


def _quote(local: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'


def _cased(rng: random.Random, address: str) -> str:
    kind = rng.random()
    if kind < 0.08:
        return address.upper()
    return address.swapcase() if kind < 0.12 else address
