"""The queue: what waits, what is tried again and when, what is lost, and that `send` never waits.

Time is the test's own: a pause takes none, and moves the clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.notices.smtp_server import HANG, SmtpServer
from tests.system.ports import steady_ports

from mailmaps.config.policy import Notices
from mailmaps.notices import handover, mailer
from mailmaps.notices.handover import NoticeError
from mailmaps.notices.mailer import Mailer, own_name
from mailmaps.notices.notice import Notice, database_away, database_back, limit_reached
from mailmaps.notices.notice import test as a_test

TO = "postmaster@ex.org"


class Time:
    """A clock, and pauses that end at once unless they are held."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.held = False

    def clock(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if self.held:
            await asyncio.Event().wait()
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is found out soon; no test depends on how soon."""
    monkeypatch.setattr(handover, "QUIT_PATIENCE", 0.05)


@asynccontextmanager
async def running(server: SmtpServer | int, time: Time, **settings: object) -> AsyncIterator[Mailer]:
    port = server if isinstance(server, int) else server.port
    notices = Notices.model_validate({"to": TO, "smtp": f"127.0.0.1:{port}", **settings})
    mailer = Mailer(notices, "mx.ex.org", time.clock, time.pause)
    mailer.start()
    try:
        yield mailer
    finally:
        await mailer.close()


async def until(mailer: Mailer, **state: object) -> None:
    async with asyncio.timeout(60):
        while any(mailer.state[name] != value for name, value in state.items()):
            await asyncio.sleep(0.001)


def a_limit(name: str, user: str = "") -> Notice:
    return limit_reached("login", name, 5, "messages", "a day", "defer", user)


def subjects(server: SmtpServer) -> list[str]:
    return [
        line[9:] for mail in server.mails for line in mail.decode().split("\r\n") if line[:8] == "Subject:"
    ]


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


async def test_a_notice_arrives(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    async with SmtpServer() as server, running(server, time) as mailer:
        mailer.send(a_test())
        await server.got(1)
        await until(mailer, waiting=0, sent=1, dropped=0, trouble=None)
    assert b"\r\nAuto-Submitted: auto-generated\r\n" in server.mails[0]
    assert b"From: mailmaps@mx.ex.org\r\nTo: postmaster@ex.org\r\n" in server.mails[0]
    assert server.commands.count("MAIL FROM:<>") == 1
    assert lines(caplog) == ['notice title="Test of notices"']


async def test_the_sender_is_the_one_that_is_set(time: Time) -> None:
    async with SmtpServer() as server, running(server, time, sender="robot@ex.org") as mailer:
        mailer.send(a_test())
        await server.got(1)
    assert b"From: robot@ex.org\r\n" in server.mails[0]
    assert "MAIL FROM:<>" in server.commands


async def test_the_user_gets_a_mail_of_his_own(time: Time) -> None:
    async with SmtpServer() as server, running(server, time) as mailer:
        mailer.send(a_limit("jan", "jan@ex.org"))
        await server.got(2)
    assert [line for line in server.commands if line.startswith("RCPT")] == [
        "RCPT TO:<postmaster@ex.org>",
        "RCPT TO:<jan@ex.org>",
    ]
    assert b"mailmaps limits" in server.mails[0]
    assert b"mailmaps limits" not in server.mails[1]


@pytest.mark.parametrize("user", [TO, "jan@ex.org>\r\nDATA", "jan"])
async def test_a_user_who_cannot_be_told_takes_nothing_from_the_postmaster(time: Time, user: str) -> None:
    async with SmtpServer() as server, running(server, time) as mailer:
        mailer.send(a_limit("jan", user))
        mailer.send(a_test())
        await server.got(2)
        await until(mailer, waiting=0)
    assert subjects(server)[1] == "mailmaps: Test of notices"


async def test_one_mail_a_subject_and_period(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    async with SmtpServer() as server, running(server, time, period=100.0) as mailer:
        for _ in range(3):
            mailer.send(a_limit("jan"))
        mailer.send(a_limit("eva"))
        time.now += 100
        mailer.send(a_limit("jan"))
        await server.got(3)
        await until(mailer, waiting=0)
    assert len(server.mails) == len(lines(caplog)) == 3


async def test_who_is_told_of_an_outage_is_told_of_its_end(time: Time) -> None:
    async with SmtpServer() as server, running(server, time) as mailer:
        for _ in range(2):
            mailer.send(database_away("mail", 5, "refused"))
            mailer.send(database_back("mail", 6))
            time.now += 21_600
        await server.got(4)


async def test_nobody_to_tell_the_log_has_the_title_once(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    async with SmtpServer() as server, running(server, time, to="") as mailer:
        for _ in range(3):
            mailer.send(a_limit("jan"))
        assert mailer.state["waiting"] == 0
    assert server.commands == []
    [line] = lines(caplog)
    assert "Sending limit reached: jan" in line
    assert "notices.to is empty" in line


async def test_what_is_refused_for_now_is_tried_again(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    async with SmtpServer() as server, running(server, time) as mailer:
        server.replies["RCPT"] = ["450 4.2.0 later", "450 4.2.0 later", "250 ok"]
        mailer.send(a_test())
        await server.got(1)
        await until(mailer, waiting=0, sent=1, dropped=0, trouble=None)
    assert time.pauses == [10, 20]
    # Said once, however often it fails for the same reason.
    assert [line for line in lines(caplog) if "waits" in line] == [
        f'a notice waits reason="127.0.0.1:{server.port} said: 450 4.2.0 later" again_in=10s'
    ]


async def test_the_same_message_comes_again(time: Time) -> None:
    """With one Message-ID: a reply may have been lost, and a mailbox can tell that it is the same."""
    async with SmtpServer() as server, running(server, time) as mailer:
        server.replies["."] = ["451 later", "250 ok"]
        mailer.send(a_test())
        await server.got(1)
    first, second = server.offered
    assert first == second
    assert b"\r\nMessage-ID: <" in first


async def test_after_a_day_it_is_given_up(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    async with SmtpServer() as server, running(server, time) as mailer:
        server.replies["MAIL"] = ["451 later"]
        mailer.send(a_test())
        await until(mailer, waiting=0, sent=0, dropped=1)
        assert "451 later" in str(mailer.state["trouble"])
    assert time.pauses[:8] == [10, 20, 40, 80, 160, 320, 600, 600]
    assert set(time.pauses[7:]) == {600}
    assert 86_400 <= sum(time.pauses) < 86_400 + 600
    [line] = lines(caplog, logging.ERROR)
    assert line.startswith('a notice is lost title="Test of notices" tried_for=86')
    assert line.endswith(f'reason="127.0.0.1:{server.port} said: 451 later"')


async def test_what_is_refused_for_good_is_lost(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    async with SmtpServer() as server, running(server, time) as mailer:
        server.replies["RCPT"] = ["550 5.1.1 unknown", "250 ok"]
        mailer.send(a_test())
        await until(mailer, waiting=0, sent=0, dropped=1)
        assert "550 5.1.1 unknown" in str(mailer.state["trouble"])
        mailer.send(a_limit("jan"))
        await until(mailer, sent=1, trouble=None)
    assert time.pauses == []
    [line] = lines(caplog, logging.ERROR)
    assert line.startswith('a notice is lost title="Test of notices"')
    assert line.endswith(f'reason="127.0.0.1:{server.port} said: 550 5.1.1 unknown"')


async def test_one_who_is_put_off_does_not_keep_back_the_others(time: Time) -> None:
    time.held = True
    async with SmtpServer() as server, running(server, time) as mailer:
        server.replies["RCPT"] = ["450 later", "250 ok"]
        mailer.send(a_limit("jan"))
        await until(mailer, waiting=1)
        await server.heard("QUIT")
        mailer.send(a_limit("eva"))
        await server.got(1)
        await until(mailer, waiting=1, sent=1)
    assert "eva" in subjects(server)[0]


async def test_a_server_that_is_not_there_yet(time: Time) -> None:
    [port] = steady_ports(1)
    time.held = True
    async with running(port, time) as mailer:
        mailer.send(a_limit("jan"))
        async with asyncio.timeout(60):
            while mailer.state["trouble"] is None:
                await asyncio.sleep(0.001)
        async with SmtpServer(port=port) as server:
            time.now += 10
            mailer.send(a_limit("eva"))  # wakes it
            await server.got(2)
            await until(mailer, waiting=0, sent=2, trouble=None)


async def test_send_never_waits_and_the_queue_has_a_bound(
    time: Time, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailer, "LAST_TRY", 0.05)
    async with SmtpServer() as server:
        server.replies["GREETING"] = [HANG]
        async with running(server, time) as post:
            for number in range(1000):
                post.send(a_limit(str(number)))
            await server.heard("GREETING")
            assert post.state == {"waiting": 100, "sent": 0, "dropped": 900, "trouble": None}
            full = [line for line in lines(caplog, logging.ERROR) if "dropped" in line]
            assert full == [
                f'notices are dropped number=1 reason="100 wait already" last="{a_limit("100").title}"'
            ]
            time.now += 60
            post.send(a_limit("one more"))
            assert lines(caplog, logging.ERROR)[-1].startswith("notices are dropped number=900")
    assert lines(caplog, logging.ERROR)[-1].startswith(
        'notices are lost number=100 first="Sending limit reached: 0 '
    )
    assert post.state["dropped"] == 1001


async def test_the_users_mail_has_no_room_beyond_the_bound(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailer, "MOST_WAITING", 1)
    async with SmtpServer() as server, running(server, time) as post:
        post.send(a_limit("jan", "jan@ex.org"))
        assert post.state["waiting"] == 1
        await until(post, waiting=0, sent=1, dropped=1)
    assert "RCPT TO:<jan@ex.org>" not in server.commands


async def test_what_was_dropped_may_come_again(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within its period: nobody was told."""
    monkeypatch.setattr(mailer, "MOST_WAITING", 1)
    async with SmtpServer() as server, running(server, time) as post:
        post.send(a_limit("jan"))
        post.send(a_limit("eva"))
        await until(post, waiting=0, dropped=1)
        post.send(a_limit("eva"))
        await server.got(2)
    assert "eva" in subjects(server)[1]


async def test_closing_tries_once_more(time: Time) -> None:
    time.held = True
    async with SmtpServer() as server:
        async with running(server, time) as mailer:
            server.replies["RCPT"] = ["450 later", "250 ok"]
            mailer.send(a_limit("jan"))
            await server.heard("QUIT")
            await until(mailer, waiting=1)
        assert len(server.mails) == 1
        assert mailer.state["waiting"] == 0


async def test_closing_gives_up_at_once_what_nobody_takes(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(steady_ports(1)[0], Time()) as mailer:
        mailer._pause = time.pause
        time.held = True
        mailer.send(a_limit("jan"))
    assert lines(caplog, logging.ERROR)[-1].startswith(
        'notices are lost number=1 first="Sending limit reached: jan'
    )
    mailer.send(a_limit("eva"))
    assert "stopping" in lines(caplog, logging.ERROR)[-1]
    assert mailer.state["waiting"] == 0


async def test_closing_without_a_start(time: Time) -> None:
    async with SmtpServer() as server:
        mailer = Mailer(Notices(to=TO, smtp=f"127.0.0.1:{server.port}"), "mx.ex.org", time.clock, time.pause)
        mailer.send(a_test())
        await mailer.close()
    assert len(server.mails) == 1


async def test_a_mail_that_breaks_the_task_does_not_end_it(
    time: Time, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:

    async def wrong(*_: object) -> str:
        monkeypatch.setattr("mailmaps.notices.mailer.hand_over", handover.hand_over)
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr("mailmaps.notices.mailer.hand_over", wrong)
    async with SmtpServer() as server, running(server, time) as post:
        post.send(a_limit("jan"))
        post.send(a_limit("eva"))
        await server.got(1)
        await until(post, sent=1, dropped=1)
    assert 'a notice is lost title="Sending limit reached: jan (5 messages a day)"' in lines(caplog)


@pytest.mark.parametrize("to", ['a"b@ex.org', "postmaster@ex:org"])
async def test_settings_that_make_no_address_raise_nothing(
    time: Time, caplog: pytest.LogCaptureFixture, to: str
) -> None:
    async with SmtpServer() as server, running(server, time, to=to) as mailer:
        mailer.send(a_test())
        assert mailer.state["dropped"] == 1
    assert "not one mail address" in lines(caplog)[-1]


async def test_other_settings_take_the_new_way(time: Time) -> None:
    time.held = True
    async with SmtpServer() as server, running(steady_ports(1)[0], time) as mailer:
        mailer.send(a_limit("jan"))
        async with asyncio.timeout(60):
            while mailer.state["trouble"] is None:
                await asyncio.sleep(0.001)
        mailer.use(Notices(to="other@ex.org", smtp=f"127.0.0.1:{server.port}"), "mx.ex.org")
        await server.got(1)
    assert f"RCPT TO:<{TO}>" in server.commands


async def test_a_new_postmaster_was_told_nothing_yet(time: Time) -> None:
    async with SmtpServer() as server, running(server, time, to="") as mailer:
        mailer.send(a_limit("jan"))
        for _ in range(2):
            mailer.use(Notices(to=TO, smtp=f"127.0.0.1:{server.port}"), "mx.ex.org")
            mailer.send(a_limit("jan"))
        await server.got(1)
        await until(mailer, waiting=0, sent=1)


async def test_delivering_now(time: Time) -> None:
    async with SmtpServer() as server:
        settings = Notices(to=TO, smtp=f"127.0.0.1:{server.port}")
        server.replies["."] = ["250 queued as 1", "550 no"]
        mailer = Mailer(settings, "mx.ex.org")
        assert await mailer.deliver_now(a_test()) == "queued as 1"
        with pytest.raises(NoticeError, match="said: 550 no") as caught:
            await mailer.deliver_now(a_test())
        assert not caught.value.temporary
        with pytest.raises(NoticeError, match="notices.to is empty"):
            await Mailer(Notices(), "mx.ex.org").deliver_now(a_test())


@pytest.mark.parametrize(
    ("given", "name"),
    [("mx.ex.org", "mx.ex.org"), ("mx", "mx.localdomain"), ("$mydomain\n", "localhost.localdomain")],
)
def test_what_we_call_ourselves(given: str, name: str) -> None:
    assert own_name(given) == name


def test_what_we_call_ourselves_when_nobody_says() -> None:
    assert "." in own_name("")
