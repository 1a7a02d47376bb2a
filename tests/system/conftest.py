"""What the system tests share, and which of them take too long for everyday."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio
from tests.system.lmtp_sink import LmtpSink

from mailmaps.demo.postgres import EmbeddedPostgres

# Minutes long. `make outages` runs them all, CI some of each kind, `make test` none.
_OUTAGES = {path.name for path in Path(__file__).parent.glob("outages/test_*.py")}
_IN_CI = {"test_keeper.py"}


def _left_out() -> list[str]:
    if os.environ.get("MAILMAPS_OUTAGES"):
        return []
    if os.environ.get("CI") == "true":
        return [f"outages/{name}" for name in sorted(_OUTAGES - _IN_CI)]
    return ["outages", "test_chaos.py"]


collect_ignore = _left_out()


@pytest.fixture(scope="module")
def mail_postgres() -> Iterator[EmbeddedPostgres]:
    """A server that this module may stop, kill and start as it likes."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="mailmaps-postgres-", dir="/tmp"))
        yield stack.enter_context(EmbeddedPostgres(Path(folder), fsync=False))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def sink() -> AsyncIterator[LmtpSink]:
    """Where mail for our own mailboxes ends."""
    async with LmtpSink() as sink:
        yield sink


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def outside() -> AsyncIterator[LmtpSink]:
    """Where mail for everybody else ends."""
    async with LmtpSink() as sink:
        yield sink
