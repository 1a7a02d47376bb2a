"""One mail to one server: the dialog, TLS, and which failures may pass. Under both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Literal

import pytest
import uvloop
from tests.notices.certificates import server_context
from tests.notices.smtp_server import CLOSE, HANG, SmtpServer
from tests.system.ports import steady_ports

from mailmaps.config.policy import Notices
from mailmaps.notices import handover
from mailmaps.notices.handover import NoticeError, hand_over
from mailmaps.notices.message import to_postmaster
from mailmaps.notices.notice import test as a_test

Tls = Literal["no", "starttls", "tls"]
Run = Callable[[Coroutine[Any, Any, None]], None]

both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


def mail(to: str = "postmaster@ex.org") -> EmailMessage:
    return to_postmaster(a_test(), "mailmaps@mx.ex.org", to, "mx.ex.org", datetime.now(UTC))


def through(port: int, tls: Tls = "no") -> Notices:
    return Notices(to="postmaster@ex.org", smtp=f"127.0.0.1:{port}", tls=tls)


async def failure(
    settings: Notices, message: EmailMessage | None = None, host: str = "mx.ex.org"
) -> NoticeError:
    with pytest.raises(NoticeError) as caught:
        await hand_over(message or mail(), settings, host)
    return caught.value


@both_loops
def test_the_dialog(run: Run) -> None:
    async def talk() -> None:
        async with SmtpServer() as server:
            server.replies["."] = ["250 2.0.0 Ok: queued as ABC"]
            message = mail()
            assert await hand_over(message, through(server.port), "mx.ex.org") == "2.0.0 Ok: queued as ABC"
        assert server.commands == [
            "GREETING",
            "EHLO mx.ex.org",
            "MAIL FROM:<>",
            "RCPT TO:<postmaster@ex.org>",
            "DATA",
            ".",
            "QUIT",
        ]
        assert server.mails == [message.as_bytes()]

    run(talk())


async def test_tls_is_not_tried_where_it_is_not_wanted(tmp_path: Path) -> None:
    """The certificate is not one that anybody here trusts: with it the mail would not be taken."""
    context, _ = server_context(tmp_path)
    async with SmtpServer(context) as server:
        await hand_over(mail(), through(server.port), "mx.ex.org")
    assert server.encrypted == [False]
    assert "STARTTLS" not in server.commands


@both_loops
@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_tls_with_a_certificate_that_is_trusted(
    run: Run, tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, trusted = server_context(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))

    async def talk() -> None:
        async with SmtpServer(context, implicit=tls == "tls") as server:
            await hand_over(mail(), through(server.port, tls), "mx.ex.org")
            assert server.encrypted == [True]

    run(talk())


@both_loops
@pytest.mark.parametrize("tls", ["starttls", "tls"])
@pytest.mark.parametrize("wrong", ["nobody trusts it", "another name"])
def test_tls_with_a_wrong_certificate(
    run: Run, tls: Tls, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, trusted = server_context(
        tmp_path, "DNS:other.test" if wrong == "another name" else "IP:127.0.0.1"
    )
    if wrong == "another name":
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))

    async def talk() -> None:
        async with SmtpServer(context, implicit=tls == "tls") as server:
            error = await failure(through(server.port, tls))
            assert "certificate verify failed" in str(error)
            assert error.temporary
            assert server.mails == []

    run(talk())


async def test_starttls_that_is_not_offered() -> None:
    async with SmtpServer() as server:
        error = await failure(through(server.port, "starttls"))
    assert "STARTTLS extension not supported" in str(error)
    assert error.temporary
    assert server.mails == []
    assert not any(command.startswith("MAIL") for command in server.commands)


@pytest.mark.parametrize(
    ("verb", "reply", "temporary"),
    [
        ("GREETING", "421 busy", True),
        ("GREETING", "554 go away", False),
        ("EHLO", "421 no", True),
        ("MAIL", "451 later", True),
        ("MAIL", "550 no", False),
        ("RCPT", "450 4.2.0 greylisted", True),
        ("RCPT", "550 5.1.1 unknown", False),
        ("RCPT", "421 bye", True),
        ("DATA", "451 later", True),
        ("DATA", "554 no", False),
        (".", "452 full", True),
        (".", "552 too big", False),
    ],
)
async def test_what_the_server_refuses(verb: str, reply: str, temporary: bool) -> None:
    async with SmtpServer() as server:
        server.replies[verb] = [reply]
        error = await failure(through(server.port))
    assert str(error) == f"127.0.0.1:{server.port} said: {reply}"
    assert error.temporary is temporary
    assert server.mails == []


async def test_a_server_that_is_no_smtp_server() -> None:
    async with SmtpServer() as server:
        server.replies["GREETING"] = ["HTTP/1.1 400 Bad Request"]
        error = await failure(through(server.port))
    assert error.temporary


@both_loops
@pytest.mark.parametrize("verb", ["GREETING", "EHLO", "RCPT", "DATA", "."])
@pytest.mark.parametrize("does", [HANG, CLOSE])
def test_a_server_that_hangs_or_breaks_off(
    run: Run, verb: str, does: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "PATIENCE", 0.05 if does == HANG else 60.0)

    async def talk() -> None:
        async with SmtpServer() as server:
            server.replies[verb] = [does]
            error = await failure(through(server.port))
            assert error.temporary
            assert str(error).startswith(f"127.0.0.1:{server.port}: ")

    run(talk())


async def test_quit_that_is_not_answered_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "QUIT_PATIENCE", 0.05)
    async with SmtpServer() as server:
        server.replies["QUIT"] = [HANG]
        await hand_over(mail(), through(server.port), "mx.ex.org")
        assert len(server.mails) == 1


@both_loops
def test_a_server_that_is_not_there(run: Run) -> None:
    async def talk() -> None:
        error = await failure(through(steady_ports(1)[0]))
        assert error.temporary
        assert "Connect call failed" in str(error) or "refused" in str(error)

    run(talk())


async def test_an_address_that_is_not_ascii() -> None:
    async with SmtpServer() as server:
        error = await failure(through(server.port), mail("jané@ex.org"))
        assert not error.temporary
        server.replies["EHLO"] = ["250-test\r\n250-8BITMIME\r\n250 SMTPUTF8"]
        await hand_over(mail("jané@ex.org"), through(server.port), "mx.ex.org")
    assert "MAIL FROM:<> BODY=8BITMIME SMTPUTF8" in server.commands
    assert "RCPT TO:<jané@ex.org>" in server.commands
    assert "To: jané@ex.org".encode() in server.mails[0]


async def test_a_name_that_cannot_be_said() -> None:
    async with SmtpServer() as server:
        error = await failure(through(server.port), host="mx ex.org")
    assert not error.temporary
