"""The schema changed under us: views dropped, renamed, made otherwise; tables renamed; columns retyped.

DDL notifies nothing. Whatever is done, a key that exists is never "not found", and when the view is one again
every key is answered as it has it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from tests.system.daemon import Daemon
from tests.system.outages import data
from tests.system.outages.asker import ask
from tests.system.outages.history import Place
from tests.system.outages.observed import Observed
from tests.system.outages.site import LIMIT, Site, proven, says

from mailmaps.maps.answer import NOT_FOUND, Answer, Found, NotFound, Unavailable

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

BROKEN = 3.0
"""Seconds that a view stays broken."""

TABLE = "virtual_uid_maps"
NOBODY = Place(TABLE, "nobody0@fixed.test")
SOMEBODY = Place(TABLE, "s0@fixed.test")

MADE = "INSERT INTO user_accounts VALUES ('made', 9000, 6002, '', 'made@w.test', 'w.test/made', 0, '1')"

SITES_OWN = """
CREATE TABLE plain (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, address text NOT NULL, goes_to text);
INSERT INTO plain (address, goes_to) SELECT 'p' || n || '@plain.test', 'd' || n FROM generate_series(1, 50) n;
CREATE VIEW sites_own AS SELECT address AS key, goes_to AS value FROM plain;
GRANT SELECT ON sites_own TO mailreader;
"""


def is_unavailable(answer: Answer) -> bool:
    return isinstance(answer, Unavailable)


BREAKS = {
    "dropped": ("DROP VIEW mailmaps.{0}", "{definition}"),
    "renamed": ("ALTER VIEW mailmaps.{0} RENAME TO elsewhere", "ALTER VIEW mailmaps.elsewhere RENAME TO {0}"),
    "without a column": (
        "DROP VIEW mailmaps.{0}; CREATE VIEW mailmaps.{0} AS SELECT 'x'::text AS key, 1 AS other",
        "DROP VIEW mailmaps.{0}; {definition}",
    ),
    "with errors in its rows": (
        "CREATE OR REPLACE VIEW mailmaps.{0} AS "
        "SELECT key, (1 / (uid - uid))::text AS value FROM mailmaps.owned_addresses",
        "{replacement}",
    ),
    "its schema renamed": (
        "ALTER SCHEMA mailmaps RENAME TO hidden",
        "ALTER SCHEMA hidden RENAME TO mailmaps",
    ),
}


@pytest.mark.parametrize("how", BREAKS)
async def test_a_view_breaks_and_is_mended(site: Site, daemon: Daemon, how: str) -> None:
    """The table says "later" for whom it does not hold, and finds whom it does; others are not concerned."""
    async with site.connect() as connection:
        query = await connection.fetchval(f"SELECT pg_get_viewdef('mailmaps.{TABLE}'::regclass)")
        made = f"VIEW mailmaps.{TABLE} AS {query}; GRANT SELECT ON mailmaps.{TABLE} TO mailreader"
        broken, mended = (
            text.format(TABLE, definition=f"CREATE {made}", replacement=f"CREATE OR REPLACE {made}")
            for text in BREAKS[how]
        )
        found = await ask(daemon, SOMEBODY)
        await connection.execute(broken)
        if how != "with errors in its rows":
            await says(daemon, NOBODY, is_unavailable)
        assert await ask(daemon, SOMEBODY) == found, "found once, and so for max_stale"
        if how != "its schema renamed":
            await connection.execute("INSERT INTO mailmaps.forwards VALUES ('b@w.test', 'x@elsewhere.test')")
            await says(daemon, Place("virtual_alias_maps", "b@w.test"), Found("x@elsewhere.test"))
            await connection.execute(MADE)
            await says(daemon, Place(TABLE, "made@w.test"), is_unavailable)
        await connection.execute(mended)
    await says(daemon, NOBODY, NOT_FOUND)
    await proven(daemon)
    await site.agrees(daemon)


async def test_a_view_that_says_something_else_without_any_row_changed(site: Site, daemon: Daemon) -> None:
    await site.execute(
        f"CREATE OR REPLACE VIEW mailmaps.{TABLE} AS "
        "SELECT key, CASE WHEN live THEN (uid + 1)::text END AS value FROM mailmaps.owned_addresses "
        "WHERE key <> 's1@fixed.test'"
    )
    await says(daemon, SOMEBODY, Found("6101"))
    await says(daemon, Place(TABLE, "s1@fixed.test"), NOT_FOUND)
    await site.agrees(daemon)


async def test_a_table_is_renamed_and_gets_other_columns(site: Site, daemon: Daemon) -> None:
    """Views follow a renamed table; functions that name it fail, our triggers' too, so nobody can write."""
    async with site.connect() as connection:
        await connection.execute("ALTER TABLE public.user_accounts RENAME TO accounts_of_old")
        await asyncio.sleep(BROKEN)
        assert await ask(daemon, SOMEBODY) == Found("6100")
        assert await ask(daemon, Place("virtual_alias_maps", "s0@fixed.test")) == Found("s0@fixed.test")
        await connection.execute("ALTER TABLE public.accounts_of_old RENAME TO user_accounts")
        await connection.execute("ALTER TABLE public.user_accounts ADD COLUMN note text DEFAULT 'x'")
        await connection.execute("UPDATE user_accounts SET uid = uid + 1000")
        await says(daemon, SOMEBODY, Found("7100"))
    await proven(daemon)
    await site.agrees(daemon)


async def test_ddl_all_the_while(site: Site, daemon: Daemon) -> None:
    """Views made anew under writers and clients, in transactions as a deployment has them."""
    async with Observed(site, daemon) as seen, site.connect() as connection:
        for table in ("virtual_uid_maps", "virtual_gid_maps", "smtpd_sender_login_maps") * 2:
            query = await connection.fetchval(f"SELECT pg_get_viewdef('mailmaps.{table}'::regclass)")
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '10s'")
                await connection.execute(f"DROP VIEW mailmaps.{table}")
                await connection.execute(
                    f"CREATE VIEW mailmaps.{table} AS {query}; GRANT SELECT ON mailmaps.{table} TO mailreader"
                )
            await asyncio.sleep(0.5)
        await proven(daemon)
    assert NotFound not in set(map(type, seen.answers(data.KNOWN, since=0.0)))


@pytest.mark.parametrize("watched", [False, True])
async def test_the_columns_of_a_sites_own_table_change_their_types(site: Site, watched: bool) -> None:
    """ "cached plan must not change result type" and its like; with `mailmaps schema watch` and without."""
    await site.execute(SITES_OWN)
    ttl = 3600.0 if watched else 0.5
    settings = site.settings(cache={"ttl": ttl, "negative_ttl": ttl})
    tables = {"virtual_alias_maps": ["view:public.sites_own"], "transport_maps": ["view:public.sites_own"]}
    known, nobody = (Place("virtual_alias_maps", f"{name}@plain.test") for name in ("p1", "nobody"))
    with Daemon(settings, tables=tables) as daemon:
        if watched:
            words = ["schema", "watch", "--config", str(daemon.config), "--dsn", site.owner]
            command = [sys.executable, "-m", "mailmaps", *words]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=LIMIT)
            assert done.returncode == 0, done
        async with site.connect() as connection:
            await says(daemon, known, Found("d1"))
            await says(daemon, nobody, NOT_FOUND)
            for number, (column, kind) in enumerate(
                [
                    ("goes_to", "varchar(100)"),
                    ("address", "varchar"),
                    ("goes_to", "text"),
                    ("address", "text"),
                ]
            ):
                await connection.execute(
                    f"DROP VIEW sites_own; ALTER TABLE plain ALTER {column} TYPE {kind};"
                    "CREATE VIEW sites_own AS SELECT address AS key, goes_to AS value FROM plain;"
                    "GRANT SELECT ON sites_own TO mailreader"
                )
                assert await ask(daemon, known) != NOT_FOUND
                await connection.execute(
                    f"UPDATE plain SET goes_to = 'n{number}' WHERE address = 'p1@plain.test';"
                    f"INSERT INTO plain (address, goes_to) VALUES ('q{number}@plain.test', 'new')"
                )
                await says(daemon, known, Found(f"n{number}"))
                await says(daemon, Place("virtual_alias_maps", f"q{number}@plain.test"), Found("new"))
                await says(daemon, nobody, NOT_FOUND)
            await connection.execute("DROP VIEW sites_own; ALTER TABLE plain DROP COLUMN goes_to")
            await says(daemon, nobody, is_unavailable)
            assert await ask(daemon, known) != NOT_FOUND
            await connection.execute(
                "ALTER TABLE plain ADD goes_to int DEFAULT 7;"
                "CREATE VIEW sites_own AS SELECT address AS key, goes_to AS value FROM plain;"
                "GRANT SELECT ON sites_own TO mailreader"
            )
            await says(daemon, known, Found("7"))
