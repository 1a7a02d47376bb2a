"""One mirror, on disk, against a plain model: PostgreSQL, network and keeper are played by hypothesis.

The model knows what each key's value was at every moment. Whatever happens in whatever order, what a mirror
says must have been so at a moment not before the one it is current as of.

A longer run by hand: EXAMPLES=5000 pytest tests/mirrors/test_mirror_model.py
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mailmaps.maps.row_bytes import LONGEST_KEY, pack
from mailmaps.mirrors import mirror as module
from mailmaps.mirrors.file import DiskTrouble, MirrorFile
from mailmaps.mirrors.mirror import Mirror
from mailmaps.mirrors.reading import Reading

EXAMPLES = int(os.environ.get("EXAMPLES", "60"))
STEPS = int(os.environ.get("STEPS", "60"))

# The database has rows under two keys more, which no file can hold.
HELD = ("@ex.test", "a@ex.test", "b@ex.test", "é@ex.test", "z")
KEYS = (*HELD, "", "x" * (LONGEST_KEY + 1))
PROOF = 30.0  # seconds; each step takes one

keys = st.sampled_from(KEYS)
# Few values, so that a key has the same one again; no value at all; one that is packed with its NULs.
values = st.sampled_from([None, ("1",), ("2",), ("1", "2"), ("1,2",), ()])

Change = dict[str, tuple[str, ...] | None]
Rows = dict[str, bytes]
changes = st.dictionaries(keys, values, min_size=1, max_size=3)


class Database:
    """The rows of a view, and each key's values of all times: (since when, value)."""

    def __init__(self) -> None:
        self.history: dict[str, list[tuple[float, bytes | None]]] = {key: [(-inf, None)] for key in KEYS}

    @property
    def rows(self) -> Rows:
        """What a snapshot taken now sees."""
        last = {key: history[-1][1] for key, history in self.history.items()}
        return {key: row for key, row in last.items() if row is not None}

    def commit(self, changes: Change, now: float) -> None:
        """A transaction ends."""
        for key, value in changes.items():
            self.history[key].append((now, None if value is None else pack(value)))

    def values_since(self, key: str, moment: float) -> set[bytes | None]:
        """What the key's value has been at any time from a moment on."""
        history = self.history[key]
        ends = [since for since, _ in history[1:]] + [inf]
        return {value for (_, value), end in zip(history, ends, strict=True) if end > moment}


@dataclass
class WholeReading:
    """A reading that is under way; `rows` are those of its snapshot, still to be handed over."""

    reading: Reading
    began: float
    rows: list[tuple[bytes, bytes]] | None = None
    snapshot: float = 0.0


@dataclass
class CatchingUp:
    """One `Following.catch_up`: what was told before it is read, with what is told until its turn comes."""

    beat: float | None  # that was back before it began
    to_read: bool
    keys: set[str] | None = None  # being read, and the rows they had
    rows: Rows = field(default_factory=dict)


@dataclass
class Listening:
    """One listening connection: what is on its way to us, and what `Changes` knows of its beat."""

    queue: deque[Callable[[], None]] = field(default_factory=deque)
    follows: bool = False  # the first beat has come back
    is_dead: bool = False  # nothing comes through, and nobody has noticed
    beat: float = 0.0
    is_back: bool = False
    has_looked: bool = False


class MirrorMachine(RuleBasedStateMachine):
    """Each rule takes a second."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.wall_clock = mock.patch.object(module, "time", SimpleNamespace(time=lambda: 1e9 + self.now))
        self.wall_clock.start()
        self.directories = [Path(tempfile.mkdtemp(prefix="mirror-"))]
        self.database = Database()
        self.listening: Listening | None = None
        self.whole: WholeReading | None = None
        self.catching_up: CatchingUp | None = None
        self.definition = 0  # of the view and its triggers
        self.definition_seen = -1
        self.triggers_on = True
        self.heard: set[str] = set()  # that these have changed, but they have not been read again
        self.unheard: dict[str, float] = {}  # changed behind the triggers, and no comparison since
        self.was_changed_behind = False
        self.remembered: dict[str, bytes | None] = {}  # by those who want to be told when answers change
        self.was_proven = False  # when they last were
        self.mirror = self.new_mirror()

    @property
    def path(self) -> Path:
        return self.directories[-1] / "view.lmdb"

    def new_mirror(self) -> Mirror:
        self.mirror = Mirror("public.view", "ours", group="addresses", replace={}, clock=lambda: self.now)
        self.mirror.changed.add(self.told)
        self.mirror.open(self.path)
        self.told()
        return self.mirror

    def told(self) -> None:
        self.remembered.clear()
        self.was_proven = self.mirror.proven

    def content(self) -> Rows:
        found = {key: self.mirror.get(key.encode()) for key in HELD}
        return {key: row for key, row in found.items() if row is not None}

    def tick(self, seconds: int = 1) -> None:
        self.now += seconds

    # The database

    @initialize(rows=st.dictionaries(keys, values, max_size=4), proven=st.sampled_from([True, True, False]))
    def rows_are_there(self, rows: Change, proven: bool) -> None:
        self.tick()
        self.database.commit(rows, self.now)
        if proven:
            self.make_proven()

    @rule(changes=changes, bulk=st.sampled_from([False] * 5 + [True]))
    def commit(self, changes: Change, bulk: bool) -> None:
        self.tick()
        self.database.commit(changes, self.now)
        if self.triggers_on:
            self.notify(partial(self.hear, set(KEYS) if bulk else set(changes), bulk))

    def hear(self, keys: set[str], bulk: bool) -> None:
        self.heard |= keys
        if bulk:
            self.mirror.void()
        else:
            self.mirror.touch(sorted(keys))

    def notify(self, what: Callable[[], None]) -> None:
        if self.listening is not None and not self.listening.is_dead:
            self.listening.queue.append(what)

    # The listening connection, as mailmaps.database.changes has it

    @precondition(lambda self: self.listening is None)
    @rule()
    def listen(self) -> None:
        self.tick()
        self.listening = Listening()
        self.send_beat()

    @precondition(lambda self: self.listening and not self.catching_up)
    @rule()
    def send_beat(self) -> None:
        """Behind all that has been notified; whoever looks does so afterwards."""
        assert self.listening is not None
        self.tick()
        self.listening.beat = self.now
        self.listening.is_back = self.listening.has_looked = False
        self.notify(partial(self.beat_is_back, self.listening, self.now))

    def beat_is_back(self, listening: Listening, sent: float) -> None:
        if sent != listening.beat:
            return  # another has been sent since
        listening.is_back = True
        if not listening.follows:
            listening.follows = True
            self.mirror.outdate()  # Mirrors.listening

    @precondition(lambda self: self.listening and self.listening.queue)
    @rule(count=st.integers(1, 4))
    def deliver(self, count: int) -> None:
        assert self.listening is not None
        self.tick()
        for _ in range(min(count, len(self.listening.queue))):
            self.listening.queue.popleft()()

    @precondition(lambda self: self.is_well and not self.catching_up)
    @rule()
    def look(self) -> None:
        assert self.listening is not None
        self.tick()
        self.listening.has_looked = True
        if self.definition != self.definition_seen:
            self.definition_seen = self.definition
            self.mirror.watch(
                str(self.definition), frozenset(), "" if self.triggers_on else "triggers are disabled"
            )

    @property
    def is_well(self) -> bool:
        return self.listening is not None and self.listening.follows and not self.listening.is_dead

    # Reading keys again, as mailmaps.mirrors.following does

    @precondition(lambda self: self.is_well and self.listening.has_looked and not self.catching_up)
    @rule()
    def catch_up(self) -> None:
        assert self.listening is not None
        beat = self.listening.beat if self.listening.is_back else None
        self.catching_up = CatchingUp(beat, to_read=bool(self.mirror.dirty))

    @precondition(
        lambda self: self.is_well and self.catching_up and not self.catching_up.keys and self.mirror.dirty
    )
    @rule()
    def begin_reading_keys(self) -> None:
        assert self.catching_up is not None
        self.tick()
        self.catching_up.keys = self.mirror.take_dirty()
        self.catching_up.rows = {
            key: row for key, row in self.database.rows.items() if key in self.catching_up.keys
        }

    @precondition(lambda self: self.catching_up and self.catching_up.keys)
    @rule()
    def end_reading_keys(self) -> None:
        assert self.catching_up is not None
        assert self.catching_up.keys is not None
        self.tick()
        self.mirror.refresh(self.catching_up.rows, self.catching_up.keys)
        self.heard -= self.catching_up.keys - self.mirror.dirty
        self.catching_up.keys, self.catching_up.to_read = None, False

    @precondition(
        lambda self: self.catching_up and not self.catching_up.keys and not self.catching_up.to_read
    )
    @rule()
    def end_catching_up(self) -> None:
        assert self.catching_up is not None
        self.tick()
        if self.catching_up.beat is not None:
            self.mirror.current_as_of(self.catching_up.beat)
        self.catching_up = None

    # Whole readings, as Readings has them

    @precondition(lambda self: self.whole is None)
    @rule()
    def begin_reading(self) -> None:
        self.tick()
        self.whole = WholeReading(self.mirror.begin_reading(), began=self.now)

    @precondition(lambda self: self.whole and self.whole.rows is None)
    @rule()
    def take_snapshot(self) -> None:
        assert self.whole is not None
        self.tick()
        self.whole.snapshot = self.now
        self.whole.rows = sorted((key.encode(), row) for key, row in self.database.rows.items())

    @precondition(lambda self: self.whole and self.whole.rows)
    @rule(count=st.sampled_from([1, 2, 9]))
    def hand_over_rows(self, count: int) -> None:
        assert self.whole is not None
        assert self.whole.rows is not None
        self.tick()
        rows, self.whole.rows = self.whole.rows[:count], self.whole.rows[count:]
        self.whole.reading.take(rows)

    @precondition(lambda self: self.whole and self.whole.rows == [])
    @rule()
    def end_reading(self) -> None:
        assert self.whole is not None
        self.tick()
        whole, self.whole = self.whole, None
        self.mirror.end_reading(whole.reading, whole.began)
        under_way = self.catching_up.keys if self.catching_up else None
        self.heard &= self.mirror.dirty | (under_way or set())
        if not self.mirror.dirty and not under_way:  # these may have been left as they were
            self.unheard = {key: when for key, when in self.unheard.items() if when > whole.snapshot}

    # Time, and those who ask

    @rule(seconds=st.sampled_from([1, 10, 40]))
    def time_passes(self, seconds: int) -> None:
        self.tick(seconds)
        self.mirror.lapse(PROOF)
        assert not (self.mirror.proven and (self.mirror.age or 0) > PROOF)

    @precondition(lambda self: self.mirror.proven)
    @rule()
    def ask(self) -> None:
        """Remember the answers until it is told that answers have changed."""
        self.remembered = {key: self.mirror.get(key.encode()) for key in HELD} | self.remembered

    # What goes wrong

    @rule(data=st.data())
    def something_goes_wrong(self, data: st.DataObject) -> None:
        can_go_wrong = [self.switch_triggers, self.stop, self.be_killed]
        can_go_wrong += [self.go_deaf, self.be_half_open] if self.listening is not None else []
        can_go_wrong += (
            [self.be_refused_keys, self.fail_to_write_keys]
            if self.catching_up and self.catching_up.keys
            else []
        )
        can_go_wrong += [self.give_up, self.be_refused] if self.whole is not None else []
        can_go_wrong += [self.fail_to_write] if self.whole is not None and self.whole.rows else []
        self.tick()
        data.draw(st.sampled_from(can_go_wrong))()

    @rule(changes=changes, really=st.sampled_from([False] * 9 + [True]))
    def commit_behind_the_triggers(self, changes: Change, really: bool) -> None:
        """As a superuser can, without a trace in the catalogs."""
        if really:
            self.tick()
            self.database.commit(changes, self.now)
            self.unheard |= dict.fromkeys(changes, self.now)
            self.was_changed_behind = True

    def switch_triggers(self) -> None:
        """Also what CREATE OR REPLACE VIEW does: the catalogs tell, at the next look."""
        self.definition += 1
        self.triggers_on = not self.triggers_on

    def be_half_open(self) -> None:
        """What is on its way is lost, and there is no sign of that."""
        assert self.listening is not None
        self.listening.queue.clear()
        self.listening.is_dead = True

    def go_deaf(self) -> None:
        if self.catching_up and self.catching_up.keys:  # its connection was the same
            self.mirror.give_up_keys()
        self.listening = self.catching_up = None
        self.mirror.deaf()

    def be_refused_keys(self) -> None:
        assert self.catching_up is not None
        self.mirror.give_up_keys()
        self.mirror.fail("the statement took too long")
        self.catching_up.keys, self.catching_up.to_read = None, False

    def fail_to_write_keys(self) -> None:
        assert self.catching_up is not None
        with no_room():
            self.mirror.refresh(self.catching_up.rows, self.catching_up.keys or set())
        self.catching_up.keys, self.catching_up.to_read = None, False

    def fail_to_write(self) -> None:
        assert self.whole is not None
        with no_room(), suppress(DiskTrouble):
            self.whole.reading.take(self.whole.rows or [])
        self.give_up()
        self.mirror.fail("no room")

    def give_up(self) -> None:
        assert self.whole is not None
        whole, self.whole = self.whole, None
        self.mirror.give_up_reading(whole.reading)

    def be_refused(self) -> None:
        self.give_up()
        self.mirror.fail("the view is locked")

    def stop(self) -> None:
        self.restart(self.directories[-1])

    def be_killed(self) -> None:
        """What is found then is the files as they are now."""
        copy = Path(tempfile.mkdtemp(prefix="mirror-"))
        shutil.copytree(self.directories[-1], copy, dirs_exist_ok=True)
        self.restart(copy)

    def restart(self, directory: Path) -> None:
        if self.whole is not None:
            self.whole.reading.abandon()
        self.listening = self.catching_up = self.whole = None
        self.definition_seen = -1
        self.heard.clear()  # of a change that was not read before that, nothing is known any more
        before, age, drift = self.content(), self.mirror.age, self.mirror.drift
        self.mirror.close()
        self.directories.append(directory)
        self.new_mirror().drift = drift
        assert self.content() == before
        assert not self.mirror.proven
        assert self.mirror.age is None or (age is not None and self.mirror.age >= age - 0.5)

    # What must hold

    @invariant()
    def it_keeps_its_word(self) -> None:
        mirror, content = self.mirror, self.content()
        current_at = -inf if mirror.age is None else self.now - mirror.age - 0.5
        assert not mirror.proven or mirror.age is not None
        if mirror.is_held:
            assert mirror.state["keys"] == len(content), "keys that the database never had"
            for key in HELD:
                assert content.get(key) in self.allowed(key, current_at), (key, content.get(key), current_at)
            if (since_proof := mirror.age_of_proof) is not None:
                assert not self.heard, "these have changed since it was proven"
                for key in HELD:
                    assert content.get(key) in self.allowed(key, self.now - since_proof - 0.5)
        for key, row in self.remembered.items():
            assert not mirror.proven or row in self.allowed(key, current_at), (
                key,
                row,
                "and nobody was told",
            )
        assert mirror.proven == self.was_proven, "and nobody was told"
        assert self.was_changed_behind or mirror.drift == 0

    def allowed(self, key: str, since: float) -> set[bytes | None]:
        """A key that was changed behind the triggers may be as it was, until a comparison."""
        return self.database.values_since(key, -inf if key in self.unheard else since)

    def teardown(self) -> None:
        try:
            self.everything_ends_well()
        finally:
            self.mirror.close()
            for directory in self.directories:
                shutil.rmtree(directory, ignore_errors=True)
            self.wall_clock.stop()

    def everything_ends_well(self) -> None:
        """The network and PostgreSQL are well again, and nobody writes: it is proven, and equal."""
        if not self.triggers_on:
            self.switch_triggers()
        if self.listening is not None and self.listening.is_dead:
            self.go_deaf()
        self.make_proven()
        self.begin_reading()
        self.make_proven()  # with that comparison, which has seen what was changed behind the triggers
        self.unheard.clear()
        self.it_keeps_its_word()
        assert self.content() == {key: row for key, row in self.database.rows.items() if key in HELD}

    def make_proven(self) -> None:
        """Nobody writes, and the connection is well: go on until nothing is left to be done."""
        if self.listening is None:
            self.listen()
        self.take_all_steps()
        self.send_beat()
        self.take_all_steps()
        assert self.mirror.proven

    def take_all_steps(self) -> None:
        for _ in range(100):
            if step := self.next_step():
                step()

    def next_step(self) -> Callable[[], None] | None:
        assert self.listening is not None
        whole = self.whole
        catching_up = self.catching_up
        steps: list[tuple[object, Callable[[], None]]] = [
            (whole and whole.rows is None, self.take_snapshot),
            (whole and whole.rows, partial(self.hand_over_rows, 3)),
            (whole and whole.rows == [], self.end_reading),
            (catching_up and catching_up.keys, self.end_reading_keys),
            (catching_up and catching_up.to_read, self.begin_reading_keys),
            (catching_up, self.end_catching_up),
            (self.listening.queue, partial(self.deliver, 4)),
            (not self.listening.has_looked, self.look),
            (self.mirror.dirty, self.catch_up),
            (self.mirror.unread, self.begin_reading),
            (not self.mirror.proven, self.catch_up),
        ]
        return next((step for is_due, step in steps if is_due), None)


def no_room() -> mock._patch[mock.MagicMock]:
    return mock.patch.object(MirrorFile, "change", side_effect=DiskTrouble("no room"))


def test_a_mirror_says_nothing_that_is_older_than_it_claims(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    run_state_machine_as_test(
        MirrorMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
