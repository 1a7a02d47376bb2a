"""Builds everything from the settings, and starts, reloads, drains and stops it.

Start: bind every endpoint (clients queue from then on), connect and read the held tables once, then
accept; a database that is away does not keep us from starting. Reload: read the settings and all they
name anew, and change over only when every query of the new can be asked. Stop: accept no more, answer
what was asked, close, within `DRAIN` seconds.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from ipaddress import ip_network
from time import monotonic, time
from typing import Any

from mailmaps import __version__
from mailmaps.auth.attempt import Question, Result
from mailmaps.clients import Clients
from mailmaps.config import SettingsError
from mailmaps.config.fingerprint import fingerprint
from mailmaps.config.settings import Settings
from mailmaps.connection import Connection, Trust
from mailmaps.control import Command, CommandError, ControlConnection
from mailmaps.endpoints import ALL_TABLES, Doors, Endpoint, after_a_restart, endpoints
from mailmaps.http_connection import MOST as MOST_HTTP
from mailmaps.http_connection import HttpConnection
from mailmaps.inherited import Inherited, take
from mailmaps.listeners import Acceptor, IPNetwork, Room, SentAway
from mailmaps.login_connection import LoginConnection
from mailmaps.logins import Logins
from mailmaps.logs import events
from mailmaps.logs.output import set_level
from mailmaps.maps.answer import Found, NotFound, Unavailable
from mailmaps.maps.lookup import Table
from mailmaps.maps.memo import Memo
from mailmaps.notifying import Notifier
from mailmaps.observing import Observing
from mailmaps.policy.action import Action
from mailmaps.policy_connection import PolicyConnection
from mailmaps.protocols.asked import LoginCodec
from mailmaps.protocols.policy import PolicyRequest
from mailmaps.protocols.request import Codec
from mailmaps.reloading import Outcome, Reloader
from mailmaps.sending import Sending
from mailmaps.sending_commands import SendingCommands
from mailmaps.service_manager import ServiceManager
from mailmaps.tableset import TableSet, rules
from mailmaps.watchdog import Watchdog, ways

log = events(__name__)

# systemd's and Postfix's patience is longer; a postmaster's is not. The whole stop takes under 5 s.
DRAIN = 4.0

# Seconds for which the start waits for a database that hangs, when what the resolver asks is held on disk.
PATIENCE = 1.0


class Daemon:
    """One running mailmaps."""

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings] | None = None,
        manager: ServiceManager | None = None,
    ) -> None:
        """`reread` gives the settings anew for a reload; `manager` is told how we are.

        Raises `SettingsError`.
        """
        self._settings = settings
        self._reread = reread
        self._manager = manager or ServiceManager()
        self._notifier = Notifier(settings)
        self._set = TableSet(settings, logins=_logins(settings), sending=self._sending(settings))
        self._tables: dict[str, Table] = {}  # one for all connections; a reload changes what is in it
        self._memos: dict[str, Memo] = {}  # by endpoint: a table's name, or ALL_TABLES
        self._use(self._set)
        self._trust = Trust(lambda: self._set.lapse())
        self._hung_up = False  # before we were ready
        self._reloader = Reloader(
            self._make_set, self._change_over, self._manager.reloading, self._tell_of_reload
        )
        self._endpoints = tuple(endpoints(settings, self._doors()))
        self._sockets: list[socket.socket] = []  # of the endpoints
        self._twice: list[tuple[Endpoint, socket.socket]] = []  # handed over once more
        self._not_ours: list[socket.socket] = []  # handed over, and named by no setting
        self._watching: asyncio.Task[None] | None = None
        self._room: Room | None = None  # there from start() on
        self._clients = Clients()
        self._started = self._settings_read = time()
        self._observing = Observing(self._state, lambda: self._set.unready())

    def bind(self, inherited: Sequence[Inherited] = ()) -> None:
        """Take each endpoint of the settings out of what is handed over to us, or else bind it.

        Raises `ListenError` for the first that cannot be.
        """
        left = list(inherited)
        for endpoint in self._endpoints:
            sock = take(endpoint.place, left)
            self._sockets.append(endpoint.place.bind() if sock is None else sock)
            if endpoint.setting == "dovecot_auth.inet":
                log.warning("passwords come in the clear", setting=endpoint.setting, place=endpoint.place)
        for found in left:
            again = [endpoint for endpoint in self._endpoints if found.is_at(endpoint.place)]
            self._twice += [(endpoint, found.sock) for endpoint in again]  # two lines of a unit: two ways in
            if not again:
                log.warning("no setting names where systemd listens: who connects is sent away", place=found)
                self._not_ours.append(found.sock)

    async def start(self) -> None:
        """Connect, read the held tables if the database lets us, and begin to accept."""
        self._notifier.start(lambda: self._set.away)
        for problem in await self._set.start(PATIENCE):
            log.error("not all can be answered from the start", reason=problem)
        networks: list[IPNetwork] = [ip_network(n) for n in self._settings.listen.allow_networks]
        loop = asyncio.get_running_loop()
        self._room = Room(loop)
        for endpoint, sock in (*zip(self._endpoints, self._sockets, strict=True), *self._twice):
            Acceptor(sock, endpoint.factory, self._room, loop, networks)
        for sock in self._not_ours:
            Acceptor(sock, SentAway, self._room, loop)
        log.info("ready", what=self._summary)
        self._manager.ready(self._summary)
        self._watch(self._room)
        if self._hung_up:
            self._reloader.ask()

    def _watch(self, room: Room) -> None:
        """Feed systemd's watchdog, if there is one."""
        if self._manager.watchdog is not None:
            found = ways(self._endpoints, next(iter(self._tables), ALL_TABLES))
            watchdog = Watchdog(self._manager, found, room, self._manager.watchdog)
            self._watching = asyncio.ensure_future(watchdog.run())

    @property
    def _summary(self) -> str:
        return f"{len(self._tables)} tables on {len(self._sockets)} endpoints"

    def _tell_of_reload(self, outcome: Outcome) -> None:
        if outcome.problems:
            self._manager.ready(f"not reloaded, the settings before stay in use: {outcome.problems[0]}")
        else:
            self._manager.ready(f"{self._summary}, reloaded")

    async def stop(self) -> None:
        """Drain and close. Connections that take longer than `DRAIN` seconds are cut."""
        self._manager.stopping()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        if self._room is not None:
            await self._room.close()
        await self._clients.close(DRAIN)
        await self._reloader.stop()
        await self._set.close()
        await self._notifier.close()
        log.info("stopped")
        self._manager.close()

    def _make_set(self) -> TableSet:
        if self._reread is None:
            raise SettingsError(["this daemon cannot read its settings anew"])
        settings = self._reread()
        return TableSet(
            settings,
            self._set.mirrors,
            _logins(settings, self._set.logins),
            self._sending(settings, self._set.sending),
            self._set.counts,
        )

    def _sending(self, settings: Settings, before: Sending | None = None) -> Sending:
        return Sending(settings, rules(settings), before, self._notifier.send)

    def _change_over(self, fresh: TableSet) -> tuple[TableSet, tuple[str, ...]]:
        old, self._set = self._set, fresh
        self._use(fresh)
        self._notifier.use(fresh.settings)
        self._settings_read = time()
        set_level(fresh.settings.log.level)
        return old, after_a_restart(self._settings, fresh.settings)

    def _use(self, tables: TableSet) -> None:
        self._tables.clear()
        self._tables.update(tables.tables)
        for memo in self._memos.values():
            memo.clear()
        of_all = self._memo(ALL_TABLES)
        for name, table in tables.tables.items():
            table.forgotten += [of_all.clear, self._memo(name).clear]

    def _memo(self, endpoint: str) -> Memo:
        return self._memos.setdefault(endpoint, Memo())

    async def serve(self) -> None:
        """Start, run until SIGTERM or SIGINT, stop."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        starting = asyncio.ensure_future(self.start())
        ending = asyncio.ensure_future(ended.wait())
        patience = asyncio.ensure_future(self._manager.extend_start())
        await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
        patience.cancel()
        if ending.done():
            starting.cancel()  # a database that hangs must not keep us from stopping
        else:
            await starting
            await ending
        await self.stop()

    def hang_up(self) -> None:
        """SIGHUP, also before `serve`: a set that starts is not replaced, but reloaded afterwards."""
        if self._room is None:
            self._hung_up = True
        else:
            self._reloader.ask()

    def _doors(self) -> Doors:
        """What makes the connections of each endpoint."""
        commands: dict[str, Command] = {
            "explain": self._explain,
            "status": self._status,
            "reload": self._reload,
            **SendingCommands(lambda: self._set.sending).commands,
        }
        return Doors(
            lookup=lambda endpoint, codec: partial(self._connection, endpoint, codec),
            login=lambda codec: partial(self._login_connection, codec),
            policy=self._policy_connection,
            http=self._http_connection,
            control=partial(ControlConnection, commands),
        )

    def _connection(self, endpoint: str, codec: Callable[[], Codec]) -> Connection:
        made = codec()
        connection = Connection(made, self._tables, self._memo(endpoint), self._trust, self._clients.gone)
        return self._clients.add(connection, made.name)

    def _login_connection(self, codec: Callable[[], LoginCodec]) -> LoginConnection:
        made = codec()
        return self._clients.add(LoginConnection(made, self._answer_login, self._clients.gone), made.name)

    def _policy_connection(self) -> PolicyConnection:
        return self._clients.add(PolicyConnection(self._answer_policy, self._clients.gone), "policy")

    def _http_connection(self) -> HttpConnection:
        is_full = self._clients.count("http") >= MOST_HTTP
        connection = HttpConnection(self._observing.page, self._clients.gone, is_full=is_full)
        return self._clients.add(connection, "http")

    def _answer_policy(self, request: PolicyRequest) -> Action | asyncio.Future[Action]:
        if monotonic() > self._trust.until:
            self._trust.renew()
        return self._set.sending.service.begin(request)  # of the settings now, whenever the client connected

    async def _answer_login(self, question: Question, door: str) -> Result:
        logins = self._set.logins  # those of the settings now, whenever the client connected
        if logins is None:
            return Unavailable("the settings have no login socket any more")
        return await logins.service.answer(question, door)

    async def _explain(self, request: dict[str, Any]) -> dict[str, Any]:
        table = self._tables.get(str(request.get("table")))
        if table is None:
            raise CommandError("no such table; known are " + ", ".join(self._tables))
        try:
            key = str(request.get("key", "")).encode(errors="surrogateescape")
        except UnicodeEncodeError:
            raise CommandError("the key has half a surrogate pair") from None
        explanation = await table.explain(key)
        answer, row = explanation.answer, explanation.row
        word = (
            "found"
            if isinstance(answer, Found)
            else "not found"
            if isinstance(answer, NotFound)
            else "cannot say"
        )
        return {
            "candidates": explanation.candidates,
            "row": None if row is None else {"index": row.index, "values": row.values, "source": row.source},
            "said_by": explanation.said_by,
            "put_back": explanation.put_back,
            "answer": word,
            "value": getattr(answer, "value", None),
            "reason": getattr(answer, "reason", None),
        }

    async def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        return self._state()

    def _state(self) -> dict[str, Any]:
        """What `mailmaps status` and /metrics show."""
        return {
            "version": __version__,
            "started": self._started,
            "settings_read": self._settings_read,
            "settings": fingerprint(self._set.settings),
            "reloads": dict(self._reloader.counts),
            "connections": len(self._clients),
            "clients": self._clients.state,
            **self._set.state,
            "notices": self._notifier.state,
        }

    async def _reload(self, _: dict[str, Any]) -> dict[str, Any]:
        return asdict(await asyncio.shield(self._reloader.ask()))  # whoever asked may hang up


def _logins(settings: Settings, before: Logins | None = None) -> Logins | None:
    """The login service, if any door is open. Raises `SettingsError`."""
    return Logins(settings, rules(settings), before) if settings.has_logins else None
