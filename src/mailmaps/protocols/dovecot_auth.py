"""Dovecot's auth protocol, as a server for Postfix (`smtpd_sasl_type = dovecot`): PLAIN and LOGIN.

    S: VERSION 1 2 / MECH PLAIN plaintext / MECH LOGIN plaintext / SPID n / CUID n / COOKIE hex / DONE
    C: VERSION 1 0 / CPID n
    C: AUTH id mechanism service=smtp rip=ADDRESS [resp=BASE64]        C: CONT id BASE64        C: CANCEL id
    S: CONT id BASE64      |  OK id user=NAME  |  FAIL id    or the end of the connection

(developers/design/auth_protocol.md of Dovecot, version 1.3; src/xsasl/xsasl_dovecot_server.c of Postfix.) The
greeting goes out at once and whole: Postfix waits for it after its own two lines, others read first; every
MECH stands before SPID, or Postfix dies of "wrong auth socket". To Postfix every FAIL is a permanent 535,
whatever stands in it, so that "cannot say" is the end of the connection: 454. Postfix has one question
outstanding on a connection, so nobody else's is lost by that.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from itertools import count

from mailmaps.auth.attempt import Accepted, Login, Password, Rejected, Result
from mailmaps.protocols.asked import Asked, LoginProtocolError
from mailmaps.protocols.tab_escaped import Lines, escape, parameters

# Postfix passes on 12288 bytes of base64 (smtpd_sasl_response_limit), an AUTH line has names besides.
LONGEST_LINE = 16384

# Dialogs that have begun and not ended: a client that gives up (`*`) sends no CANCEL, so the oldest go.
MOST_BEGUN = 64

_CONNECTIONS = count(1)

_ASK_USER = base64.b64encode(b"Username:")
_ASK_PASSWORD = base64.b64encode(b"Password:")


class _Dialog:
    """One AUTH under way: what was said so far."""

    __slots__ = ("client", "mechanism", "service", "user")

    def __init__(self, mechanism: str, service: str, client: str) -> None:
        self.mechanism = mechanism
        self.service = service
        self.client = client
        self.user: bytes | None = None  # LOGIN: the first answer


class DovecotAuth:
    """One client of the auth socket."""

    name = "dovecot_auth"
    in_order = False
    is_finished = False

    def __init__(self) -> None:
        self._lines = Lines(LONGEST_LINE)
        self._begun: dict[str, _Dialog] = {}  # by id, the oldest first
        self._asked: set[str] = set()  # ids whose result is waited for
        self.greeting = (
            "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\n"
            f"SPID\t{os.getpid()}\nCUID\t{next(_CONNECTIONS)}\nCOOKIE\t{secrets.token_hex(16)}\nDONE\n"
        ).encode()

    def feed(self, data: bytes) -> list[bytes | Asked]:
        """Take what arrived. Raises `LoginProtocolError`."""
        items: list[bytes | Asked] = []
        for line in self._lines.feed(data):
            item = self._line(line, items)
            if item is not None:
                items.append(item)
        if self._lines.is_over:
            raise LoginProtocolError(f"a line is longer than {LONGEST_LINE} bytes", items)
        return items

    def encode(self, asked: Asked, result: Result) -> bytes | None:
        """The reply; None: close. Empty: it was cancelled."""
        number = asked.tag
        if number not in self._asked:
            return b""
        self._asked.discard(number)
        match result:
            case Accepted(account):
                return b"OK\t%s\tuser=%s\n" % (number.encode(), _field(account.username))
            case Rejected():
                return _fail(number)
            case _:
                return None

    def _line(self, line: bytes, items: list[bytes | Asked]) -> bytes | Asked | None:
        command, *fields = line.split(b"\t")
        if command == b"VERSION":
            if not fields or fields[0] != b"1":
                raise LoginProtocolError("another major version of the auth protocol", items)
            return None
        if command not in (b"AUTH", b"CONT", b"CANCEL"):
            return None  # CPID and whatever a later minor version has
        number = fields[0].decode("ascii", "replace") if fields else ""
        if not (number.isascii() and number.isdecimal() and len(number) <= 10):
            raise LoginProtocolError("a request without a number", items)
        if command == b"CANCEL":
            self._begun.pop(number, None)
            self._asked.discard(number)
            return None
        if command == b"AUTH":
            if len(fields) < 2 or number in self._begun or number in self._asked:
                raise LoginProtocolError("an AUTH without mechanism, or with a number in use", items)
            return self._auth(number, fields[1], fields[2:])
        return self._cont(number, fields[1] if len(fields) > 1 else b"")

    def _auth(self, number: str, mechanism: bytes, fields: list[bytes]) -> bytes | Asked:
        # resp= is the last and is base64, which may look like nothing else; the rest is name=value.
        given = parameters(fields)
        name = mechanism.decode("ascii", "replace").upper()  # Postfix passes on what the client typed
        if name not in ("PLAIN", "LOGIN"):
            return _fail(number)
        service, client = (given.get(one, b"").decode(errors="surrogateescape") for one in ("service", "rip"))
        # Postfix says what smtpd_sasl_service is; whatever that may be, mail is sent.
        dialog = _Dialog(name, service if service in ("imap", "pop3", "sieve") else "smtp", client)
        if "resp" in given:
            return self._said(number, dialog, given["resp"])
        self._begin(number, dialog)
        return b"CONT\t%s\t%s\n" % (number.encode(), b"" if name == "PLAIN" else _ASK_USER)

    def _cont(self, number: str, said: bytes) -> bytes | Asked:
        dialog = self._begun.pop(number, None)
        return _fail(number) if dialog is None else self._said(number, dialog, said)

    def _said(self, number: str, dialog: _Dialog, said: bytes) -> bytes | Asked:
        """The client's answer in base64; `=` alone is an empty one (RFC 4954)."""
        try:
            answer = b"" if said == b"=" else base64.b64decode(said, validate=True)
        except (binascii.Error, ValueError):
            return _fail(number)
        if dialog.mechanism == "PLAIN":
            return self._plain(number, dialog, answer)
        if dialog.user is None:
            dialog.user = answer
            self._begin(number, dialog)
            return b"CONT\t%s\t%s\n" % (number.encode(), _ASK_PASSWORD)
        return self._ask(number, dialog, dialog.user, answer)

    def _plain(self, number: str, dialog: _Dialog, answer: bytes) -> bytes | Asked:
        """[authzid] NUL authcid NUL password (RFC 4616); nobody acts for somebody else here."""
        parts = answer.split(b"\0")
        if len(parts) != 3 or parts[0] not in (b"", parts[1]):
            return _fail(number)
        return self._ask(number, dialog, parts[1], parts[2])

    def _ask(self, number: str, dialog: _Dialog, user: bytes, password: bytes) -> Asked:
        self._asked.add(number)
        name = user.decode(errors="surrogateescape")
        return Asked(Login(name, Password(password), dialog.service, dialog.client), number)

    def _begin(self, number: str, dialog: _Dialog) -> None:
        self._begun[number] = dialog
        while len(self._begun) > MOST_BEGUN:
            del self._begun[next(iter(self._begun))]


def _fail(number: str) -> bytes:
    """Without `user=`, which Postfix would log: some type their password where the name belongs."""
    return b"FAIL\t%s\n" % number.encode()


def _field(text: str) -> bytes:
    return escape(text.encode(errors="surrogateescape"))
