"""`mailmaps notices test` against a server that takes the mail, refuses it, or is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from click.testing import CliRunner, Result
from tests.notices.smtp_server import SmtpServer
from tests.system.ports import steady_ports

from mailmaps.cli.notices import notices


@contextmanager
def serving(server: SmtpServer) -> Iterator[None]:
    """The server, in a thread."""

    async def serve() -> None:
        async with server:
            ready.set()
            await asyncio.to_thread(ended.wait)

    ready, ended = Event(), Event()
    thread = Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait(60)
    try:
        yield
    finally:
        ended.set()
        thread.join(60)


def run(folder: Path, port: int, to: str = "postmaster@ex.org") -> Result:
    config = folder / "mailmaps.toml"
    config.write_text(
        f'[notices]\nto = "{to}"\nsmtp = "127.0.0.1:{port}"\n[postfix]\nmyhostname = "mx.ex.org"\n'
    )
    return CliRunner().invoke(notices, ["test", "--config", str(config)])


def test_a_mail_that_is_taken(tmp_path: Path) -> None:
    server = SmtpServer()
    server.replies["."] = ["250 2.0.0 Ok: queued as ABC"]
    with serving(server):
        result = run(tmp_path, server.port)
    assert (result.exit_code, result.output) == (
        0,
        "to postmaster@ex.org, From: mailmaps@mx.ex.org, envelope sender <>, "
        f"by 127.0.0.1:{server.port} without TLS\ntaken: 2.0.0 Ok: queued as ABC\n",
    )
    assert "EHLO mx.ex.org" in server.commands
    assert b"Subject: mailmaps: Test of notices\r\n" in server.mails[0]


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [("550 5.1.1 unknown", 69, "refused"), ("451 4.3.0 later", 75, "not taken now")],
)
def test_a_mail_that_is_refused(tmp_path: Path, reply: str, code: int, said: str) -> None:
    server = SmtpServer()
    server.replies["RCPT"] = [reply]
    with serving(server):
        result = run(tmp_path, server.port)
    assert result.exit_code == code
    assert result.output.endswith(f"Error: {said}: 127.0.0.1:{server.port} said: {reply}\n")


def test_nobody_there(tmp_path: Path) -> None:
    result = run(tmp_path, steady_ports(1)[0])
    assert result.exit_code == 75
    assert "Error: not taken now: 127.0.0.1:" in result.output


def test_nobody_to_tell(tmp_path: Path) -> None:
    result = run(tmp_path, 25, to="")
    assert (result.exit_code, result.output) == (78, "Error: nobody is told: notices.to is empty\n")
