"""The unix sockets that Postfix is told to use, for `mailmaps check`: is each where its client looks for it?

A client in master.cf's chroot sees the queue directory as its root; any other has the queue directory as its
working directory (master_main.c): a relative path means the same to both, an absolute one does not.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mailmaps.cli.main_cf import Reader
from mailmaps.cli.restrictions import asked, logs_in
from mailmaps.findings import Finding, Level

_SOCKETMAP = re.compile(r"socketmap:unix:([^\s,{}]+):[^\s,{}:]+")


def socket_findings(readers: Sequence[Reader]) -> list[Finding]:
    """What is wrong with the unix sockets of socketmap:, check_policy_service and smtpd_sasl_path."""
    return [found for reader in readers for found in _of_reader(reader)]


def _of_reader(reader: Reader) -> Iterator[Finding]:
    queue = Path(reader.values.get("queue_directory", "/var/spool/postfix"))
    for what, path in dict.fromkeys(_named(reader)):
        if reader.chrooted and Path(path).is_absolute() and not _exists(queue / path.lstrip("/")):
            yield Finding(
                Level.ERROR,
                reader.service,
                f"{what} names the socket {path}, which this service cannot see: it is in the chroot {queue}",
                f"a socket below {queue}, named relative to it; or n for chroot in master.cf",
            )
            continue
        place = queue / path.lstrip("/") if reader.chrooted else queue / path
        yield from _reachable(reader, what, place)


def _named(reader: Reader) -> Iterator[tuple[str, str]]:
    """The parameters that name a socket, and its path."""
    for name in reader.written:
        for path in _SOCKETMAP.findall(reader.values.get(name, "")):
            yield name, path
    if reader.program != "smtpd":
        return
    for one in asked(reader.values):
        family, _, path = one.endpoint.partition(":")
        if family == "unix" and path:
            yield one.parameter, path
    sasl = reader.values.get("smtpd_sasl_path", "")
    is_dovecot = reader.values.get("smtpd_sasl_type") == "dovecot"
    if logs_in(reader.values) and is_dovecot and not sasl.startswith("inet:"):
        yield "smtpd_sasl_path", sasl.removeprefix("unix:")


def _exists(path: Path) -> bool:
    with suppress(OSError):
        return path.exists()
    return False


def _reachable(reader: Reader, what: str, place: Path) -> Iterator[Finding]:
    """Whether it is there, and its client may connect: as mail_owner, which smtpd(8) becomes."""
    try:
        status = place.stat()
    except FileNotFoundError:
        text = f"{what} names the socket {place}, which is not there"
        yield Finding(
            Level.WARNING, reader.service, text, "does mailmaps run, and is the path that of mailmaps.toml?"
        )
        return
    except OSError as error:
        yield Finding(Level.WARNING, reader.service, f"{what}: {place}: {error.strerror}")
        return
    if not stat.S_ISSOCK(status.st_mode):
        yield Finding(Level.ERROR, reader.service, f"{what} names {place}, which is no socket")
        return
    owner = reader.values.get("mail_owner", "postfix")
    with suppress(KeyError, OSError):  # no such user here, or not for us to see
        closed = next(
            (folder for folder in place.parents if not may(owner, folder.stat(), stat.S_IXOTH)), None
        )
        if closed is not None or not may(owner, status, stat.S_IWOTH):
            yield Finding(
                Level.ERROR,
                reader.service,
                f"{what}: {owner} may not connect to {place}"
                + (f" ({closed} is closed to it)" if closed else ""),
                f"chmod o+x {closed}" if closed else "owner, group or mode of the socket in mailmaps.toml",
            )


def may(user: str, status: os.stat_result, permission: int) -> bool:
    """Whether somebody has a permission (that of others, S_IROTH say) by owner, own group or others.

    Raises `KeyError` for nobody.
    """
    account = pwd.getpwnam(user)
    if account.pw_uid == 0:
        return True
    if status.st_uid == account.pw_uid:
        return bool(status.st_mode & permission << 6)
    if status.st_gid in os.getgrouplist(user, account.pw_gid):
        return bool(status.st_mode & permission << 3)
    return bool(status.st_mode & permission)
