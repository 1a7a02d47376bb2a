"""The lines of Postfix (3.4 to 3.10), taken apart.

    smtpd(8)    ID: client=name[addr], sasl_method=PLAIN, sasl_username=jan         smtpd.c:2314
    cleanup(8)  ID: message-id=<...>                                                cleanup_message.c:630
    qmgr(8)     ID: from=<s>, size=1, nrcpt=1 (queue active)                        global/opened.c
    agents      ID: to=<r>, orig_to=<o>, relay=R, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (why)
                                                                                    global/log_adhoc.c
    smtpd(8)    NOQUEUE: reject: RCPT from name[addr]: 554 5.7.1 ...; from=<s> to=<r> proto=... helo=<h>
                                                                                    smtpd_check.c, log_whatsup

A `>` inside a quoted local part belongs to the address: clients choose addresses that look like the rest of a
line. What follows `reject:` is free text, cut where the context begins. Postfix cuts a line at 2000 bytes
(MSG_SYSLOG_RECLEN in msg_syslog.c), within what the other host said as a rule: the `)` may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mailmaps.report.events import (
    Came,
    Complaint,
    Connected,
    Ended,
    Event,
    Held,
    LoggedIn,
    LoginFailed,
    Named,
    Notified,
    Outcome,
    Queued,
    Refused,
)

_ADDRESS = r'(?:"(?:[^"\\]|\\.)*"|[^">])*'
_ID = re.compile(r"([0-9A-Za-z]{5,20}): (.*)", re.DOTALL)
_AGENT = re.compile(
    rf"to=<({_ADDRESS})>, (?:orig_to=<({_ADDRESS})>, )?relay=([^,]+), (?:\w+=[^,=]*, )*?"
    r"delay=[^,]*, delays=[^,]*, dsn=[^,]*, status=(\w+)(?: \((.*))?$",
    re.DOTALL,
)
_BROKEN = re.compile(  # a quote without an end: info_log_addr_form = internal
    r"to=<([^>]*)>, (?:orig_to=<([^>]*)>, )?relay=([^,]+), (?:\w+=[^,=]*, )*?"
    r"delay=[^,]*, delays=[^,]*, dsn=[^,]*, status=(\w+)(?: \((.*))?$",
    re.DOTALL,
)
_QUEUED = re.compile(rf"from=<({_ADDRESS}|[^>]*)>, size=(\d{{1,15}}), nrcpt=(\d{{1,9}}) \(queue active\)")
_LOGIN = re.compile(r", sasl_username=(.*?)(?:, (?:sasl_sender|orig_queue_id|orig_client|tls)=|$)")
_EARLIER = re.compile(r", orig_queue_id=([0-9A-Za-z]+)")
_REFUSED = re.compile(
    r"(reject|reject_warning|hold|discard|milter-reject|milter-hold|milter-discard|proxy-reject): "
    r"([A-Z-]{3,20})(?: from ([^\s\[]*)\[([^\]]*)\](?::\d+)?)?: (.*)",
    re.DOTALL,
)
_OF_CONTENT = re.compile(
    r"(reject|hold|discard|warning|milter-[a-z-]+): (header|body|mime-error) (.*)", re.DOTALL
)
_OF_CONTENT_TEXT = re.compile(r" from=<.* (?:helo=<[^>]*>|proto=\w+|to=<[^>]*>): (.*)$", re.DOTALL)
_CONTEXT = re.compile(r"; (?:from|to|proto|helo)=<?")
_TO = re.compile(rf" to=<({_ADDRESS})>")
_SASL = re.compile(
    r"([^\s\[]*)\[([^\]]*)\](?::\d+)?: SASL \S+ authentication failed: .*?(?:, sasl_username=(.*))?$",
    re.DOTALL,
)
_NOTIFIED = re.compile(r"(\w+ (?:non-delivery|delay|delivery status) notification): ([0-9A-Za-z]+)$")
_LEVEL = re.compile(r"(warning|error|fatal|panic): (.*)", re.DOTALL)
_UID = re.compile(r"uid=\d+ from=<.*> orig_id=([0-9A-Za-z]+)$", re.DOTALL)

# Nobody judged the password (xsasl_dovecot_server.c): a warning, no login that failed.
_AWAY = ("Connection lost to authentication server", "Authentication backend error")

UNKNOWN_USER = "(unavailable)"  # smtpd_sasl_glue.c:347


def _smtpd(queue_id: str, text: str, program: str) -> Event | None:
    if text.startswith("client="):
        login, earlier = _LOGIN.search(text), _EARLIER.search(text)
        if not queue_id:  # smtpd_proxy_filter: the mail comes again, behind the filter
            return None
        return Came(queue_id, login[1] if login else "", earlier[1] if earlier else "", program)
    return _refused(queue_id, text)


def _refused(queue_id: str, text: str) -> Event | None:
    match = _REFUSED.match(text)
    if match is None:
        return None
    kind, stage, _, client, said = match.groups()
    context = _CONTEXT.search(said)
    reply = said[: context.start()] if context else said
    to = _TO.search(said, context.start()) if context else None
    return Refused(queue_id, kind, stage, client or "", reply, to[1] if to else "")


def _cleanup(queue_id: str, text: str, program: str) -> Event | None:
    if text.startswith("message-id="):
        return Named(queue_id, text[11:].strip())
    if text.startswith("to=<"):
        return _agent(queue_id, text, program)
    match = _OF_CONTENT.match(text)
    if match is None:
        return _refused(queue_id, text)
    kind, what, rest = match.groups()
    said = _OF_CONTENT_TEXT.search(rest)
    to = _TO.search(rest)
    return Refused(queue_id, kind, what, "", f"{what}: {said[1]}" if said else what, to[1] if to else "")


def _qmgr(queue_id: str, text: str, program: str) -> Event | None:
    if text == "removed":
        return Ended(queue_id, "removed")
    if match := _QUEUED.match(text):
        return Queued(queue_id, match[1], int(match[2]), int(match[3]))
    if text.startswith("from=<") and text.endswith("returned to sender"):
        return Ended(queue_id, "expired")
    return _agent(queue_id, text, program)


def _agent(queue_id: str, text: str, program: str) -> Event | None:
    if not text.startswith("to=<"):
        return None
    match = _AGENT.match(text) or _BROKEN.match(text)
    if match is None:
        return None
    recipient, asked, relay, status, reason = match.groups()
    return Outcome(queue_id, recipient, asked or "", relay, status, (reason or "").removesuffix(")"), program)


def _pickup(queue_id: str, text: str, program: str) -> Event | None:
    if not text.startswith("uid="):
        return None
    earlier = _UID.match(text)
    return Came(queue_id, "", earlier[1] if earlier else "", program)


def _bounce(queue_id: str, text: str, program: str) -> Event | None:
    match = _NOTIFIED.match(text)
    return Notified(match[1], match[2]) if match else _agent(queue_id, text, program)


def _postsuper(queue_id: str, text: str, program: str) -> Event | None:
    if text in ("removed", "requeued"):
        return Ended(queue_id, "removed" if text == "removed" else "requeued")
    if text in ("placed on hold", "released from hold"):
        return Held(queue_id, text == "placed on hold")
    return None


_Reader = Callable[[str, str, str], "Event | None"]
_PROGRAMS: dict[str, _Reader] = {
    "smtpd": _smtpd,
    "cleanup": _cleanup,
    "qmgr": _qmgr,
    "nqmgr": _qmgr,
    "oqmgr": _qmgr,
    "pickup": _pickup,
    "bounce": _bounce,
    "postsuper": _postsuper,
    "postscreen": lambda queue_id, text, _: _refused(queue_id, text),
    "qmqpd": _smtpd,
    **dict.fromkeys(("smtp", "lmtp", "virtual", "local", "pipe", "error", "retry", "discard"), _agent),
}
# Programs that only complain, as far as the report goes.
_OTHERS = frozenset(
    "master anvil scache trivial-rewrite proxymap proxywrite tlsmgr tlsproxy verify flush defer trace showq "
    "spawn postlogd sendmail postdrop postqueue postalias postmap postfix-script postkick dnsblog "
    "postlog postcat".split()
)


def instance_of(program: str) -> str:
    """The instance of "postfix-out/smtpd" or "postfix/submission/smtpd": what its syslog_name begins with."""
    return program.partition("/")[0]


def read(program: str, text: str) -> Event | None:
    """The event of one line of `program` ("postfix/smtpd"), or None where it is none for us."""
    name = program[program.rfind("/") + 1 :]
    reader = _PROGRAMS.get(name)
    if reader is None and name not in _OTHERS:
        return None
    if text[:5] in _BEGINS and _LEVEL.match(text):
        return _complaint(name, text)
    if reader is None:
        return None
    if text.startswith("NOQUEUE: "):
        return reader("", text[9:], name)
    match = _ID.match(text)
    if match is not None:
        return reader(match[1], match[2], name)
    if text.startswith(("connect from ", "CONNECT from ")):
        return Connected()
    return None


_BEGINS = frozenset(("warni", "fatal", "error", "panic"))


def _complaint(name: str, text: str) -> Event | None:
    match = _LEVEL.match(text)
    if match is None:
        return None
    if name == "smtpd" and (sasl := _SASL.match(match[2])) and not any(one in match[2] for one in _AWAY):
        user = sasl[3] or ""
        return LoginFailed("smtp", "" if user == UNKNOWN_USER else user, sasl[2], 1)
    return Complaint(match[1], f"postfix/{name}", match[2])


def login_of(event: Came) -> LoggedIn | None:
    """Who had logged in when a mail came."""
    return LoggedIn("smtp", event.login) if event.login else None
