"""What the running daemon answers, asked over the wire as Postfix asks it."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from mailmaps.client import SocketmapClient, TcpTableClient, open_inet, open_unix
from mailmaps.config import Settings
from mailmaps.config.section import split_inet
from mailmaps.maps.answer import Answer, Unavailable


class NewSide:
    """One table of the daemon: by its tcp_table(5) endpoint if it has one, else by socketmap_table(5)."""

    def __init__(self, settings: Settings, table: str) -> None:
        self._settings = settings
        self._table = table
        self._stack = ExitStack()
        self._client: TcpTableClient | SocketmapClient | None = None

    def __enter__(self) -> Self:
        """Raises `OSError` when the daemon cannot be reached, `ValueError` when there is no endpoint."""
        self._client = self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def answer(self, key: str) -> Answer:
        """Ask one key; after a failure on a new connection, as Postfix does."""
        try:
            if self._client is None:
                self._client = self._open()
        except OSError as error:
            return Unavailable(f"mailmaps does not answer: {error}")
        answer = self._client.ask(key)
        if isinstance(answer, Unavailable):
            self._stack.close()
            self._client = None
        return answer

    def _open(self) -> TcpTableClient | SocketmapClient:
        tcp, socketmap = self._settings.tables[self._table].tcp, self._settings.socketmap
        if tcp:
            return TcpTableClient(self._stack.enter_context(open_inet(*split_inet(tcp))))
        if socketmap.inet:
            sock = self._stack.enter_context(open_inet(*split_inet(socketmap.inet)))
            return SocketmapClient(sock, self._table)
        if socketmap.unix:
            return SocketmapClient(self._stack.enter_context(open_unix(socketmap.unix)), self._table)
        raise ValueError(f"the settings give {self._table} no endpoint")
