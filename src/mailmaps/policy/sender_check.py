"""The sender check: may who is logged in send as this, and may who is not claim to be one of us?

What can be decided from memory is decided without waiting. In doubt mail waits: a failure is "try later",
unless the settings say otherwise; while they say "observe", nothing is refused or deferred, failures
included.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Literal

from mailmaps.logs import events
from mailmaps.maps.address import quote
from mailmaps.maps.answer import Answer, Unavailable
from mailmaps.maps.lookup import Located
from mailmaps.maps.rewriting import resolved
from mailmaps.maps.search import Rules
from mailmaps.policy.action import DUNNO, Action, Word, cannot_say
from mailmaps.policy.grants import IPNetwork, key_of
from mailmaps.policy.mail import Mail
from mailmaps.policy.observed import REFUSED, WOULD_BE_DEFERRED, WOULD_BE_REFUSED, Observed
from mailmaps.policy.ownership import Verdict
from mailmaps.policy.sender_table import SenderTable
from mailmaps.policy.texts import fill, shown

log = events(__name__)

# Mail transactions whose refusal is remembered as noted: each recipient asks again.
MOST_NOTED = 10_000

# Logins with a sender that they own which are remembered together: some 20 MB.
MOST_OWNERS = 100_000

# Characters of a sender that is remembered: an address has at most 254 octets (RFC 5321 4.5.3.1.3).
LONGEST_KEPT = 254

NO_TABLE = "no table smtpd_sender_login_maps"


@dataclass(frozen=True, slots=True)
class Manner:
    """How the check behaves; each field is the setting of [senders] of that name."""

    mode: Literal["enforce", "observe", "off"] = "enforce"
    on_failure: Literal["defer", "dunno"] = "defer"
    unauthenticated: Literal["refuse", "observe", "allow"] = "observe"
    unauthenticated_networks: Sequence[IPNetwork] = ()
    unauthenticated_senders: Sequence[str] = ()
    refusal: str = "{login} {sender}"
    refusal_unauthenticated: str = "{sender}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """One decision: what the sender is to Postfix, the keys that were asked, and what came of it.

    `in_map` is what smtpd_sender_login_maps answers.
    """

    resolved: str
    candidates: tuple[str, ...]
    verdict: Verdict | Unavailable
    in_map: Answer | None


class SenderCheck:
    """`table` is None where the settings have no table smtpd_sender_login_maps: then nobody can say.

    `foreign(login, sender, client)` hears of each mail that was refused, or would have been.
    """

    def __init__(
        self,
        table: SenderTable | None,
        rules: Rules,
        manner: Manner,
        observed: Observed,
        foreign: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        self._table = table
        self._rules = rules
        self._manner = manner
        self._observed = observed
        self._foreign = foreign
        self._exempt = frozenset(key_of(sender) for sender in manner.unauthenticated_senders)
        self._noted: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._owners: set[tuple[str, str]] = set()  # (login, sender), until a row changes
        if table is not None:
            table.forgotten.append(self._owners.clear)

    def begin(self, mail: Mail) -> Action | asyncio.Future[Action]:
        """Decide without waiting, or begin to ask."""
        if self._manner.mode == "off" or (not mail.login and not self._concerns(mail)):
            return DUNNO
        if (mail.login, mail.sender) in self._owners:
            return DUNNO
        if not mail.sender:
            return self._concluded(mail, self._of_null_sender())
        if self._table is None:
            return self._concluded(mail, Unavailable(NO_TABLE))
        try:
            located = self._table.begin_row(_key(resolved(mail.sender, self._rules)))
        except ValueError as error:
            return self._concluded(mail, _no_address(error))
        if isinstance(located, Located):
            row = located.row
            if mail.login and row is not None and self._table.ownership.plainly_owns(mail.login, row):
                self._remember(mail)
                return DUNNO
            return self._concluded(mail, self._decide(self._table, mail, located))
        future: asyncio.Future[Action] = asyncio.get_running_loop().create_future()
        located.add_done_callback(partial(self._found, self._table, mail, future))
        return future

    def mode_of(self, login: str) -> str:
        """What becomes of a refusal: "enforce", "observe" or "off"."""
        if self._manner.mode == "off" or login:
            return self._manner.mode
        usual = {"refuse": "enforce", "observe": "observe", "allow": "off"}
        return "observe" if self._manner.mode == "observe" else usual[self._manner.unauthenticated]

    def failed(self, mail: Mail, why: str) -> Action:
        """What a failure of this check means."""
        return self._concluded(mail, Unavailable(why))

    async def explain(self, login: str, address: str, client: str) -> Explanation:
        """The decision for a login, or for nobody who is logged in (empty), as it would be now."""
        mail = Mail("RCPT", address, login, client, "", 0)
        if not address:
            return Explanation("", (), self._of_null_sender(), None)
        if self._table is None:
            return Explanation(address, (), Unavailable(NO_TABLE), None)
        try:
            to_postfix = resolved(address, self._rules)
        except ValueError as error:
            return Explanation(address, (), _no_address(error), None)
        located = self._table.begin_row(_key(to_postfix))
        if not isinstance(located, Located):
            located = await located
        verdict = self._decide(self._table, mail, located)
        question, row = located.question, located.row
        return Explanation(
            to_postfix,
            question.candidates if question is not None else (),
            verdict,
            None if row is None else self._table.ownership.owners(question, row),
        )

    def _concerns(self, mail: Mail) -> bool:
        """Whether it matters that this mail, whose client did not log in, claims its sender."""
        if self._manner.unauthenticated == "allow" or not mail.sender:
            return False
        try:
            client = ip_address(mail.client)
        except ValueError:  # "unknown", or a unix socket
            return True
        return not any(client in network for network in self._manner.unauthenticated_networks)

    def _remember(self, mail: Mail) -> None:
        """Who owns an address by rows in memory need not be asked about again."""
        if len(mail.sender) > LONGEST_KEPT or self._table is None or not self._table.rows_are_steady:
            return
        if len(self._owners) >= MOST_OWNERS:
            self._owners.clear()
        self._owners.add((mail.login, mail.sender))

    def _found(
        self,
        table: SenderTable,
        mail: Mail,
        future: asyncio.Future[Action],
        located: asyncio.Future[Located],
    ) -> None:
        if future.done():
            return
        try:
            future.set_result(self._concluded(mail, self._decide(table, mail, located.result())))
        except Exception as error:
            future.set_exception(error)

    def _of_null_sender(self) -> Verdict:
        if self._table is not None and not self._table.ownership.switches.null_sender:
            return Verdict(False, "<> is nobody", "senders.null_sender = true")
        return Verdict(True, "null_sender")

    def _decide(self, table: SenderTable, mail: Mail, located: Located) -> Verdict | Unavailable:
        question, row = located.question, located.row
        if row is None:
            return Unavailable(located.why)
        if mail.login:
            return table.ownership.decide(mail.login, mail.client, question, row)
        if question is None or not row.values:  # (a grant makes an address elsewhere no address of ours)
            return Verdict(True, "nobody here has the address")
        if not self._exempt.isdisjoint(question.candidates):
            return Verdict(True, "senders.unauthenticated_senders")
        return Verdict(
            False,
            f"{question.candidates[row.index]} is an address of ours, and nobody is logged in",
            "to log in, or senders.unauthenticated_networks or unauthenticated_senders",
        )

    def _concluded(self, mail: Mail, verdict: Verdict | Unavailable) -> Action:
        manner = self._manner
        observing = manner.mode == "observe" or (not mail.login and manner.unauthenticated == "observe")
        if isinstance(verdict, Unavailable):
            passes = observing or manner.on_failure == "dunno"
            if passes and mail.login:
                self._note(mail, WOULD_BE_DEFERRED, verdict.reason)
            return DUNNO if passes else cannot_say(mail.state, verdict.reason)
        if verdict.allowed:
            return DUNNO
        self._note(mail, WOULD_BE_REFUSED if observing else REFUSED, verdict.by)
        if observing:
            return DUNNO
        text = manner.refusal if mail.login else manner.refusal_unauthenticated
        return Action(Word.NOT_YOURS, fill(text, login=mail.login, sender=mail.sender or "<>"))

    def _note(self, mail: Mail, verdict: str, why: str) -> None:
        """Once for each mail, however many recipients it has."""
        if mail.instance:
            key = (mail.instance, mail.login, mail.sender)
            if key in self._noted:
                return
            self._noted[key] = None
            if len(self._noted) > MOST_NOTED:
                self._noted.popitem(last=False)
        log.counted(
            logging.INFO,
            f"sender {verdict}",
            login=shown(mail.login),
            sender=shown(mail.sender),
            client=shown(mail.client),
            why=why,
        )
        self._observed.note(mail.login, mail.sender, mail.client, verdict, why)
        if mail.login and verdict != WOULD_BE_DEFERRED:
            self._foreign(mail.login, mail.sender, mail.client)


def _no_address(error: ValueError) -> Verdict:
    """A sender that Postfix would take apart for long, to hide whose it is. No failure: a client makes such
    as he likes, and failures may pass (`on_failure`)."""
    return Verdict(False, f"that is no address of anybody: {error}", "an address without routes")


def _key(internal: str) -> bytes:
    return quote(internal).encode(errors="surrogateescape")
