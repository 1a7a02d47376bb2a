"""The policy service: a request -> the checks that concern it -> one action.

Senders are checked wherever there is one (the same answer each time), limits where the recipients are known:
at DATA or the end of the message. The first check that has something against it is heard. What is not
understood is answered "try later", and so is a failure of ours, unless its check is told to let mail pass.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

from mailmaps.logs import events
from mailmaps.policy.action import DUNNO, Action, Word, cannot_say
from mailmaps.policy.limits import Limits
from mailmaps.policy.mail import COUNTING, WITH_SENDER, Mail, read
from mailmaps.policy.sender_check import SenderCheck
from mailmaps.protocols.policy import PolicyRequest

log = events(__name__)

Outcome = Action | asyncio.Future[Action]

INTERNAL = "internal error"


class PolicyService:
    """`limits_may_fail`: a failure of the limits lets mail pass. `observes` tells whether nothing at all is
    refused now: then what is not understood passes, too. `counts` are those of the service before."""

    def __init__(
        self,
        senders: SenderCheck,
        limits: Limits,
        *,
        limits_may_fail: bool = False,
        observes: Callable[[], bool] = lambda: False,
        counts: Counter[Word] | None = None,
    ) -> None:
        self._senders = senders
        self._limits = limits
        self._limits_may_fail = limits_may_fail
        self._observes = observes
        self.counts: Counter[Word] = Counter() if counts is None else counts  # answers by their word

    def begin(self, request: PolicyRequest) -> Outcome:
        """Answer without waiting, or begin to ask. Nothing is raised, and the future has always a result."""
        outcome = self._begin(request)
        if isinstance(outcome, asyncio.Future):
            outcome.add_done_callback(lambda done: self._count(done.result()))
        else:
            self._count(outcome)
        return outcome

    def _begin(self, request: PolicyRequest) -> Outcome:
        try:
            if request.problem:
                raise ValueError(request.problem)
            mail = read(request.attributes)
        except ValueError as error:
            log.warning("a policy request is not understood", reason=error)
            return DUNNO if self._observes() else cannot_say(request.state, f"not understood: {error}")
        if mail.state not in WITH_SENDER:
            return DUNNO
        try:
            first = self._senders.begin(mail)
        except Exception:
            log.exception("internal error")
            first = self._senders.failed(mail, INTERNAL)
        if isinstance(first, asyncio.Future):
            return _then(first, partial(self._after_senders, mail), partial(self._senders.failed, mail))
        return self._after_senders(mail, first)

    def _after_senders(self, mail: Mail, action: Action) -> Outcome:
        if action is not DUNNO or mail.state not in COUNTING:
            return action
        return _guarded(partial(self._limits.begin, mail), partial(self._limits_failed, mail))

    def _limits_failed(self, mail: Mail, why: str) -> Action:
        return DUNNO if self._limits_may_fail else cannot_say(mail.state, why)

    def _count(self, action: Action) -> None:
        self.counts[action.word] += 1


def _guarded(begin: Callable[[], Outcome], failed: Callable[[str], Action]) -> Outcome:
    """What a check says, or what its failure means."""
    try:
        outcome = begin()
    except Exception:
        log.exception("internal error")
        return failed(INTERNAL)
    if not isinstance(outcome, asyncio.Future):
        return outcome
    return _then(outcome, lambda action: action, failed)


def _then(
    first: asyncio.Future[Action], go_on: Callable[[Action], Outcome], failed: Callable[[str], Action]
) -> asyncio.Future[Action]:
    """What `go_on` makes of the first's result; it always comes to a result."""
    out: asyncio.Future[Action] = first.get_loop().create_future()

    def finish(done: asyncio.Future[Action]) -> None:
        if not out.done():
            out.set_result(_result(done, failed))

    def continue_with(done: asyncio.Future[Action]) -> None:
        outcome = _guarded(partial(go_on, _result(done, failed)), failed)
        if isinstance(outcome, asyncio.Future):
            outcome.add_done_callback(finish)
        elif not out.done():
            out.set_result(outcome)

    first.add_done_callback(continue_with)
    return out


def _result(done: asyncio.Future[Action], failed: Callable[[str], Action]) -> Action:
    if done.cancelled():
        return failed("mailmaps is stopping")
    if (error := done.exception()) is not None:
        log.error("internal error", exc_info=error)
        return failed(INTERNAL)
    return done.result()
