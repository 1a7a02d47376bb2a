"""Who logged in when last, remembered from report to report in one small file.

    mailmaps-logins 1 FROM TO COUNT                 the time without a gap that it knows, and how many names
    follow "name"<TAB>DAY                                  the day (since the epoch) of the last login,
    names as JSON

The rules it keeps: an account is called dormant only when logins were looked at without a gap for the whole
time. The file is replaced at once or not at all; one that is broken is set aside as FILE.broken, said, and
begun anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = "/var/lib/mailmaps-report"
NAME = "logins"

DAY = 86_400

# Seconds between two reports that are no gap: the one is made until midnight, the next from midnight.
NO_GAP = 60.0

# Names at most; beyond, the longest ago are dropped. Those who log in are accounts: it takes a wrong log
# for this.
MOST_NAMES = 3_000_000

_FIRST = "mailmaps-logins 1"


@dataclass
class Logins:
    """`since` and `until` (epoch) are what was looked at without a gap; `last` the day of each name's
    last login.
    """

    since: float = 0.0
    until: float = 0.0
    last: dict[str, int] = field(default_factory=dict)

    def learn(self, start: float, end: float, logins: Mapping[str, float]) -> None:
        """Logins of a period. One that does not touch what is known begins the known time anew."""
        for name, when in logins.items():
            day = int(when // DAY)
            if day > self.last.get(name, -1):
                self.last[name] = day
        if start <= self.until + NO_GAP and end >= self.since - NO_GAP and self.until:
            self.since, self.until = min(self.since, start), max(self.until, end)
        elif end > self.until:
            self.since, self.until = start, end
        if len(self.last) > MOST_NAMES:
            newest = sorted(self.last.items(), key=lambda item: item[1], reverse=True)
            self.last = dict(newest[:MOST_NAMES])


def read(path: Path) -> Logins | None:
    """What the file has, None where there is none. Raises `OSError`, and `ValueError` for a broken one."""
    try:
        with path.open(encoding="utf-8") as file:
            words = file.readline().split()
            if words[:2] != _FIRST.split() or len(words) != 5:
                raise ValueError("its first line is not of mailmaps")
            found = Logins(float(words[2]), float(words[3]))
            for line in file:
                name, _, day = line.rpartition("\t")
                known = json.loads(name)
                if not isinstance(known, str):
                    raise ValueError("a name is no text")
                found.last[known] = int(day)
    except FileNotFoundError:
        return None
    if len(found.last) != int(words[4]):
        raise ValueError(f"it has {len(found.last)} names, not {words[4]}")
    return found


def write(path: Path, logins: Logins) -> None:
    """Replace the file. Raises `OSError`. Root gives it to the folder's owner, whose next report reads it."""
    draft = path.with_name(f"{path.name}.new")
    with draft.open("w", encoding="utf-8") as file:
        file.write(f"{_FIRST} {logins.since:.0f} {logins.until:.0f} {len(logins.last)}\n")
        file.writelines(f"{json.dumps(name)}\t{day}\n" for name, day in logins.last.items())
        file.flush()
        os.fsync(file.fileno())
        if os.geteuid() == 0:
            folder = path.parent.stat()
            os.fchown(file.fileno(), folder.st_uid, folder.st_gid)
    draft.chmod(0o600)
    draft.replace(path)


def update(path: Path, start: float, end: float, logins: Mapping[str, float]) -> tuple[Logins, list[str]]:
    """Add a period to the file; what is known then, and what is to be said about the file."""
    said: list[str] = []
    try:
        known = read(path) or Logins()
    except (ValueError, OSError) as error:
        if isinstance(error, OSError):
            return _only(start, end, logins), [f"who logged in is not remembered: {path}: {error.strerror}"]
        said.append(f"{path} was broken and is begun anew: {error}; the old one is {path.name}.broken")
        known = Logins()
    known.learn(start, end, logins)
    try:
        if said:
            path.replace(path.with_name(f"{path.name}.broken"))
        write(path, known)
    except OSError as error:
        said.append(f"who logged in is not remembered: {path}: {error.strerror}")
    return known, said


def _only(start: float, end: float, logins: Mapping[str, float]) -> Logins:
    known = Logins()
    known.learn(start, end, logins)
    return known
