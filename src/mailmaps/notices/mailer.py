"""The queue of notices, in memory, and the one task that hands them over.

The rule it keeps: an answer to Postfix never waits for a notice, nor fails by one. `send` puts a mail into a
queue with a bound and returns; what the server does is the task's trouble alone. A restart loses the queue.

A mail that may be taken later is tried again with growing pauses, each mail at its own times, so that one
recipient who is put off does not keep back the others.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage

from mailmaps.config.policy import Notices
from mailmaps.logs import events
from mailmaps.notices.handover import NoticeError, hand_over
from mailmaps.notices.message import to_postmaster, to_user
from mailmaps.notices.notice import Notice
from mailmaps.notices.once import OnceAPeriod
from mailmaps.policy.texts import shown

log = events(__name__)

# Mails that wait: some kB each. A hundred subjects at once are one event, and the log has all of them.
MOST_WAITING = 100

# Seconds from one try to the next: doubled up to the longest.
FIRST_PAUSE = 10.0
LONGEST_PAUSE = 600.0

# Seconds after which a notice is no news any more.
TOO_OLD = 86_400.0

# Seconds for a last try at the end; the whole stop of the daemon takes under 5 s.
LAST_TRY = 2.0

# Seconds in which a full queue is logged once.
QUIET = 60.0


@dataclass(slots=True, eq=False)
class _Mail:
    message: EmailMessage
    since: float
    due: float
    pause: float = FIRST_PAUSE

    def __str__(self) -> str:
        return shown(str(self.message["Subject"]).removeprefix("mailmaps: "))


class Mailer:
    """`start`, `send` as often as you like, `close`. `host_name` is postfix.myhostname, "" for the machine's.

    `clock` (seconds) and `pause` are the loop's unless a test has its own time.
    """

    def __init__(
        self,
        settings: Notices,
        host_name: str,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._host_name = own_name(host_name)
        self._clock = clock
        self._pause = pause
        self._once = OnceAPeriod(clock)
        self._queue: list[_Mail] = []
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._sent = self._dropped = self._overflown = 0
        self._quiet_until = -QUIET
        self._trouble: str | None = None

    def use(self, settings: Notices, host_name: str) -> None:
        """Other settings from now on, for a reload. What waits keeps its addresses, and goes the new way."""
        if settings.to != self._settings.to:  # who was told nothing yet
            self._once = OnceAPeriod(self._clock)
        self._settings = settings
        self._host_name = own_name(host_name)
        for mail in self._queue:
            mail.due = self._clock()
        self._woken.set()

    @property
    def sender(self) -> str:
        """The address in From:."""
        return self._settings.sender or f"mailmaps@{self._host_name}"

    @property
    def state(self) -> dict[str, object]:
        """For `mailmaps status`; `trouble` is why the last mail was not taken, None when it was."""
        return {
            "waiting": len(self._queue),
            "sent": self._sent,
            "dropped": self._dropped,
            "trouble": self._trouble,
        }

    def start(self) -> None:
        """Begin to hand over, in the background."""
        self._task = asyncio.ensure_future(self._run())

    def send(self, notice: Notice) -> None:
        """Queue a notice, unless its subject had one within the period. Never waits, never raises.

        With an empty `notices.to` its title is logged, as often as there would have been a mail.
        """
        if not self._once.passes(notice, self._settings.period):
            return
        if not self._settings.to:
            self._once.remember(notice)
            log.warning("notice without a mail, notices.to is empty", title=notice.title)
            return
        if self._closing or len(self._queue) >= MOST_WAITING:
            self._drop_newest(notice)
            return
        self._once.remember(notice)
        log.warning("notice", title=notice.title)
        try:
            self._put(self._messages(notice))
        except NoticeError as error:
            self._dropped += 1
            self._trouble = str(error)
            log.error("a notice is lost", title=notice.title, reason=error)

    async def deliver_now(self, notice: Notice) -> str:
        """Hand a notice over at once, past queue and period; the server's reply. Raises `NoticeError`."""
        if not self._settings.to:
            raise NoticeError("notices.to is empty: nobody gets a mail", temporary=False)
        replies = [
            await hand_over(message, self._settings, self._host_name) for message in self._messages(notice)
        ]
        return replies[0]

    async def close(self) -> None:
        """Try once more what waits, for `LAST_TRY` seconds in all; the rest is lost, and the log says so."""
        self._closing = True
        self._woken.set()
        task = self._task or asyncio.ensure_future(self._run())
        await asyncio.wait({task}, timeout=LAST_TRY)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if self._queue:
            log.error("notices are lost", number=len(self._queue), first="; ".join(map(str, self._queue[:3])))
            self._dropped += len(self._queue)
            self._queue.clear()

    def _messages(self, notice: Notice) -> list[EmailMessage]:
        """One for the postmaster; one for the user, where he has an address that a mail can be sent to."""
        to, when = self._settings.to, datetime.now().astimezone()
        try:
            found = [to_postmaster(notice, self.sender, to, self._host_name, when)]
        except ValueError as error:
            raise NoticeError(f"notices.to or notices.sender: {error}", temporary=False) from error
        if notice.also_to and notice.also_to != to:
            try:
                found.append(to_user(notice, self.sender, to, self._host_name, when))
            except ValueError as error:
                log.warning("no notice to the user", user=shown(notice.also_to), reason=error)
        return found

    def _put(self, messages: list[EmailMessage]) -> None:
        now = self._clock()
        room = MOST_WAITING - len(self._queue)  # the user's copy is the first to have none
        self._queue += [_Mail(message, now, now) for message in messages[:room]]
        self._dropped += len(messages[room:])
        self._woken.set()

    def _drop_newest(self, notice: Notice) -> None:
        self._dropped += 1
        self._overflown += 1
        if self._clock() < self._quiet_until:
            return
        why = "mailmaps is stopping" if self._closing else f"{len(self._queue)} wait already"
        log.error("notices are dropped", number=self._overflown, reason=why, last=notice.title)
        self._overflown, self._quiet_until = 0, self._clock() + QUIET

    async def _run(self) -> None:
        while not self._closing:
            mail = min(self._queue, key=lambda mail: mail.due, default=None)
            if mail is None or mail.due > self._clock():
                await self._rest(mail)
            else:
                await self._try(mail)
        for mail in tuple(self._queue):
            await self._try(mail)

    async def _rest(self, mail: _Mail | None) -> None:
        """Wait until `mail` is due, or something new comes."""
        self._woken.clear()
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(self._woken.wait())]
        if mail is not None:
            waits.append(asyncio.ensure_future(self._pause(mail.due - self._clock())))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _try(self, mail: _Mail) -> None:
        try:
            await hand_over(mail.message, self._settings, self._host_name)
        except NoticeError as error:
            self._failed(mail, error)
        except Exception as error:  # the task must live; a mail that breaks it must not come again
            log.exception("a notice is lost", title=mail)
            self._lose(mail, str(error))
        else:
            self._queue.remove(mail)
            self._sent += 1
            if self._trouble is not None:
                log.info("notices are taken again")
            self._trouble = None

    def _failed(self, mail: _Mail, error: NoticeError) -> None:
        age = self._clock() - mail.since
        if not error.temporary or age >= TOO_OLD:
            log.error("a notice is lost", title=mail, tried_for=f"{age:.0f}s", reason=error)
            self._lose(mail, str(error))
            return
        if str(error) != self._trouble:
            log.warning("a notice waits", reason=error, again_in=f"{mail.pause:.0f}s")
        self._trouble = str(error)
        mail.due = self._clock() + mail.pause
        mail.pause = min(2 * mail.pause, LONGEST_PAUSE)

    def _lose(self, mail: _Mail, why: str) -> None:
        self._queue.remove(mail)
        self._dropped += 1
        self._trouble = why


def own_name(myhostname: str) -> str:
    """What we call ourselves in HELO and Message-ID: `myhostname`, else the machine's name."""
    name = myhostname or socket.gethostname()
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        return "localhost.localdomain"
    return name if "." in name else f"{name}.localdomain"  # postconf(5), myhostname and mydomain
