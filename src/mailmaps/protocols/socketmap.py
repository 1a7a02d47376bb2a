"""socketmap_table(5): netstrings, several tables on one endpoint.

    "NAME KEY"   ->   "OK VALUE" | "NOTFOUND " | "TEMP TEXT" | "PERM TEXT"

Keys and values are raw bytes. The client (src/util/dict_sockmap.c) reads replies of at most 100000
bytes and does not resynchronize after a longer one, so none is ever sent. PERM becomes "server
configuration error" (451), never "no such user".
"""

from __future__ import annotations

from mailmaps.logs import events
from mailmaps.maps.answer import Answer, Found, NotFound
from mailmaps.protocols.netstring import NetstringError, NetstringReader, netstring
from mailmaps.protocols.request import ProtocolError, Request, reason_bytes

log = events(__name__)

# dict_sockmap.c:115: the payload of a reply, `OK ` included.
LONGEST_REPLY = 100_000

# Postfix 3.12 asks keys of at most 10000 bytes (socketmap_max_query_size), older ones any. What it can
# come by is bounded by its line_length_limit and expansion limits, far below this.
LONGEST_REQUEST = 16 * 1024

NOT_FOUND_REPLY = netstring(b"NOTFOUND ")


class Socketmap:
    """The server's half of socketmap_table(5)."""

    name = "socketmap"

    def __init__(self) -> None:
        self._reader = NetstringReader(LONGEST_REQUEST)

    @property
    def is_between(self) -> bool:
        """Whether no netstring has begun."""
        return self._reader.is_empty

    def feed(self, data: bytes) -> list[Request]:
        """Return the requests that are complete. Raises `ProtocolError` on what is not a netstring."""
        self._reader.feed(data)
        requests: list[Request] = []
        try:
            while (payload := self._reader.next()) is not None:
                name, blank, key = payload.partition(b" ")
                if not blank:
                    raise NetstringError("a request without a blank between name and key")
                requests.append(Request(name.decode("ascii", "backslashreplace"), key))
        except NetstringError as error:
            raise ProtocolError(str(error), netstring(b"PERM " + str(error).encode()), requests) from error
        return requests

    def encode(self, request: Request, answer: Answer) -> bytes:
        """The reply; a value that does not fit is a temporary error, never a cut value."""
        if isinstance(answer, NotFound):
            return NOT_FOUND_REPLY
        if not isinstance(answer, Found):
            return netstring(b"TEMP " + reason_bytes(answer.reason))
        payload = b"OK " + answer.value.encode(errors="surrogateescape")
        if len(payload) <= LONGEST_REPLY:
            return netstring(payload)
        log.warning(
            "the value is too long for socketmap",
            table=request.table,
            key=request.key,
            bytes=len(payload),
            most=LONGEST_REPLY,
        )
        return netstring(b"TEMP the value is too long for socketmap")

    def encode_no_table(self, request: Request) -> bytes:
        """The reply to a name that is no table here: a configuration error for Postfix."""
        return netstring(b"PERM no table " + request.table.encode()[:200])
