"""What we answer is what `postmap -q` answers, byte for byte: columns of every type, read and compared.

A key that a column cannot take is an error for Postfix (an untyped literal is converted before anything
else), and so it is for us.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.cf_site import login
from tests.conftest import Connection, new_database
from tests.system.postmap_tool import TROUBLE, Postmap, ask, differences, our_reading

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

# Column, type, values of the three rows (NULL where there are fewer).
COLUMNS = {
    "bool": ("boolean", "true", "false"),
    "int2": ("smallint", "1", "-32768"),
    "int4": ("int", "1", "42"),
    "int8": ("bigint", "1", "9223372036854775807"),
    "num": ("numeric", "1.50", "NaN"),
    "num2": ("numeric(8,2)", "1.5", "0"),
    "f4": ("real", "0.1", "1e20"),
    "f8": ("double precision", "0.1", "-Infinity"),
    "money": ("money", "12.34", "0"),
    "txt": ("text", "a@one.test", "with, comma"),
    "vc": ("varchar(12)", "a@one.test", ""),
    "ch": ("char(12)", "pad", ""),
    "nm": ("name", "a@one.test", ""),
    "ci": ("citext", "A@One.test", "MixedCase"),
    "en": ("mood", "happy", "very sad"),
    "dm": ("email", "a@one.test", "b@x"),
    "dmi": ("positive", "1", "7"),
    "ba": ("bytea", "a\\\\@b", "\\x00ff"),
    "dt": ("date", "2020-02-29", "infinity"),
    "ts": ("timestamp", "2020-02-29 12:00", "2020-01-01 00:00:00.123456"),
    "tz": ("timestamptz", "2020-02-29 12:00+02", "epoch"),
    "ti": ("time", "12:34:56", "00:00"),
    "tt": ("timetz", "12:34:56+02", "00:00+00"),
    "iv": ("interval", "1 day 2 hours", "-3 mons"),
    "ip": ("inet", "10.0.0.1", "2001:db8::1/64"),
    "cd": ("cidr", "10.0.0.0/8", "::/0"),
    "mac": ("macaddr", "08:00:2b:01:02:03", None),
    "u": ("uuid", "00000000-0000-0000-0000-000000000001", None),
    "js": ("json", '{"a": "b"}', "null"),
    "jb": ("jsonb", '{"b":1,  "a":[]}', '"x"'),
    "bt": ("bit(4)", "1010", "0000"),
    "vb": ("bit varying", "1", ""),
    "arr": ("text[]", "{a@one.test,b}", "{}"),
    "iarr": ("int[]", "{1,2}", "{{1},{2}}"),
    "darr": ("emails", "{a@one.test}", None),
    "earr": ("mood[]", "{happy}", "{}"),
    "ciarr": ("citext[]", "{A@x}", "{}"),
    "rng": ("int4range", "[1,5)", "empty"),
    "tsr": ("tstzrange", "[2020-01-01,)", "empty"),
    "pt": ("point", "(1,2)", None),
    "bx": ("box", "(1,1),(0,0)", None),
    "tv": ("tsvector", "a fat cat", ""),
    "oid": ("oid", "1", "0"),
    "rc": ("regclass", "t", None),
    "lsn": ("pg_lsn", "0/1", None),
    "rw": ("pair", "(1,x)", "(,)"),
    "drw": ("checked_pair", "(1,x)", None),
}

DDL = """
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('happy', 'very sad');
CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN emails AS text[];
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN checked_pair AS pair;
"""

UNSAMPLED = ("rng", "tsr")
"""Reported: no sample of database/statements.py is a range, so these files are refused."""

# Keys: what the columns hold, other spellings of it, and what they cannot take.
KEYS = """
1 0 -1 01 +1 1.0 1.50 1e0 42 -32768 32768 99999999999999999999 NaN nan Infinity -infinity 0.1 1e20 0x1F 1_000
true t yes on false f off no 1@x 1@1 x X pad PAD pad@x pad@~@ @ a@one.test A@ONE.TEST MixedCase mixedcase b@x
happy HAPPY very~sad sad 2020-02-29 2020-02-30 29.02.2020 2020-02-29T12:00 epoch infinity 12:34:56 24:00 25:00
12:34:56+02 1~day~26:00:00 -3~mons P1D 10.0.0.1 10.0.0.1/32 10.0.0.0/8 10.1.0.0/8 10.0.0.256 2001:db8::1/64
::/0 ::1 08:00:2b:01:02:03 08002b010203 00000000-0000-0000-0000-000000000001
{00000000000000000000000000000001} {} {a} {1,2} {a@one.test,b} {A@X} {happy} {{1},{2}} {1 [1,5) [1,4] empty
(1,2) 1,2 (1,1),(0,0) {"a":"b"} {"b":1} [] null "x" <a/> 1010 101 B1 \\x612f a\\\\@b \\x0 t public.t nosuch
0/1 (1,x) (1,) (x,1) $12.34 12.34 1,234 ' '' \\ % %s ü
"""


@pytest.fixture(scope="module")
def postmap() -> Iterator[Postmap]:
    with Postmap() as postmap:
        yield postmap


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def dsn(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A database with the table t: key k, and a column of each type."""
    async with new_database(postgres) as database:
        await _fill(database.connection)
        yield database.dsn


async def _fill(connection: Connection) -> None:
    await connection.execute(DDL)
    columns = ", ".join(f"{name}_ {kind}" for name, (kind, _, _) in COLUMNS.items())
    await connection.execute(f"CREATE TABLE t (k text, {columns})")
    for row in (0, 1):
        values = [COLUMNS[name][1 + row] for name in COLUMNS]
        literals = ["NULL" if value is None else "'" + value.replace("'", "''") + "'" for value in values]
        await connection.execute(f"INSERT INTO t VALUES ('row{row}', {', '.join(literals)})")
    await connection.execute("INSERT INTO t (k) VALUES ('row2')")


def words() -> list[bytes]:
    return [word.replace("~", " ").encode() for word in (*KEYS.split(), "x" * 60)]


def keys() -> list[bytes]:
    """Each word alone and as a local part."""
    return [*words(), *(word + b"@one.test" for word in words())]


async def test_columns_of_every_type_come_as_libpq_brings_them(dsn: str, postmap: Postmap) -> None:
    queries = {name: f"SELECT {name}_, 'x' FROM t WHERE k = '%u'" for name in COLUMNS}
    queries["all"] = f"SELECT {', '.join(f'{name}_' for name in COLUMNS)} FROM t ORDER BY k"
    asked = [b"row0", b"row1@x", b"row2", b"none"]
    assert (
        await differences(postmap, {_file(postmap, dsn, f"r_{n}", q): asked for n, q in queries.items()})
        == []
    )


@pytest.mark.parametrize("operator", ["=", "IN ('%u',"])
async def test_columns_of_every_type_are_compared_as_with_a_literal(
    dsn: str, postmap: Postmap, operator: str
) -> None:
    end = ")" if operator.startswith("IN") else ""
    queries = {
        name: f"SELECT k FROM t WHERE {name}_ {operator} '%s'{end} ORDER BY k"
        for name in COLUMNS
        if name not in {"js", "pt", *UNSAMPLED}
    }
    files = {_file(postmap, dsn, f"c{operator[:2]}_{n}", q): words() for n, q in queries.items()}
    assert await differences(postmap, files, trouble_sample=1) == []


async def test_what_a_column_holds_is_found_by_it(dsn: str, postmap: Postmap) -> None:
    files = {
        _file(postmap, dsn, f"h_{name}", f"SELECT k FROM t WHERE {name}_ = '%s' ORDER BY k"): [
            value.lower().encode() for value in values if value
        ]
        for name, (_, *values) in COLUMNS.items()
        if name not in {"js", "pt", *UNSAMPLED}
    }
    assert await differences(postmap, files, trouble_sample=9) == []


# asyncpg has no codec to change for "char", and sends `name` in binary, which refuses what is too long.
@pytest.mark.parametrize(
    "query",
    [
        *(f"SELECT k FROM t WHERE {name}_ = '%s' ORDER BY k" for name in UNSAMPLED),
        "SELECT 'x'::\"char\" WHERE '%s' <> ''",
        "SELECT k FROM t WHERE '%1'::\"char\" = 'x'",
        "SELECT k, 'no' FROM t WHERE nm_ = '%s' ORDER BY k",
    ],
)
async def test_types_that_asyncpg_treats_in_its_own_way(dsn: str, postmap: Postmap, query: str) -> None:
    asked = [b"[1,5)", b"[2020-01-01,)", b"x@y.x", b"x" * 100, b"a@one.test"]
    assert await differences(postmap, {_file(postmap, dsn, "own", query): asked}, trouble_sample=9) == []


# No sample is such a value, and what PostgreSQL says of that is 42P01, 42601 and the like.
async def test_types_whose_input_refuses_every_sample(dsn: str, postmap: Postmap) -> None:
    files = {
        _file(postmap, dsn, "regclass", "SELECT '%u'::regclass"): [b"t", b"public.t@x", b"none"],
        _file(postmap, dsn, "jsonpath", "SELECT jb_ @? '%s' FROM t ORDER BY k"): [b"$.b", b"$.none", b"x@"],
    }
    assert await differences(postmap, files, trouble_sample=9) == []


async def test_a_key_that_a_column_cannot_take_is_trouble(dsn: str, postmap: Postmap) -> None:
    name = _file(postmap, dsn, "trouble", "SELECT k FROM t WHERE u_ = '%s'")
    async with our_reading(postmap, [name]) as sources:
        assert await ask(sources[name], b"no uuid") == TROUBLE
        assert await ask(sources[name], b"00000000-0000-0000-0000-000000000001") == b"row0"
    assert postmap.one(name, b"no uuid") == TROUBLE


OPERATIONS = {
    "like_left": "SELECT k FROM t WHERE '%u' LIKE nm_ ORDER BY k",
    "like_char": "SELECT k FROM t WHERE ch_ LIKE '%u%%' ORDER BY k",
    "like_citext": "SELECT k FROM t WHERE ci_ LIKE '%u%%' ORDER BY k",
    "regexp_citext": "SELECT k FROM t WHERE ci_ ~ '^%2'",
    "network": "SELECT k FROM t WHERE ip_ <<= '%s' ORDER BY k",
    "network_left": "SELECT k FROM t WHERE '%s' <<= cd_ ORDER BY k",
    "any": "SELECT k FROM t WHERE '%s' = ANY (arr_) ORDER BY k",
    "any_enum": "SELECT k FROM t WHERE '%u' = ANY (earr_)",
    "all_int": "SELECT k FROM t WHERE '%u' = ANY (iarr_)",
    "in_range": "SELECT k FROM t WHERE rng_ @> '%u'",
    "in_range_int": "SELECT k FROM t WHERE rng_ @> '%u'::int",
    "contains": "SELECT k FROM t WHERE jb_ ? '%u'",
    "arrow": "SELECT jb_ -> '%u', jb_ ->> '%u', js_ -> '%u' FROM t ORDER BY k",
    "plus": "SELECT int4_ + '%u' FROM t ORDER BY k",
    "minus_interval": "SELECT k FROM t WHERE tz_ > timestamptz '2020-03-01' - '%u'",
    "minus_date": "SELECT dt_ - '%u' FROM t WHERE k = 'row0'",
    "concat_operator": "SELECT int4_ || '%u' || bool_ FROM t ORDER BY k",
    "array_concat": "SELECT arr_ || '%u' FROM t ORDER BY k",
    "between": "SELECT k FROM t WHERE '%s' BETWEEN dt_ AND dt_ + 1",
    "row_in": "SELECT k FROM t WHERE (k, int4_) IN (('row0', '%u'), ('%u', 1))",
    "row_array": "SELECT ARRAY['%u', '%s'], ARRAY[int4_, '%u'] FROM t WHERE k = 'row0'",
    "case_types": "SELECT CASE WHEN bool_ THEN '%u' ELSE int4_ END FROM t ORDER BY k",
    "union_int": "SELECT '%u' UNION ALL SELECT int4_ FROM t WHERE k = 'row0'",
    "union_three": "SELECT '%u' UNION ALL SELECT '%s' UNION ALL SELECT 'x'",
    "coalesce": "SELECT coalesce(int4_, '%u') FROM t ORDER BY k",
    "greatest": "SELECT greatest('%u', '%s'), least(txt_, '%u') FROM t ORDER BY k",
    "varchar_cut": "SELECT '%s'::varchar(3), '%s'::char(30), CAST('%s' AS name)",
    "substring": "SELECT substring('%s' from '[0-9]+'), trim('%u'), lower('%s'), left('%s', 2)",
    "position": "SELECT position('@' in '%s'), strpos('%s', '.'), split_part('%s', '@', 1)",
    "to_char": "SELECT to_char(dt_, '%u') FROM t WHERE k = 'row0'",
    "collate": "SELECT k FROM t WHERE txt_ = '%s' COLLATE \"C\"",
    "limit": "SELECT k FROM t ORDER BY k LIMIT '%u'",
    "function_name": "SELECT age('%s'), abs('%u')",
    "generate": "SELECT generate_series(1, '%u')",
    "typed": "SELECT inet '%s', timestamptz '%s'",
    "typed_short": "SELECT int4 '%u', bool'%u'",
    "exists": "SELECT EXISTS (SELECT FROM t WHERE int4_ = '%u')",
    "quantified": "SELECT k FROM t WHERE int4_ = ANY ('{1,%u}')",
    "inside_array": "SELECT k FROM t WHERE k = ANY ('{row0,\"%s\"}')",
    "regclass": "SELECT '%u'::regclass",
    "unknown": "SELECT pg_typeof(lower('%s')), quote_literal('%s'), quote_nullable('%u'), md5('%s')",
    "json": "SELECT json_build_object('%u', 1), to_json('%s'::text), json_build_array('%s')",
}


async def test_literals_in_every_place_mean_the_same(dsn: str, postmap: Postmap) -> None:
    files = {_file(postmap, dsn, f"o_{name}", query): keys() for name, query in OPERATIONS.items()}
    assert await differences(postmap, files, trouble_sample=1) == []


def _file(postmap: Postmap, dsn: str, name: str, query: str) -> str:
    text = f"{login(dsn)}query = {query}\n"
    return f"pgsql:{postmap.write(f'{name}.cf', text)}"
