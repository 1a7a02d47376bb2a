"""The login service of one reading of the settings, with its connections to the database.

Contract: made whole or not at all (`SettingsError`); `start` connects and listens for changes, in the
background, since a database that is away does not keep us from starting: logins are then "cannot say".
"""

from __future__ import annotations

import os
from functools import partial
from ipaddress import ip_network

from mailmaps.auth import pam
from mailmaps.auth.accounts import Places
from mailmaps.auth.guesses import Guesses
from mailmaps.auth.remembered import Remembered
from mailmaps.auth.service import LoginService, Naming
from mailmaps.auth.threads import Threads
from mailmaps.auth.verifying import HashVerifier, PamVerifier, Verifier
from mailmaps.config import SettingsError
from mailmaps.config.settings import Settings
from mailmaps.database.changes import Changes
from mailmaps.database.connect import auth_database, connect, connect_to_listen, find_password
from mailmaps.database.login_changes import LoginChanges
from mailmaps.database.logins import LoginSource, needed_columns
from mailmaps.database.pool import Pool
from mailmaps.maps.answer import CannotSay
from mailmaps.maps.search import Rules

# A login that nobody has: RFC 2606 reserves .invalid.
PROBE = "mailmaps-check@mailmaps-check.invalid"


class Logins:
    """The service and what is behind it."""

    def __init__(self, settings: Settings, rules: Rules, before: Logins | None = None) -> None:
        """`rules` are those of the tables; what `before` knows of guesses is known here too.

        Raises `SettingsError`: a password file that cannot be read, a PAM service that has no file.
        """
        auth, postfix = settings.auth, settings.postfix
        database = auth_database(settings.database)
        find_password(database)
        self.dsn = "database.auth_dsn" if settings.database.auth_dsn else "database.dsn"
        self._pool = Pool(lambda: connect(database, for_lookups=True), auth.connections, self.dsn)
        needed = needed_columns(auth.backend)
        self._source = source = LoginSource(self._pool, auth.source, database.lookup_deadline, needed)
        remembered = Remembered(auth.remember)
        listening = settings.database if settings.database.listen_dsn else database
        listen = partial(connect_to_listen, listening, {})
        self._changes = Changes(listen, LoginChanges(remembered), "logins")
        self._shared_clients = auth.shared_clients
        self._guesses: Guesses = (
            before._guesses
            if before is not None and before._shared_clients == auth.shared_clients
            else Guesses([ip_network(network) for network in auth.shared_clients])
        )
        self.service: LoginService = LoginService(
            source,
            _verifier(settings, source),
            self._guesses,
            remembered,
            naming=Naming(auth.names, auth.realm),
            places=Places(postfix.virtual_mailbox_base, auth.home_base, postfix.virtual_minimum_uid),
            rules=rules,
            counts=None if before is None else before.service.counts,
        )

    def start(self) -> None:
        """Begin to connect."""
        self._pool.start()
        self._changes.start()

    async def tried(self) -> list[str]:
        """Wait for the first connection and try the view; returns what could not be done, and why."""
        await self._pool.tried()
        if self._pool.away:
            return [f"{self.dsn}: {self._pool.away}"]
        try:
            await self._source.find([PROBE])
        except CannotSay as error:
            return [f"auth.source: {error}"]
        return []

    async def idle(self) -> None:
        """Wait until no login is under way."""
        await self.service.idle()

    async def close(self) -> None:
        """End every connection, and all that is under way."""
        self.service.close()
        await self._changes.close()
        await self._pool.close()

    @property
    def away(self) -> str | None:
        """Why the database cannot be reached, while that is so."""
        return self._pool.away

    @property
    def state(self) -> dict[str, object]:
        """For `mailmaps status`."""
        return {"counts": dict(sorted(self.service.counts.items()))}

    @property
    def pool(self) -> dict[str, object]:
        """The connections, for the same."""
        return self._pool.state

    @property
    def changes(self) -> dict[str, object]:
        """Whether changes are heard of, for the same."""
        return self._changes.state


def _verifier(settings: Settings, source: LoginSource) -> Verifier:
    auth = settings.auth
    if auth.backend == "pam":
        try:
            pam.check_service(auth.pam_service)
        except pam.PamError as error:
            raise SettingsError([str(error)]) from None
        threads = Threads("logins at PAM", auth.pam_threads, auth.queue)
        return PamVerifier(partial(pam.ask, auth.pam_service), threads, strip_realm=auth.pam_strip_realm)
    threads = Threads("passwords to be hashed", auth.threads or os.cpu_count() or 1, auth.queue)
    return HashVerifier(source, threads, default_scheme=auth.default_scheme, allow_plain=auth.allow_plain)
