"""Our own login protocol, for Dovecot's checkpassword.py and mailmaps.lua: one line each way, in order.

    LOGIN <TAB> user=NAME <TAB> password=... <TAB> service=imap <TAB> rip=192.0.2.1 <TAB> dovecot=2.3
    LOOKUP <TAB> user=NAME <TAB> service=lmtp <TAB> dovecot=2.4
    LIST

    OK <TAB> user=NAME <TAB> uid=5001 ...    userdb fields as the asking Dovecot (`dovecot=`) calls them
    NO                                       LOGIN: rejected
    UNKNOWN                                  LOOKUP: no such account
    LATER <TAB> REASON                       cannot say now
    USER <TAB> NAME                          LIST: each username, then OK

Fields are escaped as Dovecot does (`mailmaps.protocols.tab_escaped`), unknown names are ignored. The
connection stays open; it is closed for a line that is none of these.
"""

from __future__ import annotations

from mailmaps.auth.attempt import (
    Accepted,
    Account,
    Listed,
    Listing,
    Login,
    Lookup,
    Password,
    Question,
    Rejected,
    Result,
    Unknown,
)
from mailmaps.maps.answer import Unavailable
from mailmaps.protocols.asked import Asked, LoginProtocolError
from mailmaps.protocols.request import reason_bytes
from mailmaps.protocols.tab_escaped import Lines, escape, parameters

# A checkpassword program is given 512 bytes (facts/dovecot.md 1.1); Lua may have more, each escaped.
LONGEST_LINE = 16384


class LoginLines:
    """One client of the login socket."""

    name = "login"
    greeting = b""
    in_order = True
    is_finished = False

    def __init__(self) -> None:
        self._lines = Lines(LONGEST_LINE)

    def feed(self, data: bytes) -> list[bytes | Asked]:
        """Take what arrived. Raises `LoginProtocolError`."""
        items: list[bytes | Asked] = []
        for line in self._lines.feed(data):
            asked = _asked(line)
            if asked is None:
                raise LoginProtocolError("not a line of the login protocol", items)
            items.append(asked)
        if self._lines.is_over:
            raise LoginProtocolError(f"a line is longer than {LONGEST_LINE} bytes", items)
        return items

    def encode(self, asked: Asked, result: Result) -> bytes:
        """The reply."""
        match result:
            case Accepted(account):
                return _line(b"OK", userdb_fields(account, asked.tag))
            case Rejected():
                return b"NO\n"
            case Unknown():
                return b"UNKNOWN\n"
            case Listed(usernames, more):
                names = b"".join(b"USER\t" + escape(_bytes(name)) + b"\n" for name in usernames)
                return names if more else names + b"OK\n"
            case Unavailable(reason):
                return b"LATER\t" + escape(reason_bytes(reason)) + b"\n"


def _asked(line: bytes) -> Asked | None:
    command, *fields = line.split(b"\t")
    given = parameters(fields)

    def text(name: str) -> str:
        return given.get(name, b"").decode(errors="surrogateescape")

    question: Question
    if command == b"LOGIN" and "user" in given and "password" in given:
        question = Login(text("user"), Password(given["password"]), text("service"), text("rip"))
    elif command == b"LOOKUP" and "user" in given:
        question = Lookup(text("user"), text("service"))
    elif command == b"LIST":
        question = Listing()
    else:
        return None
    return Asked(question, text("dovecot"))


def userdb_fields(account: Account, dovecot: str) -> dict[str, str]:
    """The account as userdb fields of a Dovecot: "2.3", else those of 2.4 (facts/dovecot.md 7).

    `quota` 0 lifts a limit that Dovecot's own settings have; without `quota` theirs counts.
    """
    fields: dict[str, object] = {
        "user": account.username,
        "uid": account.uid,
        "gid": account.gid,
        "home": account.home,
    }
    if dovecot == "2.3":
        # What follows a colon would be an option (INDEX=...); two are one (split_next_arg() in
        # src/lib-storage/mailbox-list.c of 2.3.19.1).
        fields["mail"] = None if account.mail is None else "maildir:" + account.mail.replace(":", "::")
        fields["quota_rule"] = None if account.quota is None else f"*:storage={account.quota}M"
    else:
        fields["mail_driver"] = None if account.mail is None else "maildir"
        fields["mail_path"] = account.mail
        fields["quota_storage_size"] = None if account.quota is None else f"{account.quota}M"
    return {name: str(value) for name, value in fields.items() if value is not None}


def _line(word: bytes, fields: dict[str, str]) -> bytes:
    return (
        b"\t".join(
            [word, *(b"%s=%s" % (name.encode(), escape(_bytes(value))) for name, value in fields.items())]
        )
        + b"\n"
    )


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
