"""The numbered SQL files of our schemas: `schema/NNNN_name.sql`, and `schema/policy/NNNN_name.sql`.

Two series, each with a schema of its own in the database, which records the files that were applied:
`mailmaps` for tables and views, and `mailpolicy` for what the policy service keeps, which any database takes.

A file's first line `-- dependents: TABLE, TABLE` names tables that it alters, so that the views on them
must make room (`mailmaps.database.dependents`). Numbers are never reused, a file that was released is
never changed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

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
    def tables(self) -> list[str]:
        """Qualified names of the tables whose dependent views are dropped and made again."""
        match = _DEPENDENTS.match(self.sql)
        return match[1].split(", ") if match else []


@dataclass(frozen=True, slots=True)
class Series:
    """The files of one schema of the database.

    `search_path`: where names that a file does not qualify belong; the how-to's own have no schema.
    """

    schema: str
    search_path: str
    folder: Traversable

    def migrations(self) -> list[Migration]:
        """All files, in order."""
        matches = ((_FILE_NAME.fullmatch(entry.name), entry) for entry in self.folder.iterdir())
        found = [
            Migration(int(match[1]), match[2], entry.read_text("utf-8")) for match, entry in matches if match
        ]
        return sorted(found, key=lambda migration: migration.version)

    def label(self, migration: Migration) -> str:
        """What messages call one of the files: "0003 widen", "mailpolicy 0001 policy"."""
        name = f"{migration.version:04} {migration.name}"
        return name if self is MAIN else f"{self.schema} {name}"

    def grants(self) -> str:
        """The file that runs at the end, whenever the schema is made or upgraded."""
        return self.folder.joinpath("grants.sql").read_text("utf-8")


MAIN = Series("mailmaps", "public", _DIRECTORY)
POLICY = Series("mailpolicy", "mailpolicy", _DIRECTORY.joinpath("policy"))


def migrations() -> list[Migration]:
    """The files of `MAIN`, in order."""
    return MAIN.migrations()


def watch() -> str:
    """What `mailmaps schema watch` needs in a database; it may run again and again."""
    return _DIRECTORY.joinpath("watch.sql").read_text("utf-8")
