"""All rows of a view, streamed in the order of their keys, as a mirror holds them.

COPY gives bytes, which need no decoding: a million rows pass in about a second. The wire, for each row:

    KEY TAB VALUE LF        \\N is NULL; a backslash, TAB and LF come as \\\\, \\t, \\n (COPY's text format)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mailmaps.database.views import quote_name
from mailmaps.maps.row_bytes import pack

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

# Seconds without any row until a reading is given up; the first one waits for the server to sort them all.
PATIENCE = 120.0

# In these the server's order of bytes is that of UTF-8, which is what a mirror sorts by.
_SORTED_AS_UTF8 = {"UTF8", "LATIN1", "SQL_ASCII"}

_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"\\": b"\\"}

PackedRows = list[tuple[bytes, bytes]]


async def read_rows(
    connection: Connection, view: str, replace: Mapping[str, str], take: Callable[[PackedRows], None]
) -> None:
    """Hand all rows of `view` to `take`, in batches, keys strictly ascending.

    Raises `asyncpg.PostgresError`, `OSError`, `asyncpg.InterfaceError`, `TimeoutError`, and what `take`
    raises. A view that breaks the contract (a key that is not text sorts differently) shows in `take`.
    """
    encoding = connection.get_settings().server_encoding
    as_utf8 = encoding in _SORTED_AS_UTF8
    order = '"key" COLLATE "C"' if as_utf8 else "convert_to(\"key\", 'UTF8')"
    query = (
        f'SELECT "key", value FROM (SELECT "key"::text, value::text FROM {quote_name(view)}) AS listed '  # noqa: S608  # quoted
        f'WHERE "key" IS NOT NULL ORDER BY {order}'
    )
    grouping = _Grouping(replace)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE) as limit:

        async def received(data: bytes) -> None:
            limit.reschedule(loop.time() + PATIENCE)
            if rows := grouping.feed(data):
                take(rows)
                await asyncio.sleep(0)  # lookups go first

        await connection.copy_from_query(
            query, output=received, encoding=encoding if encoding == "SQL_ASCII" else "UTF8"
        )
    if rows := grouping.end():
        take(rows)


class _Grouping:
    """Makes one row a key out of COPY's lines: one value a line, lines of one key together."""

    def __init__(self, replace: Mapping[str, str]) -> None:
        self._replace = {before.encode(): after.encode() for before, after in replace.items()}
        self._rest = b""
        self._key: bytes | None = None
        self._values: list[bytes] = []

    def feed(self, data: bytes) -> PackedRows:
        """Rows that are complete now."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        rows: PackedRows = []
        current, values, replace = self._key, self._values, self._replace
        for line in lines:
            key, _, value = line.partition(b"\t")
            if b"\\" in line:
                key, value = _unescaped(key), b"" if value == b"\\N" else _unescaped(value)
            if key != current:
                if current is not None:
                    rows.append((current, _packed(values)))
                current, values = key, []
            values.append(replace.get(value, value))
        self._key, self._values = current, values
        return rows

    def end(self) -> PackedRows:
        """The last row."""
        return [] if self._key is None else [(self._key, _packed(self._values))]


def _packed(values: list[bytes]) -> bytes:
    """As `pack` does it; nearly every key has one value, and few of these a comma."""
    if len(values) == 1 and values[0] and b"," not in values[0]:
        return values[0]
    texts = sorted({value.decode(errors="surrogateescape") for value in values if value})
    return pack(tuple(texts))


def _unescaped(field: bytes) -> bytes:
    first, *parts = field.split(b"\\")
    text = [first]
    escaped = iter(parts)
    for part in escaped:
        if part:
            text.append(_ESCAPES.get(part[:1], part[:1]) + part[1:])
        else:  # two backslashes in a row: the next part is plain
            text.append(b"\\" + next(escaped, b""))
    return b"".join(text)
