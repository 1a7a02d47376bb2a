"""Roles that may do more than they must are named; the roles as `mailmaps schema` makes them may not."""

from __future__ import annotations

import asyncpg
import pytest
from tests.conftest import Database

from mailmaps.config import parse
from mailmaps.database.checks import database_findings
from mailmaps.database.migrations import Site, upgrade
from mailmaps.database.rights import excess_findings
from mailmaps.findings import Finding, Level


async def found(database: Database, dsn: str, *needs: str) -> list[Finding]:
    async with database.connect(dsn) as connection:
        return await excess_findings(connection, "database.dsn", needs=needs)


async def test_the_roles_as_they_are_made(database: Database) -> None:
    assert await found(database, database.reader_dsn) == []
    assert await found(database, database.auth_dsn) == []
    assert await found(database, database.write_dsn, "mailpolicy") == []


async def test_a_superuser_is_named(database: Database) -> None:
    [only] = await found(database, database.dsn)
    assert (only.level, only.text) == (Level.WARNING, "the role postgres is a superuser")


@pytest.mark.parametrize(
    ("grant", "tables"),
    [
        ("INSERT ON public.user_accounts", "public.user_accounts"),
        ("DELETE ON public.domains, public.user_addresses", "public.domains, public.user_addresses"),
    ],
)
async def test_what_can_be_written_is_named_with_the_cure(
    database: Database, grant: str, tables: str
) -> None:
    await database.connection.execute(f"GRANT {grant} TO mailreader")
    [only] = await found(database, database.reader_dsn)
    assert only.text == f"the role mailreader can write to {tables}"
    await database.connection.execute(only.remedy)
    assert await found(database, database.reader_dsn) == []


async def test_the_writer_beyond_its_schema(database: Database) -> None:
    [only] = await found(database, database.write_dsn)
    assert "mailpolicy." in only.text
    assert " more" in only.text


async def test_where_changes_are_heard_of(database: Database) -> None:
    settings = f'[database]\ndsn = "{database.reader_dsn}"\nlisten_dsn = "{{}}"\n[postfix]\n'

    async def said(dsn: str) -> list[tuple[Level, str]]:
        findings = await database_findings(parse(settings.format(dsn)))
        return [(one.level, one.text) for one in findings if one.subject == "database.listen_dsn"]

    assert await said(database.reader_dsn) == [(Level.OK, "can be listened to")]
    [(level, _)] = await said("postgresql://x@127.0.0.1:1/x")
    assert level is Level.ERROR


async def test_hashes_are_an_error_where_logins_have_a_role_of_their_own(database: Database) -> None:
    await database.connection.execute("GRANT SELECT ON user_accounts TO mailreader")
    text = f'[database]\ndsn = "{database.reader_dsn}"\n'

    async def level(more: str) -> set[Level]:
        findings = await database_findings(parse(text + more))
        return {one.level for one in findings if "can read the password hashes" in one.text}

    assert await level("") == {Level.WARNING}
    assert await level(f'auth_dsn = "{database.auth_dsn}"\n') == {Level.ERROR}


# A trigger that runs as the owner, fired on a table whose column has a cast of our own.
BORROWED = """
CREATE TYPE pg_temp.odd AS (number integer);
CREATE FUNCTION pg_temp.cast_it(pg_temp.odd) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
   DELETE FROM public.user_accounts;
   RETURN ($1).number;
END $$;
CREATE CAST (pg_temp.odd AS integer) WITH FUNCTION pg_temp.cast_it(pg_temp.odd) AS ASSIGNMENT;
CREATE TEMP TABLE mine (gid pg_temp.odd, domain text);
CREATE TRIGGER mine AFTER DELETE ON mine REFERENCING OLD TABLE AS old_rows
   FOR EACH STATEMENT EXECUTE FUNCTION mailmaps.remember_domains();
INSERT INTO mine VALUES (row(7), 'x');
DELETE FROM mine;
"""


@pytest.mark.parametrize("role", ["reader_dsn", "auth_dsn", "write_dsn", "admin_dsn"])
async def test_no_role_can_borrow_the_owners_rights(database: Database, role: str) -> None:
    dsn = getattr(database, role)
    async with database.connect(dsn) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(BORROWED)
        usable = await connection.fetch(
            """SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
               WHERE n.nspname ~ '^mail' AND p.prosecdef AND has_function_privilege(p.oid, 'EXECUTE')
                 AND p.prorettype = 'trigger'::regtype"""
        )
    assert usable == []


async def test_one_that_can_is_named(database: Database) -> None:
    await database.connection.execute("GRANT EXECUTE ON FUNCTION mailmaps.remember_domains() TO PUBLIC")
    [only] = await found(database, database.reader_dsn)
    assert only.level is Level.ERROR
    await upgrade(database.connection, Site(honour_active=True), print)
    assert await found(database, database.reader_dsn) == []
