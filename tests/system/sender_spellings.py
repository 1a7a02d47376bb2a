"""Senders as nobody writes them, made by chance: for tests that compare two who must understand them alike.

Contract: `Spellings(seed)` gives the same ones each time. `odd` is any text that could be an address in
internal form; `typed` is one as a client may put between `MAIL FROM:<` and `>`, most of them meaning one of
ours.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_WORDS = ("anna", "Anna", "bob", "a", "b c", "anna+x", "ü", "[192.0.2.9]", "[127.0.0.1]", "host", "x")
_SIGNS = (*'@@@@@%%%!!!..:,\\"()[];<>|+- \t', "..")


class Spellings:
    """`domains` are names of domains that mean something to the Postfix under test."""

    def __init__(self, seed: int, domains: Sequence[str]) -> None:
        self._random = random.Random(seed)
        self._domains = (*domains, *(domain.upper() for domain in domains))

    def odd(self) -> str:
        """Words and routing characters in any order; never empty or blank."""
        pick = self._random
        while True:
            parts = [
                pick.choice((*_WORDS, *self._domains)) if pick.random() < 0.6 else pick.choice(_SIGNS)
                for _ in range(pick.randint(1, pick.choice([2, 4, 8])))
            ]
            end = f"@{pick.choice(self._domains)}{pick.choice(['', '.'])}" if pick.random() < 0.5 else ""
            if text := "".join((*parts, end)).strip():
                return text

    def typed(self, addresses: Sequence[str]) -> str:
        """One of `addresses`, or near to one, in some spelling."""
        pick = self._random
        local, _, domain = pick.choice(addresses).rpartition("@")
        if pick.random() < 0.2:
            domain = pick.choice(self._domains)
        changes: list[Callable[[], tuple[str, str]]] = [
            lambda: (local, domain),
            lambda: (_case(pick, local), _case(pick, domain)),
            lambda: (f"{local}+{pick.choice(['x', 'X.y', '', '+', 'ü'])}", domain),
            lambda: (f'"{local}"', domain),
            lambda: (f'"{local}+a b"', domain),
            lambda: (f'"\\{local}"', domain),
            lambda: (f"{local}{pick.choice(['.', '..x', '.x'])}", domain),
            lambda: (local, f"{domain}."),
            lambda: (local, domain.partition(".")[0]),
            lambda: (local, ""),
            lambda: (f"{local}%{domain}", pick.choice(("", *self._domains))),
            lambda: (f"{domain}!{local}", pick.choice(("", *self._domains))),
            lambda: (f'"{local}@{domain}"', pick.choice(self._domains)),
            lambda: (f'"{local}@{domain.partition(".")[0]}"', pick.choice(self._domains)),
            lambda: (f'"{local} x%{domain}"', pick.choice(self._domains)),
            lambda: (f'"{domain}!{local} x"', pick.choice(self._domains)),
            lambda: (f"@{pick.choice(self._domains)}:{local}", domain),
            lambda: (f"{local}@{domain}", pick.choice(self._domains)),
            lambda: (local, pick.choice(["[127.0.0.1]", "[192.0.2.9]", "[IPv6:::1]"])),
            lambda: (_case(pick, local) + pick.choice(["ß", "İ", "ſ"]), domain),
            lambda: ('""', domain),
        ]
        user, site = pick.choice(changes)()
        return f"{user}@{site}" if site else user


def _case(pick: random.Random, text: str) -> str:
    return "".join(pick.choice((char.upper(), char.lower())) for char in text)
