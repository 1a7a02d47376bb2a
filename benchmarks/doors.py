"""A mailmaps with every login door open, its accounts with passwords, and a Dovecot for each way to ask.

Contract: the first `CHEAP` accounts have hashes that cost microseconds, so that the doors are compared and
not the hash; a few more have those that `mailmaps hash` makes. No accepted login is remembered
(`remember = 0`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.clients import Door
from benchmarks.dataset import MAILAUTH
from benchmarks.dovecots import CHECKPASSWORD, CONSTANT, LUA, SQL, Dovecot
from benchmarks.peers import Mailmaps
from benchmarks.suite import Suite
from mailmaps.auth import passwords
from mailmaps.demo.data import BIG_DOMAIN

CHEAP = 20_000
CHEAP_SCHEME = "SSHA512"

DEAR = 100
"""Each takes 15 ms to make; far more than are under way at a time."""

SESSIONS = 64
"""Accounts whose users use IMAP; each has a Maildir after its first session."""

SET_PASSWORDS = """
UPDATE user_accounts a SET active = '1', password = made.password
FROM unnest($1::text[], $2::text[]) AS made (username, password) WHERE a.username = made.username
"""


@dataclass(frozen=True, slots=True)
class Doors:
    """What can be asked. Logins are lines of `user TAB password`, as logins.c takes them."""

    mailmaps: Mailmaps
    sockets: dict[str, Door]
    dovecots: dict[str, Dovecot]
    accounts: int
    dear: list[str]

    @property
    def all(self) -> dict[str, Door]:
        """Every door by its name, those of the Dovecots too."""
        dovecots = {f"Dovecot {way}": dovecot.auth_client for way, dovecot in self.dovecots.items()}
        return self.sockets | dovecots

    def logins(self, seed: int) -> list[str]:
        """Every account with a cheap hash once, in another order for each seed; without the last."""
        return [
            _login(number)
            for number in random.Random(seed).sample(range(self.accounts - 1), self.accounts - 1)
        ]

    @property
    def sessions(self) -> list[str]:
        """Logins for IMAP sessions."""
        return [_login(number) for number in range(min(SESSIONS, self.accounts))]

    @property
    def wrong(self) -> list[str]:
        """An account's wrong password, always the same: a repeated one is no guess."""
        return [f"user{self.accounts - 1}\twrong"]


@contextmanager
def doors(suite: Suite) -> Iterator[Doors]:
    """All of it, running."""
    accounts = min(CHEAP, suite.dataset.accounts // 2)
    dear = range(accounts, accounts + DEAR)
    _set_passwords(suite, range(accounts), CHEAP_SCHEME)
    _set_passwords(suite, dear, passwords.default_scheme())
    suite.cluster.fetch("VACUUM ANALYZE user_accounts", database=suite.dataset.database)
    folder = suite.folder / "doors"
    base = folder / "mail"
    domain = base / BIG_DOMAIN
    domain.mkdir(parents=True)
    domain.chmod(0o1777)  # every account's uid makes its Maildir here
    with ExitStack() as stack:
        mailmaps = stack.enter_context(suite.mailmaps(settings=_settings(suite, folder, base)))
        dovecots = {
            way: stack.enter_context(Dovecot(suite, mailmaps.daemon.config, way, base))
            for way in (SQL, LUA, CHECKPASSWORD, CONSTANT)
        }
        sockets = {
            "login socket, kept": Door("kept", folder / "login.sock"),
            "login socket": Door("login", folder / "login.sock"),
            "auth socket": Door("auth", folder / "auth"),
            "saslauthd": Door("mux", folder / "mux"),
        }
        yield Doors(mailmaps, sockets, dovecots, accounts, [_login(number) for number in dear])


def _settings(suite: Suite, folder: Path, base: Path) -> dict[str, dict[str, str | float]]:
    auth_dsn = suite.cluster.postgres.dsn(suite.dataset.database, MAILAUTH)
    return {
        "database": {"auth_dsn": auth_dsn},
        "auth": {"remember": 0.0},
        "login": {"unix": str(folder / "login.sock"), "group": "dovecot"},
        "dovecot_auth": {"unix": str(folder / "auth")},
        "saslauthd": {"unix": str(folder / "mux")},
        "postfix": {"virtual_mailbox_base": str(base)},
    }


def _login(number: int) -> str:
    return f"user{number}\tsecret-of-{number}"


def _set_passwords(suite: Suite, numbers: range, scheme: str) -> None:
    made = [passwords.make(f"secret-of-{number}".encode(), scheme) for number in numbers]
    users = [f"user{number}" for number in numbers]
    suite.cluster.fetch(SET_PASSWORDS, users, made, database=suite.dataset.database)
