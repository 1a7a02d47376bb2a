"""One client of the policy service: bytes -> codec -> checks -> codec -> bytes, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mailmaps.logs import events
from mailmaps.ordered_connection import OrderedConnection
from mailmaps.policy.action import Action, cannot_say
from mailmaps.protocols.policy import PolicyDelegation, PolicyRequest

log = events(__name__)

Begin = Callable[[PolicyRequest], Action | asyncio.Future[Action]]


class PolicyConnection(OrderedConnection[PolicyRequest, Action]):
    """One client. `begin` is `PolicyService.begin`; `closed` is called when it is gone."""

    def __init__(self, begin: Begin, closed: Callable[[PolicyConnection], None] = lambda _: None) -> None:
        self._codec = PolicyDelegation()
        super().__init__(self._codec)
        self._ask = begin
        self._closed = closed

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._closed(self)

    def _begin(self, request: PolicyRequest) -> Action | asyncio.Future[Action]:
        return self._ask(request)

    def _encode(self, request: PolicyRequest, answer: Action) -> bytes:
        return self._codec.encode(answer)

    def _try_later(self, request: PolicyRequest) -> Action:
        return self._cannot_say(request, "mailmaps is stopping")

    def _internal_error(self, request: PolicyRequest) -> Action:
        log.exception("internal error")
        return self._cannot_say(request, "internal error")

    def _cannot_say(self, request: PolicyRequest, why: str) -> Action:
        return cannot_say(request.state, why)
