"""Tables that are only a query (`.cf` files): nothing is held, so what was found once is all there is.

A key that was found is found still while nobody can be asked, for `max_stale`; whatever else is "later",
within the deadline, and at once while it is known that nobody is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests import cf_site
from tests.system.daemon import Daemon
from tests.system.outages.asker import ask
from tests.system.outages.history import Place
from tests.system.outages.site import Site, says

from mailmaps.maps.answer import NOT_FOUND, Answer, Found, Unavailable

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

TABLE = "virtual_alias_maps"
ASKED = Place(TABLE, "s1@fixed.test")
NOT_THERE = Place(TABLE, "nobody@fixed.test")
QUERY = "SELECT email FROM user_accounts a JOIN user_addresses u USING (username) WHERE alias = '%s'"
KNOWN = [Place(TABLE, f"also{n}@fixed.test") for n in range(10)]
RENAME = "UPDATE user_accounts SET email = 'changed@fixed.test' WHERE username = 's1'"


def is_unavailable(answer: Answer) -> bool:
    return isinstance(answer, Unavailable)


@pytest_asyncio.fixture(loop_scope="module")
async def file(site: Site, tmp_path: Path) -> AsyncIterator[str]:
    """The file's name as the settings have it."""
    await site.execute("GRANT SELECT ON user_accounts, user_addresses TO mailreader")
    yield cf_site.write(tmp_path, "one", f"{cf_site.login(site.reader)}query = {QUERY}\n")


@pytest.mark.parametrize("how", ["killed", "hung"])
async def test_what_was_found_is_found_and_all_else_is_later(site: Site, file: str, how: str) -> None:
    settings = site.settings(cache={"ttl": 0.2, "negative_ttl": 0.2})
    with Daemon(settings, tables={TABLE: [file]}) as daemon:
        for place in KNOWN:
            assert isinstance(await ask(daemon, place), Found)
        assert await ask(daemon, NOT_THERE) == NOT_FOUND
        await (site.server.kill() if how == "killed" else site.server.pause())
        try:
            await asyncio.sleep(0.5)
            for place in KNOWN:
                assert isinstance(await ask(daemon, place), Found)
                assert isinstance(await ask(daemon, place, "socketmap"), Found)
            assert is_unavailable(await ask(daemon, NOT_THERE))
            # At once: a thousand of them, each with its deadline of 1.5 s, would take half an hour.
            for number in range(1000):
                new = Place(TABLE, f"new{number}@fixed.test")
                assert is_unavailable(await ask(daemon, new, "socketmap" if number % 2 else "tcp"))
                if how == "hung" and number == 3:
                    await says(
                        daemon, new, lambda answer: "no answer in time" in getattr(answer, "reason", "")
                    )
        finally:
            await (site.server.start() if how == "killed" else site.server.resume())
        await says(daemon, NOT_THERE, NOT_FOUND)
        await says(daemon, Place(TABLE, "also11@fixed.test"), Found("s11@fixed.test"))
        await site.execute(RENAME)
        await says(daemon, ASKED, Found("changed@fixed.test"))


async def test_what_was_found_is_not_found_for_ever(site: Site, file: str) -> None:
    settings = site.settings(cache={"ttl": 0.2, "negative_ttl": 0.2, "max_stale": 3.0})
    with Daemon(settings, tables={TABLE: [file]}) as daemon:
        assert isinstance(await ask(daemon, ASKED), Found)
        await site.server.kill()
        try:
            assert isinstance(await ask(daemon, ASKED), Found)
            await says(daemon, ASKED, is_unavailable)
        finally:
            await site.server.start()
        await says(daemon, ASKED, Found("s1@fixed.test"))


async def test_a_change_of_a_table_it_depends_on_is_seen_whatever_is_remembered(
    site: Site, file: str
) -> None:
    """Before the outage, in it, and after it."""
    settings = site.settings(cache={"ttl": 3600.0, "negative_ttl": 3600.0})
    with Daemon(settings, tables={TABLE: [file]}) as daemon:
        text = f'[tables.{TABLE}]\ndepends_on = ["user_accounts", "public.user_addresses"]\n'
        daemon.stop()
        daemon.config.write_text(daemon.config.read_text().replace(f"[tables.{TABLE}]\n", text))
        daemon.start()
        assert await ask(daemon, ASKED) == Found("s1@fixed.test")
        assert await ask(daemon, NOT_THERE) == NOT_FOUND
        await site.execute(RENAME)
        await says(daemon, ASKED, Found("changed@fixed.test"))
        await site.execute("INSERT INTO user_addresses VALUES ('s2', 'nobody@fixed.test')")
        await says(daemon, NOT_THERE, Found("s2@fixed.test"))
        # A change that nobody hears of: the connection that listens is away.
        await site.execute("ALTER ROLE mailreader CONNECTION LIMIT 0")
        await site.terminate_daemon()
        await site.execute(RENAME.replace("changed", "again"))
        assert await ask(daemon, ASKED) in (Found("changed@fixed.test"), Found("again@fixed.test"))
        await site.execute("ALTER ROLE mailreader CONNECTION LIMIT -1")
        await says(daemon, ASKED, Found("again@fixed.test"))
        await site.server.restart()
        await site.execute(RENAME.replace("changed", "last"))
        await says(daemon, ASKED, Found("last@fixed.test"))
