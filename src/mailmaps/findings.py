"""What a check found: one line for the postmaster, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad a finding is; the worst one is the exit code of `mailmaps check`."""

    OK = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check.

    `subject` names what was looked at (a setting's path, a view, an account), `text` says what was
    found, `remedy` what to do about it (empty when nothing is to be done).
    """

    level: Level
    subject: str
    text: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """For `mailmaps check --json`."""
        return {
            "level": self.level.name.lower(),
            "subject": self.subject,
            "text": self.text,
            "remedy": self.remedy,
        }
