"""What rows say together, on a real PostgreSQL: circles, aliases to nobody, unreachable keys, domains."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import cf_site
from tests.conftest import Database

from mailmaps.config import Settings, parse
from mailmaps.doctor.circles import circles, drawn
from mailmaps.doctor.counted import SEE_ALL, Counted
from mailmaps.doctor.domains import domain_findings
from mailmaps.doctor.keys import Keys, doubtful_keys, key_problem
from mailmaps.doctor.rows import row_findings
from mailmaps.findings import Finding, Level
from mailmaps.tableset import rules

SITE = """
CREATE TABLE aliases (key text, value text);
CREATE TABLE boxes (key text, value text);
CREATE TABLE domains (key text, value text);
CREATE TABLE relays (key text, value text);
INSERT INTO domains VALUES ('a.test', 'x'), ('b.test', 'x');
INSERT INTO boxes VALUES ('ann@a.test', 'm/'), ('bob@b.test', 'n/'), ('gone@a.test', NULL);
INSERT INTO aliases VALUES ('ann@a.test', 'ann@a.test'), ('bob@b.test', 'Bob@b.test'),
   ('postmaster@a.test', 'ann@a.test'), ('@b.test', 'bob@b.test'), ('team@a.test', 'ann@a.test'),
   ('team@a.test', 'bob+team@b.test'), ('team@a.test', 'eve@elsewhere.test');
"""


def own(database: Database, more: str = "") -> Settings:
    tables = {
        "virtual_alias_maps": "aliases",
        "virtual_mailbox_maps": "boxes",
        "virtual_mailbox_domains": "domains",
        "relay_domains": "relays",
    }
    return parse(
        f'builtin_tables = false\n[database]\ndsn = "{database.dsn}"\n[postfix]\nrecipient_delimiter = "+"\n'
        + more
        + "".join(f'\n[tables.{name}]\nsources = ["view:public.{view}"]' for name, view in tables.items())
    )


async def found(settings: Settings, most: int | None = 5) -> list[tuple[Level, str]]:
    findings = await row_findings(settings, rules(settings), most=most)
    findings += await domain_findings(settings, rules(settings), most=most)
    return [(one.level, one.text) for one in findings if one.level is not Level.OK]


@pytest.fixture
async def site(empty_database: Database) -> Database:
    await empty_database.connection.execute(SITE)
    return empty_database


async def test_a_good_site_has_nothing(site: Database) -> None:
    assert await found(own(site)) == []
    [only] = await domain_findings(own(site), rules(own(site)), most=5)
    assert only == Finding(
        Level.OK, "domains", "2: the postmaster of each gets mail, and each is ours in one way"
    )


@pytest.mark.parametrize(
    ("rows", "level", "text"),
    [
        (
            "('x@a.test', 'y@b.test'), ('y@b.test', 'x@a.test')",
            Level.ERROR,
            "x@a.test -> y@b.test -> x@a.test is a circle",
        ),
        (
            "('x@a.test', 'y+tag@a.test'), ('y@a.test', 'ann@a.test, X@a.test')",
            Level.ERROR,
            "x@a.test -> y@a.test -> x@a.test is a circle",
        ),
        ("('@a.test', '@b.test'), ('x@b.test', 'x@a.test')", Level.ERROR, ""),
        ("('x@a.test', 'x+y@a.test')", Level.WARNING, ""),
        (
            "('x@a.test', 'nobody@a.test')",
            Level.WARNING,
            "x@a.test leads to nobody@a.test, which nobody has",
        ),
        ("('x@a.test', 'gone@a.test')", Level.WARNING, "x@a.test leads to gone@a.test, which is inactive"),
        ("('x@a.test', 'x@a.test')", Level.WARNING, "x@a.test has no mailbox"),
        (
            "('x@a.test', NULL)",
            Level.WARNING,
            "x@a.test leads to nobody who gets mail (none there, inactive, or a circle)",
        ),
        (
            "('X@a.test', 'ann@a.test')",
            Level.ERROR,
            'its key "X@a.test" is not case-folded, so no lookup reaches it',
        ),
        (
            "(U&'e\\0301@a.test', 'ann@a.test')",
            Level.WARNING,
            'its key "e\u0301@a.test" is not in Unicode\'s composed form (NFC), in which addresses are typed '
            "and "
            "sent, so no lookup reaches it",
        ),
        (
            "(' x@a.test', 'ann@a.test')",
            Level.WARNING,
            'its key " x@a.test" begins or ends with a blank, so no lookup reaches it',
        ),
        (
            "(E'x\\ty@a.test', 'ann@a.test')",
            Level.WARNING,
            'its key "x\ty@a.test" holds a control character, so no lookup reaches it',
        ),
        (
            "('x y@a.test', 'ann@a.test')",
            Level.WARNING,
            'its key "x y@a.test" is not in external form, so no lookup reaches it',
        ),
    ],
)
async def test_aliases(site: Database, rows: str, level: Level, text: str) -> None:
    await site.connection.execute(f"INSERT INTO aliases VALUES {rows}")
    told = await found(own(site))
    if text:
        assert told == [(level, text)]


@pytest.mark.parametrize(
    "rows",
    [
        "('x@a.test', 'x@elsewhere.test'), ('@elsewhere.test', 'x@a.test')",
        "('x@a.test', 'x@a.test'), ('x@a.test', 'team@a.test')",
        "('\"x y\"@a.test', 'ann@a.test'), ('é@a.test', 'ann@a.test')",
        "('ann+news@a.test', 'ann@a.test')",
        "('x@a.test', 'whoever@b.test')",
    ],
)
async def test_aliases_that_are_right(site: Database, rows: str) -> None:
    await site.connection.execute(
        f"INSERT INTO boxes VALUES ('x@a.test', 'p/'); INSERT INTO aliases VALUES {rows}"
    )
    assert await found(own(site)) == []


async def test_a_key_that_answers_nothing_ends_the_search_before_the_catch_all(site: Database) -> None:
    await site.connection.execute("INSERT INTO aliases VALUES ('x@a.test', 'z@b.test'), ('z@b.test', NULL)")
    assert sorted(text for _, text in await found(own(site))) == [
        "x@a.test leads to z@b.test, which nobody has",
        "z@b.test leads to nobody who gets mail (none there, inactive, or a circle)",
    ]


async def test_domains(site: Database) -> None:
    await site.connection.execute(
        """INSERT INTO domains VALUES ('c.test', 'x'), ('d.test', 'x'), ('e.test', 'x');
           INSERT INTO relays VALUES ('c.test', 'x');
           INSERT INTO boxes VALUES ('postmaster@c.test', 'p/');
           INSERT INTO aliases VALUES ('postmaster@d.test', 'p@d.test'), ('p@d.test', 'postmaster@d.test')"""
    )
    settings = own(site, 'mydestination = ["B.test"]\n')
    assert sorted(await found(settings)) == [
        (
            Level.WARNING,
            "c.test is in virtual_mailbox_domains and in relay_domains: Postfix warns with each mail",
        ),
        (Level.WARNING, "postmaster@d.test leads to a circle of aliases, by p@d.test"),
        (Level.WARNING, "postmaster@e.test leads to nobody"),
        (
            Level.ERROR,
            "b.test is in virtual_mailbox_domains and in mydestination, which counts: no mailbox of it gets "
            "anything",
        ),
        (Level.ERROR, "p@d.test -> postmaster@d.test -> p@d.test is a circle"),
    ]


async def test_a_flood_is_counted_and_shown_on_demand(site: Database) -> None:
    await site.connection.execute(
        "INSERT INTO aliases SELECT 'X' || i || '@a.test', 'ann@a.test' FROM generate_series(1, 500) i"
    )
    settings = own(site)
    told = await row_findings(settings, rules(settings), most=5)
    assert len(told) == 6
    assert (told[-1].text, told[-1].remedy) == ("and 495 more like these (is not case-folded)", SEE_ALL)
    assert len(await row_findings(settings, rules(settings), most=None)) == 500


async def test_our_own_schema(database: Database) -> None:
    await database.connection.execute(
        """INSERT INTO domains (gid, domain) VALUES (1, 'a.test'), (2, 'b.test'), (3, 'c.test');
           INSERT INTO mailmaps.domain_aliases VALUES ('d.test', 'a.test');
           INSERT INTO user_accounts (username, uid, gid, email, mailbox, active) VALUES
              ('ann', 1, 1, 'ann@a.test', 'm', '1'), ('off', 2, 1, 'off@a.test', 'n', '0');
           INSERT INTO user_addresses VALUES ('ann', 'postmaster@a.test'), ('off', 'o@a.test');
           INSERT INTO mailmaps.forwards VALUES
              ('postmaster@b.test', 'off@a.test'), ('@c.test', 'ann@a.test'),
              ('x@a.test', 'y@a.test'), ('y@a.test', 'x@a.test'),
              ('z@a.test', 'w@a.test'), ('w@a.test', 'z@a.test'), ('w@a.test', 'ann@a.test')"""
    )
    settings = parse(f'[postfix]\nrecipient_delimiter = "+"\n[database]\ndsn = "{database.reader_dsn}"\n')
    nobody = "leads to nobody who gets mail (none there, inactive, or a circle)"
    assert sorted(await found(settings, None)) == [
        (Level.WARNING, "postmaster@b.test leads to nobody"),
        (Level.WARNING, f"postmaster@b.test {nobody}"),
        (Level.WARNING, f"x@a.test {nobody}"),
        (Level.WARNING, f"x@d.test {nobody}"),
        (Level.WARNING, f"y@a.test {nobody}"),
        (Level.WARNING, f"y@d.test {nobody}"),
        (Level.ERROR, "w@a.test -> z@a.test -> w@a.test is a circle"),
    ]


async def test_cf_files_as_far_as_their_keys_are_known(site: Database, tmp_path: Path) -> None:
    await site.connection.execute(
        """INSERT INTO aliases VALUES ('x@a.test', 'y@a.test'), ('y@a.test', 'x@a.test'),
              ('z@a.test', 'no@a.test')"""
    )

    def source(table: str) -> str:
        query = f"query = SELECT value FROM {table} WHERE key = '%s'"
        return cf_site.write(tmp_path, table, f"{cf_site.login(site.dsn)}{query}\n")

    tables = {
        "virtual_alias_maps": "aliases",
        "virtual_mailbox_maps": "boxes",
        "virtual_mailbox_domains": "domains",
    }
    text = 'builtin_tables = false\n[postfix]\nrecipient_delimiter = "+"'
    text += "".join(f'\n[tables.{name}]\nsources = ["{source(table)}"]' for name, table in tables.items())
    assert sorted(await found(parse(text))) == [
        (Level.WARNING, "z@a.test leads to no@a.test, which nobody has"),
        (Level.ERROR, "x@a.test leads to a circle of aliases"),
        (Level.ERROR, "y@a.test leads to a circle of aliases"),
    ]


async def test_a_database_that_is_away_or_closed_is_one_line(site: Database) -> None:
    settings = own(site)
    await site.connection.execute("DROP TABLE boxes")
    findings = await row_findings(settings, rules(settings), most=5)
    assert [(one.level, one.text) for one in findings] == [
        (Level.WARNING, 'not looked at: relation "public.boxes" does not exist (42P01)')
    ]
    away = settings.model_copy(
        update={"database": settings.database.model_copy(update={"dsn": "postgresql://x@127.0.0.1:1/x"})}
    )
    assert await row_findings(away, rules(away), most=5) == []
    [line] = await domain_findings(away, rules(away), most=5)
    assert (line.level, line.text.startswith("not looked at: ")) == (Level.WARNING, True)


@given(st.dictionaries(st.sampled_from("abcdef"), st.sets(st.sampled_from("abcdefx"), min_size=1)))
def test_a_circle_is_found_exactly_where_one_is(leads_to: dict[str, set[str]]) -> None:
    shown = circles(leads_to)
    for circle in shown:
        for key, target in zip(circle, circle[1:] + circle[:1], strict=True):
            assert target in leads_to[key]
    assert bool(shown) == any(_reaches(leads_to, key, key) for key in leads_to)


def _reaches(leads_to: dict[str, set[str]], start: str, goal: str) -> bool:
    seen: set[str] = set()
    waiting = list(leads_to.get(start, ()))
    while waiting:
        at = waiting.pop()
        if at == goal:
            return True
        if at not in seen:
            seen.add(at)
            waiting += leads_to.get(at, ())
    return False


def test_a_long_circle_is_cut() -> None:
    assert drawn([str(n) for n in range(9)]) == "0 -> 1 -> 2 -> 3 -> 4 -> 5 -> ... -> 0"


@given(st.lists(st.binary(max_size=6)), st.binary(max_size=6))
def test_keys_are_a_set(keys: list[bytes], other: bytes) -> None:
    held = Keys()
    for key in keys:
        held.add(key)
    held.seal()
    assert all(key in held for key in keys)
    assert (other in held) == (other in keys)


@given(st.lists(st.text(max_size=12), max_size=4), st.booleans())
def test_a_batch_is_judged_as_its_keys_are(keys: list[str], addresses: bool) -> None:
    raw = [key.encode(errors="surrogatepass") for key in keys if "\0" not in key]
    expected = [
        (text, problem)
        for text in (one.decode(errors="surrogateescape") for one in raw)
        if (problem := key_problem(text, address=addresses))
    ]
    assert doubtful_keys(raw, addresses=addresses) == expected


def test_the_worst_comes_first() -> None:
    counted = Counted(1)
    counted.add(Level.WARNING, "a", "k", "one")
    counted.add(Level.ERROR, "b", "k", "two")
    assert [one.text for one in counted.findings()] == ["two", "one"]
