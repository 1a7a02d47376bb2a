"""One mirror: what proves its rows, what no longer does, who is told, and what is left on disk.

Whatever order things happen in is test_mirror_model.py.
"""

# What a mirror is changes between two looks at it, which mypy does not expect of an attribute.
# mypy: disable-error-code="unreachable, comparison-overlap"

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from mailmaps.maps.row_bytes import LONGEST_KEY
from mailmaps.mirrors import mirror as module
from mailmaps.mirrors.file import DiskTrouble, Lost, MirrorFile
from mailmaps.mirrors.mirror import Mirror

Rows = dict[str, bytes]
ROWS = {"a@ex.test": b"1", "b@ex.test": b"2"}


class Clock:
    """Both clocks: the loop's, and the one that the wall has."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: 1e9 + clock.now))
    return clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "view.lmdb"


@pytest.fixture
def mirror(path: Path, clock: Clock) -> Mirror:
    return opened(path, clock)


def opened(path: Path, clock: Clock, identity: str = "ours") -> Mirror:
    mirror = Mirror("public.view", identity, group="addresses", replace={}, clock=clock)
    mirror.open(path)
    return mirror


def read(mirror: Mirror, rows: Rows, meanwhile: Callable[[], object] = lambda: None) -> None:
    """A whole reading; `meanwhile` happens after its snapshot."""
    reading = mirror.begin_reading()
    began = mirror._clock()
    meanwhile()
    if rows:
        reading.take(sorted((key.encode(), row) for key, row in rows.items()))
    mirror.end_reading(reading, began)


def read_keys(mirror: Mirror, rows: Rows) -> None:
    keys = mirror.take_dirty()
    mirror.refresh({key: row for key, row in rows.items() if key in keys}, keys)


def prove(mirror: Mirror, rows: Rows, clock: Clock) -> None:
    """All that it takes."""
    mirror.watch("as it was", frozenset({"public.table"}), "")
    read(mirror, rows)
    clock.now += 1
    mirror.current_as_of(clock.now)
    assert mirror.proven


def content(mirror: Mirror, keys: str = "abcd") -> Rows:
    found = {f"{key}@ex.test": mirror.get(f"{key}@ex.test".encode()) for key in keys}
    return {key: row for key, row in found.items() if row is not None}


def tells(mirror: Mirror) -> list[bool]:
    """Grows when the mirror tells something."""
    told: list[bool] = []
    mirror.changed.add(lambda: told.append(mirror.proven))
    return told


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_at_first_nothing_is_held(mirror: Mirror) -> None:
    assert not mirror.is_held
    assert not mirror.proven
    assert mirror.unread
    assert mirror.age is None
    assert mirror.age_of_proof is None
    assert mirror.get(b"a@ex.test") is None
    assert mirror.state["keys"] is None
    mirror.touch(["a@ex.test"])
    read_keys(mirror, ROWS)
    assert not mirror.is_held, "a few keys are no mirror"
    mirror.current_as_of(1000.0)
    assert not mirror.proven


def test_what_is_read_watched_and_heard_of_is_proven(mirror: Mirror, clock: Clock) -> None:
    mirror.current_as_of(clock.now)
    assert not mirror.proven, "nothing has been read"
    read(mirror, ROWS)
    mirror.current_as_of(clock.now)
    assert not mirror.proven, "not all is notified"
    mirror.watch("as it was", frozenset(), "no triggers")
    read(mirror, ROWS)
    mirror.current_as_of(clock.now)
    assert not mirror.proven, "not all is notified"
    mirror.watch("as it was", frozenset(), "")
    mirror.current_as_of(clock.now)
    assert not mirror.proven, "it has not been read since"
    read(mirror, ROWS, meanwhile=lambda: mirror.current_as_of(clock.now))
    assert not mirror.proven, "it was being read"
    mirror.current_as_of(clock.now)
    assert mirror.proven
    assert content(mirror) == ROWS
    assert mirror.state | {"bytes": 0} == {
        "proven": True, "why": "", "keys": 2, "bytes": 0, "age": 0.0, "pending": 0, "drift": 0,
    }  # fmt: skip


def test_keys_told_while_it_is_made_have_to_be_read(mirror: Mirror, clock: Clock) -> None:
    """The snapshot's rows may be older than what was told; the file has none yet that could be mended."""
    mirror.watch("as it was", frozenset(), "")
    read(mirror, ROWS, meanwhile=lambda: mirror.touch(["a@ex.test", "c@ex.test"]))
    mirror.current_as_of(clock.now)
    assert not mirror.proven
    read_keys(mirror, {"c@ex.test": b"3"})
    mirror.current_as_of(clock.now)
    assert mirror.proven
    assert content(mirror) == {"b@ex.test": b"2", "c@ex.test": b"3"}


def test_keys_told_while_it_is_compared_stay_as_they_were_read(mirror: Mirror, clock: Clock) -> None:
    prove(mirror, ROWS, clock)

    def change() -> None:
        mirror.touch(["a@ex.test", "b@ex.test"])
        read_keys(mirror, {"a@ex.test": b"9"})

    read(mirror, ROWS, meanwhile=change)
    assert content(mirror) == {"a@ex.test": b"9"}
    assert mirror.dirty == {"a@ex.test", "b@ex.test"}, "once more, since the snapshot may be younger"
    mirror.current_as_of(clock.now)
    assert mirror.proven
    assert mirror.drift == 0


def test_what_is_told_after_a_beat_does_not_keep_it_from_counting(mirror: Mirror, clock: Clock) -> None:
    prove(mirror, ROWS, clock)
    clock.now += 5
    mirror.touch(["a@ex.test"])
    mirror.current_as_of(clock.now - 1)
    assert mirror.age == 1


@pytest.mark.parametrize(
    "ends",
    [
        lambda mirror: mirror.outdate(),
        lambda mirror: mirror.void(),
        lambda mirror: mirror.deaf(),
        lambda mirror: mirror.fail("why"),
        lambda mirror: mirror.give_up_keys(),
        lambda mirror: mirror.give_up_reading(mirror.begin_reading()),
        lambda mirror: mirror.watch("another", frozenset(), ""),
        lambda mirror: mirror.watch("as it was", frozenset(), "a subscription fills it"),
    ],
    ids=["outdated", "void", "deaf", "failed", "keys failed", "given up", "another view", "unwatched"],
)
def test_what_ends_the_proof(mirror: Mirror, clock: Clock, ends: Callable[[Mirror], None]) -> None:
    prove(mirror, ROWS, clock)
    told = tells(mirror)
    ends(mirror)
    assert not mirror.proven
    assert told
    assert mirror.unread
    mirror.current_as_of(clock.now)
    assert not mirror.proven
    assert content(mirror) == ROWS, "what is held is held"
    if mirror.unwatched:
        mirror.watch("as it was", frozenset(), "")
    read(mirror, ROWS)
    mirror.current_as_of(clock.now)
    assert mirror.proven


def test_the_same_view_as_before_is_no_news(mirror: Mirror, clock: Clock) -> None:
    prove(mirror, ROWS, clock)
    told = tells(mirror)
    mirror.watch("as it was", frozenset({"public.table"}), "")
    assert mirror.proven
    assert not told


def test_a_proof_lapses(mirror: Mirror, clock: Clock) -> None:
    prove(mirror, ROWS, clock)
    clock.now += 4
    mirror.lapse(4.5)
    assert mirror.proven
    told = tells(mirror)
    clock.now += 1
    mirror.lapse(4.5)
    assert not mirror.proven
    assert told == [False]
    mirror.current_as_of(clock.now)
    assert mirror.proven, "nothing had to be read"


def test_what_changed_meanwhile_is_due_once_more(mirror: Mirror, clock: Clock) -> None:
    mirror.watch("as it was", frozenset(), "")
    read(mirror, ROWS, meanwhile=mirror.outdate)
    mirror.current_as_of(clock.now)
    assert not mirror.proven
    assert mirror.unread


def test_who_is_told_what(mirror: Mirror, clock: Clock) -> None:
    told = tells(mirror)
    mirror.touch(["a@ex.test"])
    assert told, "nothing is proven: what others remember may be out of date"
    mirror.take_dirty()
    prove(mirror, ROWS, clock)
    assert told[-1]
    told.clear()
    mirror.touch(["a@ex.test"])
    assert not told, "the answer is as it was until it is read"
    read_keys(mirror, ROWS)
    assert not told, "and it is as it was"
    mirror.touch(["a@ex.test"])
    read_keys(mirror, {})
    assert told == [True]
    mirror.current_as_of(clock.now)
    assert told == [True]


def test_mended_rows_are_told_at_once(mirror: Mirror, clock: Clock) -> None:
    """Their notification may come in a moment, and finds no difference then."""
    prove(mirror, ROWS, clock)
    told = tells(mirror)
    reading = mirror.begin_reading()
    reading.take([(b"a@ex.test", b"9")])
    assert told == [True]
    mirror.touch(["a@ex.test"])
    read_keys(mirror, {"a@ex.test": b"9"})
    assert told == [True]
    mirror.give_up_reading(reading)


def test_drift_is_what_nobody_tells_of(
    mirror: Mirror, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    prove(mirror, ROWS, clock)
    clock.now += 1
    sent_before = clock.now
    clock.now += 1
    read(mirror, {"a@ex.test": b"9", "c@ex.test": b"3"})
    mirror.current_as_of(sent_before)
    assert mirror.drift == 0, "the notification may be on its way"
    clock.now += 1
    mirror.current_as_of(clock.now)
    assert mirror.drift == 3
    assert warnings(caplog)[-1] == "mirror: rows had changed unheard of view=public.view rows=3"
    clock.now += 1
    mirror.current_as_of(clock.now)
    assert mirror.drift == 3, "counted once"
    assert content(mirror) == {"a@ex.test": b"9", "c@ex.test": b"3"}


def test_what_is_told_is_no_drift(mirror: Mirror, clock: Clock) -> None:
    """Told before, and being read again; told while it is compared; told afterwards."""
    prove(mirror, ROWS, clock)
    mirror.touch(["a@ex.test"])
    taken = mirror.take_dirty()
    rows = {"a@ex.test": b"9", "b@ex.test": b"9", "c@ex.test": b"9"}
    reading = mirror.begin_reading()
    reading.take([(b"a@ex.test", b"9"), (b"b@ex.test", b"9")])
    mirror.touch(["b@ex.test"])
    mirror.refresh(rows, taken)
    reading.take([(b"c@ex.test", b"9")])
    mirror.end_reading(reading, clock.now)
    mirror.touch(["c@ex.test"])
    read_keys(mirror, rows)
    clock.now += 1
    mirror.current_as_of(clock.now)
    assert mirror.proven
    assert mirror.drift == 0
    assert content(mirror) == rows


def test_what_changed_as_a_whole_is_no_drift(mirror: Mirror, clock: Clock) -> None:
    prove(mirror, ROWS, clock)
    read(mirror, {"a@ex.test": b"9"})
    mirror.void()
    clock.now += 1
    mirror.current_as_of(clock.now)
    read(mirror, {"a@ex.test": b"8"})
    clock.now += 1
    mirror.current_as_of(clock.now)
    assert mirror.proven
    assert mirror.drift == 0


def test_how_old_the_rows_are(mirror: Mirror, clock: Clock) -> None:
    read(mirror, ROWS)
    clock.now += 10
    assert mirror.age == 10
    assert mirror.age_of_proof is None
    prove(mirror, ROWS, clock)
    clock.now += 3
    assert mirror.age == mirror.age_of_proof == 3
    mirror.outdate()
    assert mirror.age == mirror.age_of_proof == 3
    mirror.current_as_of(clock.now)
    assert mirror.age == 3, "any row may have changed"
    read(mirror, ROWS)
    assert mirror.age == 0
    assert mirror.age_of_proof == 3
    clock.now += 1
    mirror.current_as_of(clock.now - 4)
    assert mirror.age == 1, "it does not become older"


def test_rows_that_were_left_as_they_were_are_as_old_as_before(mirror: Mirror, clock: Clock) -> None:
    """Told while the snapshot was read, and not read again yet; or read again from before the snapshot."""
    prove(mirror, ROWS, clock)
    clock.now += 10
    read(mirror, ROWS, meanwhile=lambda: mirror.touch(["a@ex.test"]))
    assert mirror.age == 10
    taken = mirror.take_dirty()
    read(mirror, ROWS)
    assert mirror.age == 10
    mirror.refresh({}, taken)
    read(mirror, {"b@ex.test": b"2"})
    assert mirror.age == 0


@pytest.mark.parametrize(
    "lose",
    [
        lambda mirror: mirror.deaf(),
        lambda mirror: mirror.take_dirty() and mirror.deaf(),
        lambda mirror: mirror.take_dirty() and mirror.give_up_keys(),
        lambda mirror: mirror.void(),
    ],
    ids=["dirty", "being read", "refused", "all of it"],
)
def test_rows_known_to_have_changed_are_not_proven_to_be_missing(
    mirror: Mirror, path: Path, clock: Clock, lose: Callable[[Mirror], None]
) -> None:
    prove(mirror, ROWS, clock)
    mirror.touch(["c@ex.test"])
    assert mirror.is_behind
    assert mirror.age_of_proof is None
    lose(mirror)
    assert mirror.is_behind
    assert mirror.age_of_proof is None
    mirror.close()
    again = opened(path, clock)
    assert again.age_of_proof is None or again.age_of_proof > 1e6, "nor after a restart"
    prove(again, ROWS, clock)
    assert not again.is_behind
    assert again.age_of_proof == 0
    again.close()


def test_a_restart_finds_what_was_held(mirror: Mirror, path: Path, clock: Clock) -> None:
    prove(mirror, ROWS, clock)
    clock.now += 100
    mirror.touch(["c@ex.test"])
    read_keys(mirror, {"c@ex.test": b"3"})
    mirror.close()
    assert mirror.get(b"a@ex.test") is None
    assert not mirror.proven
    clock.now += 1000
    again = opened(path, clock)
    assert content(again) == ROWS | {"c@ex.test": b"3"}
    assert not again.proven
    assert again.age == pytest.approx(1100, abs=0.01)
    assert again.age_of_proof == pytest.approx(1100, abs=0.01)
    again.close()


def test_the_age_of_rows_that_were_never_proven_survives_a_restart(
    mirror: Mirror, path: Path, clock: Clock
) -> None:
    read(mirror, ROWS)
    mirror.close()
    clock.now += 50
    again = opened(path, clock)
    assert again.age == pytest.approx(50, abs=0.01)
    assert again.age_of_proof is None
    again.close()
    os.utime(next(path.parent.glob("*.read")), (3e9, 3e9))
    again = opened(path, clock)
    assert again.age is None, "from the future: nobody knows"
    again.close()


@pytest.mark.parametrize("harm", ["another identity", "garbage", "a directory"])
def test_a_file_that_cannot_be_used_is_made_anew(
    path: Path, clock: Clock, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    if harm == "garbage":
        path.write_bytes(b"garbage" * 10000)
    elif harm == "a directory":
        path.mkdir()
    else:
        other = opened(path, clock, "theirs")
        prove(other, ROWS, clock)
        other.close()
    mirror = opened(path, clock)
    assert not mirror.is_held
    assert mirror.age is None
    assert "is read anew" in warnings(caplog)[-1]
    if harm != "a directory":
        prove(mirror, ROWS, clock)
        assert content(mirror) == ROWS
    mirror.close()


def test_keys_that_no_file_can_hold(mirror: Mirror, clock: Clock) -> None:
    longest, longer = "k" * LONGEST_KEY, "k" * (LONGEST_KEY + 1)
    strange = {"": b"1", longest: b"2", longer: b"3", "\udcff": b"4"}
    mirror.watch("as it was", frozenset(), "")
    for rows in (strange, {}, strange):
        reading = mirror.begin_reading()
        packed = {key.encode(errors="surrogateescape"): row for key, row in rows.items()}
        if packed:
            reading.take(sorted(packed.items()))
        mirror.end_reading(reading, clock.now)
        assert mirror.state["keys"] == (2 if rows else 0)
    mirror.touch(list(strange))
    read_keys(mirror, {})
    assert mirror.state["keys"] == 0
    mirror.touch(list(strange))
    read_keys(mirror, strange)
    assert mirror.state["keys"] == 2
    assert mirror.get(longest.encode()) == b"2"
    assert mirror.get(b"\xff") == b"4"


def no_room() -> mock._patch[mock.MagicMock]:
    return mock.patch.object(MirrorFile, "change", side_effect=DiskTrouble("no room"))


def test_a_disk_that_is_full_ends_the_proof_and_nothing_else(
    mirror: Mirror, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    prove(mirror, ROWS, clock)
    mirror.touch(["a@ex.test"])
    with no_room():
        read_keys(mirror, {})
        assert not mirror.proven
        assert mirror.is_behind
        assert mirror.state["why"] == "no room"
        for _ in range(3):
            reading = mirror.begin_reading()
            with pytest.raises(DiskTrouble):
                reading.take([(b"a@ex.test", b"9")])
            mirror.give_up_reading(reading)
            mirror.fail("no room")
    assert content(mirror) == ROWS
    prove(mirror, {"b@ex.test": b"2"}, clock)
    assert content(mirror) == {"b@ex.test": b"2"}
    assert warnings(caplog) == [
        'mirror: cannot be read view=public.view reason="no room"',
        "mirror: has been read again view=public.view",
    ]
    assert mirror.state["why"] == ""


@pytest.mark.parametrize("by", ["keys", "a comparison"])
def test_a_file_that_is_lost_is_made_anew(mirror: Mirror, clock: Clock, by: str) -> None:
    """Its rows can no longer be read either; nobody who asks may notice."""
    prove(mirror, ROWS, clock)

    def lose(file: MirrorFile, rows: object) -> None:
        file.close()
        raise Lost("it is no more")

    with mock.patch.object(MirrorFile, "change", lose):
        if by == "keys":
            mirror.touch(["a@ex.test"])
            read_keys(mirror, {})
        else:
            reading = mirror.begin_reading()
            with pytest.raises(DiskTrouble):
                reading.take([(b"a@ex.test", b"9")])
            mirror.give_up_reading(reading)
            mirror.fail("it is no more")
    assert not mirror.proven
    assert not mirror.is_held
    assert content(mirror) == {}
    assert mirror.age is None
    assert mirror.state["why"] == "it is no more"
    prove(mirror, ROWS, clock)
    assert content(mirror) == ROWS


def test_closing_says_what_the_disk_says(
    mirror: Mirror, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    prove(mirror, ROWS, clock)
    caplog.set_level(logging.ERROR)
    with mock.patch.object(MirrorFile, "close", side_effect=OSError(28, "No space left on device")):
        mirror.close()
    assert "No space left" in caplog.text
    mirror.close()


async def test_a_checkpoint_waits_for_the_end_of_a_reading(mirror: Mirror, clock: Clock) -> None:
    await mirror.checkpoint()
    with mock.patch.object(MirrorFile, "checkpoint", side_effect=OSError(5, "broken")) as checkpoint:
        prove(mirror, ROWS, clock)
        reading = mirror.begin_reading()
        await mirror.checkpoint()
        checkpoint.assert_not_called()
        mirror.give_up_reading(reading)
        await mirror.checkpoint()
        checkpoint.assert_called_once()


def test_keys_are_taken_over_in_parts(mirror: Mirror, clock: Clock) -> None:
    """What has not been yet is known to be behind, and everything is void when the rest never comes."""
    prove(mirror, ROWS, clock)
    mirror.touch(["a@ex.test", "b@ex.test"])
    taken = mirror.take_dirty()
    mirror.refresh({"a@ex.test": b"9"}, {"a@ex.test"})
    assert mirror.get(b"a@ex.test") == b"9"
    assert taken == {"a@ex.test", "b@ex.test"}
    assert mirror.is_behind
    assert mirror.age_of_proof is None
    mirror.refresh({}, {"b@ex.test"})
    assert mirror.get(b"b@ex.test") is None
    assert not mirror.is_behind
    mirror.touch(["a@ex.test", "b@ex.test"])
    mirror.take_dirty()
    mirror.refresh({}, {"b@ex.test"})
    mirror.deaf()
    assert mirror.is_behind


def test_any_number_of_rows_is_changed(mirror: Mirror, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailmaps.mirrors.mirror.ROWS_AT_ONCE", 3)
    prove(mirror, ROWS, clock)
    keys = {f"k{number}@ex.test" for number in range(10)}
    mirror.touch(sorted(keys))
    taken = mirror.take_dirty()
    mirror.refresh(dict.fromkeys(keys, b"x"), taken)
    assert all(mirror.get(key.encode()) == b"x" for key in keys)
    assert not mirror.is_behind
