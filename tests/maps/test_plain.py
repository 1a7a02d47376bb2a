"""The short way gives what the long way gives, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from mailmaps.maps import search
from mailmaps.maps.answer import NOT_FOUND
from mailmaps.maps.cache import Cache
from mailmaps.maps.lookup import Table, Times
from mailmaps.maps.mirrored import Limits, MirroredSource
from mailmaps.maps.plain import PlainAddresses, PlainSearch
from mailmaps.maps.row_bytes import pack
from mailmaps.maps.search import Rules
from mailmaps.maps.sources import SILENT, Recalled, Rows
from mailmaps.maps.tables import KINDS

LETTERS = 'aB.-+="\\ é@%_'
keys = st.builds(
    "{}@{}".format,
    st.text(LETTERS, max_size=5),
    st.sampled_from(["a.b", "A.b", "local", "[1.2.3.4]", "a.b.", "c"]),
)
values = st.lists(st.sampled_from(["x@y", "@y", "a,@z", "é@y", '"a,b"@y', "+@y"]), max_size=2, unique=True)
rules = st.builds(
    Rules,
    recipient_delimiter=st.sampled_from(["", "+", "-", "+-", ".", "a"]),
    myorigin=st.sampled_from(["", "local", "Local"]),
    mydestination=st.sampled_from([frozenset(), frozenset({"local", "a.b"})]),
    local_addresses=st.just(frozenset({"[1.2.3.4]"})),
    propagate_unmatched_extensions=st.sampled_from([frozenset(), frozenset({"virtual", "canonical"})]),
)
kinds = st.sampled_from([
    kind for kind in KINDS.values() if search.is_address_walk(kind.walk)
])  # fmt: skip


class Held:
    view = "public.held"
    proven = True
    age: float | None = 0.0
    age_of_proof: float | None = 0.0
    is_behind = False

    def __init__(self, rows: dict[str, tuple[str, ...]]) -> None:
        self.rows = {key.encode(): pack(values) for key, values in rows.items()}
        self.changed: set[Callable[[], None]] = set()

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)


class Nothing:
    name = "builtin"
    bare_keys = one_by_one = exactly = volatile = steady = False
    age: float | None = None

    def known(self, key: str) -> Recalled:
        return SILENT

    stale = known

    async def fetch(self, candidates: Sequence[str]) -> Rows:
        raise AssertionError


@given(keys, st.dictionaries(keys, values.map(tuple), max_size=4), rules, kinds, st.booleans())
@example("a@a.b", {"@a.b": ("@y",)}, Rules(), KINDS["virtual_alias_maps"], True)
@example("a.a@a.b", {"a@a.b": ("x@y",)}, Rules(recipient_delimiter="."), KINDS["virtual_alias_maps"], True)
@example("a@local", {"a": ("x@y",)}, Rules(myorigin="local"), KINDS["canonical_maps"], True)
def test_short_and_long_way(
    key: str, rows: dict[str, tuple[str, ...]], rules: Rules, kind: object, folded: bool
) -> None:
    assert isinstance(kind, type(KINDS["virtual_alias_maps"]))
    held = Held({key.casefold() if folded else key: found for key, found in rows.items()})
    source = MirroredSource(Nothing(), held, Limits(1, 1), at_once=False, away=lambda: False)
    cache = Cache(ttl=0, negative_ttl=0, size=0, negative_size=0)
    table = Table("t", kind, [source], rules, cache, Times(1, 1, 1))
    addresses = PlainAddresses(rules)
    question = addresses.question(key.encode())
    assert question is None or question == kind.walk(key, rules)
    short = PlainSearch(held, addresses).answer(key.encode())
    table._plain = None
    assert short is None or short == table.answer_now(key.encode())


def test_most_addresses_go_the_short_way() -> None:
    plain = PlainSearch(Held({}), PlainAddresses(Rules(recipient_delimiter="+")))
    for key in (b"ann@ex.org", b"ann.lee-2@a-b.ex.org", b"o'hara=x@ex.org"):
        assert plain.answer(key) is NOT_FOUND
    for key in (
        b"Ann@ex.org",
        b"ann+x@ex.org",
        b'"a b"@ex.org',
        b"ann@ex.org.",
        b"ann",
        b"@ex.org",
        b"a..b@c",
    ):
        assert plain.answer(key) is None


def test_nothing_is_said_of_what_is_not_proven() -> None:
    held = Held({"ann@ex.org": ("x@y",)})
    plain = PlainSearch(held, PlainAddresses(Rules()))
    held.proven = False
    assert plain.answer(b"ann@ex.org") is None
