"""What was sent in the last hour and the last day, in memory: where there is no database, and while it is
away.

The windows slide by minutes, and end with the current one and the 60 (or 1440) before it, so that no hour
holds more than its limit wherever it begins. What other hosts sent is known as of the last time the database
told, and counts until its whole window has passed since.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from time import monotonic

from mailmaps.policy.sums import Sums

MINUTES_OF_HOUR = 60
MINUTES_OF_DAY = 1440

# Names (logins and domains) of which something is remembered. Only those who logged in are counted, so there
# are no more than accounts; beyond this the one that sent least recently is forgotten.
MOST_NAMES = 200_000

Name = tuple[str, str]  # scope, name


class Window:
    """One window of one name."""

    __slots__ = ("_length", "_minutes", "messages", "recipients")

    def __init__(self, length: int) -> None:
        self._length = length
        self._minutes: deque[tuple[int, int, int]] = deque()  # minute, messages, recipients
        self.messages = self.recipients = 0

    def add(self, minute: int, messages: int, recipients: int) -> None:
        """So much was sent in this minute, which is not before the last one that was added."""
        self.slide(minute)
        if self._minutes and self._minutes[-1][0] >= minute:
            at, before, to = self._minutes.pop()
            self._minutes.append((at, before + messages, to + recipients))
        else:
            self._minutes.append((minute, messages, recipients))
        self.messages += messages
        self.recipients += recipients

    def slide(self, minute: int) -> None:
        """Forget what is not in the window any more that ends with this minute."""
        while self._minutes and self._minutes[0][0] < minute - self._length:
            _, messages, recipients = self._minutes.popleft()
            self.messages -= messages
            self.recipients -= recipients


class _Sender:
    """What is known of one name."""

    __slots__ = ("day", "hour", "others", "told")

    def __init__(self) -> None:
        self.hour = Window(MINUTES_OF_HOUR)
        self.day = Window(MINUTES_OF_DAY)
        self.others = Sums()
        self.told = 0  # the minute in which that was known

    def ours(self, minute: int) -> Sums:
        self.hour.slide(minute)
        self.day.slide(minute)
        return Sums(self.hour.messages, self.day.messages, self.hour.recipients, self.day.recipients)


class Windows:
    """The windows of all names. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._senders: OrderedDict[Name, _Sender] = OrderedDict()

    def add(self, name: Name, messages: int, recipients: int) -> None:
        """This was sent now."""
        sender, minute = self._sender(name), self._minute()
        sender.hour.add(minute, messages, recipients)
        sender.day.add(minute, messages, recipients)

    def sums(self, name: Name) -> Sums:
        """What this name has sent, as far as is known here."""
        sender = self._senders.get(name)
        if sender is None:
            return Sums()
        minute = self._minute()
        others = sender.others
        if minute - sender.told > MINUTES_OF_HOUR:
            others = others._replace(messages_hour=0, recipients_hour=0)
        if minute - sender.told > MINUTES_OF_DAY:
            others = Sums()
        return sender.ours(minute).plus_all(others)

    def told(self, name: Name, sums: Sums) -> None:
        """The database knows this of the name: all that was sent, by us too."""
        sender, minute = self._sender(name), self._minute()
        if any(less < mine for less, mine in zip(sums, sender.ours(minute), strict=True)):
            # Released meanwhile, or counted in another minute there.
            sender.hour, sender.day = Window(MINUTES_OF_HOUR), Window(MINUTES_OF_DAY)
        sender.others = sums.beyond(sender.ours(minute))
        sender.told = minute

    def forget(self, name: Name) -> None:
        """The name has sent nothing."""
        self._senders.pop(name, None)

    def all(self) -> dict[Name, Sums]:
        """Every name that has sent something lately."""
        found = {name: self.sums(name) for name in self._senders}
        return {name: sums for name, sums in found.items() if any(sums)}

    def _sender(self, name: Name) -> _Sender:
        sender = self._senders.get(name)
        if sender is None:
            sender = self._senders[name] = _Sender()
            if len(self._senders) > MOST_NAMES:
                self._senders.popitem(last=False)
        else:
            self._senders.move_to_end(name)
        return sender

    def _minute(self) -> int:
        return int(self._clock() // 60)
