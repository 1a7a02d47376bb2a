"""Builds everything from the settings, and starts, reloads, drains and stops it.

Start: bind every endpoint (clients queue from then on), connect and read the held tables once, then
accept; a database that is away does not keep us from starting. Reload: read the settings and all they
name anew, and change over only when every query of the new can be asked. Stop: accept no more, answer
what was asked, close, within `DRAIN` seconds.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from time import monotonic
from typing import Any

from mailmaps.auth.attempt import Question, Result
from mailmaps.config import SettingsError
from mailmaps.config.section import Unix, split_inet
from mailmaps.config.settings import Settings
from mailmaps.connection import Connection, Trust
from mailmaps.control import Command, CommandError, ControlConnection
from mailmaps.listeners import Acceptor, IPNetwork, Room, UnixAccess, bind_inet, bind_unix
from mailmaps.login_connection import LoginConnection
from mailmaps.logins import Logins
from mailmaps.maps.answer import Found, NotFound, Unavailable
from mailmaps.maps.lookup import Table
from mailmaps.maps.memo import Memo
from mailmaps.notifying import Notifier
from mailmaps.policy.action import Action
from mailmaps.policy_connection import PolicyConnection
from mailmaps.protocols import tcp_table
from mailmaps.protocols.asked import LoginCodec
from mailmaps.protocols.dovecot_auth import DovecotAuth
from mailmaps.protocols.login import LoginLines
from mailmaps.protocols.policy import PolicyRequest
from mailmaps.protocols.request import Codec
from mailmaps.protocols.saslauthd import Saslauthd
from mailmaps.protocols.socketmap import Socketmap
from mailmaps.reloading import Reloader
from mailmaps.sending import Sending
from mailmaps.sending_commands import SendingCommands
from mailmaps.tableset import TableSet, rules

log = logging.getLogger(__name__)

# systemd's and Postfix's patience is longer; a postmaster's is not. The whole stop takes under 5 s.
DRAIN = 4.0

# Seconds in which queries already on the wire are still read after we stop accepting.
LAST_READ = 0.05

# Seconds for which the start waits for a database that hangs, when what the resolver asks is held on disk.
PATIENCE = 1.0

AnyConnection = Connection | LoginConnection | PolicyConnection

# The endpoints of socketmap, which have no table of their own.
ALL_TABLES = "*"


class Daemon:
    """One running mailmaps."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings] | None = None) -> None:
        """`reread` gives the settings anew for a reload. Raises `SettingsError`."""
        self._settings = settings
        self._reread = reread
        self._notifier = Notifier(settings)
        self._set = TableSet(settings, logins=_logins(settings), sending=self._sending(settings))
        self._tables: dict[str, Table] = {}  # one for all connections; a reload changes what is in it
        self._memos: dict[str, Memo] = {}  # by endpoint: a table's name, or ALL_TABLES
        self._use(self._set)
        self._trust = Trust(lambda: self._set.lapse())
        self._hung_up = False  # before we were ready
        self._reloader = Reloader(self._make_set, self._change_over)
        self._sockets: list[tuple[socket.socket, Callable[[], asyncio.BaseProtocol]]] = []
        self._room: Room | None = None  # there from start() on
        self._connections: set[AnyConnection] = set()
        self._all_closed: asyncio.Event | None = None  # set up by stop(), which waits for it

    def bind(self) -> None:
        """Bind every endpoint of the settings. Raises `ListenError` for the first that cannot be."""
        for name, table in self._settings.tables.items():
            if table.tcp:
                sock = bind_inet(*split_inet(table.tcp))
                self._sockets.append((sock, partial(self._connection, name, tcp_table.codec(name))))
        if self._settings.socketmap.inet:
            sock = bind_inet(*split_inet(self._settings.socketmap.inet))
            self._sockets.append((sock, partial(self._connection, ALL_TABLES, Socketmap)))
        if self._settings.socketmap.unix:
            sock = _bind_unix(self._settings.socketmap)
            self._sockets.append((sock, partial(self._connection, ALL_TABLES, Socketmap)))
        self._bind_logins()
        self._bind_policy()
        if self._settings.control.unix:
            commands: dict[str, Command] = {
                "explain": self._explain,
                "status": self._status,
                "reload": self._reload,
                **SendingCommands(lambda: self._set.sending).commands,
            }
            sock = _bind_unix(self._settings.control)
            self._sockets.append((sock, partial(ControlConnection, commands)))

    def _bind_logins(self) -> None:
        doors: tuple[tuple[Unix, Callable[[], LoginCodec]], ...] = (
            (self._settings.login, LoginLines),
            (self._settings.dovecot_auth, DovecotAuth),
            (self._settings.saslauthd, Saslauthd),
        )
        for door, codec in doors:
            if door.unix:
                self._sockets.append((_bind_unix(door), partial(self._login_connection, codec)))
        if inet := self._settings.dovecot_auth.inet:
            log.warning(
                "dovecot_auth.inet: passwords come to %s in the clear; better use a unix socket", inet
            )
            sock = bind_inet(*split_inet(inet))
            self._sockets.append((sock, partial(self._login_connection, DovecotAuth)))

    def _bind_policy(self) -> None:
        policy = self._settings.policy
        sockets = [bind_inet(*split_inet(policy.inet))] if policy.inet else []
        sockets += [_bind_unix(policy)] if policy.unix else []
        self._sockets += [(sock, self._policy_connection) for sock in sockets]

    async def start(self) -> None:
        """Connect, read the held tables if the database lets us, and begin to accept."""
        self._notifier.start(lambda: self._set.away)
        for problem in await self._set.start(PATIENCE):
            log.error("%s", problem)
        networks: list[IPNetwork] = [ip_network(n) for n in self._settings.listen.allow_networks]
        loop = asyncio.get_running_loop()
        self._room = Room(loop)
        for sock, factory in self._sockets:
            Acceptor(sock, factory, self._room, loop, networks)
        log.info("ready: %d tables on %d endpoints", len(self._tables), len(self._sockets))
        if self._hung_up:
            self._reloader.ask()

    async def stop(self) -> None:
        """Drain and close. Connections that take longer than `DRAIN` seconds are cut."""
        if self._room is not None:
            await self._room.started()
            self._room.close()
        await asyncio.sleep(LAST_READ)
        self._all_closed = asyncio.Event()
        for connection in list(self._connections):
            connection.drain()
        self._check_all_closed()
        try:
            async with asyncio.timeout(DRAIN):
                await self._all_closed.wait()
        except TimeoutError:
            log.warning("%d connections did not finish in time and are cut", len(self._connections))
            for connection in list(self._connections):
                connection.cut()
            await asyncio.sleep(LAST_READ)
        await self._reloader.stop()
        await self._set.close()
        await self._notifier.close()
        log.info("stopped")

    def _make_set(self) -> TableSet:
        if self._reread is None:
            raise SettingsError(["this daemon cannot read its settings anew"])
        settings = self._reread()
        return TableSet(
            settings,
            self._set.mirrors,
            _logins(settings, self._set.logins),
            self._sending(settings, self._set.sending),
        )

    def _sending(self, settings: Settings, before: Sending | None = None) -> Sending:
        return Sending(settings, rules(settings), before, self._notifier.send)

    def _change_over(self, fresh: TableSet) -> tuple[TableSet, tuple[str, ...]]:
        old, self._set = self._set, fresh
        self._use(fresh)
        self._notifier.use(fresh.settings)
        return old, self._unbound(fresh.settings)

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

    def _unbound(self, settings: Settings) -> tuple[str, ...]:
        """What of the settings is about listening, and so waits for a restart."""
        bound, wanted = self._settings.inet_endpoints(), settings.inet_endpoints()
        none = "nothing"
        found = [
            f"{path} = {wanted.get(path, none)}: after a restart; until then {bound.get(path, none)}"
            for path in sorted(bound.keys() | wanted.keys())
            if bound.get(path) != wanted.get(path)
        ]
        found += [
            f"[{name}] takes a restart"
            for name in ("listen", "socketmap", "control", "login", "dovecot_auth", "saslauthd", "policy")
            if getattr(settings, name) != getattr(self._settings, name)
        ]
        ours = self._settings
        if (settings.database, settings.mirror) != (ours.database, ours.mirror):
            found.append(
                "[database], [mirror]: in use, but what is held is kept on disk after a restart only"
            )
        return tuple(found)

    async def serve(self) -> None:
        """Start, run until SIGTERM or SIGINT, stop."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        starting = asyncio.ensure_future(self.start())
        ending = asyncio.ensure_future(ended.wait())
        await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
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

    def _connection(self, endpoint: str, codec: Callable[[], Codec]) -> Connection:
        connection = Connection(codec(), self._tables, self._memo(endpoint), self._trust, self._closed)
        self._connections.add(connection)
        return connection

    def _login_connection(self, codec: Callable[[], LoginCodec]) -> LoginConnection:
        connection = LoginConnection(codec(), self._answer_login, self._closed)
        self._connections.add(connection)
        return connection

    def _policy_connection(self) -> PolicyConnection:
        connection = PolicyConnection(self._answer_policy, self._closed)
        self._connections.add(connection)
        return connection

    def _answer_policy(self, request: PolicyRequest) -> Action | asyncio.Future[Action]:
        if monotonic() > self._trust.until:
            self._trust.renew()
        return self._set.sending.service.begin(request)  # of the settings now, whenever the client connected

    async def _answer_login(self, question: Question, door: str) -> Result:
        logins = self._set.logins  # those of the settings now, whenever the client connected
        if logins is None:
            return Unavailable("the settings have no login socket any more")
        return await logins.service.answer(question, door)

    def _closed(self, connection: AnyConnection) -> None:
        self._connections.discard(connection)
        self._check_all_closed()

    def _check_all_closed(self) -> None:
        if self._all_closed is not None and not self._connections:
            self._all_closed.set()

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
        return {"connections": len(self._connections), **self._set.state, "notices": self._notifier.state}

    async def _reload(self, _: dict[str, Any]) -> dict[str, Any]:
        return asdict(await asyncio.shield(self._reloader.ask()))  # whoever asked may hang up


def _logins(settings: Settings, before: Logins | None = None) -> Logins | None:
    """The login service, if any door is open. Raises `SettingsError`."""
    return Logins(settings, rules(settings), before) if settings.has_logins else None


def _bind_unix(settings: Unix) -> socket.socket:
    access = UnixAccess(int(settings.mode, 8), settings.owner, settings.group)
    return bind_unix(Path(settings.unix), access)
