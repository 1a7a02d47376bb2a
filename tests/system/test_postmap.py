"""What we answer for a pgsql_table(5) file is what `postmap -q` answers, byte for byte: mail queries.

The master is Debian's Postfix 3.7 with its own libpq. `postmap -q` asks for exactly one key, folded
(DICT_FLAG_FOLD_FIX is its default), and shows none of the walk. Keys are written to its standard input by
the thousand; those that fail are asked in a process each, since Postfix's client then refuses the host.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

import pytest
import pytest_asyncio
from tests.cf_site import login
from tests.conftest import Connection, new_database
from tests.system import postmap_data, postmap_shapes
from tests.system.postmap_keys import mail_keys
from tests.system.postmap_tool import Postmap, differences

from mailmaps.demo.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postfix, pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]

SEED = 20260103
COUNT = 1200
"""Keys for each file."""

FILLED: Mapping[str, Callable[[Connection], Awaitable[None]]] = {
    "postfixadmin": postmap_data.fill_postfixadmin,
    "iredmail": postmap_data.fill_iredmail,
    "mailcow": postmap_data.fill_mailcow,
}


SHAPES = {
    "postfixadmin": postmap_shapes.POSTFIXADMIN,
    "iredmail": postmap_shapes.IREDMAIL,
    "mailcow": postmap_shapes.MAILCOW | postmap_shapes.RESULTS,
}


@pytest.fixture(scope="module")
def postmap() -> Iterator[Postmap]:
    with Postmap() as postmap:
        yield postmap


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=list(FILLED))
async def filled(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres
) -> AsyncIterator[tuple[str, str]]:
    """A schema's name and the DSN of a database with it."""
    async with new_database(postgres) as database:
        await FILLED[request.param](database.connection)
        yield request.param, database.dsn


async def test_every_key_has_postmaps_answer(filled: tuple[str, str], postmap: Postmap) -> None:
    name, dsn = filled
    keys = {
        _file(postmap, f"{name}_{shape}.cf", login(dsn) + body): _keys(body, SEED + number)
        for number, (shape, body) in enumerate(SHAPES[name].items())
    }
    assert await differences(postmap, keys) == []


def _keys(body: str, seed: int) -> list[bytes]:
    """Postfix doubles quotes and no more: in an E'' literal a backslash in the key is half an escape, in a
    comment `*/` or CR ends it. Such a key changes the query itself, which we never let it do."""
    keys = mail_keys(seed, COUNT)
    unsafe = (b"\\",) if "E'" in body else (b"/*", b"*/", b"\r") if "/*" in body else ()
    return [key for key in keys if not any(text in key for text in unsafe)]


def _file(postmap: Postmap, name: str, text: str) -> str:
    return f"pgsql:{postmap.write(name, text)}"
