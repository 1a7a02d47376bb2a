"""A login service that lets everybody in, for tests of what a login may send as.

Contract: the server side of Dovecot's auth protocol as smtpd speaks it (facts/postfix.md 7), PLAIN with
an initial response only; the login is the name given, whatever the password.

    S: VERSION 1 2 / MECH PLAIN / DONE      C: AUTH <id> PLAIN ... resp=<base64>      S: OK <id> user=<name>
"""

from __future__ import annotations

import asyncio
import base64
from typing import Self


class SaslStub:
    """The server on a port of 127.0.0.1: `async with SaslStub() as sasl`, then `sasl.settings`."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._writers: set[asyncio.StreamWriter] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    @property
    def settings(self) -> dict[str, str]:
        """The lines of main.cf that point smtpd here."""
        port = self._server.sockets[0].getsockname()[1]
        return {
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": f"inet:127.0.0.1:{port}",
        }

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        writer.write(b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nDONE\n")
        try:
            while line := await reader.readline():
                words = line.decode().rstrip("\n").split("\t")
                if words[0] == "AUTH":
                    writer.write(f"OK\t{words[1]}\tuser={_login(words[-1])}\n".encode())
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


def _login(response: str) -> str:
    """The authentication id in `resp=` of PLAIN (RFC 4616): authzid NUL authcid NUL password."""
    return base64.b64decode(response.removeprefix("resp=")).split(b"\0")[1].decode()


def plain(login: str) -> str:
    """What a client says to log in."""
    return "AUTH PLAIN " + base64.b64encode(f"\0{login}\0x".encode()).decode()
