"""What a door asks of the login service, and the four results: they never turn into each other.

A login is accepted or rejected; a lookup finds an account or knows that there is none; either may be
"cannot say now" (`mailmaps.maps.answer.Unavailable`), which is never "wrong password" nor "no such user".
Each door has words of its own for them; which of them a client sees is in docs/logins.md.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from mailmaps.maps.answer import Unavailable


class Password:
    """A password as the client gave it, in bytes; it does not show itself in a log, a repr or a traceback."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The password itself."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Password) and hmac.compare_digest(self._value, other.reveal())

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Password(...)"


@dataclass(frozen=True, slots=True)
class Login:
    """May this user log in? `user` as typed (ill-formed UTF-8 is escaped in it, PEP 383).

    `service` is Dovecot's or SASL's name for it (imap, smtp, ...), `client` the address he comes from; both
    are empty where the door does not know. `realm` is what saslauthd's client split off the name.
    """

    user: str
    password: Password
    service: str = ""
    client: str = ""
    realm: str = ""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Who is this user, for the service that asks (lmtp, doveadm, ...)?"""

    user: str
    service: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """Who is there?"""


Question = Login | Lookup | Listing


@dataclass(frozen=True, slots=True)
class Account:
    """What an account is given. `home` and `mail` (a Maildir) are absolute paths; None: not known here.

    `quota` is in MB as the how-to has it, 0 for no limit, None where nobody says.
    """

    username: str
    uid: int | None = None
    gid: int | None = None
    home: str | None = None
    mail: str | None = None
    quota: int | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The password is right and the account has the right; or the account that was looked up."""

    account: Account


@dataclass(frozen=True, slots=True)
class Rejected:
    """Wrong password, no such user, inactive, no right for this service: one and the same to the client."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A lookup: there is no such account for this service."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The usernames, or some of them and `more` to come."""

    usernames: tuple[str, ...]
    more: bool = False


Result = Accepted | Rejected | Unknown | Listed | Unavailable

REJECTED = Rejected()
UNKNOWN = Unknown()
