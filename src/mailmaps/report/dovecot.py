"""The lines of Dovecot's login processes (2.2 to 2.4): who came in, who did not.

    imap-login: Login: user=<jan>, method=PLAIN, rip=192.0.2.1, lip=..., mpid=..., session=<...>
    imap-login: Disconnected: Connection closed (auth failed, 2 attempts in 4 secs): user=<jan>, method=...
    imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<>, ...                  (2.2)
    imap-login: Login aborted: ... (auth failed, 1 attempts in 2 secs) (auth_failed): user=<jan>, ...  (2.4)

src/login-common/client-common.c, client_get_extra_disconnect_reason. What broke off without a wrong password
("no auth attempts") is no login that failed. `login_log_format_elements` is taken to be the default.
"""

from __future__ import annotations

import re

from mailmaps.report.events import Complaint, Event, LoggedIn, LoginFailed

_DOOR = re.compile(r"([a-z0-9-]{1,20})-login: (?:Info: )?(.*)", re.DOTALL)
_USER = re.compile(r"user=<(.*?)>(?:,|$)")
_CLIENT = re.compile(r", rip=([0-9A-Fa-f.:]+)")
_ATTEMPTS = re.compile(r"\((?:auth|authorization) failed, (\d{1,6}) attempts")
_OTHER_FAILURES = ("(user disabled)", "(password expired)", "(login disabled)")
_LEVEL = re.compile(
    r"(?:[a-z0-9-]+(?:\([^)]{0,320}\))?(?:<[^>]{0,100}>)*: )?(Warning|Error|Fatal|Panic): (.*)", re.DOTALL
)


def read(text: str) -> Event | None:
    """The event of one line of Dovecot, or None."""
    match = _DOOR.match(text)
    if match is None or match[2].startswith(("Error: ", "Warning: ", "Fatal: ", "Panic: ")):
        level = _LEVEL.match(text)
        return Complaint(level[1].lower(), "dovecot", level[2]) if level else None
    door, said = match.groups()
    user, client = _USER.search(said), _CLIENT.search(said)
    name = user[1] if user else ""
    if said.startswith(("Login: ", "Logged in: ")):
        return LoggedIn(door, name) if name else None
    attempts = _ATTEMPTS.search(said)
    if attempts is None and not any(words in said for words in _OTHER_FAILURES):
        return None
    return LoginFailed(door, name, client[1] if client else "", int(attempts[1]) if attempts else 1)
