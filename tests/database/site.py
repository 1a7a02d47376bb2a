"""The how-to's database in tests: its own text, its rows, and a picture of what a database holds."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.conftest import Database

from mailmaps.database.migrations import Site, create
from mailmaps.database.sql_files import MAIN, Series
from mailmaps.demo.data import HOWTO as HOWTO_ROWS
from mailmaps.demo.launcher import programs

HOWTO_TABLES = (Path(__file__).parent / "howto.sql").read_text()

# What the how-to's .cf files, its PAM and its Dovecot ask (section "Configuring Postfix" and on), with
# what its rows answer.
HOWTO_QUESTIONS = {
    "SELECT transport FROM domains WHERE domain='lxtreme.nl'": ["virtual:"],
    "SELECT uid FROM user_accounts WHERE email='info@lxtreme.nl'": ["5002"],
    "SELECT gid FROM user_accounts WHERE email='info@lxtreme.nl'": ["5001"],
    "SELECT address FROM postfix_aliases WHERE alias='j.w.janssen@lxtreme.nl'": [
        "janwillem.janssen@lxtreme.nl"
    ],
    "SELECT mailbox FROM postfix_mailboxes WHERE address='postmaster@lxtreme.nl'": [
        "lxtreme.nl/janwillem.janssen/"
    ],
    "SELECT password FROM user_accounts WHERE username='jawi_lx'": ["my_crypted_pw"],
    "SELECT '/var/local/mail/'||mailbox AS mailbox FROM\n\tuser_accounts WHERE username='info_lx'": [
        "/var/local/mail/lxtreme.nl/info"
    ],
}


async def make_howto(database: Database) -> None:
    """Make the how-to's database in an empty one, word for word."""
    await database.connection.execute(HOWTO_TABLES)
    await database.connection.execute(HOWTO_ROWS)


async def make_older(database: Database, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """Make the schema as mailmaps made it when this version, before 12, was the newest; `active` counts.

    There was no schema `mailpolicy` yet.
    """
    files = {MAIN.schema: MAIN.migrations()[:version]}

    async def finish(*_: object) -> None:
        await database.connection.execute("UPDATE mailmaps.settings SET honour_active = true")

    with monkeypatch.context() as patch:
        patch.setattr(Series, "migrations", lambda series: files.get(series.schema, []))
        patch.setattr("mailmaps.database.migrations._finish", finish)
        await create(database.connection, Site(), lambda _: None)


async def answers(database: Database) -> dict[str, list[str]]:
    """What the how-to's questions get."""
    return {
        question: [str(row[0]) for row in await database.connection.fetch(question)]
        for question in HOWTO_QUESTIONS
    }


def dump(database: Database, *options: str) -> str:
    """All that pg_dump sees, rows included, without the random word of newer versions."""
    words = [str(programs() / "pg_dump"), *options, database.dsn]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return "\n".join(
        line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
    )
