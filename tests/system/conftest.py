"""What the system tests share, and the one place that decides whether they can run.

Contract: tests marked `postfix` need Debian's packages and root. Where these are missing the tests are
left out with one line that names the command that helps; under CI=true each of them fails instead, since
a part that nobody runs proves nothing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio
from tests.system.lmtp_sink import LmtpSink
from tests.system.postfix import missing_packages

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


def _obstacle() -> str:
    """Why the tests with Postfix cannot run here; empty when they can."""
    if packages := missing_packages():
        return f"run `make test-packages` as root (missing: {', '.join(packages)})"
    if os.geteuid() != 0:
        return "run as root (Postfix's master must), the packages of `make test-packages` are here"
    return ""


OBSTACLE = _obstacle()
IN_CI = os.environ.get("CI") == "true"
LEFT_OUT: list[str] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run."""
    if not OBSTACLE or IN_CI:
        return
    left_out = [item for item in items if item.get_closest_marker("postfix")]
    LEFT_OUT.extend(item.nodeid for item in left_out)
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """In CI, what cannot run is a failure."""
    if OBSTACLE and item.get_closest_marker("postfix"):
        pytest.fail(f"tests with Postfix cannot run: {OBSTACLE}", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The one line."""
    if LEFT_OUT:
        line = f"{len(LEFT_OUT)} tests with a real Postfix were left out: {OBSTACLE}"
        terminalreporter.write_line(line, yellow=True)


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
