"""Asks PAM whether a password is right, by python-pam; each call has an object of its own, for threads.

pam_setcred is left out (a mail daemon gives nobody credentials), the account is checked (pam_acct_mgmt). What
PAM's codes mean is in `REFUSALS`: everything else that is no success is "cannot say", a missing module or a
failing helper among them. pam_exec(8) says PAM_SYSTEM_ERR of a program that refuses: that too is "cannot
say", since PAM says the same when something broke.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pam

from mailmaps.maps.answer import CannotSay

log = logging.getLogger(__name__)

# Where libpam looks for a service, in this order (pam.d(5)).
FOLDERS = (Path("/etc/pam.d"), Path("/usr/lib/pam.d"))

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
    """Raises `PamError` where a service has no file: libpam would ask "other", which refuses everybody."""
    if not any((folder / service).is_file() for folder in FOLDERS):
        raise PamError(f"auth.pam_service: there is no {FOLDERS[0] / service}")


def ask(service: str, user: str, password: bytes) -> bool:
    """Whether PAM lets the user in; blocks for as long as its modules do. Raises `CannotSay`."""
    one = pam.PamAuthenticator()
    try:
        if one.authenticate(user.encode(errors="surrogateescape"), password, service, resetcreds=False):
            return True
    except (ValueError, OSError, UnicodeError) as error:  # a NUL; libpam missing; a message in no encoding
        log.error("PAM cannot be asked: %s", type(error).__name__)
        raise CannotSay("PAM cannot be asked") from None
    if one.code in REFUSALS:
        return False
    reason = one.reason.decode("ascii", "replace") if isinstance(one.reason, bytes) else str(one.reason)
    log.error("PAM cannot say whether %a may log in: %s (%d)", user, reason, one.code)
    raise CannotSay(f"PAM: {reason} ({one.code})")
