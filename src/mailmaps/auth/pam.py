"""Asks PAM whether a password is right, by python-pam; each call has an object of its own, for threads.

pam_setcred is left out (a mail daemon gives nobody credentials), the account is checked (pam_acct_mgmt). What
PAM's codes mean is in `REFUSALS`: everything else that is no success is "cannot say", a missing module or a
failing helper among them. pam_exec(8) says PAM_SYSTEM_ERR of a program that refuses: that too is "cannot
say", since PAM says the same when something broke.
"""

from __future__ import annotations

import os
from pathlib import Path

import pam

from mailmaps.maps.answer import CannotSay

# Where libpam looks for a service, in this order (pam.d(5)).
FOLDERS = (Path("/etc/pam.d"), Path("/usr/lib/pam.d"))

SHADOW = Path("/etc/shadow")

# security/_pam_types.h
REFUSALS = {
    pam.PAM_AUTH_ERR,
    pam.PAM_USER_UNKNOWN,
    pam.PAM_MAXTRIES,
    pam.PAM_PERM_DENIED,
    pam.PAM_ACCT_EXPIRED,
    pam.PAM_NEW_AUTHTOK_REQD,
    pam.PAM_CRED_INSUFFICIENT,
    pam.PAM_AUTHTOK_EXPIRED,
}


class PamError(Exception):
    """PAM cannot be used as the settings say."""


def check_service(service: str) -> None:
    """Raises `PamError` for a service that would refuse everybody, whatever the password.

    One without a file: libpam would ask "other". And pam_unix where we may not read /etc/shadow: behind the
    usual `@include common-auth` that is "wrong password" for all (pam_deny(8) follows), not "cannot say".
    """
    if _file(service) is None:
        raise PamError(f"auth.pam_service: there is no {FOLDERS[0] / service}")
    if SHADOW.exists() and not os.access(SHADOW, os.R_OK) and "pam_unix.so" in _words(service, set()):
        raise PamError(
            f"auth.pam_service: {service} asks pam_unix, which needs {SHADOW}, and this process may not read "
            "it: give it the group shadow"
        )


def _file(service: str) -> Path | None:
    return next((folder / service for folder in FOLDERS if (folder / service).is_file()), None)


def _words(service: str, seen: set[str]) -> set[str]:
    """All words of a service's file and of those that it includes (pam.d(5))."""
    file = _file(service)
    if file is None or service in seen:
        return set()
    seen.add(service)
    try:
        lines = [line.partition("#")[0].split() for line in file.read_text(errors="replace").splitlines()]
    except OSError:  # not for us to see: libpam will not either
        return set()
    found = {Path(word).name for line in lines for word in line}
    for line in lines:
        if line[:1] == ["@include"] or line[1:2] in (["include"], ["substack"]):
            found |= _words(line[-1], seen)
    return found


def ask(service: str, user: str, password: bytes) -> bool:
    """Whether PAM lets the user in; blocks for as long as its modules do. Raises `CannotSay`."""
    one = pam.PamAuthenticator()
    try:
        if one.authenticate(user.encode(errors="surrogateescape"), password, service, resetcreds=False):
            return True
    except (ValueError, OSError, UnicodeError) as error:  # a NUL; libpam missing; a message in no encoding
        raise CannotSay(f"PAM cannot be asked: {type(error).__name__}") from None
    if one.code in REFUSALS:
        return False
    reason = one.reason.decode("ascii", "replace") if isinstance(one.reason, bytes) else str(one.reason)
    raise CannotSay(f"PAM: {reason} ({one.code})")
