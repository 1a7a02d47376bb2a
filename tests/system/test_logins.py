"""The real daemon with every door open, over a real PostgreSQL: each result through each door.

Real Dovecot and Postfix: test_dovecot.py, test_postfix_sasl.py.
"""

from __future__ import annotations

import asyncio
import grp
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from tests.conftest import AUTH_PASSWORD, Database
from tests.system.login_site import (
    ACCOUNTS,
    ANNA,
    BERT,
    BROKEN,
    GONE,
    JAN,
    NO_IMAP,
    NO_MAIL,
    NO_SMTP,
    SECRET,
    LoginSite,
    insert,
    stored,
)

Ask = Callable[..., Awaitable[str]]

DOORS = ("login", "auth", "mux")


@pytest_asyncio.fixture
async def site(database: Database) -> AsyncIterator[LoginSite]:
    await insert(database.connection)
    with LoginSite(database.reader_dsn, database.auth_dsn) as site:
        yield site


def door(site: LoginSite, name: str) -> Ask:
    doors: dict[str, Ask] = {"login": site.by_login, "auth": site.by_auth, "mux": site.by_mux}
    return doors[name]


def accepted(name: str, username: str) -> str:
    return "accepted" if name == "mux" else f"accepted {username}"


@pytest.mark.parametrize("name", DOORS)
async def test_every_result_of_a_login_through_every_door(site: LoginSite, name: str) -> None:
    ask = door(site, name)
    service = {"login": "imap"}.get(name, "smtp")
    other = NO_SMTP if service == "smtp" else NO_IMAP
    for user, username in (
        (JAN.username, JAN.username),
        ("Janwillem.Janssen@LXtreme.nl", JAN.username),
        ("j.w.janssen@lxtreme.nl", JAN.username),
        ("jawi_lx@lxtreme.nl", JAN.username),
        (ANNA.username, ANNA.username),
        (BERT.username, BERT.username),
        (NO_MAIL.username, NO_MAIL.username),
    ):
        assert await ask(user, service=service) == accepted(name, username), user
    for user, password in (
        (JAN.username, "wrong"),
        (JAN.username, ""),
        ("nobody@lxtreme.nl", SECRET),
        ("jawi_lx@other.example", SECRET),
        (GONE.username, SECRET),
        (other.username, SECRET),
        ("x" * 400, SECRET),
        (JAN.username, "x" * 600),
    ):
        assert await ask(user, password, service=service) == "rejected", user
    assert await ask(BROKEN.username, service=service) == "later"
    for secret in (SECRET, *map(stored, ACCOUNTS)):
        assert secret not in site.daemon.log()


async def test_the_realm_of_saslauthds_client(site: LoginSite) -> None:
    assert await site.by_mux("jawi_lx", realm="lxtreme.nl") == "accepted"
    assert await site.by_mux("anna", realm="LXTREME.nl") == "accepted"
    assert await site.by_mux("bert", realm="lxtreme.nl") == "accepted"  # bert@lxtreme.nl is a username
    assert await site.by_mux("jawi_lx", realm="other.example") == "rejected"


async def test_lookups_and_the_dialect_of_each_dovecot(site: LoginSite) -> None:
    mail = site.base / JAN.mailbox
    [reply] = await site.lines("LOOKUP", {"user": JAN.email, "service": "lmtp", "dovecot": "2.3"})
    assert reply.decode().split("\t") == [
        "OK", "user=jawi_lx", "uid=5001", "gid=5001", f"home={mail}/home", f"mail=maildir:{mail}",
        "quota_rule=*:storage=25M",
    ]  # fmt: skip
    [reply] = await site.lines("LOOKUP", {"user": "anna", "service": "doveadm", "dovecot": "2.4"})
    mail = site.base / ANNA.mailbox
    assert reply.decode().split("\t") == [
        "OK", "user=anna", "uid=5002", "gid=5001", f"home={mail}/home", "mail_driver=maildir",
        f"mail_path={mail}", "quota_storage_size=0M",
    ]  # fmt: skip
    for user, service, expected in (
        ("nobody", "lmtp", b"UNKNOWN"),
        (GONE.email, "lmtp", b"UNKNOWN"),
        (NO_MAIL.email, "lmtp", b"UNKNOWN"),
        (NO_IMAP.email, "lmtp", b"OK"),
        (GONE.email, "doveadm", b"OK"),
    ):
        [reply] = await site.lines("LOOKUP", {"user": user, "service": service})
        assert reply.split(b"\t")[0] == expected, user


async def test_the_list_of_users(site: LoginSite) -> None:
    replies = await site.lines("LIST", {"service": "doveadm"})
    assert replies == [*(f"USER\t{name}".encode() for name in sorted(p.username for p in ACCOUNTS)), b"OK"]


async def test_a_change_counts_at_once(site: LoginSite, database: Database) -> None:
    """A right password is remembered for ten seconds, and not when the account has changed."""
    await asyncio.sleep(1)  # for the daemon to listen
    for user, change in (
        ("postmaster@lxtreme.nl", "DELETE FROM user_addresses WHERE alias = 'postmaster@lxtreme.nl'"),
        ("jawi_lx", "UPDATE user_accounts SET active = '0' WHERE username = 'jawi_lx'"),
        ("anna", "UPDATE user_accounts SET password = '{SHA}' || password WHERE username = 'anna'"),
        (BERT.username, "INSERT INTO mailmaps.rights (username, imap) VALUES ('bert@lxtreme.nl', false)"),
        ("nosmtp", "UPDATE mailmaps.rights SET imap = false WHERE username = 'nosmtp'"),
    ):
        for _ in range(2):
            assert (await site.by_login(user)).startswith("accepted"), change
        await database.connection.execute(change)

        async def ended(user: str = user) -> bool:
            return not (await site.by_login(user)).startswith("accepted")

        assert await _soon(ended), change


async def _soon(condition: Callable[[], Awaitable[bool]]) -> bool:
    """Within five seconds: half of what a remembered password may last."""
    for _ in range(50):
        if await condition():
            return True
        await asyncio.sleep(0.1)
    return False


async def test_a_database_that_is_away_is_later_for_everybody(database: Database) -> None:
    await insert(database.connection)
    refused = database.auth_dsn.replace("mailauth", "nobody_of_that_name")
    with LoginSite(database.reader_dsn, refused) as site:
        for user, password in ((JAN.username, SECRET), (JAN.username, "wrong"), ("nobody", SECRET), ("", "")):
            for name in DOORS:
                assert await door(site, name)(user, password) == "later", (name, user)
        [reply] = await site.lines("LOOKUP", {"user": "nobody"})
        assert reply.startswith(b"LATER\t")
        [reply] = await site.lines("LIST", {})
        assert reply.startswith(b"LATER\t")
        assert SECRET not in site.daemon.log()


async def test_the_sockets_carry_mode_and_group(database: Database) -> None:
    group = grp.getgrall()[1]
    owned = {"mode": "0600", "group": group.gr_name} if os.geteuid() == 0 else {"mode": "0600"}
    with LoginSite(database.reader_dsn, database.auth_dsn, {"login": owned, "saslauthd": owned}) as site:
        for path, mode in ((site.login_socket, 0o600), (site.mux, 0o600), (site.auth_socket, 0o660)):
            found = path.stat()
            assert stat.S_IMODE(found.st_mode) == mode
            if os.geteuid() == 0 and mode == 0o600:
                assert found.st_gid == group.gr_gid


@pytest.mark.parametrize("section", ["login", "dovecot_auth", "saslauthd"])
async def test_a_login_socket_for_everybody_is_refused(database: Database, section: str) -> None:
    site = LoginSite(database.reader_dsn, database.auth_dsn, {section: {"mode": "0666"}})
    try:
        with pytest.raises(RuntimeError, match=rf"mailmaps.toml:\d+: {section}: mode lets everybody connect"):
            site.daemon.start()
    finally:
        site.close()


async def test_a_pam_service_without_a_file_is_refused(database: Database) -> None:
    settings = {"auth": {"backend": "pam", "pam_service": "no-such-service-of-mailmaps"}}
    site = LoginSite(database.reader_dsn, database.auth_dsn, settings)
    try:
        with pytest.raises(RuntimeError, match=r"auth.pam_service: there is no /etc/pam.d/no-such"):
            site.daemon.start()
    finally:
        site.close()


async def test_a_stop_answers_what_was_asked(database: Database) -> None:
    await insert(database.connection)
    with LoginSite(database.reader_dsn, database.auth_dsn) as site:
        logins = [asyncio.ensure_future(site.by_login(BERT.username)) for _ in range(3)]
        while (await asyncio.to_thread(site.daemon.status))["connections"] < len(logins):
            await asyncio.sleep(0.01)  # else they stand in the queue of the socket, which nobody answers
        assert await asyncio.to_thread(site.daemon.stop) == 0
        assert [await login for login in logins] == [f"accepted {BERT.username}"] * 3


async def test_a_reload_changes_all_that_logins_rest_on(site: LoginSite) -> None:
    config = site.daemon.config
    before = config.read_text()
    elsewhere = str(site.base).replace("/mail", "/elsewhere")
    moved = before.replace(f'"{site.base}"', f'"{elsewhere}"')
    config.write_text(moved.replace('realm = "lxtreme.nl"', 'realm = ""'))
    told = await asyncio.to_thread(site.daemon.command, "reload")
    assert told["problems"] == []
    assert not any("auth" in warning for warning in told["warnings"]), told
    [reply] = await site.lines("LOOKUP", {"user": JAN.email, "service": "lmtp", "dovecot": "2.4"})
    assert f"mail_path={elsewhere}/{JAN.mailbox}" in reply.decode()
    assert await site.by_login("anna@lxtreme.nl") == "accepted anna"  # an address of hers
    assert await site.by_login("jawi_lx@lxtreme.nl") == "rejected"  # that was the realm


async def test_a_reload_that_could_let_nobody_in_changes_nothing(site: LoginSite) -> None:
    config = site.daemon.config
    before = config.read_text()
    for wrong in (
        before.replace("mailauth:", "mailauth:wrong"),
        before.replace('realm = "lxtreme.nl"', 'realm = "lxtreme.nl"\nsource = "view:public.nothing"'),
        before.replace('realm = "lxtreme.nl"', 'backend = "pam"\npam_service = "no-such-service"'),
    ):
        assert wrong != before
        config.write_text(wrong)
        told = await asyncio.to_thread(site.daemon.command, "reload")
        assert told["problems"], told
        assert await site.by_login(JAN.username) == "accepted jawi_lx"
        assert AUTH_PASSWORD not in str(told)
