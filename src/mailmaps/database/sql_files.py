"""The schema's numbered SQL files, `schema/NNNN_name.sql`.

A file's first line `-- dependents: TABLE, TABLE` names tables that it alters, so that the views on them
must make room (`mailmaps.database.dependents`). Numbers are never reused, a file that was released is
never changed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files

# The tables of the how-to itself; a database made by the how-to starts here.
HOWTO_VERSION = 1
# Adds the unique indexes and checks that old rows may offend.
WIDENED_VERSION = 3

_DIRECTORY = files("mailmaps.database").joinpath("schema")
_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_DEPENDENTS = re.compile(r"-- dependents: (.+)")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    version: int
    name: str
    sql: str

    @property
    def label(self) -> str:
        """As messages call it: "0003 widen"."""
        return f"{self.version:04} {self.name}"

    @property
    def tables(self) -> list[str]:
        """Qualified names of the tables whose dependent views are dropped and made again."""
        match = _DEPENDENTS.match(self.sql)
        return match[1].split(", ") if match else []


def migrations() -> list[Migration]:
    """All files, in order."""
    matches = ((_FILE_NAME.fullmatch(entry.name), entry) for entry in _DIRECTORY.iterdir())
    found = [
        Migration(int(match[1]), match[2], entry.read_text("utf-8")) for match, entry in matches if match
    ]
    return sorted(found, key=lambda migration: migration.version)


def grants() -> str:
    """The file that runs after every create and upgrade."""
    return _DIRECTORY.joinpath("grants.sql").read_text("utf-8")


def watch() -> str:
    """What `mailmaps schema watch` needs in a database; it may run again and again."""
    return _DIRECTORY.joinpath("watch.sql").read_text("utf-8")
