"""Keys for `postmap -q`: what Postfix asks every day, and what nobody should ever ask. Seeded."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

DOMAINS = ("one.test", "two.test", "off.test", "relay.test", "alias.test", "mail.deep.three.test")
USERS = 60
"""Each domain has the mailboxes user0 to user59."""

ODD_LOCALS = (
    "o'brien",
    "'quoted'",
    "''",
    '"jane doe"',
    "back\\slash",
    "\\",
    "\\'",
    "per%cent",
    "%s",
    "%25",
    "under_score",
    "under%score",
    "user0+ext",
    "user1-ext",
    "a@b",
    "tab\there",
    " blank ",
    "ctrl\x01\x7f\r",
    "$1",
    "$$x$$",
    "E'\\n'",
    "--",
    "/*",
    "{}",
    "NULL",
    "now",
)
"""Local parts with a row of their own in the domain one.test."""

INJECTIONS = (
    "' OR '1'='1",
    "'; DROP TABLE alias; --",
    "x' UNION SELECT 'pwned",
    "\\' OR 1=1 --",
    "x') OR ('1'='1",
    "$$ OR 1=1",
    "user0@one.test'--",
    "user0@one.test' /*",
    "' || pg_sleep(9) || '",
    "%' OR '' LIKE '%",
)

_ALPHABET = "abcXYZ019._+-@@%'\"\\ \t\x01\x7f/*$;(){}[]<>,:!#&=?^`|~"


def mail_keys(seed: int, count: int) -> list[bytes]:
    """`count` different keys without NUL and LF, beside the special ones."""
    random_ = random.Random(seed)
    found = dict.fromkeys(_special())
    while len(found) < count:
        found.setdefault(_any(random_))
    return [key for key in found if key and b"\n" not in key and b"\0" not in key]


def _special() -> Iterator[bytes]:
    for domain in (*DOMAINS, "unknown.test", "", ".", "..", "test", "one.test.", "one..test", ".one.test"):
        for local in ("user0", "USER1", "", "info", "postmaster", "nobody", "@", "a@b"):
            yield f"{local}@{domain}".encode()
        yield domain.encode()
        yield domain.upper().encode()
    for local in (*ODD_LOCALS, *INJECTIONS):
        yield f"{local}@one.test".encode()
        yield local.encode()
        yield f"{local}@{local}".encode()
    for labels in (1, 2, 8, 9, 10, 130):
        yield ("user0@" + ".".join(["x"] * labels)).encode()
    yield from (b"u" * 3000 + b"@one.test", b"u@" + b"d" * 3000, b"x" * 20000, "ü@one.test".encode())
    yield from ("Ü@ÖNE.test".encode(), "straße@one.test".encode(), "用户@例え.test".encode())
    yield from (
        b"\xff\xfe@one.test",
        b"caf\xe9@one.test",
        b"a\x80b@one.test",
        b"\xc3@one.test",
        b"[192.0.2.1]",
    )
    yield from (b"user0@[192.0.2.1]", b"*", b"@", b"@@", b" ", b"user0", b"USER0", b'""', b"user0@ONE.Test")


def _any(random_: random.Random) -> bytes:
    kind = random_.random()
    domain = random_.choice(DOMAINS)
    user = f"user{random_.randrange(USERS + 20)}"
    if kind < 0.35:
        return f"{user}@{domain}".encode()
    if kind < 0.45:
        return _cased(random_, f"{user}@{domain}").encode()
    if kind < 0.55:
        return f"{random_.choice(ODD_LOCALS)}{random_.choice(('', user, '+x'))}@{domain}".encode()
    if kind < 0.6:
        return f"{user}{random_.choice(INJECTIONS)}@{domain}".encode()
    if kind < 0.65:
        return _cased(random_, random_.choice((f"@{user}.{domain}", f"{user}.{domain}", user))).encode()
    if kind < 0.7:
        return bytes(random_.choices(range(1, 256), k=random_.randint(1, 40)))
    return _text(random_, _ALPHABET).encode()


def _text(random_: random.Random, alphabet: Sequence[str]) -> str:
    return "".join(random_.choices(alphabet, k=random_.randint(1, 30)))


def _cased(random_: random.Random, text: str) -> str:
    return "".join(random_.choice((char, char.upper())) for char in text)
