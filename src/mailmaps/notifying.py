"""Tells the postmaster by mail: whatever the checks find, and databases that are away for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic

from mailmaps.config.settings import Settings
from mailmaps.logs import events
from mailmaps.notices.away import AwayWatch
from mailmaps.notices.mailer import Mailer, own_name
from mailmaps.notices.notice import Notice

log = events(__name__)

# Seconds between two looks at the databases.
LOOK = 5.0

States = Mapping[str, str | None]


class Notifier:
    """Lives as long as the daemon; `use` changes its settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.notices
        self._mailer = Mailer(settings.notices, own_name(settings.postfix.myhostname))
        self._watch = AwayWatch(settings.notices.database_away, monotonic)
        self._watching: asyncio.Task[None] | None = None

    def send(self, notice: Notice) -> None:
        """Have it sent; never waits and never fails."""
        self._mailer.send(notice)

    def start(self, away: Callable[[], States]) -> None:
        """Begin. `away` tells of each database why it cannot be reached, or None."""
        self._mailer.start()
        self._watching = asyncio.ensure_future(self._look(away))

    def use(self, settings: Settings) -> None:
        """Other settings from now on."""
        self._mailer.use(settings.notices, own_name(settings.postfix.myhostname))
        if settings.notices.database_away != self._settings.database_away:
            self._watch = AwayWatch(settings.notices.database_away, monotonic)
        self._settings = settings.notices

    async def close(self) -> None:
        """Send what waits, if that can be done at once, and end."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._mailer.close()

    @property
    def state(self) -> dict[str, object]:
        """For `mailmaps status`."""
        return self._mailer.state

    async def _look(self, away: Callable[[], States]) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                for notice in self._watch.look(away()):
                    self.send(notice)
            except Exception:  # the task must live, or no outage would be told again
                log.exception("internal error", during="looking for notices")
