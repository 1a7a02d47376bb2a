"""What a policy service can say: no opinion, or an explicit refusal. Never that something is permitted.

access(5) knows more, OK, RELAY, digits and names of restrictions among it, each of which would end the
restrictions that follow, `reject_unauth_destination` perhaps: an open relay. None of them can be made here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Word(Enum):
    """The first word, with the enhanced status code (RFC 3463) where it has one."""

    DUNNO = "DUNNO"
    # Not now, unless it is refused for good by something else: at MAIL and RCPT.
    DEFER = "DEFER_IF_PERMIT 4.3.0"
    # Not now, whatever else: at DATA and the end of data, where nothing follows.
    CANNOT_SAY = "451 4.3.0"
    # As smtpd(8) itself says it of smtpd_sender_login_maps (smtpd_check.c:3965).
    NOT_YOURS = "553 5.7.1"
    # Over a limit.
    LATER = "450 4.7.1"
    REJECT = "554 5.7.1"
    HOLD = "HOLD"


@dataclass(frozen=True, slots=True)
class Action:
    """One answer; `text` is for people, and there is one with every word but DUNNO."""

    word: Word
    text: str = ""


DUNNO = Action(Word.DUNNO)


def cannot_say(state: str, why: str) -> Action:
    """A failure, at this protocol_state."""
    more_follows = state in ("MAIL", "RCPT")
    return Action(Word.DEFER if more_follows else Word.CANNOT_SAY, f"Cannot say now, try again later ({why})")
