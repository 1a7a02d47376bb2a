"""Views on the how-to's tables survive an upgrade with all that they had, or stop it by name."""

from __future__ import annotations

import re

import pytest
from tests.conftest import Database
from tests.database.site import dump, make_howto

from mailmaps.database.migrations import Site, upgrade
from mailmaps.database.preflight import SchemaError

SITE_VIEWS = """
CREATE ROLE {role}_owner; CREATE ROLE {role}_web; CREATE ROLE {role}_second;
CREATE SCHEMA "My Site";
GRANT USAGE, CREATE ON SCHEMA "My Site" TO {role}_owner, {role}_web;
GRANT SELECT ON user_accounts, user_addresses, domains TO {role}_owner;
CREATE VIEW "My Site"."Full Names" WITH (security_barrier) AS
   SELECT username AS "User", email, quota FROM user_accounts WHERE active = '1' WITH LOCAL CHECK OPTION;
CREATE VIEW "My Site".above AS SELECT "User", count(*) AS n
   FROM "My Site"."Full Names" JOIN postfix_aliases ON address = email GROUP BY 1;
CREATE VIEW top AS SELECT a.*, d.domain FROM "My Site".above a, domains d;
CREATE RECURSIVE VIEW chain (number) AS
   SELECT uid FROM user_accounts UNION SELECT number + 1 FROM chain WHERE number < 9;
ALTER VIEW "My Site"."Full Names" OWNER TO {role}_owner;
COMMENT ON VIEW "My Site"."Full Names" IS 'who''s who';
COMMENT ON COLUMN "My Site"."Full Names"."User" IS 'login';
ALTER VIEW "My Site"."Full Names" ALTER COLUMN quota SET DEFAULT 7;
GRANT SELECT ON "My Site"."Full Names" TO {role}_web WITH GRANT OPTION;
GRANT UPDATE (email, "User") ON "My Site"."Full Names" TO {role}_web;
GRANT SELECT ON top TO PUBLIC;
GRANT SELECT (number) ON chain TO {role}_web;
REVOKE DELETE ON top FROM CURRENT_USER;
SET ROLE {role}_web; GRANT SELECT ON "My Site"."Full Names" TO {role}_second; RESET ROLE;
ALTER DEFAULT PRIVILEGES IN SCHEMA "My Site" GRANT INSERT ON TABLES TO {role}_second;
"""


def picture(text: str) -> list[str]:
    """Lines of a dump in any order, without the casts that text columns no longer need.

    The role `mailadmin`, where the server has it, gets its right by the upgrade.
    """
    lines = re.sub(r"::text|[()]", "", text).splitlines()
    return sorted(line for line in lines if not line.endswith("TO mailadmin;"))


async def test_views_come_back_with_all_they_had(empty_database: Database) -> None:
    role = empty_database.name
    await make_howto(empty_database)
    await empty_database.connection.execute(SITE_VIEWS.format(role=role))
    views = [f"--table={name}" for name in ('"My Site".*', "public.top", "public.chain", "public.postfix_*")]
    before = dump(empty_database, *views)
    assert before.count("CREATE VIEW") == 6
    try:
        await upgrade(empty_database.connection, Site(), lambda _: None)
        assert picture(dump(empty_database, *views)) == picture(before)
    finally:
        for one in ("owner", "web", "second"):
            await empty_database.connection.execute(
                f"""REASSIGN OWNED BY {role}_{one} TO CURRENT_USER;
                    DROP OWNED BY {role}_{one} CASCADE; DROP ROLE {role}_{one}"""
            )


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            "CREATE MATERIALIZED VIEW snapshot AS SELECT email FROM user_accounts",
            "materialized view snapshot",
        ),
        (
            "CREATE VIEW v AS SELECT email FROM user_accounts; "
            "CREATE MATERIALIZED VIEW snapshot AS SELECT * FROM v",
            "materialized view snapshot",
        ),
        (
            "CREATE VIEW v AS SELECT email FROM user_accounts; "
            "CREATE RULE swallow AS ON INSERT TO v DO INSTEAD NOTHING",
            "rule swallow on view v",
        ),
        (
            "CREATE FUNCTION ask() RETURNS bigint LANGUAGE sql "
            "BEGIN ATOMIC SELECT count(email) FROM user_accounts; END",
            "function ask()",
        ),
        (
            "CREATE FUNCTION ask() RETURNS bigint LANGUAGE sql "
            "BEGIN ATOMIC SELECT count(*) FROM postfix_aliases; END",
            "function ask()",
        ),
        (
            "CREATE FUNCTION take(postfix_aliases) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "function take(postfix_aliases)",
        ),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
            "CREATE TRIGGER write INSTEAD OF INSERT ON postfix_aliases FOR EACH ROW EXECUTE FUNCTION f()",
            "trigger write on view postfix_aliases",
        ),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
            "CREATE TRIGGER mail BEFORE UPDATE OF email ON user_accounts FOR EACH ROW EXECUTE FUNCTION f()",
            "trigger mail on table user_accounts",
        ),
        (
            "CREATE POLICY mine ON user_accounts USING (username = current_user)",
            "policy mine on table user_accounts",
        ),
        (
            "CREATE TABLE log (email text); "
            "CREATE RULE note AS ON INSERT TO log DO ALSO SELECT email FROM user_accounts",
            "rule note on table log",
        ),
        (
            "ALTER TABLE user_accounts ADD shout text GENERATED ALWAYS AS (upper(email)) STORED",
            "column shout of table user_accounts",
        ),
    ],
    ids=lambda value: value if " on " in value or "(" not in value else "",
)
async def test_what_cannot_be_carried_over_is_named(
    empty_database: Database, statement: str, named: str
) -> None:
    await make_howto(empty_database)
    await empty_database.connection.execute(statement)
    before = dump(empty_database)
    with pytest.raises(SchemaError) as caught:
        await upgrade(empty_database.connection, Site(), lambda _: None)
    assert any(named in problem and "cannot be carried over" in problem for problem in caught.value.problems)
    assert caught.value.problems[-1] == "nothing was done"
    assert dump(empty_database) == before


async def test_plain_indexes_checks_triggers_and_defaults_are_no_obstacle(empty_database: Database) -> None:
    await make_howto(empty_database)
    await empty_database.connection.execute(
        """CREATE INDEX mine ON user_accounts (email, lower(username));
           ALTER TABLE user_accounts ADD CHECK (email LIKE '%@%');
           ALTER TABLE user_accounts ALTER email SET DEFAULT 'a@b', ADD note text;
           CREATE STATISTICS s ON username, email FROM user_accounts;
           CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
           CREATE TRIGGER any_change BEFORE UPDATE ON user_accounts FOR EACH ROW EXECUTE FUNCTION f()"""
    )
    await upgrade(empty_database.connection, Site(), lambda _: None)
