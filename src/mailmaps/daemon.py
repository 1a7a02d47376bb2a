"""Builds everything from the settings, and starts, drains and stops it.

Start: bind every endpoint (clients queue from then on), connect and read the held tables once, then
accept; a database that is away does not keep us from starting. Stop: accept no more, answer what was
asked, close, within `DRAIN` seconds.
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
from typing import Any

from mailmaps.config.settings import Settings, Unix, split_inet
from mailmaps.connection import Connection
from mailmaps.control import CommandError, ControlConnection
from mailmaps.database.connect import connect
from mailmaps.database.pool import Pool
from mailmaps.database.views import ViewSource
from mailmaps.listeners import Acceptor, IPNetwork, Room, UnixAccess, bind_inet, bind_unix
from mailmaps.maps.answer import CannotSay, Found, NotFound
from mailmaps.maps.cache import Cache
from mailmaps.maps.held import HeldSource
from mailmaps.maps.lookup import Table
from mailmaps.maps.search import Rules
from mailmaps.maps.sources import Source, view_of
from mailmaps.maps.tables import KINDS, TableKind
from mailmaps.protocols import tcp_table
from mailmaps.protocols.request import Codec
from mailmaps.protocols.socketmap import Socketmap

log = logging.getLogger(__name__)

# systemd's and Postfix's patience is longer; a postmaster's is not. The whole stop takes under 5 s.
DRAIN = 4.0

# Seconds in which queries already on the wire are still read after we stop accepting.
LAST_READ = 0.05

# What the how-to's domains.transport calls our own delivery; transport(5) takes either spelling.
DELIVERY_OF_OURS = ("virtual:", "virtual")

# The held tables are read as often as the settings say, but never so often that reading them takes more
# than one part in this of the time: with very many domains a change is seen later instead.
READING_SHARE = 50


class Daemon:
    """One running mailmaps."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = Pool(
            lambda: connect(settings.database, for_lookups=True),
            settings.database.connections,
        )
        self._held: list[tuple[HeldSource, Table]] = []
        self._unread: set[str] = set()  # held tables whose last reading failed
        self._tables = {name: self._table(KINDS[name]) for name in settings.tables}
        self._sockets: list[tuple[socket.socket, Callable[[], asyncio.BaseProtocol]]] = []
        self._room: Room | None = None  # there from start() on
        self._connections: set[Connection] = set()
        self._refresher: asyncio.Task[None] | None = None
        self._all_closed: asyncio.Event | None = None  # set up by stop(), which waits for it

    def bind(self) -> None:
        """Bind every endpoint of the settings. Raises `ListenError` for the first that cannot be."""
        for name, table in self._settings.tables.items():
            if table.tcp:
                sock = bind_inet(*split_inet(table.tcp))
                self._sockets.append((sock, partial(self._connection, tcp_table.codec(name))))
        if self._settings.socketmap.inet:
            sock = bind_inet(*split_inet(self._settings.socketmap.inet))
            self._sockets.append((sock, partial(self._connection, Socketmap)))
        if self._settings.socketmap.unix:
            sock = _bind_unix(self._settings.socketmap)
            self._sockets.append((sock, partial(self._connection, Socketmap)))
        if self._settings.control.unix:
            commands = {"explain": self._explain, "status": self._status}
            sock = _bind_unix(self._settings.control)
            self._sockets.append((sock, partial(ControlConnection, commands)))

    async def start(self) -> None:
        """Connect, read the held tables if the database lets us, and begin to accept."""
        self._pool.start()
        await self._pool.tried()
        await self._refresh_held()
        self._refresher = asyncio.ensure_future(self._keep_refreshing())
        networks: list[IPNetwork] = [ip_network(n) for n in self._settings.listen.allow_networks]
        loop = asyncio.get_running_loop()
        self._room = Room(loop)
        for sock, factory in self._sockets:
            Acceptor(sock, factory, self._room, loop, networks)
        log.info("ready: %d tables on %d endpoints", len(self._tables), len(self._sockets))

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
        if self._refresher is not None:
            self._refresher.cancel()
        await self._pool.close()
        log.info("stopped")

    async def serve(self) -> None:
        """Start, run until SIGTERM or SIGINT, stop."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        starting = asyncio.ensure_future(self.start())
        ending = asyncio.ensure_future(ended.wait())
        await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            starting.cancel()  # a database that hangs must not keep us from stopping
        else:
            await starting
            await ending
        await self.stop()

    def _connection(self, codec: Callable[[], Codec]) -> Connection:
        connection = Connection(codec(), self._tables, self._closed)
        self._connections.add(connection)
        return connection

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._check_all_closed()

    def _check_all_closed(self) -> None:
        if self._all_closed is not None and not self._connections:
            self._all_closed.set()

    def _table(self, kind: TableKind) -> Table:
        cache = self._settings.cache
        sources = [self._source(kind, name) for name in self._settings.tables[kind.name].sources]
        table = Table(
            kind,
            sources,
            rules(self._settings),
            Cache(
                ttl=cache.ttl,
                negative_ttl=cache.negative_ttl,
                size=cache.size,
                negative_size=cache.negative_size,
            ),
            self._settings.database.lookup_deadline,
            max(1, self._settings.database.connections - 1),
        )
        self._held += [(source, table) for source in sources if isinstance(source, HeldSource)]
        return table

    def _source(self, kind: TableKind, name: str) -> Source:
        builtin = name == "builtin"
        replace = {}
        if builtin and kind.name == "transport_maps" and self._settings.delivery != "virtual":
            replace = dict.fromkeys(DELIVERY_OF_OURS, self._settings.delivery)
        view = view_of(kind.name, name)
        source = ViewSource(self._pool, view, name=name, bare_keys=not builtin, replace=replace)
        if not kind.held:
            return source
        return HeldSource(
            source,
            source.list_rows,
            away=lambda: self._pool.is_away,
            deadline=self._settings.database.lookup_deadline,
            max_stale=self._settings.cache.max_stale,
            max_stale_not_found=self._settings.cache.max_stale_not_found,
        )

    async def _keep_refreshing(self) -> None:
        loop = asyncio.get_running_loop()
        took = 0.0
        while True:
            await asyncio.sleep(max(self._settings.cache.refresh, READING_SHARE * took))
            began = loop.time()
            try:
                await self._refresh_held()
            except Exception:  # the held tables must be refreshed for as long as we live
                log.exception("refreshing the held tables failed in a way we do not know")
            took = loop.time() - began

    async def _refresh_held(self) -> None:
        """Read the held tables anew; a failure is logged, once, and the old rows stay."""
        for source, table in self._held:
            try:
                async with asyncio.timeout(self._settings.database.lookup_deadline):
                    if await source.refresh():
                        table.forget()
            except (CannotSay, TimeoutError) as error:
                self._note_unread(table.kind.name, str(error) or "it takes longer than lookup_deadline")
            else:
                self._note_unread(table.kind.name, "")

    def _note_unread(self, name: str, why: str) -> None:
        if why and name not in self._unread:
            self._unread.add(name)
            log.error("table=%s: cannot be read whole: %s", name, why)
        elif not why and name in self._unread:
            self._unread.discard(name)
            log.warning("table=%s: has been read whole again", name)

    async def _explain(self, request: dict[str, Any]) -> dict[str, Any]:
        table = self._tables.get(str(request.get("table")))
        if table is None:
            raise CommandError("no such table; known are " + ", ".join(self._tables))
        explanation = await table.explain(str(request.get("key", "")).encode(errors="surrogateescape"))
        answer = explanation.answer
        word = (
            "found"
            if isinstance(answer, Found)
            else "not found"
            if isinstance(answer, NotFound)
            else "cannot say"
        )
        return {
            "candidates": explanation.candidates,
            "row": None if explanation.row is None else asdict(explanation.row),
            "said_by": explanation.said_by,
            "put_back": explanation.put_back,
            "answer": word,
            "value": getattr(answer, "value", None),
            "reason": getattr(answer, "reason", None),
        }

    async def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"connections": len(self._connections), "database": self._pool.state}


def rules(settings: Settings) -> Rules:
    """The search rules that the settings' [postfix] section stands for."""
    postfix = settings.postfix
    return Rules(
        recipient_delimiter=postfix.recipient_delimiter,
        owner_request_special=postfix.owner_request_special,
        double_bounce_sender=postfix.double_bounce_sender,
        propagate_unmatched_extensions=frozenset(postfix.propagate_unmatched_extensions),
        myorigin=postfix.myorigin,
        mydestination=frozenset(name.casefold() for name in postfix.mydestination),
        parent_domain_matches_subdomains=frozenset(postfix.parent_domain_matches_subdomains),
        smtputf8_enable=postfix.smtputf8_enable,
        local_addresses=frozenset(
            literal
            for address in postfix.inet_interfaces + postfix.proxy_interfaces
            for literal in (f"[{address}]", f"[ipv6:{address}]")
        ),
    )


def _bind_unix(settings: Unix) -> socket.socket:
    access = UnixAccess(int(settings.mode, 8), settings.owner, settings.group)
    return bind_unix(Path(settings.unix), access)
