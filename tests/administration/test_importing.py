"""A file that is exported from one database and imported into another one makes the same of it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.administration.site import TABLES, Domain, raises, settings_of
from tests.conftest import Connection, Database, new_database

from mailmaps.administration import accounts, addresses, domains
from mailmaps.administration.csv_file import COLUMNS, Reading, read, write
from mailmaps.administration.importing import BadLines, importing
from mailmaps.administration.names import BadName
from mailmaps.administration.step import Change, Refusal, carry_out, look
from mailmaps.config import Settings
from mailmaps.database.administration_lists import EXPORTS, HASHES, rows
from mailmaps.demo.postgres import EmbeddedPostgres


async def exported(settings: Settings, queries: tuple[str, ...] = HASHES) -> str:
    file = io.StringIO()
    write(iter([]), file, COLUMNS, header=True)
    async for batch in rows(settings, *queries):
        write(iter(batch), file, COLUMNS, header=False)
    return file.getvalue()


async def imported(settings: Settings, text: str, *, update: bool = False, dry: bool = False) -> Change:
    prepare = importing(
        Path("x.csv"), io.StringIO(text), 100, update=update, dry_run=dry, told=lambda *_: None
    )
    return await (look if dry else carry_out)(settings, prepare)


async def refused(settings: Settings, text: str, *, update: bool = False) -> list[str]:
    """What is wrong, after nothing was written."""
    with pytest.raises(Refusal) as caught:
        await imported(settings, text, update=update)
    assert isinstance(caught.value.cause, BadLines), caught.value
    return [str(problem) for problem in caught.value.cause.problems]


async def picture(connection: Connection) -> dict[str, list[str]]:
    return {
        table: [row[0] for row in await connection.fetch(f"SELECT t::text FROM {table} AS t ORDER BY 1")]
        for table in TABLES
        if table != "mailmaps.rights"
    } | {"rights": await _rights(connection)}


async def _rights(connection: Connection) -> list[str]:
    """A row that takes nothing away is as good as none."""
    query = """SELECT r::text FROM mailmaps.rights AS r
               WHERE NOT (imap AND pop3 AND smtp AND sieve AND receive) ORDER BY 1"""
    return [row[0] for row in await connection.fetch(query)]


FLAGS = ("imap", "pop3", "smtp", "sieve", "receive")
LOCALS = st.sampled_from(["a", "b", "c", "ä", "x+y", '"a b"', "o'x", "d,e".replace(",", "_")])
account = st.fixed_dictionaries(
    {
        "local": LOCALS,
        "domain": st.integers(0, 1),
        "quota": st.integers(0, 3),
        "active": st.booleans(),
        "without": st.sets(st.sampled_from(FLAGS)),
        "more": st.sets(st.sampled_from(["m1", "m2", "m3", ""]), max_size=2),
        "off": st.booleans(),
        "hash": st.sampled_from([None, "{CRYPT}$y$x,\"y'", "{PLAIN}ä;="]),
    }
)
worlds = st.fixed_dictionaries(
    {
        "accounts": st.lists(account, max_size=4),
        "held": st.booleans(),
        "alias": st.booleans(),
        "relay": st.booleans(),
        "forwards": st.lists(
            st.tuples(
                st.sampled_from(["f", "g", ""]), st.sampled_from(["x@out.example", "a@d0.org"]), st.booleans()
            ),
            max_size=3,
        ),
    }
)  # fmt: skip


async def build(site: Domain, world: Mapping[str, Any]) -> None:
    for number in (0, 1):
        await site.do(domains.add(f"d{number}.org", "lmtp:x" if number else None, None))
    if world["alias"]:
        await site.do(domains.add_alias("alias.org", "d0.org"))
    if world["relay"]:
        await site.do(domains.add_relay("relay.org", None, ["x@relay.org"]))
    for number, one in enumerate(world["accounts"]):
        await _try(site, accounts.add(accounts.NewAccount(
            f"u{number}", f"{one['local']}@d{one['domain']}.org", one["hash"], quota=one["quota"],
            addresses=[f"{local}@d1.org" for local in sorted(one["more"])], without=sorted(one["without"]),
        ), 100))  # fmt: skip
        if not one["active"]:
            await _try(site, accounts.set_active([f"u{number}"], None, active=False))
        if one["off"]:
            await _try(site, addresses.disable([f"{local}@d1.org" for local in sorted(one["more"])]))
    for address, target, off in world["forwards"]:
        await _try(site, addresses.add_forward(f"{address}@d0.org", [target]))
        if off:
            await _try(site, addresses.disable_forward(f"{address}@d0.org", [target]))
    if world["held"]:
        await site.do(domains.disable("d1.org"))


async def _try(site: Domain, prepare: Any) -> None:
    try:
        await site.do(prepare)
    except Refusal:
        return


async def test_what_is_exported_is_imported(postgres: EmbeddedPostgres, template: str) -> None:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    async def check(world: Mapping[str, Any]) -> None:
        async with (
            new_database(postgres, f"TEMPLATE {template}") as old,
            new_database(postgres, f"TEMPLATE {template}") as new,
        ):
            await build(Domain(old), world)
            text = await exported(settings_of(old))
            await imported(settings_of(new), text)
            assert await picture(new.connection) == await picture(old.connection)
            assert await exported(settings_of(new)) == text
            again = await imported(settings_of(new), text)
            assert not any(again.result["new"].values())
            assert not any(again.result["changed"].values())

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(worlds)
    def every(world: Mapping[str, Any]) -> None:
        asyncio.run(check(world))

    with ThreadPoolExecutor(1) as thread:  # Hypothesis is not for a running loop
        await asyncio.get_running_loop().run_in_executor(thread, every)


BASE = """kind,domain,username,address,target,gid,uid,mailbox,quota,active,pop3,disabled,password_hash
domain,ex.org,,,,,,,,,,,
account,,jan,jan@ex.org,,,,,50,,,,{PLAIN}x
address,,jan,j.w@ex.org,,,,,,,,,
forward,,,team@ex.org,jan@ex.org,,,,,,,,
"""


async def test_update_and_dry_run(database: Database) -> None:
    settings_ = settings_of(database)
    dry = await imported(settings_, BASE, dry=True)
    assert dry.result["new"] == {"domain": 1, "account": 1, "address": 1, "forward": 1}
    assert await database.connection.fetchval("SELECT count(*) FROM domains") == 0
    await imported(settings_, BASE)
    other = BASE.replace(",50,,,,{PLAIN}x", ",70,no,no,,{PLAIN}y").replace(
        "jan@ex.org,,,,,,,,\n", "jan@ex.org,,,,,,,yes,\n"
    )
    assert all("--update" in problem for problem in await refused(settings_, other))
    done = await imported(settings_, other, update=True)
    assert done.result["changed"] == {"domain": 0, "account": 1, "address": 0, "forward": 1}
    (row,) = await database.connection.fetch("SELECT quota, active, password FROM user_accounts")
    assert tuple(row) == (70, "0", "{PLAIN}y")
    assert await database.connection.fetchval("SELECT pop3 FROM mailmaps.rights") is False
    assert await database.connection.fetchval("SELECT count(*) FROM mailmaps.disabled_forwards") == 1
    await imported(
        settings_, BASE.replace(",50,,,,{PLAIN}x", ",,,,,"), update=True
    )  # empty cells change nothing
    assert await database.connection.fetchval("SELECT password FROM user_accounts") == "{PLAIN}y"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense,,,,,,,,,,,,", "kind: is none of"),
        ("domain,ex.org,,,,,,,,,,,", "domain: is in line 2 already"),
        ("domain,b.org,jan,,,,,,,,,,", "username: means nothing for domain"),
        ("account,,eva,,,,,,,,,,", "address: is empty"),
        ("account,,eva,eva@ex.org,,,,,x,,,,", "quota: is no number"),
        ("account,,eva,eva@ex.org,,,,,,perhaps,,,", "active: is neither yes nor no"),
        ("account,,eva,eva@ex.org,,,99,,,,,,", "uid: is below"),
        ("account,,jan,eva@ex.org,,,,,,,,,", "username: is in line 3 already"),
        ("account,,eva,jan@ex.org,,,,,,,,,", "address: is an address of jan in line 3"),
        ("account,,eva,j.w@ex.org,,,,,,,,,", "is an address of"),
        ("account,,eva,eva@no.org,,,,,,,,,", "its domain no.org is no domain with accounts"),
        ("account,,eva,eva@ex.org,,,,ex.org/jan/x,,,,,", "mailbox: ex.org/jan/x is the mailbox of line 3"),
        ("address,,eva,e@ex.org,,,,,,,,,", "there is no account eva"),
        ("forward,,,x@no.org,jan@ex.org,,,,,,,,", "is in a domain that is not ours"),
        ("alias,b.org,,,no.org,,,,,,,,", "target: no.org is no domain of ours"),
        ("domain,x..y,,,,,,,,,,,", "is no domain"),
        ("forward,,,team@ex.org,team@ex.org,,,,,,,,", "target: is the address itself"),
        ("account,,eva,eva@ex.org,,,,,,,,,a password", "password_hash: is no hash"),
        ("account,,eva,eva@ex.org,,,,ex.org/eva ,,,,,", "mailbox: "),
        ("domain,b.org", "has 2 cells"),
    ],
)
async def test_every_problem_has_line_and_column(database: Database, line: str, said: str) -> None:
    problems = await refused(settings_of(database), f"{BASE}{line}\n{line}x\n")
    assert any(problem.startswith("6: ") and said in problem for problem in problems), problems
    assert await database.connection.fetchval("SELECT count(*) FROM domains") == 0


async def test_against_what_is_there(database: Database) -> None:
    settings_ = settings_of(database)
    await imported(settings_, BASE)
    await Domain(database).do(accounts.add(accounts.NewAccount("old", "old@ex.org", None), 100))
    await Domain(database).do(accounts.remove("old", with_mail=False))
    await Domain(database).do(addresses.add("jan", ["off@ex.org"]))
    await Domain(database).do(addresses.disable(["off@ex.org"]))
    head = BASE.partition("\n")[0]
    for line, said in (
        ("account,,off@ex.org,eva@ex.org,,,,,,,,,", "is an address of another account"),
        ("account,,jan@ex.org,eva@ex.org,,,,,,,,,", "is an address of another account"),
        ("account,,eva,jan@ex.org,,,,,,,,,", "is an address of jan"),
        ("account,,eva,eva@ex.org,,,5001,,,,,,", "is the uid of jan"),
        ("account,,eva,eva@ex.org,,,5002,,,,,,", "is the uid of old, or was"),
        ("account,,eva,old@ex.org,,,,,,,,,", "was the mailbox of old"),
        ("account,,eva,eva@ex.org,,,,ex.org,,,,,", "ex.org is the mailbox of jan, or within or around it"),
        ("account,,eva,eva@ex.org,,,,ex.org/jan/in,,,,,", "is the mailbox of jan, or within"),
        ("alias,ex.org,,,ex.org,,,,,,,,", "is a domain of another kind already"),
        ("domain,new.org,,,,5001,,,,,,,", "is the gid of ex.org"),
        ("account,,jan,jan@ex.org,,,7000,,,,,,", "uid: is other than what is there, and not changed"),
    ):
        problems = await refused(settings_, f"{head}\n{line}\n", update=True)
        assert any(said in problem for problem in problems), (line, problems)


def test_another_encoding_is_named() -> None:
    file = io.TextIOWrapper(io.BytesIO(b"kind,username,address\naccount,l\xfctin,lat@ex.org\n"), "utf-8")
    with pytest.raises(BadName, match="not UTF-8"):
        list(read(file, Reading()))


async def test_plain_passwords_are_hashed(database: Database) -> None:
    text = "kind,domain,username,address,password\ndomain,ex.org,,,\naccount,,jan,jan@ex.org,secret\n"
    await imported(settings_of(database), text)
    stored = await database.connection.fetchval("SELECT password FROM user_accounts")
    assert stored.startswith("{")
    assert "secret" not in stored
    assert "secret" not in await exported(settings_of(database))
    assert stored not in await exported(settings_of(database), EXPORTS)


@pytest.mark.parametrize("text", ["", "a,b\n", "kind,kind\n", "domain\nx.org\n"])
async def test_a_first_line_that_is_none(database: Database, text: str) -> None:
    with pytest.raises(Refusal) as caught:
        await imported(settings_of(database), text)
    assert isinstance(caught.value.cause, BadName)


async def test_one_after_the_other_is_read_to_the_end() -> None:
    reading = Reading()
    lines = list(read(io.StringIO("\ufeffkind,domain\ndomain,A.org\n\nx,y\ndomain,b.org\n"), reading))
    assert [line.values["domain"] for line in lines] == ["a.org", "b.org"]
    assert [problem.line for problem in reading.problems] == [4]
    assert reading.respelt == 1


async def test_not_ours(database: Database) -> None:
    settings_ = settings_of(database, more='[tables.virtual_mailbox_maps]\nsources = ["view:public.x"]\n')
    assert "not our tables" in await raises(Refusal, imported(settings_, BASE))
