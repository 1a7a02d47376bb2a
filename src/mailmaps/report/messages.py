"""The mails that are on their way, from the lines about their queue ids.

The rules it keeps:

* A queue id is one mail's until "removed"; short ids come again (`enable_long_queue_ids = no`), and a client=
  line for one that had been queued begins a new mail. Ids are told apart by host and instance.
* A mail is received once: with its first "queue active" after cleanup(8) read its header. One without that
  header in the log is older than the log, and not received again at each try.
* A mail that comes back to us is the same one: "queued as ID" or "forwarded as ID" of an id that is ours, and
  orig_queue_id= (XFORWARD). The second is not received, the first is not delivered but passed on. For
  "queued as" the Message-ID must be the same, since a server elsewhere says what it likes.
* Memory is bounded: so many mails at a time, so many recipients that wait. What is dropped is counted.
"""

from __future__ import annotations

import re
from collections import OrderedDict

# Mails that are open at a time: the queue of a big site in trouble. About 100 MB when full.
MOST_OPEN = 200_000

# Recipients whose last deferral is remembered, over all mails.
MOST_WAITING = 400_000

# Mails that are remembered after they left, for a filter's "queued as" that comes after.
MOST_DONE = 20_000

_NEXT = re.compile(r"\b(queued|forwarded) as ([0-9A-Za-z]{5,20})\b")


class Message:
    """One mail. `counted` is the slot in which it was received, None when it was not counted."""

    __slots__ = (
        "bounced", "counted", "held", "login", "message_id", "named", "origin", "passed", "queued",
        "recipients", "same_as_before", "sender", "since", "size", "waiting",
    )  # fmt: skip

    def __init__(self, since: float) -> None:
        self.since = since
        self.origin = ""
        self.login = ""
        self.message_id = ""
        self.named = False
        self.queued = False
        self.sender = ""
        self.size: int | None = None
        self.recipients = 0
        self.counted: int | None = None
        self.same_as_before = False
        self.passed = False
        self.held = False
        self.bounced = False
        self.waiting: dict[str, str] | None = None

    @property
    def is_in_queue(self) -> bool:
        """Whether the log shows it in the queue: a client that broke off leaves an id without a mail."""
        return self.queued or (self.held and self.named)


class Messages:
    """All mails by their keys (host, instance and queue id, made by `key`)."""

    def __init__(self, most_open: int = MOST_OPEN, most_waiting: int = MOST_WAITING) -> None:
        self._open: dict[str, Message] = {}
        self._done: OrderedDict[str, Message] = OrderedDict()
        self._most_open = most_open
        self._most_waiting = most_waiting
        self._instances: set[str] = set()
        self.waiting = 0
        self.forgotten = 0

    def open(self) -> dict[str, Message]:
        """The mails that have not ended, oldest first."""
        return self._open

    def get(self, where: str, queue_id: str, when: float) -> Message:
        """The mail of an id; a new one when nothing is known of it."""
        key = where + queue_id
        message = self._open.get(key)
        return self._begin(where, key, when) if message is None else message

    def begin(self, where: str, queue_id: str, when: float) -> Message:
        """The mail of an id that a client has just begun; one of the same id that was queued is over."""
        key = where + queue_id
        message = self._open.get(key)
        if message is not None and not message.queued:
            return message
        if message is not None:
            self.end(where, queue_id)
        self._done.pop(key, None)
        return self._begin(where, key, when)

    def _begin(self, where: str, key: str, when: float) -> Message:
        if len(self._instances) < 64:
            self._instances.add(where)
        if len(self._open) >= self._most_open:
            self._drop(next(iter(self._open)))
            self.forgotten += 1
        message = self._open[key] = Message(when)
        return message

    def end(self, where: str, queue_id: str) -> Message | None:
        """The mail has left the queue."""
        return self._drop(where + queue_id)

    def _drop(self, key: str) -> Message | None:
        message = self._open.pop(key, None)
        if message is None:
            return None
        self.waiting -= len(message.waiting or ())
        message.waiting = None
        self._done[key] = message
        if len(self._done) > MOST_DONE:
            self._done.popitem(last=False)
        return message

    def find(self, where: str, queue_id: str) -> Message | None:
        """The mail of an id in this instance, or in another of the same host."""
        host = where.partition("\t")[0] + "\t"
        for instance in (where, *(one for one in self._instances if one != where and one.startswith(host))):
            message = self._open.get(instance + queue_id) or self._done.get(instance + queue_id)
            if message is not None:
                return message
        return None

    def next_of(self, where: str, message: Message, reason: str, when: float) -> Message | None:
        """The mail as which this one goes on, by what the next server said; None when it left us."""
        match = _NEXT.search(reason)
        if match is None:
            return None
        if match[1] == "forwarded":  # local(8): its line may come before those of the new mail
            return self.find(where, match[2]) or self.get(where, match[2], when)
        following = self.find(where, match[2])
        if following is None or following is message:
            return None
        same = following.message_id == message.message_id
        return following if same and following.named and message.named else None

    def defer(self, message: Message, recipient: str, reason: str) -> bool:
        """A recipient waits; whether that, or the reason, is new."""
        if message.waiting is None:
            message.waiting = {}
        known = message.waiting.get(recipient)
        if known is None:
            if self.waiting >= self._most_waiting:
                return True
            self.waiting += 1
        message.waiting[recipient] = reason
        return known != reason

    def settle(self, message: Message, recipient: str) -> None:
        """A recipient waits no longer."""
        if message.waiting and message.waiting.pop(recipient, None) is not None:
            self.waiting -= 1
