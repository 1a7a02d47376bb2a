"""All tables of one reading of the settings: what is wrong is named, and the order of sources is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import cf_site
from tests.conftest import Database

from mailmaps.config import SettingsError
from mailmaps.maps.answer import NOT_FOUND, Found, Unavailable
from mailmaps.tableset import TableSet

pytestmark = pytest.mark.postgres

DEAD = "hosts = 127.0.0.1:1\ndbname = nowhere\n"


def source(folder: Path, database: Database, name: str, *rows: tuple[str, str]) -> str:
    """A file that knows these keys alone."""
    values = ", ".join(f"('{key}', '{value}')" for key, value in rows)
    query = f"SELECT v FROM (VALUES {values}) AS x (k, v) WHERE k = '%s'"
    return cf_site.write(folder, name, f"{cf_site.login(database.dsn)}query = {query}\n")


def failing(folder: Path, database: Database, name: str, key: str) -> str:
    """A file whose query fails for one key and knows no other."""
    query = f"SELECT 1 WHERE '%s' = '{key}' AND 1 / (length('%s') - {len(key)}) = 1"
    return cf_site.write(folder, name, f"{cf_site.login(database.dsn)}query = {query}\n")


def test_every_problem_of_every_file_is_named_at_once(tmp_path: Path) -> None:
    bad = cf_site.write(tmp_path, "bad", f"{DEAD}query = SELECT %s\nresult_format = %x\n")
    worse = cf_site.write(tmp_path, "worse", f"{DEAD}no value\n")
    lost = f"pgsql:{tmp_path}/lost.cf"
    port = cf_site.write(tmp_path, "port", "dbname = x\nquery = SELECT '%s'\nhosts = h:http\n")
    with pytest.raises(SettingsError) as refused:
        TableSet(cf_site.settings({"t": [bad, worse], "u": [worse, lost, port]}))
    assert [problem.split(": ")[0].removeprefix(f"{tmp_path}/") for problem in refused.value.problems] == [
        "bad.cf:3",
        "bad.cf:4",
        "worse.cf:3",
        "lost.cf",
        "port.cf:3",
    ]


async def test_start_names_the_query_that_postgresql_refuses(
    empty_database: Database, tmp_path: Path
) -> None:
    good = source(tmp_path, empty_database, "good", ("a@x.test", "found"))
    text = f"{cf_site.login(empty_database.dsn)}# comment\nquery = SELECT nope\n FROM nowhere\n"
    bad = cf_site.write(tmp_path, "bad", text)
    tables = TableSet(cf_site.settings({"t": [good], "u": [good, bad]}))
    try:
        (problem,) = await tables.start()
        assert problem.startswith(f"{tmp_path}/bad.cf:6: query: ")
        assert "nowhere" in problem
        assert await tables.tables["t"].answer(b"a@x.test") == Found("found"), "the rest can be used"
    finally:
        await tables.close()


async def test_start_names_the_file_whose_database_is_away(tmp_path: Path) -> None:
    away = cf_site.write(tmp_path, "away", f"{DEAD}query = SELECT '%s'\n")
    tables = TableSet(cf_site.settings({"t": [away]}, connect_timeout=1.0))
    try:
        (problem,) = await tables.start()
        assert problem.startswith(f"{tmp_path}/away.cf: ")
        assert isinstance(await tables.tables["t"].answer(b"a@x.test"), Unavailable)
    finally:
        await tables.close()


def test_a_query_that_is_no_utf_8_is_refused(empty_database: Database, tmp_path: Path) -> None:
    file = tmp_path / "latin1.cf"
    file.write_bytes(f"{cf_site.login(empty_database.dsn)}query = SELECT 'café' || '%s'\n".encode("latin-1"))
    with pytest.raises(SettingsError) as refused:
        TableSet(cf_site.settings({"t": [f"pgsql:{file}"]}))
    assert refused.value.problems == [f"{file}:5: query: not text in the encoding utf-8"]


async def test_a_candidate_is_asked_of_every_source_before_the_next(
    empty_database: Database, tmp_path: Path
) -> None:
    catch_all = source(tmp_path, empty_database, "one", ("@x.test", "all@y.test"))
    exact = source(tmp_path, empty_database, "two", ("u@x.test", "u@y.test"), ("@x.test", "never"))
    async with cf_site.running(cf_site.settings({"t": [catch_all, exact]})) as tables:
        table = tables.tables["t"]
        assert await table.answer(b"U+ext@x.test") == Found("u+ext@y.test")
        assert await table.answer(b"other@x.test") == Found("all@y.test")
        assert await table.answer(b"other@z.test") == NOT_FOUND
        assert (await table.explain(b"u@x.test")).row.source == exact  # type: ignore[union-attr]


async def test_the_first_source_that_knows_a_key_is_the_one_that_counts(
    empty_database: Database, tmp_path: Path
) -> None:
    one = source(tmp_path, empty_database, "one", ("u@x.test", "first"))
    two = source(tmp_path, empty_database, "two", ("u@x.test", "second"))
    async with cf_site.running(cf_site.settings({"t": [one, two], "u": [two, one]})) as tables:
        assert await tables.tables["t"].answer(b"u@x.test") == Found("first")
        assert await tables.tables["u"].answer(b"u@x.test") == Found("second")


async def test_a_source_that_cannot_say_stops_the_search(empty_database: Database, tmp_path: Path) -> None:
    away = cf_site.write(tmp_path, "away", f"{DEAD}query = SELECT '%s' WHERE '%s' = 'none'\n")
    sure = source(
        tmp_path, empty_database, "sure", ("u@x.test", "later source"), ("@x.test", "later candidate")
    )
    ill = failing(tmp_path, empty_database, "ill", "u@x.test")
    async with cf_site.running(cf_site.settings({"away": [away, sure], "ill": [ill, sure]})) as tables:
        assert isinstance(await tables.tables["away"].answer(b"u@x.test"), Unavailable)
        assert isinstance(await tables.tables["ill"].answer(b"u@x.test"), Unavailable)
        assert isinstance(await tables.tables["ill"].answer(b"u+ext@x.test"), Unavailable), (
            "its 2nd candidate"
        )
        assert await tables.tables["ill"].answer(b"other@x.test") == Found("later candidate")


async def test_nothing_is_asked_after_an_answer(empty_database: Database, tmp_path: Path) -> None:
    """Neither a later candidate nor a later source, although both would fail."""
    found = source(tmp_path, empty_database, "found", ("u@x.test", "found"))
    ill = failing(tmp_path, empty_database, "ill", "@x.test")
    away = cf_site.write(tmp_path, "away", f"{DEAD}query = SELECT '%s'\n")
    async with cf_site.running(cf_site.settings({"t": [ill, found, away]})) as tables:
        assert await tables.tables["t"].answer(b"u@x.test") == Found("found")
        assert isinstance(await tables.tables["t"].answer(b"other@x.test"), Unavailable)


async def test_a_key_that_no_file_is_asked_for_needs_no_database(tmp_path: Path) -> None:
    away = cf_site.write(tmp_path, "away", f"{DEAD}query = SELECT '%s'\ndomain = other.test\n")
    async with cf_site.running(cf_site.settings({"t": [away]})) as tables:
        assert tables.tables["t"].answer_now(b"u@x.test") == NOT_FOUND
        assert await tables.tables["t"].answer(b"u@x.test") == NOT_FOUND
        assert isinstance(await tables.tables["t"].answer(b"u@other.test"), Unavailable)


async def test_a_table_that_is_depended_on_twice_is_left_once(tmp_path: Path) -> None:
    settings = cf_site.settings({"t": [cf_site.write(tmp_path, "one", f"{DEAD}query = SELECT '%s'\n")]})
    table = settings.tables["t"].model_copy(update={"depends_on": ("public.a", "public.a")})
    tables = TableSet(settings.model_copy(update={"tables": {"t": table}}))
    await tables.close()
    assert not tables.mirrors.users
