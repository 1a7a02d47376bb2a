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

EXAMPLES = int(os.environ.get("EXAMPLES", "300"))
STEPS = int(os.environ.get("STEPS", "60"))

# The database has rows under two keys more, which no file can hold.
HELD = ("@ex.test", "a@ex.test", "b@ex.test", "é@ex.test", "z")
KEYS = (*HELD, "", "x" * (LONGEST_KEY + 1))
PROOF = 30.0  # seconds; each step takes one

# Mostly the same ones, so that much happens to one key.
keys = st.sampled_from([*HELD[:2] * 4, *KEYS])
# Few values, so that a key has the same one again; no value at all; one that is packed with its NULs.
values: st.SearchStrategy[tuple[str, ...] | None] = st.sampled_from(
    [None, ("1",), ("2",), ("1", "2"), ("1,2",), ()]
)

Change = dict[str, tuple[str, ...] | None]
Rows = dict[str, bytes]
changes: st.SearchStrategy[Change] = st.dictionaries(keys, values, min_size=1, max_size=3)
rarely = st.sampled_from([False] * 7 + [True])
mostly = st.sampled_from([True, True, False])


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
    is_read: bool = False  # its turn has come
    keys: set[str] = field(default_factory=set)  # still to be taken over
    part: set[str] = field(default_factory=set)  # of them, read together
    rows: Rows = field(default_factory=dict)  # that the part had

    def taken_over(self) -> None:
        self.keys -= self.part
        self.part = set()
        self.to_read = bool(self.keys)


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

    @rule(changes=changes, is_bulk=rarely, is_delivered=st.booleans())
    def commit(self, changes: Change, is_bulk: bool, is_delivered: bool) -> None:
        self.tick()
        self.database.commit(changes, self.now)
        if self.triggers_on:
            self.notify(partial(self.hear, set(KEYS) if is_bulk else set(changes), is_bulk))
        if is_delivered:
            self.deliver()

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

    @precondition(lambda self: not self.catching_up)
    @rule(is_delivered=mostly)
    def send_beat(self, is_delivered: bool) -> None:
        """Behind all that has been notified; whoever looks does so afterwards."""
        self.tick()
        self.listening = self.listening or Listening()
        self.listening.beat = self.now
        self.listening.is_back = self.listening.has_looked = False
        self.notify(partial(self.beat_is_back, self.listening, self.now))
        if is_delivered:
            self.deliver()

    def beat_is_back(self, listening: Listening, sent: float) -> None:
        if sent != listening.beat:
            return  # another has been sent since
        listening.is_back = True
        if not listening.follows:
            listening.follows = True
            self.mirror.outdate()  # Mirrors.listening

    @precondition(lambda self: self.listening and self.listening.queue)
    @rule()
    def deliver(self) -> None:
        self.tick()
        while self.listening and self.listening.queue:
            self.listening.queue.popleft()()

    def look(self) -> None:
        assert self.listening is not None
        self.tick()
        self.listening.has_looked = True
        if self.definition != self.definition_seen:
            self.definition_seen = self.definition
            self.mirror.watch(str(self.definition), frozenset(), "" if self.triggers_on else "disabled")

    @property
    def is_well(self) -> bool:
        return self.listening is not None and self.listening.follows and not self.listening.is_dead

    # Reading keys again, as mailmaps.mirrors.following does

    @precondition(lambda self: self.is_well and not self.catching_up)
    @rule(goes_on=mostly)
    def catch_up(self, goes_on: bool) -> None:
        """One round, and the look before it, if a beat has been sent."""
        assert self.listening is not None
        if not self.listening.has_looked:
            self.look()
        beat = self.listening.beat if self.listening.is_back else None
        self.catching_up = CatchingUp(beat, to_read=bool(self.mirror.dirty))
        if goes_on:
            self.go_on_catching_up(goes_on)

    @precondition(lambda self: self.catching_up)
    @rule(goes_on=mostly)
    def go_on_catching_up(self, goes_on: bool) -> None:
        one = self.catching_up
        assert one is not None
        self.tick()
        if one.part:
            self.mirror.refresh(one.rows, one.part)
            self.heard -= one.part - self.mirror.dirty
            one.taken_over()
        elif self.is_well and (one.to_read or goes_on) and self.mirror.dirty and not one.is_read:
            one.keys, one.is_read = self.mirror.take_dirty(), True
        if one.keys:
            one.part = set(sorted(one.keys)[:2])
            one.rows = {key: row for key, row in self.database.rows.items() if key in one.part}
            return
        if goes_on and not one.to_read:
            if one.beat is not None:
                self.mirror.current_as_of(one.beat)
            self.catching_up = None

    # Whole readings, as Readings has them

    @precondition(lambda self: self.whole is None)
    @rule(goes_on=st.booleans())
    def begin_reading(self, goes_on: bool) -> None:
        self.tick()
        self.whole = WholeReading(self.mirror.begin_reading(), began=self.now)
        if goes_on:
            self.take_snapshot()

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

    @precondition(lambda self: self.mirror.proven)
    @rule()
    def ask(self) -> None:
        """Remember the answers until it is told that answers have changed."""
        self.remembered = {key: self.mirror.get(key.encode()) for key in HELD} | self.remembered

    # Time, and what goes wrong

    @rule(data=st.data(), really=st.booleans())
    def something_happens(self, data: st.DataObject, really: bool) -> None:
        keys_are_read = self.catching_up is not None and bool(self.catching_up.keys)
        can_happen: list[Callable[[], object]] = [self.switch_triggers, self.stop, self.be_killed]
        can_happen += [self.go_deaf, self.be_half_open] if self.listening is not None else []
        can_happen += [self.be_refused_keys, self.fail_to_write_keys] if keys_are_read else []
        can_happen += [self.give_up, self.be_refused] if self.whole is not None else []
        can_happen += [self.fail_to_write] if self.whole is not None and self.whole.rows else []
        can_happen += [partial(self.commit_behind_the_triggers, data), self.let_time_pass, self.let_time_pass]
        if really:
            self.tick()
            data.draw(st.sampled_from(can_happen))()

    def let_time_pass(self) -> None:
        self.tick(40)
        self.mirror.lapse(PROOF)
        assert not (self.mirror.proven and (self.mirror.age or 0) > PROOF)

    def commit_behind_the_triggers(self, data: st.DataObject) -> None:
        """As a superuser can, without a trace in the catalogs."""
        what: Change = data.draw(changes)
        self.database.commit(what, self.now)
        self.unheard |= dict.fromkeys(what, self.now)
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
        self.catching_up.part = set(self.catching_up.keys)
        self.catching_up.taken_over()

    def fail_to_write_keys(self) -> None:
        assert self.catching_up is not None
        with no_room():
            self.mirror.refresh(self.catching_up.rows, self.catching_up.part)
        self.catching_up.taken_over()

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
        self.begin_reading(goes_on=True)
        self.make_proven()  # with that comparison, which has seen what was changed behind the triggers
        self.unheard.clear()
        self.it_keeps_its_word()
        assert self.content() == {key: row for key, row in self.database.rows.items() if key in HELD}

    def make_proven(self) -> None:
        """Nobody writes, and the connection is well: go on until nothing is left to be done."""
        for _ in range(2):  # what was under way ends, and then something is sent behind it
            self.take_all_steps()
            self.send_beat(is_delivered=True)
        self.take_all_steps()
        assert self.mirror.proven

    def take_all_steps(self) -> None:
        for _ in range(100):
            if step := self.next_step():
                step()

    def next_step(self) -> Callable[[], None] | None:
        whole, one = self.whole, self.listening
        steps: list[tuple[object, Callable[[], None]]] = [
            (whole and whole.rows is None, self.take_snapshot),
            (whole and whole.rows, partial(self.hand_over_rows, 3)),
            (whole and whole.rows == [], self.end_reading),
            (one and one.queue, self.deliver),
            (self.catching_up, partial(self.go_on_catching_up, goes_on=True)),
            (self.is_well and self.mirror.dirty, partial(self.catch_up, goes_on=True)),
            (self.mirror.unread, partial(self.begin_reading, goes_on=True)),
            (self.is_well and not self.mirror.proven, partial(self.catch_up, goes_on=True)),
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
