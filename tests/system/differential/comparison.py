"""Sends the same mail to all instances, waits until all of it has arrived, and compares.

Contract: `compare` gives an `Outcome` for each address and instance: the reply to RCPT, the reply to the
data, and every recipient that came of it with the sink that got it. Many addresses share a message; where
a shared message differs in anything, or is refused, each of its addresses is sent again alone, and what
counts is what came of that. A difference that only shows in company is one too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from tests.system.differential.instances import SESSIONS, Instances
from tests.system.differential.sink import Delivery, Sinks
from tests.system.differential.transaction import Batch, Replies, Session

SENDERS_AT_ONCE = 50

LOG_SHOWN = 4000
"""Characters of a Postfix's log, when it does not answer."""


class Outcome(NamedTuple):
    """What became of one address."""

    rcpt: str
    data: str
    delivered: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.rcpt} / {self.data or '-'} / {', '.join(self.delivered) or 'nobody'}"


class Result(NamedTuple):
    """What became of one message."""

    replies: Replies
    deliveries: tuple[Delivery, ...]

    def outcome(self, number: int) -> Outcome:
        """What became of recipient `number`. A copy belongs to none, hence to all that were taken."""
        rcpt, original = self.replies.rcpt[number], str(number)
        taken = rcpt.startswith("250 ")
        mine = [
            recipient
            for whose, recipient in self.deliveries
            if whose == original or (taken and not whose.isdecimal())
        ]
        return Outcome(rcpt, self.replies.data if taken else "", tuple(mine))


class Difference(NamedTuple):
    """One address about which they do not agree, and the answers by instance. `subject` is whom it is about:
    the recipient, or the sender when only that one was asked."""

    subject: str
    address: str
    sender: str
    login: str
    answers: Mapping[str, str]
    remark: str = ""

    def __str__(self) -> str:
        sender = f"from <{self.sender}>{f', logged in as {self.login}' if self.login else ''}"
        lines = [f"{self.address!r} {sender} {self.remark}".rstrip()]
        return "\n".join([*lines, *(f"  {name}: {answer}" for name, answer in self.answers.items())])


class Answer(NamedTuple):
    """What the master (A) said of an address, for the statistics."""

    address: str
    outcome: Outcome


class Comparison:
    """Compares on one set of `Instances`."""

    def __init__(self, instances: Instances, sinks: Sinks, label: str) -> None:
        """`label` is unique among all that use these sinks."""
        self._instances = instances
        self._sinks = sinks
        self._label = label
        self._numbers = count()

    async def compare(self, batches: Sequence[Batch]) -> tuple[list[Answer], list[Difference]]:
        """Send messages; what A said about each address, and all differences."""
        batches = [self._numbered(batch) for batch in batches]
        results = await self._send(batches)
        again = [
            batch for batch in batches if len(batch.addresses) > 1 and _is_doubtful(results[batch.number])
        ]
        alone = [self._numbered(single) for batch in again for single in _apart(batch)]
        results |= await self._send(alone)
        settled = [batch for batch in batches if batch not in again] + alone
        answers = [answer for batch in settled for answer in _answers(batch, results[batch.number]["A"])]
        differences = [found for batch in settled for found in _differences(batch, results[batch.number])]
        told = {difference.address for difference in differences}
        for batch in again:
            if told.isdisjoint(batch.addresses):
                differences += _in_company(batch, results[batch.number])
        return answers, differences

    async def compare_senders(
        self, login: str, senders: Sequence[str], recipient: str
    ) -> tuple[list[Answer], list[Difference]]:
        """Only ask whether senders may send; nothing is delivered."""
        names = list(self._instances.postfixes)
        asked = [self._sender_replies(name, login, senders, recipient) for name in names]
        replies = dict(zip(names, await asyncio.gather(*asked), strict=True))
        answers = [
            Answer(sender, Outcome(text.partition(" / ")[2], "", ()))
            for sender, text in zip(senders, replies["A"], strict=True)
        ]
        said = [dict(zip(names, texts, strict=True)) for texts in zip(*replies.values(), strict=True)]
        differences = [
            Difference(sender, recipient, sender, login, texts)
            for sender, texts in zip(senders, said, strict=True)
            if len(set(texts.values())) > 1
        ]
        return answers, differences

    async def _sender_replies(
        self, name: str, login: str, senders: Sequence[str], recipient: str
    ) -> list[str]:
        replies: list[str] = []
        async with Session(self._instances.postfixes[name].port, login) as session:
            for start in range(0, len(senders), SENDERS_AT_ONCE):
                replies += await session.try_senders(senders[start : start + SENDERS_AT_ONCE], recipient)
        return replies

    def _numbered(self, batch: Batch) -> Batch:
        return batch._replace(number=next(self._numbers))

    async def _send(self, batches: Sequence[Batch]) -> dict[int, dict[str, Result]]:
        """The results by batch and instance."""
        names = list(self._instances.postfixes)
        replies = dict(
            zip(names, await asyncio.gather(*(self._send_to(name, batches) for name in names)), strict=True)
        )
        await self._instances.drained()
        results = {
            batch.number: {
                name: Result(replies[name][batch.number], self._delivered(name, batch)) for name in names
            }
            for batch in batches
        }
        assert not self._sinks.deliveries, f"mail that nobody sent: {dict(self._sinks.deliveries)}"
        return results

    def _delivered(self, name: str, batch: Batch) -> tuple[Delivery, ...]:
        return tuple(sorted(self._sinks.deliveries.pop(self._probe(name, batch), [])))

    async def _send_to(self, name: str, batches: Sequence[Batch]) -> dict[int, Replies]:
        replies: dict[int, Replies] = {}
        # In the order of logins, since each needs a connection of its own.
        todo = iter(sorted(batches, key=lambda batch: batch.login))
        try:
            await asyncio.gather(*(self._client(name, todo, replies) for _ in range(SESSIONS)))
        except (TimeoutError, EOFError, ConnectionError) as error:
            log = self._instances.postfixes[name].log()[-LOG_SHOWN:]
            raise AssertionError(f"{name} does not answer: {error!r}\n{log}") from error
        return replies

    async def _client(self, name: str, todo: Iterator[Batch], replies: dict[int, Replies]) -> None:
        """Send what is still to do, over as few connections as logins allow."""
        port = self._instances.postfixes[name].port
        batch = next(todo, None)
        while batch is not None:
            login = batch.login
            async with Session(port, login) as session:
                while batch is not None and batch.login == login:
                    replies[batch.number] = await session.send(batch, self._probe(name, batch))
                    batch = next(todo, None)

    def _probe(self, name: str, batch: Batch) -> str:
        return f"{self._label}-{name}-{batch.number}"


def _is_doubtful(results: Mapping[str, Result]) -> bool:
    """Whether something of a shared message may be the fault of one recipient."""
    master = results["A"]
    refused = master.replies.data and not master.replies.data.startswith("250 ")
    return bool(refused) or any(result != master for result in results.values())


def _apart(batch: Batch) -> list[Batch]:
    return [batch._replace(addresses=(address,)) for address in batch.addresses]


def _answers(batch: Batch, result: Result) -> Iterator[Answer]:
    for number, address in enumerate(batch.addresses):
        yield Answer(address, result.outcome(number))


def _differences(batch: Batch, results: Mapping[str, Result]) -> Iterator[Difference]:
    for number, address in enumerate(batch.addresses):
        outcomes = {name: result.outcome(number) for name, result in results.items()}
        mails = {result.replies.mail for result in results.values()}
        if len(set(outcomes.values())) > 1 or len(mails) > 1:
            answers = {
                name: f"{results[name].replies.mail} / {outcome}" for name, outcome in outcomes.items()
            }
            yield Difference(address, address, batch.sender, batch.login, answers)


def _in_company(batch: Batch, results: Mapping[str, Result]) -> Iterable[Difference]:
    """What differed in a shared message although each address alone is answered alike."""
    for difference in _differences(batch, results):
        yield difference._replace(remark=f"(only together with {len(batch.addresses) - 1} others)")
