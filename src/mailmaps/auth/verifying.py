"""Who says whether a password is right: the hash that the database has, or PAM.

Both cost the same for a user who does not exist: the answer's time must not tell who does.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Protocol

from mailmaps.auth import passwords
from mailmaps.auth.accounts import Row, Source
from mailmaps.auth.attempt import Login
from mailmaps.auth.threads import Threads
from mailmaps.logs import events
from mailmaps.maps.answer import CannotSay

log = events(__name__)


class Verifier(Protocol):
    """Checks passwords."""

    async def is_right(self, login: Login, row: Row | None, rank: int) -> bool:
        """Whether the password is that of the account; None: there is no such account, which is never right.

        Of those that wait, the lower `rank` comes first. Raises `CannotSay`.
        """

    def close(self) -> None:
        """End what runs."""


class HashVerifier:
    """By the stored hash, in `threads`."""

    def __init__(self, source: Source, threads: Threads, *, default_scheme: str, allow_plain: bool) -> None:
        self._threads = threads
        self._decoys = Decoys(source)
        self._verify = partial(passwords.verify, default_scheme=default_scheme, allow_plain=allow_plain)

    async def is_right(self, login: Login, row: Row | None, rank: int) -> bool:
        stored = row.stored.reveal().decode(errors="replace") if row else ""
        exists = not passwords.is_locked(stored)
        if not exists:
            stored = await self._decoys.choose(login.user, self._threads)
        work = partial(
            self._verify, login.password.reveal(), stored, user=row.username if row else login.user
        )
        try:
            return await self._threads.run(work, rank) and exists
        except passwords.CannotVerify as error:
            if row is None or not exists:  # a sample is as bad as the account it is of
                return False
            log.warning("a stored password cannot be checked", user=row.username, reason=error)
            why = f"the stored password cannot be checked: {error}"
            raise CannotSay(why, about_key=True) from None

    def close(self) -> None:
        self._threads.close()


# Seconds after which the samples are taken anew: a site may be moving to another scheme.
FRESH = 3600.0


class Decoys:
    """What a password is checked against where there is no account: hashes that this site really has.

    The same name gets the same one for `FRESH` seconds, so that repeating a question tells nothing either.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._key = secrets.token_bytes(32)
        self._samples: list[str] = []
        self._until = 0.0  # time.monotonic()

    async def choose(self, user: str, threads: Threads) -> str:
        """A stored password. Raises `CannotSay`."""
        if monotonic() > self._until:
            samples = [one.reveal().decode(errors="replace") for one in await self._source.samples()]
            usable = [one for one in samples if not passwords.is_locked(one)]
            self._samples = usable or self._samples or [await threads.run(_made)]
            self._until = monotonic() + FRESH
        digest = hashlib.blake2b(user.encode(errors="surrogateescape"), key=self._key, digest_size=8).digest()
        return self._samples[int.from_bytes(digest) % len(self._samples)]


def _made() -> str:
    """A hash of nobody's password, for a site that has no accounts yet."""
    return passwords.make(secrets.token_hex(16).encode(), passwords.default_scheme())


# Whom PAM is asked for in place of a name that nobody has: what was typed may be a password, and PAM's
# modules log names.
NOBODY = "mailmaps-nobody"

AskPam = Callable[[str, bytes], bool]


class PamVerifier:
    """By PAM, in `threads`: `ask` is called with the user's name and password, and raises `CannotSay`."""

    def __init__(self, ask: AskPam, threads: Threads, *, strip_realm: bool) -> None:
        self._ask = ask
        self._threads = threads
        self._strip_realm = strip_realm

    async def is_right(self, login: Login, row: Row | None, rank: int) -> bool:
        name = row.username if row else NOBODY
        if self._strip_realm:
            name = name.rpartition("@")[0] or name
        password = login.password.reveal()
        if not password or b"\0" in password:
            return False
        try:
            return await self._threads.run(partial(self._ask, name, password), rank) and row is not None
        except CannotSay as error:
            if row is not None:
                log.warning("PAM cannot say", user=row.username, reason=error)
            raise

    def close(self) -> None:
        self._threads.close()
