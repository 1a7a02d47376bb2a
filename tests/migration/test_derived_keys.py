"""Keys out of the database: which columns a query compares with the key, as the planner says."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from tests.conftest import Database

from mailmaps.config import Settings
from mailmaps.database.key_columns import Column, compared
from mailmaps.maps.cf_text import settings
from mailmaps.maps.pgsql_cf import CfTable, parse
from mailmaps.migration.derived_keys import derive

SCHEMA = """
CREATE TABLE alias (address varchar(255) PRIMARY KEY, goto text, active boolean DEFAULT true);
CREATE TABLE alias_domain (alias_domain varchar(255), target text);
CREATE TABLE "Odd Name" ("The Key" text, number integer);
CREATE VIEW lowered AS SELECT lower(address) AS key, goto FROM alias;
INSERT INTO alias VALUES ('ann@ex.test', 'x'), ('@catch.test', 'y'), ('Bob@ex.test', 'z');
INSERT INTO alias_domain VALUES ('alias.test', 'ex.test'), (NULL, 'ex.test');
INSERT INTO "Odd Name" VALUES ('bare.test', 1);
"""

ALIAS = ("s", "public", "alias", "address")
DOMAIN = ("d", "public", "alias_domain", "alias_domain")


def cf(database: Database, query: str) -> CfTable:
    parts = urlsplit(database.dsn)
    text = (
        f"hosts = {parts.hostname}:{parts.port}\nuser = {parts.username}\npassword = {parts.password}\n"
        f"dbname = {database.name}\nquery = {query}\n"
    )
    return parse(settings(text, "a.cf"), "a.cf")


@pytest.mark.parametrize(
    ("query", "columns"),
    [
        ("SELECT goto FROM alias WHERE address = '%s' AND active", [ALIAS]),
        ("SELECT goto FROM alias a WHERE '%s' = a.address", [ALIAS]),
        ("SELECT goto FROM alias WHERE lower(address) = '%s'", [ALIAS]),
        ("SELECT goto FROM lowered WHERE key = '%s'", [ALIAS]),
        ("SELECT goto FROM alias, alias_domain d "
         "WHERE d.alias_domain = '%d' AND address = '%u' || '@' || target", [DOMAIN]),
        ("SELECT goto FROM alias WHERE address='%s' "
         "UNION SELECT target FROM alias_domain WHERE alias_domain='%d'", [ALIAS, DOMAIN]),
        ("""SELECT 1 FROM "Odd Name" WHERE "The Key" = '%s'""", [("s", "public", "Odd Name", "The Key")]),
        ("SELECT goto FROM alias WHERE address = '@%d'", []),
        ("SELECT '%s'", []),
    ],
)  # fmt: skip
async def test_compared(empty_database: Database, query: str, columns: list[tuple[str, ...]]) -> None:
    await empty_database.connection.execute(SCHEMA)
    found = await compared(empty_database.connection, cf(empty_database, query))
    assert found == [Column(*column) for column in columns]


async def test_derive(empty_database: Database) -> None:
    await empty_database.connection.execute(SCHEMA)
    tables = [
        cf(empty_database, query)
        for query in (
            "SELECT goto FROM alias WHERE address = '%s'",
            "SELECT target FROM alias_domain WHERE alias_domain = '%d'",
            """SELECT number FROM "Odd Name" WHERE "The Key" = '%s'""",
            "SELECT '%s'",
            "SELECT x FROM nothing WHERE y = '%s'",
        )
    ]
    found, notes = await derive(tables, Settings().database, "+", 100)
    assert list(found.bare) == ["bare.test", "alias.test", "catch.test"]
    assert {"ann@ex.test", "Bob@ex.test", "ann+mailmaps@ex.test"} <= set(found.addresses)
    for domain in found.bare:
        names = {address.partition("@")[0] for address in found.addresses if address.endswith(f"@{domain}")}
        assert {"ann", "Bob", "postmaster", "mailmaps-nobody", "mailmaps-nobody+mailmaps"} <= names
    assert notes == [
        "a.cf: the query compares no column with the key as it is",
        'a.cf: relation "nothing" does not exist (42P01)',
    ]
