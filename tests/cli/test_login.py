"""`mailmaps login` against the wire, by the stub of the daemon's socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from click.testing import CliRunner, Result

from mailmaps.auth.attempt import REJECTED, UNKNOWN, Accepted, Account, Login, Lookup, Question
from mailmaps.auth.attempt import Result as Answer
from mailmaps.cli import main
from mailmaps.login_connection import LoginConnection
from mailmaps.maps.answer import Unavailable
from mailmaps.protocols.login import LoginLines

JAN = Accepted(Account("jan", 5001, 5001, "/home/jan", "/mail/jan", 25))


@contextmanager
def daemon(path: Path, answer: Answer, asked: list[Question]) -> Iterator[None]:
    """Our own door, in a thread, with one answer for everybody."""

    async def reply(question: Question, _: str) -> Answer:
        asked.append(question)
        return answer

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: LoginConnection(LoginLines(), reply), str(path))
        ready.set()
        await loop.run_in_executor(None, ended.wait)
        server.close()
        await asyncio.sleep(0.05)

    ready, ended = Event(), Event()
    thread = Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait(60)
    try:
        yield
    finally:
        ended.set()
        thread.join(60)


def run(folder: Path, *words: str, said: str = "se\tcret\n") -> Result:
    config = folder / "mailmaps.toml"
    config.write_text(f'[login]\nunix = "{folder}/login.sock"\n')
    return CliRunner().invoke(main, ["login", "--config", str(config), *words], input=said)


@pytest.mark.parametrize(
    ("answer", "code", "output"),
    [
        (REJECTED, 1, "rejected\n"),
        (UNKNOWN, 1, "unknown\n"),
        (Unavailable("the database is away"), 75, "Error: cannot say now: the database is away\n"),
        (
            JAN,
            0,
            "accepted\n  user=jan\n  uid=5001\n  gid=5001\n  home=/home/jan\n  mail=maildir:/mail/jan\n"
            "  quota_rule=*:storage=25M\n",
        ),
    ],
)
def test_what_it_says_of_each_result(tmp_path: Path, answer: Answer, code: int, output: str) -> None:
    asked: list[Question] = []
    with daemon(tmp_path / "login.sock", answer, asked):
        result = run(tmp_path, "jan@ex.org")
    assert (result.exit_code, result.output) == (code, output)
    [login] = asked
    assert isinstance(login, Login)
    assert (login.user, login.service, login.password.reveal()) == ("jan@ex.org", "imap", b"se\tcret")


def test_a_lookup_asks_for_no_password(tmp_path: Path) -> None:
    asked: list[Question] = []
    with daemon(tmp_path / "login.sock", JAN, asked):
        result = run(tmp_path, "--lookup", "--service", "lmtp", "--dovecot", "2.4", "jan", said="")
    assert result.exit_code == 0
    assert "mail_path=/mail/jan" in result.output
    assert asked == [Lookup("jan", "lmtp")]


def test_nobody_there(tmp_path: Path) -> None:
    result = run(tmp_path, "jan")
    assert result.exit_code == 75
    assert "login.sock" in result.output
    (tmp_path / "empty.toml").write_text("")
    result = CliRunner().invoke(main, ["login", "--config", str(tmp_path / "empty.toml"), "jan"])
    assert (result.exit_code, result.output) == (
        69,
        "Error: the settings have no login socket (login.unix)\n",
    )
