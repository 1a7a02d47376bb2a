"""Which mailbox a row may name: a path below virtual_mailbox_base that leads nowhere else."""

from __future__ import annotations

import re

LONGEST_NAME = 255  # bytes: NAME_MAX of Linux's file systems
LONGEST_PATH = 3584  # bytes: PATH_MAX is 4096 with the base before and the message's name behind

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


def mailbox_problem(mailbox: str) -> str:
    """Why no mail would be delivered to this mailbox, or not where one thinks; empty if it would."""
    if _CONTROL.search(mailbox.encode(errors="surrogateescape")):
        return "its mailbox has control characters"
    names = mailbox.encode(errors="surrogateescape").split(b"/")
    if b".." in names:
        return "its mailbox leads upwards (..)"
    if not any(names):
        return "its mailbox is virtual_mailbox_base itself"
    if sum(map(len, names)) + len(names) > LONGEST_PATH or max(map(len, names)) > LONGEST_NAME:
        return "its mailbox has too long a name"
    return ""
