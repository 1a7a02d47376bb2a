"""The database of the mail tests: the how-to's rows word for word, and what the how-to cannot hold.

Contract: `load` makes a fresh database with the schema as `mailmaps schema create` makes it, fills it, and
gives the DSN of `mailreader`, who may read what lookups ask and nothing else.
"""

from __future__ import annotations

import asyncpg

from mailmaps.database.migrations import Site, create
from mailmaps.demo.data import HOWTO
from mailmaps.demo.postgres import EmbeddedPostgres

DATABASE = "mail"
PASSWORD = "a password of the tests"

MORE = """
INSERT INTO domains (gid, domain) VALUES (5002, 'second.test'), (5003, 'catch.test');
INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) VALUES
   ('joerg',   5003, 5001, 'jörg@lxtreme.nl',     'lxtreme.nl/joerg',    '1'),
   ('eve',     5101, 5002, 'eve@second.test',     'second.test/eve',     '1'),
   ('sleeper', 5102, 5002, 'sleeper@second.test', 'second.test/sleeper', '0'),
   ('keeper',  5201, 5003, 'keeper@catch.test',   'catch.test/keeper',   '1'),
   ('real',    5202, 5003, 'real@catch.test',     'catch.test/real',     '1'),
   ('gone',    5203, 5003, 'gone@catch.test',     'catch.test/gone',     '0');
INSERT INTO user_addresses (username, alias) VALUES
   ('jawi_lx', '"jan willem"@lxtreme.nl'),
   ('joerg',   'jörg@lxtreme.nl'),
   ('eve',     'eve@second.test'),
   ('sleeper', 'sleeper@second.test'),
   ('keeper',  'keeper@catch.test'),
   ('real',    'real@catch.test'),
   ('gone',    'gone@catch.test'),
   ('gone',    'gone.too@catch.test');
INSERT INTO mailmaps.forwards (address, target) VALUES
   ('@catch.test',      'keeper@catch.test'),
   ('both@lxtreme.nl',  'janwillem.janssen@lxtreme.nl'),
   ('both@lxtreme.nl',  'info@lxtreme.nl'),
   ('away@lxtreme.nl',  'jan@elsewhere.test'),
   ('copy@lxtreme.nl',  'info@lxtreme.nl'),
   ('copy@lxtreme.nl',  'jan@elsewhere.test'),
   ('chain@lxtreme.nl', 'postmaster@lxtreme.nl'),
   ('dead@lxtreme.nl',  'gone@catch.test'),
   ('half@lxtreme.nl',  'gone@catch.test'),
   ('half@lxtreme.nl',  'info@lxtreme.nl'),
   ('sales@lxtreme.nl', 'info@lxtreme.nl');
INSERT INTO mailmaps.domain_aliases (domain, target) VALUES ('alias.test', 'lxtreme.nl');
"""


async def load(postgres: EmbeddedPostgres) -> str:
    """Make and fill the database anew; the DSN to ask it with."""
    server = await asyncpg.connect(postgres.dsn())
    try:
        await server.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        await server.execute(f"CREATE DATABASE {DATABASE}")
        if not await server.fetchval("SELECT true FROM pg_roles WHERE rolname = 'mailreader'"):
            await server.execute("CREATE ROLE mailreader LOGIN")
        await server.execute(f"ALTER ROLE mailreader PASSWORD '{PASSWORD}'")
    finally:
        await server.close()
    await _fill(postgres.dsn(DATABASE))
    return postgres.dsn(DATABASE, "mailreader", PASSWORD)


async def _fill(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await create(connection, Site(honour_active=True, recipient_delimiter="+"), lambda _: None)
        await connection.execute(HOWTO)
        await connection.execute(MORE)
        # The test server commits asynchronously; without this a kill -9 may take the rows with it.
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
