"""What a file has to become, against what one would write down for it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailmaps.filemaps import plan as module
from mailmaps.filemaps.contents import LATER
from mailmaps.filemaps.plan import FEW, VERY_FEW, Plan, merged
from mailmaps.filemaps.targets import MAILBOXES, UIDS, FileTable, Target
from mailmaps.maps.tables import KINDS

KEYS = st.sampled_from([b"a", b"aa", b"b", b"b\xff", b"c", b"@d"])
ROWS = st.dictionaries(KEYS, st.sampled_from([LATER, b"1", b"2"]))


def target(name: str = MAILBOXES) -> Target:
    table = name.removesuffix(".queued")
    return Target(name, name, FileTable(table, table, KINDS[table], ("v",), group="", bare_keys=True))


def plan_of(held: dict[bytes, bytes], wanted: dict[bytes, bytes], **options: object) -> Plan:
    plan = Plan(target(), **{"exists": True, **options})  # type: ignore[arg-type]
    for row in merged(sorted(held.items()), sorted(wanted.items())):
        plan.see(*row)
    return plan


@given(ROWS, ROWS)
def test_merged(held: dict[bytes, bytes], wanted: dict[bytes, bytes]) -> None:
    both = sorted(held.keys() | wanted.keys())
    found = list(merged(sorted(held.items()), sorted(wanted.items())))
    assert found == [(key, held.get(key), wanted.get(key)) for key in both]


@given(ROWS, ROWS, st.sets(KEYS), st.sets(KEYS), st.booleans())
def test_a_plan(
    held: dict[bytes, bytes],
    wanted: dict[bytes, bytes],
    newer: set[bytes],
    lingering: set[bytes],
    exists: bool,
) -> None:
    held = held if exists else {}
    plan = plan_of(held, wanted, exists=exists, newer=newer, lingering=lingering)
    left_alone = newer if exists else set()
    before = {key: value for key, value in held.items() if key not in left_alone}
    after = {key: value for key, value in wanted.items() if key not in left_alone}
    assert plan.sets == {key: value for key, value in after.items() if before.get(key) != value}
    assert plan.missing == sorted(before.keys() - after.keys())
    assert plan.darkened == {key for key, value in after.items() if value == LATER and before.get(key)}
    assert plan.added == len(after.keys() - before.keys())
    assert plan.changed == sum(before[key] != after[key] for key in before.keys() & after.keys())
    assert (plan.held, plan.wanted) == (len(before), len(after))
    assert plan.again == sorted(lingering & after.keys())
    file = held | plan.sets
    for key in plan.missing:
        del file[key]
    assert file == after | {key: value for key, value in held.items() if key in left_alone}


@given(ROWS, ROWS, st.integers(0, 3))
def test_too_many_to_be_held(held: dict[bytes, bytes], wanted: dict[bytes, bytes], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_IN_PLACE", most)
        plan = plan_of(held, wanted)
    few = plan_of(held, wanted)
    assert plan.is_whole == (len(few.sets) > most)
    assert plan.sets == ({} if plan.is_whole else few.sets)
    assert (plan.added, plan.changed, plan.missing, plan.darkened) == (
        few.added,
        few.changed,
        few.missing,
        few.darkened,
    )


NUMBERS = st.integers(0, 300)


@example(left=0, missing=5, darkened=0, added=1, most=1)
@given(NUMBERS, NUMBERS, NUMBERS, st.integers(0, 3), st.sampled_from([0, 0.1, 0.5, 1]))
def test_excess(left: int, missing: int, darkened: int, added: int, most: float) -> None:
    plan = Plan(target(), exists=True, added=added)
    plan.missing = [b"%d" % number for number in range(missing)]
    plan.darkened = {b"d%d" % number for number in range(darkened)}
    gone = missing + darkened
    rows = gone + left
    allowed = [gone <= VERY_FEW, gone <= most * rows, gone <= FEW and gone <= rows / 2]
    is_all = gone >= rows and gone > 0 and added == 0
    assert bool(plan.excess(rows, most)) == (is_all or not any(allowed))


def test_excess_of_others() -> None:
    gone = [b"%d" % number for number in range(100)]
    for name in (f"{MAILBOXES}.queued", UIDS):  # another file tells
        assert not Plan(target(name), exists=True, missing=gone).excess(100, 0)
    assert Plan(target(), exists=False).excess(0, 1) == f"{MAILBOXES}: would be empty"
    assert not Plan(target(), exists=False, wanted=1).excess(0, 0)
    assert not Plan(target("virtual_alias_maps"), exists=False).excess(0, 0)
