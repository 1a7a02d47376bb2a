"""What the commands write: names that collide, numbers and mailboxes nobody inherits, what is disabled."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from tests.administration.site import Domain, raises
from tests.conftest import Database

from mailmaps.administration import accounts, addresses, domains
from mailmaps.administration.step import Refusal, look
from mailmaps.config import parse
from mailmaps.database.administration import not_ours


@pytest.fixture
def site(database: Database) -> Domain:
    return Domain(database)


async def test_an_account_gets_mail_and_logs_in(site: Domain) -> None:
    await site.domain("Ex.org")
    change = await site.account("Jan", "jan@ex.org", password="{PLAIN}x", addresses=["j.w@ex.org"])
    assert change.result["uid"] == 5001
    assert change.result["gid"] == 5001
    keys = "SELECT array_agg(key ORDER BY key) FROM mailmaps.virtual_mailbox_maps WHERE value = 'ex.org/jan/'"
    assert await site.value(keys) == ["j.w@ex.org", "jan@ex.org"]
    assert await site.value("SELECT password FROM mailmaps.logins WHERE login = 'jan'") == "{PLAIN}x"
    assert "password" not in change.result


@pytest.mark.parametrize(
    ("username", "email", "said"),
    [
        ("jan", "new@ex.org", "there is an account jan already"),
        ("JAN", "new@ex.org", "there is an account jan already"),
        ("new", "jan@ex.org", "is the address of jan"),
        ("new", "J.W@ex.org", "is the address of jan"),
        ("jan@ex.org", "new@ex.org", "two would log in"),
        ("new", "new@other.org", "is no domain for accounts"),
        ("new", "new@alias.org", "is an alias of ex.org"),
        ("new", "jan/x@ex.org", "say --mailbox"),
    ],
)
async def test_who_has_it_is_named(site: Domain, username: str, email: str, said: str) -> None:
    await site.domain()
    await site.do(domains.add_alias("alias.org", "ex.org"))
    await site.account("jan", "jan@ex.org", addresses=["j.w@ex.org"])
    before = await site.picture()
    assert said in await raises((Refusal, ValueError), site.account(username, email))  # type: ignore[arg-type]
    assert await site.picture() == before


@pytest.mark.parametrize(
    "mailbox", ["ex.org/jan", "/ex.org//jan/", "ex.org", "ex.org/jan/sub", "ex.org/jan/cur"]
)
async def test_no_mailbox_in_or_around_anothers(site: Domain, mailbox: str) -> None:
    await site.domain()
    await site.account("jan", "jan@ex.org")
    assert "of jan" in await raises(Refusal, site.account("new", "new@ex.org", mailbox=mailbox))
    await site.account("new", "new@ex.org", mailbox="ex.org/jan2")


async def test_numbers_and_mailboxes_are_not_given_twice(site: Domain) -> None:
    await site.domain()
    await site.account("jan", "jan@ex.org")
    await site.account("eva", "eva@ex.org")
    await site.do(accounts.remove("eva", with_mail=False))
    await site.do(accounts.remove("jan", with_mail=False))
    said = await raises(Refusal, site.account("jan", "jan@ex.org"))
    assert "it was jan's (uid 5001)" in said
    assert "was the uid of eva" in await raises(Refusal, site.account("new", "new@ex.org", uid=5002))
    change = await site.account("new", "new@ex.org")
    assert change.result["uid"] == 5003
    assert (await site.account("jan", "jan@ex.org", adopt=True)).result["uid"] == 5001
    for name in ("jan", "new"):
        await site.do(accounts.remove(name, with_mail=False))
    await site.do(domains.remove("ex.org", with_accounts=False, with_mail=False))
    assert (await site.domain("next.org")).result["gid"] == 5002


async def test_a_row_deleted_by_sql_is_remembered_too(site: Domain) -> None:
    await site.domain()
    await site.account("jan", "jan@ex.org")
    await site.database.connection.execute("DELETE FROM user_addresses; DELETE FROM user_accounts")
    assert "it was jan's" in await raises(Refusal, site.account("x", "x@ex.org", mailbox="ex.org/jan"))


async def test_numbers_that_the_system_has_are_skipped(site: Domain) -> None:
    await site.domain()
    await site.account("last", "last@ex.org", uid=61183)
    assert (await site.account("jan", "jan@ex.org")).result["uid"] >= 65536


async def test_two_admins_at_once(site: Domain) -> None:
    await site.domain()
    many = [site.account(f"u{n}", f"u{n}@ex.org") for n in range(8)]
    same = [site.account("same", f"s{n}@ex.org") for n in range(4)]
    done = await asyncio.gather(*many, *same, return_exceptions=True)
    refused = [one for one in done if isinstance(one, Refusal)]
    assert len(refused) == 3, done
    assert await site.value("SELECT count(DISTINCT uid) FROM user_accounts") == 9


async def test_an_account_disabled_and_enabled(site: Domain) -> None:
    await site.domain()
    await site.account("jan", "jan@ex.org")
    alias = "SELECT value FROM mailmaps.virtual_alias_maps WHERE key = 'jan@ex.org'"
    await site.do(accounts.set_active(["jan"], None, active=False))
    assert await site.value(alias) is None
    assert await site.value("SELECT active FROM mailmaps.logins WHERE login = 'jan'") is False
    await site.do(accounts.set_active([], "ex.org", active=True))
    assert await site.value(alias) == "jan@ex.org"
    await site.database.connection.execute("UPDATE mailmaps.settings SET honour_active = false")
    assert "not honoured" in await raises(Refusal, site.do(accounts.set_active(["jan"], None, active=False)))


async def test_a_domain_on_hold(site: Domain) -> None:
    await site.do(domains.add("ex.org", "smtp:[192.0.2.1]", None))
    transport = "SELECT value FROM mailmaps.transport_maps WHERE key = 'ex.org'"
    await site.do(domains.disable("ex.org"))
    assert (await site.value(transport)).startswith("retry:4.3.2 ")
    assert "already" in (await site.do(domains.disable("ex.org"))).said[0]
    shown = (await look(site.settings, domains.show("ex.org"))).result
    assert shown["transport"] == "smtp:[192.0.2.1]"
    assert shown["disabled"] is True
    await site.do(domains.enable("ex.org"))
    assert await site.value(transport) == "smtp:[192.0.2.1]"
    await site.do(domains.disable("ex.org"))
    await site.database.connection.execute("UPDATE domains SET transport = 'lmtp:x'")
    await site.do(domains.enable("ex.org"))
    assert await site.value(transport) == "lmtp:x"


async def test_an_address_disabled_is_kept_for_its_account(site: Domain) -> None:
    await site.domain()
    await site.account("jan", "jan@ex.org", addresses=["j.w@ex.org"])
    await site.account("eva", "eva@ex.org")
    before = await site.picture()
    await site.do(addresses.disable(["j.w@ex.org"]))
    assert await site.value("SELECT count(*) FROM mailmaps.virtual_alias_maps WHERE key = 'j.w@ex.org'") == 0
    assert "disabled address of jan" in await raises(Refusal, site.address("eva", "j.w@ex.org"))
    await site.do(addresses.enable(["j.w@ex.org"]))
    assert await site.picture() == before
    assert "as a whole" in await raises(Refusal, site.do(addresses.disable(["jan@ex.org"])))


async def test_a_catch_all_that_gets_the_mail_is_named(site: Domain) -> None:
    await site.domain()
    await site.account("jan", "jan@ex.org", addresses=["j.w@ex.org"])
    await site.account("eva", "eva@ex.org", addresses=["@ex.org"])
    change = await site.do(addresses.disable(["j.w@ex.org"]))
    assert any("catch-all @ex.org: eva" in note for note in change.notes)


@pytest.mark.parametrize("kind", ["relay", "alias", "alias of a removed domain"])
async def test_nothing_of_a_removed_domain_stays(site: Domain, kind: str) -> None:
    """What stayed would be delivered here though it is somebody else's domain now."""
    await site.domain()
    await site.domain("other.org")
    await site.account("jan", "jan@other.org")
    if kind == "relay":
        await site.do(domains.add_relay("gone.org", None, []))
    else:
        await site.do(domains.add_alias("gone.org", "ex.org"))
        await site.do(addresses.add("jan", ["sales@gone.org"]))
    await site.forward("team@gone.org", "jan@other.org")
    await site.forward("off@gone.org", "jan@other.org")
    await site.do(addresses.disable_forward("off@gone.org", []))
    away = "ex.org" if kind.endswith("domain") else "gone.org"
    await site.do(domains.remove(away, with_accounts=False, with_mail=False))
    assert "gone.org" not in str(await site.picture())


async def test_a_domain_in_capitals(site: Domain) -> None:
    await site.database.connection.execute("INSERT INTO domains VALUES (77, 'Two.ORG', 'virtual:')")
    await site.account("jan", "jan@two.org", addresses=["j@two.org"])
    await site.database.connection.execute(
        "INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) "
        "VALUES ('JAN', 900, 77, 'jan2@two.org', 'two.org/jan2', '1')"
    )
    shown = await site.do(domains.show("two.org"))
    assert shown.result["addresses"] == 2
    await site.do(domains.remove("two.org", with_accounts=True, with_mail=False))
    assert await site.value("SELECT count(*) FROM user_accounts") == 0


async def test_no_forward_leads_back_to_itself(site: Domain) -> None:
    await site.domain()
    await site.account("jan", "jan@ex.org")
    await site.forward("c@ex.org", "d@ex.org", "jan@ex.org")
    await site.forward("d@ex.org", "e@ex.org", "jan@ex.org")
    before = await site.picture()
    said = await raises(Refusal, site.forward("E@ex.org", "jan@ex.org", "C@ex.org"))
    assert "e@ex.org -> c@ex.org -> d@ex.org -> e@ex.org" in said
    assert await site.picture() == before
    await site.forward("jan@ex.org", "c@else.example")  # beside the mailbox
    assert "jan@ex.org -> c@ex.org -> jan@ex.org" in await raises(
        Refusal, site.forward("jan@ex.org", "c@ex.org")
    )


async def test_forwards(site: Domain) -> None:
    await site.domain()
    await site.account("jan", "jan@ex.org")
    change = await site.forward("Team@ex.org", "jan@ex.org", "x@else.example", "nobody@ex.org")
    assert any("nobody gets mail for nobody@ex.org" in note for note in change.notes)
    before = await site.picture()
    await site.do(addresses.disable_forward("team@ex.org", []))
    assert await site.value("SELECT count(*) FROM mailmaps.virtual_alias_maps WHERE key = 'team@ex.org'") == 0
    await site.do(addresses.enable_forward("team@ex.org", []))
    assert await site.picture() == before
    await site.do(addresses.remove_forward("team@ex.org", ["x@else.example"]))
    await site.do(addresses.disable_forward("team@ex.org", ["jan@ex.org"]))
    await site.do(addresses.remove_forward("team@ex.org", []))
    assert not (await site.picture())["mailmaps.forwards"]
    assert not (await site.picture())["mailmaps.disabled_forwards"]
    assert "no domain of ours" in await raises(Refusal, site.forward("x@else.example", "jan@ex.org"))


async def test_a_domain_with_accounts_is_not_removed_by_the_way(site: Domain) -> None:
    await site.domain()
    await site.domain("other.org")
    await site.do(domains.add_alias("alias.org", "ex.org"))
    await site.do(domains.add_relay("relay.org", None, ["a@relay.org"]))
    await site.account("jan", "jan@ex.org", addresses=["j@other.org"])
    await site.account("eva", "eva@other.org", addresses=["eva@ex.org"], without=["pop3"])
    await site.forward("team@ex.org", "jan@ex.org")
    await site.forward("out@other.org", "jan@ex.org")
    said = await raises(Refusal, site.do(domains.remove("ex.org", with_accounts=False, with_mail=False)))
    assert "has 1 accounts" in said
    change = await site.do(domains.remove("ex.org", with_accounts=True, with_mail=False))
    assert "removed its alias alias.org" in change.said
    assert "removed the address eva@ex.org of eva, who stays" in change.said
    assert any("1 forwards elsewhere" in note for note in change.notes)
    await site.do(domains.remove("relay.org", with_accounts=False, with_mail=False))
    left = await site.picture()
    assert "ex.org" not in str({**left, "mailmaps.forwards": []})
    assert len(left["public.user_accounts"]) == 1


async def test_the_role_can_do_this_and_no_more(site: Domain) -> None:
    async with site.database.connect(site.database.admin_dsn) as admin:
        for statement in (
            "CREATE TABLE mailmaps.x ()",
            "CREATE SCHEMA x",
            "ALTER TABLE public.domains ADD x int",
            "DROP TABLE mailmaps.forwards",
            "TRUNCATE mailmaps.forwards",
            "ALTER TABLE public.user_accounts DISABLE TRIGGER ALL",
            "UPDATE mailmaps.settings SET honour_active = false",
            "INSERT INTO mailmaps.domain_alias_keys VALUES ('a', 'b')",
            "DELETE FROM mailmaps.former_mailboxes",
            "UPDATE mailmaps.schema_version SET version = 1",
            "SELECT * FROM mailpolicy.sender_grants",
            "INSERT INTO mailpolicy.sender_grants (login, address) VALUES ('x', '*')",
            "SELECT * FROM pg_authid",
            "CREATE ROLE x",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await admin.execute(statement)
    for other in (site.database.reader_dsn, site.database.auth_dsn, site.database.write_dsn):
        async with site.database.connect(other) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("SELECT * FROM mailmaps.former_mailboxes")


def test_tables_that_are_not_ours() -> None:
    theirs = parse('[tables.virtual_alias_maps]\nsources = ["view:public.aliases"]\n')
    assert "not our tables" in not_ours(theirs)
    assert not_ours(parse("")) == ""


async def test_without_the_schema_or_the_setting(empty_database: Database) -> None:
    site = Domain(empty_database)
    assert "has no tables of ours" in await raises(Refusal, site.domain())
    site.settings = parse("")
    assert "database.admin_dsn" in await raises(Refusal, site.domain())
