"""Right passwords, known for a short time: phones open ten connections at once.

What is kept is a keyed digest (BLAKE2b with a key of this process) of name and password, never a password.
It is forgotten after `ttl` seconds, and all of it at any change of an account that is notified; while changes
are not heard of, nothing is kept for longer than `DEAF_TTL`. `epoch` is read before an account is looked up:
what was found before a change is not kept after it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from time import monotonic

from mailmaps.auth.accounts import Row
from mailmaps.auth.attempt import Login

# Entries; an entry is some 500 bytes.
MOST = 20_000

# Seconds, while changes are not heard of: enough for the connections that one client opens together.
DEAF_TTL = 2.0


class Remembered:
    """Rows by the digest of the login that was accepted."""

    def __init__(self, ttl: float, clock: Callable[[], float] = monotonic) -> None:
        self._ttl = ttl
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._rows: dict[bytes, tuple[float, Row]] = {}  # until when; the oldest first
        self._hears = False
        self.epoch = 0

    def digest(self, login: Login) -> bytes:
        """Stands for name and password; the same for no other."""
        text = hashlib.blake2b(digest_size=32, key=self._key)
        for part in (login.user, login.realm):
            encoded = part.encode(errors="surrogateescape")
            text.update(len(encoded).to_bytes(8, "big") + encoded)
        text.update(login.password.reveal())
        return text.digest()

    def get(self, digest: bytes) -> Row | None:
        """The row, if the login was accepted a short time ago."""
        until, row = self._rows.get(digest, (0.0, None))
        return row if self._clock() < until else None

    def put(self, digest: bytes, row: Row, epoch: int) -> None:
        """Keep an accepted login that was looked up at `epoch`."""
        ttl = self._ttl if self._hears else min(self._ttl, DEAF_TTL)
        if epoch != self.epoch or ttl <= 0:
            return
        self._rows.pop(digest, None)
        self._rows[digest] = (self._clock() + ttl, row)
        if len(self._rows) > MOST:
            del self._rows[next(iter(self._rows))]

    def forget(self) -> None:
        """Some account may have changed."""
        self.epoch += 1
        self._rows.clear()

    def hears(self, hears: bool) -> None:
        """Whether changes are told from now on; what was kept before may have changed."""
        self._hears = hears
        self.forget()
