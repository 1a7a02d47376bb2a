"""Everything about sending of one reading of the settings: the policy service, and what is behind it.

Contract: made whole or not at all (`SettingsError`); `start` connects and reads what people wrote, in the
background, since a database that is away does not keep us from starting. Without `database.write_dsn` there
are no grants, and what is sent and observed is in memory only.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from time import monotonic, time

from mailmaps.config.dsn import each_host, place
from mailmaps.config.settings import Settings
from mailmaps.database.connect import connect_to_write, find_password, write_database
from mailmaps.database.policy_rows import PolicyRows
from mailmaps.database.pool import Pool
from mailmaps.grants_file import GrantsFile
from mailmaps.logs import events
from mailmaps.maps.answer import CannotSay
from mailmaps.maps.lookup import Table
from mailmaps.maps.rewriting import resolved
from mailmaps.maps.search import Rules
from mailmaps.notices.foreign import ForeignSenders
from mailmaps.notices.notice import Notice, limit_reached
from mailmaps.policy.action import Word
from mailmaps.policy.grants import Grants
from mailmaps.policy.limit_book import LimitBook
from mailmaps.policy.limits import Limits, Over, domain_of, domain_of_login
from mailmaps.policy.mail import Mail
from mailmaps.policy.observed import Observed
from mailmaps.policy.ownership import BUILTIN, Ownership, Switches
from mailmaps.policy.sender_check import Manner, SenderCheck
from mailmaps.policy.sender_table import SenderTable
from mailmaps.policy.service import PolicyService

log = events(__name__)

# The parameter whose tables have owners.
SENDERS = "smtpd_sender_login_maps"

# Connections to the database that is written to: one counts, one for the rest.
CONNECTIONS = 2

# Seconds between two questions whether somebody wrote a grant or a limit, and until one is given up.
POLL = 1.0
DEADLINE = 5.0

# Seconds for which what was observed is gathered before it is written, and until what is old is dropped.
GATHER = 5.0
TIDY = 3600.0

# Seconds of observations that memory keeps where there is no database.
KEPT = 86400.0


class Sending:
    """The service and what is behind it. `ownership` is the engine that smtpd_sender_login_maps answers
    with.
    """

    def __init__(
        self,
        settings: Settings,
        rules: Rules,
        before: Sending | None = None,
        notify: Callable[[Notice], None] = lambda _: None,
    ) -> None:
        """What `before` has counted and noted is known here too. Raises `SettingsError`."""
        self._settings = settings
        self._rules = rules
        self._notify = notify
        self._pool: Pool | None = None
        self.rows: PolicyRows | None = None
        self._file: GrantsFile | None = None
        longest = settings.cache.max_stale_senders
        self.grants = Grants(longest) if settings.database.write_dsn else None
        if settings.database.write_dsn:
            database = write_database(settings.database)
            find_password(database)
            self._pool = Pool(lambda: connect_to_write(database), CONNECTIONS, "database.write_dsn")
            self.rows = PolicyRows(self._pool, min(DEADLINE, database.lookup_deadline))
            if settings.mirror.enabled:
                of = ", ".join(place(host) for host in each_host(settings.database.write_dsn))
                self._file = GrantsFile(Path(settings.mirror.directory), of)
        self._take_over(before)
        table = settings.tables.get(SENDERS)
        ours = table is not None and BUILTIN in table.sources
        self.ownership = Ownership(self._switches(), self.grants, ours=ours)
        self.observed: Observed = Observed() if before is None else before.observed
        self.book = self._book(before)
        self.limits: Limits = Limits(
            self.book,
            self.rows,
            action=settings.limits.action,
            text=settings.limits.text,
            told=self._limit_reached,
            domain_of=self._domain_of,
            before=None if before is None else before.limits,
        )
        self._foreign: ForeignSenders = (
            before._foreign
            if before is not None and before._settings.notices == settings.notices
            else ForeignSenders(settings.notices.foreign_senders, monotonic)
        )
        self._counts: Counter[Word] = Counter() if before is None else before._counts
        self._number: int | None = None  # of what was read last
        self._trouble: str | None = None
        self._tried = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self.use({})

    def use(self, tables: Mapping[str, Table]) -> None:
        """Ask these tables for owners: the one of the parameter's own name, else the first of that kind."""
        owners = [table for table in tables.values() if isinstance(table, SenderTable)]
        named = [table for table in owners if table.name == SENDERS]
        table = (named + owners)[0] if owners else None
        self.senders = SenderCheck(table, self._rules, self._manner(), self.observed, self._is_foreign)
        limits = self._settings.limits
        self.service = PolicyService(
            self.senders,
            self.limits,
            limits_may_fail=limits.on_failure == "dunno" or limits.action == "observe",
            observes=self._observes,
            counts=self._counts,
        )

    def _observes(self) -> bool:
        """Whether nobody is refused, by whatever check."""
        limits_refuse = self.book.limits_anybody and self._settings.limits.action != "observe"
        return self._settings.senders.mode != "enforce" and not limits_refuse

    def start(self) -> None:
        """Begin to connect, and to follow what people write."""
        self.limits.start()
        if self._pool is not None:
            self._pool.start()
            self._following = asyncio.ensure_future(self._follow())

    async def tried(self) -> list[str]:
        """Wait until the grants have been read, or could not be; returns what could not be done, and why."""
        if self._pool is None:
            return []
        await self._tried.wait()
        # One that nobody can reach keeps no other settings from being used; what it refuses does.
        return [f"database.write_dsn: {self._trouble}"] if self._trouble and not self._pool.is_away else []

    async def idle(self) -> None:
        """Wait until no mail waits to be counted."""
        await self.limits.idle()

    async def close(self) -> None:
        """Write what is still to be written, if that can be done at once, and end every connection."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self.limits.close()
        if self._pool is not None:
            if self._trouble is None and self._pool.away is None:
                await self.write_observed()
            await self._pool.close()

    @property
    def away(self) -> str | None:
        """Why the database that is written to cannot be reached, while that is so."""
        return None if self._pool is None else self._pool.away

    @property
    def state(self) -> dict[str, object]:
        """For `mailmaps status`."""
        found: dict[str, object] = {
            "mode": self._settings.senders.mode,
            "answers": {word.value.split()[0]: count for word, count in self.service.counts.items()},
            "limits": self.limits.state,
        }
        if self.grants is not None:
            found["grants"] = self.grants.count if self.grants.are_known else "not known"
        return found

    @property
    def pool(self) -> dict[str, object] | None:
        """The connections to the database that is written to, if there is one, for the same."""
        return None if self._pool is None else self._pool.state

    async def write_observed(self) -> None:
        """Have what was observed written now; what cannot be is kept."""
        if self.rows is None:
            self.observed.forget(time() - KEPT)
            return
        while noted := self.observed.take():
            try:
                await self.rows.observe(noted)
            except CannotSay as error:
                if error.about_key:
                    log.error("sending: observed senders cannot be written", number=len(noted), reason=error)
                    continue
                self.observed.put_back(noted)
                self._failed(str(error))
                return
            except asyncio.CancelledError:
                self.observed.put_back(noted)
                raise

    def _take_over(self, before: Sending | None) -> None:
        """Grants as they were known: by the settings before, if they name the same database, else on disk."""
        if self.grants is None:
            return
        if before is not None and before.grants is not None:
            same = before._settings.database.write_dsn == self._settings.database.write_dsn
            if same and before.grants.are_known:
                self.grants.take_over(before.grants)
                return
        if self._file is not None and (saved := self._file.load()):
            self.grants.replace(saved.grants, saved.age)

    def _switches(self) -> Switches:
        senders = self._settings.senders
        return Switches(**{name: getattr(senders, name) for name in Switches.__dataclass_fields__})

    def _manner(self) -> Manner:
        senders = self._settings.senders
        return Manner(
            senders.mode,
            senders.on_failure,
            senders.unauthenticated,
            [ip_network(network) for network in senders.unauthenticated_networks],
            senders.unauthenticated_senders,
            senders.refusal,
            senders.refusal_unauthenticated,
        )

    def _book(self, before: Sending | None) -> LimitBook:
        limits = self._settings.limits
        book = LimitBook(
            {
                "login": (
                    limits.login_messages_hour,
                    limits.login_messages_day,
                    limits.login_recipients_hour,
                    limits.login_recipients_day,
                ),
                "domain": (
                    limits.domain_messages_hour,
                    limits.domain_messages_day,
                    limits.domain_recipients_hour,
                    limits.domain_recipients_day,
                ),
            },
            limits.exempt,
            has_overrides=self.rows is not None,
        )
        if before is not None and self.rows is not None and before.book.is_known:
            book.replace(before.book.overrides())
        return book

    async def _follow(self) -> None:
        """Read what people write whenever it changes; write what was observed; drop what is old."""
        written = tidied = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._read_if_changed()
                if loop.time() - written >= GATHER:
                    written = loop.time()
                    await self.write_observed()
                if loop.time() - tidied >= TIDY and self.rows is not None and not await self.rows.forget():
                    tidied = loop.time()
            except CannotSay as error:
                self._failed(str(error))
            except Exception:  # the task must live, or nobody would read a grant again
                log.exception("internal error", during="reading grants and limits")
                self._failed("internal error")
            self._tried.set()
            await asyncio.sleep(POLL)

    async def _read_if_changed(self) -> None:
        assert self.rows is not None
        assert self.grants is not None
        if self._number is not None and await self.rows.number() == self._number:
            self.grants.confirm()
            if self._file is not None:
                self._file.confirm()
        else:
            await self.read_written()
        if self._trouble is not None:
            log.warning("sending: grants and limits are read again")
            self._trouble = None

    async def read_written(self) -> None:
        """Read grants and limits now. Raises `CannotSay`."""
        assert self.rows is not None
        assert self.grants is not None
        written = await self.rows.written()
        self.grants.replace(written.grants)
        self.book.replace(written.overrides)
        self._number = written.number
        if self._file is not None:
            self._file.save(written.grants)

    def _failed(self, why: str) -> None:
        if self._trouble is None:
            log.error("sending: grants and limits cannot be read", reason=why)
        self._trouble = why
        self._number = None  # another database, or the same restored, may be behind the name afterwards

    def _domain_of(self, mail: Mail) -> str:
        """The login's; a login without one counts for the domain that it sends as, as Postfix resolves it."""
        if domain := domain_of_login(mail):
            return domain
        try:
            return domain_of(resolved(mail.sender, self._rules)) if mail.sender else ""
        except ValueError:
            return ""

    def _is_foreign(self, login: str, sender: str, client: str) -> None:
        if notice := self._foreign.refused(login, sender, client):
            self._notify(notice)

    def _limit_reached(self, over: Over) -> None:
        # What it sends as may be another's: only a login that is an address is known to be his.
        tells_user = self._settings.notices.user and over.scope == "login" and "@" in over.login
        user = over.login if tells_user else ""
        breach = over.breach
        self._notify(
            limit_reached(
                over.scope,
                over.name,
                breach.limit,
                breach.unit,  # type: ignore[arg-type]
                breach.window,  # type: ignore[arg-type]
                self._settings.limits.action,
                user,
            )
        )
