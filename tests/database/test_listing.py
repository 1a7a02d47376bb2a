"""A listed view is what `fetch_rows` gives for each of its keys, packed: whatever the texts, the server's
encoding, the order the rows stand in and the pieces the bytes come in."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import asyncpg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.conftest import Connection, Database, new_database

from mailmaps.database.listing import PackedRows, _Grouping, read_rows
from mailmaps.database.views import fetch_rows
from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.maps.row_bytes import pack, unpack

VIEW = "public.v"
AWKWARD = [
    "plain", "with space", " ", "tab\there", "\t", "line\nfeed", "\n", "\r\n", "back\\slash", "\\", "\\\\", "\\N",  # noqa: E501
    "\\n", "\\t", "\\.", "\b\f\v", "\x7f\x01", "a,b", ",", "a,", "é", "ß@straße.test", "日本@例.test", "😀", "\u2028",  # noqa: E501
    "'quoted'", '"', "NULL", "{}", "x" * 5000,
]  # fmt: skip


async def listed(connection: Connection, replace: dict[str, str] | None = None) -> dict[bytes, bytes]:
    """All rows; the keys came strictly ascending."""
    rows: PackedRows = []
    await read_rows(connection, VIEW, replace or {}, rows.extend)
    assert all(one < other for (one, _), (other, _) in pairwise(rows))
    return dict(rows)


async def fetched(connection: Connection, replace: dict[str, str] | None = None) -> dict[bytes, bytes]:
    """The same, key by key."""
    keys = [key for (key,) in await connection.fetch(f"SELECT DISTINCT key::text FROM {VIEW}")]
    rows = await fetch_rows(connection, VIEW, [key for key in keys if key is not None], replace or {})
    return {key.encode(): pack(values) for key, values in rows.items()}


async def make(connection: Connection, rows: list[tuple[str | None, str | None]]) -> None:
    await connection.execute("CREATE TABLE v (key text, value text)")
    await connection.executemany("INSERT INTO v VALUES ($1, $2)", rows)


pytestmark = pytest.mark.postgres


async def test_awkward_texts(empty_database: Database) -> None:
    connection = empty_database.connection
    await make(connection, [(key, value) for key in AWKWARD for value in AWKWARD[:3]])
    await connection.executemany("INSERT INTO v VALUES ('k' || $1, $1)", [(text,) for text in AWKWARD])
    rows = await listed(connection)
    assert rows == await fetched(connection)
    assert len(rows) == 2 * len(AWKWARD)
    for text in AWKWARD:
        assert unpack(rows[text.encode()]) == ("plain", " ", "with space") or text in AWKWARD
        assert unpack(rows[b"k" + text.encode()]) == (text,)


async def test_what_is_no_value_and_no_key(empty_database: Database) -> None:
    """NULL and the empty text are no values, but their keys are known; a key that is NULL is none."""
    connection = empty_database.connection
    rows = [
        ("null", None),
        ("empty", ""),
        ("both", None),
        ("both", ""),
        ("some", None),
        ("some", "b"),
        ("some", "a"),
    ]
    await make(
        connection, [*rows, ("some", "b"), (None, "nobody's"), ("", "of the empty key"), ("text", "\\N")]
    )
    found = await listed(connection)
    assert found == await fetched(connection)
    assert {key: unpack(row) for key, row in found.items()} == {
        b"": ("of the empty key",), b"both": (), b"empty": (), b"null": (), b"some": ("a", "b"), b"text": ("\\N",),  # noqa: E501
    }  # fmt: skip


async def test_nothing_at_all(empty_database: Database) -> None:
    await make(empty_database.connection, [])
    assert await listed(empty_database.connection) == {}


async def test_values_that_are_replaced(empty_database: Database) -> None:
    connection = empty_database.connection
    await make(
        connection,
        [("a", "virtual:"), ("b", "virtual"), ("c", "virtual:x"), ("d", "smtp:"), ("d", "virtual:")],
    )
    replace = dict.fromkeys(("virtual:", "virtual"), "lmtp:unix:a\\b\té")
    rows = await listed(connection, replace)
    assert rows == await fetched(connection, replace)
    assert unpack(rows[b"a"]) == unpack(rows[b"b"]) == ("lmtp:unix:a\\b\té",)
    assert unpack(rows[b"c"]) == ("virtual:x",)
    assert unpack(rows[b"d"]) == ("lmtp:unix:a\\b\té", "smtp:")


async def test_many_rows_in_another_order(empty_database: Database) -> None:
    """More than come in one piece, and values of one key far apart."""
    connection = empty_database.connection
    await connection.execute("CREATE TABLE v (key text, value text)")
    await connection.execute(
        "INSERT INTO v SELECT chr(97 + n % 3) || chr(65 + n % 29) || (n / 2), 'v' || (n * 7 % 11) "
        "FROM generate_series(60000, 1, -1) n"
    )
    await connection.execute("INSERT INTO v SELECT key, 'more' FROM v WHERE value = 'v3'")
    pieces: list[int] = []
    rows: dict[bytes, bytes] = {}

    def take(piece: PackedRows) -> None:
        pieces.append(len(piece))
        rows.update(piece)

    await read_rows(connection, VIEW, {}, take)
    assert len(pieces) > 1
    assert sum(pieces) == len(rows)
    assert all(pieces)
    assert rows == await fetched(connection)
    assert rows == await listed(connection)


async def test_columns_that_are_not_text(empty_database: Database) -> None:
    connection = empty_database.connection
    await connection.execute(
        "CREATE VIEW v AS SELECT n AS key, n * 10 AS value, 'more' AS another FROM generate_series(1, 12) n"
    )
    rows = await listed(connection)
    assert list(rows) == sorted(str(number).encode() for number in range(1, 13))
    assert rows[b"12"] == b"120"


LATIN = ["a@ex.test", "é@ex.test", "ÿ", "ß", "z", "~", "\xa0", "tab\té", "É@ex.test", "a\\é"]
JAPANESE = ["a", "日本@例.test", "ア", "ｱ", "亜", "腕", "　", "か\\な\tカ", "~", "zz", "弌"]


@pytest.mark.parametrize(
    ("encoding", "texts"),
    [
        ("LATIN1", LATIN),
        ("LATIN9", [*LATIN, "€"]),
        ("WIN1252", [*LATIN, "€", "„", "Ÿ"]),
        ("KOI8R", ["a", "ж", "Ж", "я", "А", "z", "─"]),
        ("EUC_JP", JAPANESE),
        ("SQL_ASCII", [*{*LATIN, *JAPANESE, "😀"}]),
        ("UTF8", [*{*LATIN, *JAPANESE, "😀", "\uffff"}]),
    ],
)
async def test_other_encodings_of_the_server(
    postgres: EmbeddedPostgres, encoding: str, texts: list[str]
) -> None:
    """The rows are UTF-8, in the order of its bytes, which is not always the server's."""
    async with new_database(postgres, f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0") as database:
        connection = database.connection
        await make(connection, [(key, value) for key in texts for value in (key, "x")])
        rows = await listed(connection)
        assert list(rows) == sorted(text.encode() for text in texts)
        assert rows == await fetched(connection)
        assert unpack(rows[texts[1].encode()]) == tuple(sorted((texts[1], "x")))


async def test_bytes_that_are_no_utf_8_are_listed_all_the_same(postgres: EmbeddedPostgres) -> None:
    """SQL_ASCII takes anything. A row that nobody can ask must not cost all others."""
    async with new_database(postgres, "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0") as database:
        await database.connection.execute(
            r"""CREATE TABLE v (key text, value text);
                INSERT INTO v VALUES ('a', '1'), (E'\xe9', '2'), ('b', E'\xe9'), ('b', 'x,y'), ('é', 'é')"""
        )
        rows = await listed(database.connection)
    assert rows == {
        b"a": b"1", b"\xe9": b"2", "é".encode(): "é".encode(), b"b": pack(("x,y", "\udce9")),
    }  # fmt: skip


async def test_a_view_that_fails_says_so(empty_database: Database) -> None:
    connection = empty_database.connection
    with pytest.raises(asyncpg.UndefinedTableError):
        await listed(connection)
    await connection.execute(
        "CREATE VIEW v AS SELECT 'k' || n AS key, (1 / (n - 30000))::text AS value FROM generate_series(1, 60000) n"  # noqa: E501
    )
    with pytest.raises(asyncpg.DivisionByZeroError):
        await listed(connection)
    await connection.execute("DROP VIEW v")
    await make(connection, [("a", "1")])
    assert await listed(connection) == {b"a": b"1"}, "the connection can be used"


async def test_whoever_takes_may_have_enough(empty_database: Database) -> None:
    connection = empty_database.connection
    await connection.execute(
        "CREATE TABLE v AS SELECT 'k' || n AS key, n::text AS value FROM generate_series(1, 60000) n"
    )

    def refuse(rows: PackedRows) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        await read_rows(connection, VIEW, {}, refuse)


async def test_a_reading_can_be_given_up(empty_database: Database) -> None:
    """While the server sorts, and while rows come: at once, whatever the server does."""
    connection = empty_database.connection
    await make(connection, [(f"k{number}", "1") for number in range(1000)])
    async with empty_database.connect() as other, other.transaction():
        await other.execute("LOCK TABLE v IN ACCESS EXCLUSIVE MODE")
        reading = asyncio.ensure_future(listed(connection))
        await asyncio.sleep(0.1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        connection.terminate()
    async with empty_database.connect() as fresh:
        assert len(await listed(fresh)) == 1000


async def test_nothing_for_too_long_is_given_up(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailmaps.database.listing.PATIENCE", 0.2)
    await make(empty_database.connection, [("a", "1")])
    async with empty_database.connect() as other, other.transaction(), empty_database.connect() as third:
        await other.execute("LOCK TABLE v IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TimeoutError):
            await listed(third)
        third.terminate()


# What COPY sends: the lines of several keys, each with some values.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4) | st.sampled_from(
    AWKWARD[:-1]
)
tables = st.dictionaries(texts, st.lists(st.none() | texts, min_size=1, max_size=3), max_size=5)


def as_copy_has_it(text: str | None) -> bytes:
    """CopyAttributeOutText of PostgreSQL's copyto.c."""
    if text is None:
        return b"\\N"
    named = {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}
    return "".join(named.get(character, character) for character in text).encode()


@given(table=tables, cuts=st.lists(st.integers(0, 400)))
@example(table={"\\": ["\\N", None, "\n"]}, cuts=list(range(40)))
@example(table={"": [None], "a": ["", "a,b", "a"]}, cuts=[])
def test_any_cut_of_the_bytes_gives_the_same_rows(
    table: dict[str, list[str | None]], cuts: list[int]
) -> None:
    lines = [(key, value) for key in sorted(table, key=str.encode) for value in table[key]]
    sent = b"".join(as_copy_has_it(key) + b"\t" + as_copy_has_it(value) + b"\n" for key, value in lines)
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    grouping = _Grouping({})
    rows = [row for start, end in pairwise(places) for row in grouping.feed(sent[start:end])] + grouping.end()
    expected = {key: tuple(sorted({value for value in table[key] if value})) for key in table}
    assert rows == [(key.encode(), pack(expected[key])) for key in sorted(table, key=str.encode)]
    assert {key.decode(): unpack(row) for key, row in rows} == expected
