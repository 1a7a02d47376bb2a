"""Whether a uid or gid is somebody's on this system."""

from __future__ import annotations

import grp
import pwd


def uid_taken(uid: int) -> bool:
    """Whether /etc/passwd and its like have it."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def gid_taken(gid: int) -> bool:
    """Whether /etc/group and its like have it."""
    try:
        grp.getgrgid(gid)
    except KeyError:
        return False
    return True
