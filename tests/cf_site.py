"""A site of pgsql_table(5) files for tests: the files, the settings that name them, and one source of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from mailmaps.config import parse
from mailmaps.config.settings import Settings
from mailmaps.database.cf_source import CfSource
from mailmaps.maps.answer import CannotSay
from mailmaps.tableset import TableSet


def login(dsn: str, hosts: str | None = None) -> str:
    """The lines of a .cf file that lead to the database: four of them, so that what follows is line 5."""
    parts = urlsplit(dsn)
    return (
        f"hosts = {hosts or f'{parts.hostname}:{parts.port}'}\n"
        f"user = {parts.username}\n"
        f"password = {parts.password or ''}\n"
        f"dbname = {parts.path[1:]}\n"
    )


def write(folder: Path, name: str, text: str) -> str:
    """Write a file and return how the settings name it."""
    file = folder / f"{name}.cf"
    file.write_text(text)
    return f"pgsql:{file}"


def settings(tables: Mapping[str, Sequence[str]], **database: float) -> Settings:
    """Settings with these tables alone, all of them alias tables; nothing is remembered."""
    lines = ["builtin_tables = false", "[cache]", "ttl = 0", "negative_ttl = 0", "[database]"]
    lines += [f"{name} = {value}" for name, value in {"connections": 2, **database}.items()]
    lines += ["[postfix]", 'recipient_delimiter = "+"']
    for name, sources in tables.items():
        lines += [f"[tables.{name}]", 'parameter = "virtual_alias_maps"', f"sources = {list(sources)}"]
    return parse("\n".join(lines))


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[TableSet]:
    """The tables, started; whatever `start` complains of."""
    tables = TableSet(settings)
    try:
        await tables.start()
        yield tables
    finally:
        await tables.close()


@asynccontextmanager
async def source(folder: Path, dsn: str, query: str, **database: float) -> AsyncIterator[CfSource]:
    """One file with this query, started."""
    name = write(folder, "one", f"{login(dsn)}query = {query}\n")
    async with running(settings({"t": [name]}, **database)) as tables:
        one = tables.tables["t"].sources[0]
        assert isinstance(one, CfSource)
        yield one


async def value(source: CfSource, key: str) -> str | None:
    """The joined values of a key; None: not found; "?": cannot say."""
    try:
        values = (await source.fetch((key,))).get(key)
    except CannotSay:
        return "?"
    return ",".join(values) if values else None
