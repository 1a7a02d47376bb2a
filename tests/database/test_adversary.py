"""Rows that somebody will write one day, each with the answer that harms nobody."""

from __future__ import annotations

import asyncpg
import pytest
from tests.conftest import Database

ROWS = """
INSERT INTO domains (gid, domain) VALUES (1, 'd.example'), (2, 'e.example');
INSERT INTO user_accounts (username, uid, gid, password, email, mailbox, active) VALUES
   ('live', 1, 1, 'x', 'live@d.example', 'd/live', '1'),
   ('dead', 2, 1, 'x', 'dead@d.example', 'd/dead', '0');
INSERT INTO user_addresses (username, alias) VALUES ('live', 'live@d.example'), ('dead', 'dead@d.example');
INSERT INTO mailmaps.domain_aliases VALUES ('al.example', 'd.example');
"""


async def values(database: Database, table: str, key: str) -> set[str | None]:
    rows = await database.connection.fetch(f"SELECT value FROM mailmaps.{table} WHERE key = ANY ($1)", [key])
    return {row["value"] for row in rows}


@pytest.mark.parametrize("target", ["dead@d.example.", "live@d..example", "live@.d.example"])
async def test_a_target_whose_domain_only_looks_foreign_is_refused(database: Database, target: str) -> None:
    await database.connection.execute(ROWS)
    with pytest.raises(asyncpg.CheckViolationError, match="has a domain that is none"):
        await database.connection.execute(
            "INSERT INTO mailmaps.forwards VALUES ('end@d.example', $1)", target
        )


async def test_a_forward_in_an_alias_domain_takes_no_owner_away(database: Database) -> None:
    await database.connection.execute(ROWS)
    for name, owner in (("live", "live"), ("dead", "!inactive")):
        key = f"{name}@al.example"
        assert await values(database, "smtpd_sender_login_maps", key) == {owner}
        await database.connection.execute(
            "INSERT INTO mailmaps.forwards VALUES ($1, 'else@outside.example')", key
        )
        # NULL: the forward is nobody's, which does not count beside an owner.
        assert await values(database, "smtpd_sender_login_maps", key) == {owner, None}


async def test_an_address_listed_for_one_is_not_owned_by_who_has_it_as_his_email(database: Database) -> None:
    await database.connection.execute(ROWS)
    await database.connection.execute(
        """INSERT INTO user_accounts (username, uid, gid, password, email, mailbox, active)
           VALUES ('cross', 3, 1, 'x', 'dead@d.example', 'd/cross', '1')"""
    )
    assert await values(database, "smtpd_sender_login_maps", "dead@d.example") == {"!inactive"}
    assert await values(database, "smtpd_sender_login_maps", "dead@al.example") == {"!inactive"}


async def test_an_address_of_ones_own_in_an_alias_domain_goes_first(database: Database) -> None:
    await database.connection.execute(ROWS)
    await database.connection.execute("INSERT INTO user_addresses VALUES ('live', 'dead@al.example')")
    assert await values(database, "smtpd_sender_login_maps", "dead@al.example") == {"live"}
    assert await values(database, "virtual_alias_maps", "dead@al.example") == {"live@d.example"}


@pytest.mark.parametrize("domain", ["*", ".sub.example", "e.example."])
async def test_what_is_no_domain_routes_nobodys_mail(database: Database, domain: str) -> None:
    await database.connection.execute(ROWS)
    await database.connection.execute("INSERT INTO domains (gid, domain) VALUES (9, $1)", domain)
    assert await values(database, "transport_maps", domain) == set()
    assert await values(database, "virtual_mailbox_domains", domain) == set()
    texts = [row["text"] for row in await database.connection.fetch("SELECT * FROM mailmaps.doubtful_rows")]
    assert f'"{domain}" is no domain, so it is left out' in texts


async def test_what_is_no_domain_has_no_alias_and_hides_no_relay(database: Database) -> None:
    await database.connection.execute(ROWS)
    await database.connection.execute(
        "INSERT INTO domains (gid, domain) VALUES (8, '*'), (9, '.sub.example')"
    )
    await database.connection.execute("INSERT INTO mailmaps.domain_aliases VALUES ('star.example', '*')")
    await database.connection.execute("INSERT INTO mailmaps.relays VALUES ('.sub.example', 'relay:[mx]')")
    assert await values(database, "transport_maps", "star.example") == set()
    assert await values(database, "virtual_mailbox_domains", "star.example") == set()
    assert await values(database, "transport_maps", ".sub.example") == {"relay:[mx]"}
    with pytest.raises(asyncpg.CheckViolationError, match="is no domain"):
        await database.connection.execute(
            "INSERT INTO mailmaps.domain_aliases VALUES ('.al.example', 'd.example')"
        )


async def test_a_domain_of_ours_is_not_relayed_as_well(database: Database) -> None:
    await database.connection.execute(ROWS)
    await database.connection.execute(
        "INSERT INTO mailmaps.relays VALUES ('d.example', 'relay:'), ('part.example', 'relay:')"
    )
    assert await values(database, "relay_domains", "d.example") == set()
    assert await values(database, "relay_domains", "part.example") == {"part.example"}
    assert await values(database, "transport_maps", "d.example") == {"virtual:"}
