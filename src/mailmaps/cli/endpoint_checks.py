"""The running daemon for `mailmaps check`: is it there, of these settings, and does each endpoint answer?

Each endpoint for tables and policy is asked a real question in its own protocol. The doors for logins are
only connected to: a guess there is counted against whoever makes it.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from mailmaps import __version__
from mailmaps.cli.ask import ask_daemon
from mailmaps.cli.options import Failure
from mailmaps.client import SocketmapClient, TcpTableClient, open_inet, open_unix
from mailmaps.config import Settings
from mailmaps.config.fingerprint import fingerprint
from mailmaps.config.section import split_inet
from mailmaps.findings import Finding, Level
from mailmaps.maps.answer import Answer, Unavailable

# A key that nobody has (RFC 2606). The search is made all the same.
PROBE = "mailmaps-check@mailmaps-check.invalid"

RESTART = "systemctl restart mailmaps, or mailmaps reload where only tables changed"

# What a policy request is answered without a look at anybody's counts (mailmaps.policy.service, WITH_SENDER).
_POLICY = b"request=smtpd_access_policy\nprotocol_state=CONNECT\nprotocol_name=ESMTP\n\n"

# Bytes of a reply that are looked at.
_ENOUGH = 4096

# Words with which mailmaps.client tells that there was no reply at all.
_NO_REPLY = ("no answer: ", "mailmaps closed the connection", "not a tcp_table reply")

Opened = AbstractContextManager[socket.socket]


def endpoint_findings(settings: Settings) -> list[Finding]:
    """One line if it does not run, else what is wrong with it."""
    status: dict[str, Any] | None
    try:
        status = ask_daemon(settings, {"command": "status"})
    except Failure as error:
        if settings.control.unix:
            text = f"does not run, or this user may not ask it ({error.message})"
            remedy = "systemctl start mailmaps; or run this as root"
            return [Finding(Level.WARNING, "daemon", text, remedy)]
        status = None
    findings = [] if status is None else list(_state(settings, status))
    findings += _tables(settings)
    findings += _policy(settings)
    findings += _doors(settings)
    findings += _health(settings)
    if not findings:
        findings.append(Finding(Level.OK, "daemon", "it runs, and answers at every endpoint"))
    return findings


def _state(settings: Settings, status: dict[str, Any]) -> Iterator[Finding]:
    version = status.get("version")
    if version is not None and version != __version__:
        yield Finding(Level.WARNING, "daemon", f"is of version {version}, this is {__version__}", RESTART)
    used = status.get("settings")
    if used is not None and used != fingerprint(settings):
        text = "runs with other settings than this file has"
        yield Finding(Level.WARNING, "daemon", text, "mailmaps reload")
    for view, mirror in status.get("mirrors", {}).items():
        if not mirror["proven"]:
            text = f"its mirror of {view} is not proven: {mirror['why']}"
            yield Finding(Level.WARNING, "daemon", text, "mailmaps status; until then it asks the database")
    for name, pool in status.items():
        if name.startswith("database") and isinstance(pool, dict) and pool.get("away"):
            yield Finding(Level.ERROR, f"daemon {name}", f"cannot be reached: {pool['away']}")


def _tables(settings: Settings) -> Iterator[Finding]:
    for name, table in settings.tables.items():
        if table.tcp:
            subject = f"tables.{name}.tcp {table.tcp}"
            yield from _asked(subject, _inet(table.tcp), lambda sock: TcpTableClient(sock).ask(PROBE))
    first = next(iter(settings.tables), None)
    doors: list[tuple[str, Callable[[], Opened]]] = []
    if settings.socketmap.inet:
        doors.append((f"socketmap.inet {settings.socketmap.inet}", _inet(settings.socketmap.inet)))
    if settings.socketmap.unix:
        doors.append((f"socketmap.unix {settings.socketmap.unix}", _unix(settings.socketmap.unix)))
    if first is not None:
        for subject, opened in doors:
            yield from _asked(subject, opened, lambda sock: SocketmapClient(sock, first).ask(PROBE))


def _asked(
    subject: str, opened: Callable[[], Opened], ask: Callable[[socket.socket], Answer]
) -> Iterator[Finding]:
    try:
        with opened() as sock:
            answer = ask(sock)
    except OSError as error:
        yield _unreachable(subject, error)
        return
    if isinstance(answer, Unavailable) and answer.reason.startswith(_NO_REPLY):
        text = f"somebody else answers there: {answer.reason}"
        yield Finding(Level.ERROR, subject, text, "who listens there? ss -ltnp")
    elif isinstance(answer, Unavailable):
        yield Finding(Level.ERROR, subject, f"cannot say: {answer.reason}", "mend the database, see above")


def _policy(settings: Settings) -> Iterator[Finding]:
    doors: list[tuple[str, Callable[[], Opened]]] = []
    if settings.policy.inet:
        doors.append((f"policy.inet {settings.policy.inet}", _inet(settings.policy.inet)))
    if settings.policy.unix:
        doors.append((f"policy.unix {settings.policy.unix}", _unix(settings.policy.unix)))
    for subject, opened in doors:
        try:
            with opened() as sock:
                sock.sendall(_POLICY)
                reply = sock.recv(_ENOUGH)
        except OSError as error:
            yield _unreachable(subject, error)
            continue
        if not reply.startswith(b"action="):
            yield Finding(Level.ERROR, subject, "somebody else answers there", "who listens there? ss -ltnp")


def _doors(settings: Settings) -> Iterator[Finding]:
    for name in ("login", "dovecot_auth", "saslauthd"):
        if path := getattr(settings, name).unix:
            yield from _connected(f"{name}.unix {path}", _unix(path))
    if inet := settings.dovecot_auth.inet:
        yield from _connected(f"dovecot_auth.inet {inet}", _inet(inet))


def _connected(subject: str, opened: Callable[[], Opened]) -> Iterator[Finding]:
    try:
        with opened():
            return
    except OSError as error:
        yield _unreachable(subject, error)


def _health(settings: Settings) -> Iterator[Finding]:
    """Where the settings have metrics."""
    inet = getattr(getattr(settings, "metrics", None), "inet", "")
    if not inet:
        return
    subject = f"metrics.inet {inet}"
    connection = http.client.HTTPConnection(*split_inet(inet), timeout=HTTP_LIMIT)
    try:
        connection.request("GET", "/healthz")
        code = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        yield _unreachable(subject, error)
        return
    finally:
        connection.close()
    if code != http.client.OK:
        yield Finding(Level.ERROR, subject, f"/healthz answers {code}", "mailmaps status")


# Seconds.
HTTP_LIMIT = 10.0


def _unreachable(subject: str, error: Exception) -> Finding:
    if isinstance(error, PermissionError):
        return Finding(Level.WARNING, subject, f"not tried: {error.strerror}", "run this as root")
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Finding(Level.ERROR, subject, f"nobody answers: {text}", RESTART)


def _inet(inet: str) -> Callable[[], Opened]:
    return lambda: open_inet(*split_inet(inet))


def _unix(path: str) -> Callable[[], Opened]:
    return lambda: open_unix(path)
