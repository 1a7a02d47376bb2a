"""A listed view is what `fetch_rows` gives for each of its keys, packed: whatever the texts, the server's
encoding, the order the rows stand in and the pieces the bytes come in."""

from __future__ import annotations

import asyncio
from itertools import accumulate, pairwise
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.conftest import Connection, Database, new_database

from mailmaps.database import listing
from mailmaps.database.listing import _Grouping, read_rows
from mailmaps.database.views import fetch_rows
from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.maps.row_bytes import Rows, pack, unpack

VIEW = "public.v"
AWKWARD = [
    "plain", "with space", " ", "tab\there", "\t", "line\nfeed", "\n", "\r\n", "back\\slash", "\\", "\\\\", "\\N",  # noqa: E501
    "\\n", "\\t", "\\.", "\b\f\v", "\x7f\x01", "a,b", ",", "a,", "é", "ß@straße.test", "日本@例.test", "😀", "\u2028",  # noqa: E501
    "'quoted'", '"', "NULL", "{}", "x" * 5000,
]  # fmt: skip


async def listed(connection: Connection, replace: dict[str, str] | None = None) -> dict[bytes, bytes]:
    """All rows; the keys came strictly ascending."""
    rows: list[tuple[bytes, bytes]] = []
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

    def take(piece: Rows) -> None:
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

    def refuse(rows: Rows) -> None:
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


# What COPY sends: the lines of several keys, each with some values. Most keys have one plain one.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4) | st.sampled_from(
    AWKWARD[:-1]
)
plain = st.sampled_from(["a", "b", "aa", "ab", "b@ex.test", "é", "x" * 30])
tables = st.dictionaries(texts, st.lists(st.none() | texts, min_size=1, max_size=3), max_size=5)
mostly_plain = st.builds(
    lambda usual, odd: {key: [value] for key, value in usual.items()} | odd,
    st.dictionaries(plain, plain),
    st.dictionaries(plain | texts, st.lists(st.none() | plain | texts, min_size=1, max_size=3), max_size=1),
)
no_replacement: dict[str, str] = {}
replacements = st.just(no_replacement) | st.dictionaries(
    plain | texts.filter(bool), plain | texts.filter(bool), max_size=2
)


def as_copy_has_it(text: str | None) -> bytes:
    """CopyAttributeOutText of PostgreSQL's copyto.c."""
    if text is None:
        return b"\\N"
    named = {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}
    return "".join(named.get(character, character) for character in text).encode()


def sent(table: dict[str, list[str | None]]) -> bytes:
    lines = [(key, value) for key in sorted(table, key=str.encode) for value in table[key]]
    return b"".join(as_copy_has_it(key) + b"\t" + as_copy_has_it(value) + b"\n" for key, value in lines)


def grouped(pieces: list[bytes], replace: dict[str, str] | None = None) -> list[tuple[bytes, bytes]]:
    grouping = _Grouping(replace or {})
    return [row for piece in pieces for row in grouping.feed(piece)] + list(grouping.end())


@given(table=tables | mostly_plain, cuts=st.lists(st.integers(0, 400)), replace=replacements)
@example(table={"\\": ["\\N", None, "\n"]}, cuts=list(range(40)), replace={})
@example(table={"": [None], "a": ["", "a,b", "a"]}, cuts=[], replace={})
@example(table={"a": ["b"], "b": ["a"], "c": ["b"]}, cuts=[], replace={"a": "b,c"})
@example(table={"a": ["1", "2"], "b": ["3"]}, cuts=[4], replace={})  # a key goes on in the next plain block
def test_any_cut_of_the_bytes_gives_the_same_rows(
    table: dict[str, list[str | None]], cuts: list[int], replace: dict[str, str]
) -> None:
    data = sent(table)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    rows = grouped([data[start:end] for start, end in pairwise(places)], replace)
    expected = {
        key: tuple(sorted({replace.get(value, value) for value in values if value}))
        for key, values in table.items()
    }
    assert rows == [(key.encode(), pack(expected[key])) for key in sorted(table, key=str.encode)]
    assert {key.decode(): unpack(row) for key, row in rows} == expected


@pytest.mark.parametrize("odd", [["1", "2"], [None], [""], ["a,b"], ["\\"], ["replaced"], ["1"]])
@pytest.mark.parametrize("at", ["a", "c", "e"])
def test_every_cut_around_a_row_that_is_not_plain(at: str, odd: list[str | None]) -> None:
    """At the beginning of a block, in it and at its end."""
    table: dict[str, list[str | None]] = {key: [key * 2] for key in "abcde"}
    table[at] = odd
    data, replace = sent(table), {"replaced": "by,this"}
    values = {key: tuple(replace.get(value, value) for value in table[key] if value) for key in table}
    expected = [(key.encode(), pack(values[key])) for key in table]
    for cut in range(len(data)):
        for end in range(cut, len(data)):
            assert grouped([data[:cut], data[cut:end], data[end:]], replace) == expected


def test_plain_lines_are_not_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was before: a key that had several values, and the beginning of a line."""
    grouping = _Grouping({"other": "another"})
    assert list(grouping.feed(b"a\t1\na\t2\nb")) == []
    monkeypatch.setattr(_Grouping, "_line_by_line", None)
    assert list(_Grouping({}).feed(b"a\t1\n")) == []
    lines = [b"%04d\tvalue of %d\n" % (number, number) for number in range(1000)]
    assert list(grouping.feed(b"\t3\n" + lines[0])) == [(b"a", b"1,2"), (b"b", b"3")]
    rows = grouping.feed(b"".join(lines[1:]) + b"9")
    assert rows.all_keys == [line[:4] for line in lines[:-1]]
    assert rows.all_values == [line[5:-1] for line in lines[:-1]]
    assert list(grouping.end()) == [(b"0999", b"value of 999")]


async def test_others_have_their_turn_between_pieces() -> None:
    """However much is received at once, or how little."""
    events: list[int] = []
    lines = [b"%06d\tv\n" % number for number in range(30_000)]

    async def copy_from_query(_: str, *, output: Any, encoding: str) -> None:
        await output(bytearray(b"".join(lines[:20_000])))
        for line in lines[20_000:]:
            await output(bytearray(line))

    async def another() -> None:
        while True:
            events.append(0)
            await asyncio.sleep(0)

    connection: Any = SimpleNamespace(
        get_settings=lambda: SimpleNamespace(server_encoding="UTF8"), copy_from_query=copy_from_query
    )
    task = asyncio.create_task(another())
    await read_rows(connection, VIEW, {}, lambda rows: events.append(len(rows)))
    task.cancel()
    counts = [count for count in events if count]
    most = listing._PIECE // len(lines[0])
    assert sum(counts) == len(lines)
    assert max(counts) <= most + 1
    assert len(counts) <= len(lines) // most + 3, "not many small ones either"
    in_a_row = accumulate(events, lambda run, count: run + 1 if count else 0, initial=0)
    assert max(in_a_row) <= 3, "the last ones may follow each other"
