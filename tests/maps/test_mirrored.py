"""What a mirrored source says by itself: proven, away, slow; and for how long."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mailmaps.maps.mirrored import Limits, MirroredSource
from mailmaps.maps.row_bytes import LONGEST_KEY, pack
from mailmaps.maps.sources import ABSENT, SILENT, UNSURE, Recalled, Rows

LIMITS = Limits(max_stale=100, max_stale_not_found=10)


class Held:
    """The rows of a mirror, and how far they are to be trusted."""

    def __init__(self) -> None:
        self.view = "public.held"
        self.rows = {b"a@a.b": pack(("x", "y"))}
        self.proven = True
        self.age: float | None = 0.0
        self.age_of_proof: float | None = 0.0
        self.is_behind = False
        self.changed: set[Callable[[], None]] = set()

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)


class Asked:
    """A source behind it; it is asked by `fetch` alone."""

    name = "builtin"
    bare_keys = one_by_one = exactly = volatile = steady = False
    age: float | None = None

    def known(self, key: str) -> Recalled:
        raise AssertionError

    stale = known

    async def fetch(self, candidates: Sequence[str]) -> Rows:
        return dict.fromkeys(candidates, ("asked",))


def mirrored(held: Held, *, at_once: bool = False, away: bool = False) -> MirroredSource:
    return MirroredSource(Asked(), held, LIMITS, at_once=at_once, away=lambda: away)


def test_while_proven_every_key_is_known() -> None:
    source = mirrored(Held())
    assert source.steady
    assert source.known("a@a.b") == ("x", "y")
    assert source.known("no@a.b") is ABSENT


def test_a_key_too_long_to_be_held_is_asked() -> None:
    source = mirrored(Held())
    assert source.known("é" * (LONGEST_KEY // 2)) is ABSENT
    assert source.known("é" * (LONGEST_KEY // 2 + 1)) is SILENT


async def test_while_not_proven_the_source_is_asked() -> None:
    held = Held()
    held.proven = False
    source = mirrored(held)
    assert not source.steady
    assert source.known("a@a.b") is SILENT
    assert source.known("no@a.b") is SILENT
    assert source.stale("a@a.b") == ("x", "y"), "should asking be in vain"
    assert source.stale("no@a.b") is SILENT, "the server is there, and may have it since a second"
    assert await source.fetch(["a@a.b"]) == {"a@a.b": ("asked",)}


def test_what_the_resolver_asks_is_answered_at_once_if_it_is_held() -> None:
    held = Held()
    held.proven = False
    source = mirrored(held, at_once=True)
    assert source.known("a@a.b") == ("x", "y")
    assert source.known("no@a.b") is UNSURE, "but a wider key that is held is good enough"
    held.age = 101.0
    assert source.known("no@a.b") is source.known("a@a.b") is SILENT


def test_while_the_server_is_away_what_is_held_ages() -> None:
    held = Held()
    held.proven = False
    source = mirrored(held, away=True)
    found, silent = ("x", "y"), SILENT
    for age, known, missing in ((10.0, found, ABSENT), (11.0, found, SILENT), (101.0, silent, SILENT)):
        held.age = held.age_of_proof = age
        assert (source.known("a@a.b"), source.known("no@a.b")) == (known, missing)
    held.age = held.age_of_proof = None
    assert source.known("a@a.b") is source.known("no@a.b") is SILENT


def test_a_key_that_answers_nothing_ages_like_one_that_is_not_there() -> None:
    held = Held()
    held.proven, held.rows[b"none@a.b"] = False, pack(())
    assert mirrored(held, away=True).known("none@a.b") == ()
    assert mirrored(held).stale("none@a.b") is SILENT
    assert mirrored(held, at_once=True).stale("none@a.b") is SILENT
    held.age = held.age_of_proof = 11.0
    assert mirrored(held, away=True).known("none@a.b") is SILENT


def test_a_mirror_that_was_read_but_never_proven_says_what_it_has_alone() -> None:
    held = Held()
    held.proven, held.age_of_proof = False, None
    assert mirrored(held, away=True).known("a@a.b") == ("x", "y")
    assert mirrored(held, away=True).known("no@a.b") is SILENT
    assert mirrored(held, away=True, at_once=True).known("no@a.b") is ABSENT, "it is read every second"
