"""`mailmaps.fold` is Postfix's and Python's case folding, whatever the server's locale."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest
from tests.conftest import Database, new_database

from mailmaps.database.migrations import Site, create
from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.maps.address import fold

# Code points that got a case folding after Unicode 14 (CaseFolding.txt of 15.0, 15.1 and 16.0).
LATER = {0x1C89, 0xA7CB, 0xA7CC, 0xA7DA, 0xA7DC, *range(0x10D50, 0x10D66)}
CHARACTERS = [chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
WORDS = [
    "",
    "A-z@EX.Test",
    "Straße",
    "ΣΊΣΥΦΟΣ",
    "İstanbul",
    "ſ",
    "ẞ",
    "ﬃ",
    "Ⱥ",
    "\N{DESERET CAPITAL LETTER EW}",
    "ÅÅ",
    "a\u0301",
]


async def test_every_code_point_folds_as_in_python(database: Database) -> None:
    assert unicodedata.unidata_version >= "14"
    expected = {char: char if ord(char) in LATER else char.casefold() for char in CHARACTERS}
    rows = await database.connection.fetch(
        "SELECT c, mailmaps.fold(c) FROM unnest($1::text[]) AS c", CHARACTERS
    )
    assert {char: folded for char, folded in rows if folded != expected[char]} == {}
    assert len(rows) == len(CHARACTERS)


@pytest.mark.parametrize("word", WORDS)
async def test_words_fold_as_the_daemon_folds_them(database: Database, word: str) -> None:
    assert await database.connection.fetchval("SELECT mailmaps.fold($1)", word) == fold(word)


async def test_null_stays_null(database: Database) -> None:
    assert await database.connection.fetchval("SELECT mailmaps.fold(NULL)") is None


@pytest.mark.parametrize(
    "locale",
    [
        "LOCALE_PROVIDER libc LOCALE 'C.UTF-8'",
        "LOCALE_PROVIDER libc LOCALE 'C'",
        "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'PG_UNICODE_FAST'",
    ],
)
async def test_the_databases_own_locale_changes_nothing(postgres: EmbeddedPostgres, locale: str) -> None:
    async with new_database(postgres, f"TEMPLATE template0 ENCODING 'UTF8' {locale}") as other:
        await create(other.connection, Site(recipient_delimiter="+"), lambda _: None)
        folded = await other.connection.fetchval("SELECT mailmaps.fold('İI' || 'Straße' || 'Σς')")
        assert folded == "İIStraßeΣς".casefold()
        assert await other.connection.fetchval("SELECT mailmaps.fold('INFO')") == "info"
        await other.connection.execute(
            """INSERT INTO domains (gid, domain) VALUES (1, 'IN.test');
               INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
                  VALUES ('İnci', 1, 1, 'INFO@in.test', 'x', '1');
               INSERT INTO mailmaps.forwards VALUES ('ILLI@in.test', 'info+X@IN.test')"""
        )
        found = await other.connection.fetch(
            "SELECT key, value FROM mailmaps.virtual_alias_maps WHERE key = ANY ($1::text[]) ORDER BY key",
            ["info@in.test", "illi@in.test", "ınfo@in.test"],
        )
        assert [tuple(row) for row in found] == [
            ("illi@in.test", "info+X@IN.test"),
            ("info@in.test", "INFO@in.test"),
        ]


async def test_every_key_names_its_collation(database: Database) -> None:
    rows = await database.connection.fetch(
        """SELECT c.relname, n2.collname
           FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
           JOIN pg_collation n2 ON n2.oid = a.attcollation
           WHERE c.relnamespace = 'mailmaps'::regnamespace AND c.relkind = 'v' AND a.attname = 'key'"""
    )
    assert {row["collname"] for row in rows} == {"C"}
    assert len(rows) >= 9


async def test_every_comparison_of_text_in_an_index_is_by_code_point(database: Database) -> None:
    """Expression indexes do not depend on a collation that a new glibc or ICU may change."""
    definitions = await database.connection.fetch(
        "SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '%mailmaps.fold(%'"
    )
    assert definitions
    for row in definitions:
        assert re.search(r"COLLATE \"C\"", row["indexdef"]), row["indexdef"]
