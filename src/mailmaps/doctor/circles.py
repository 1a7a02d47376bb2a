"""Aliases that lead in a circle: `a@x -> b@x -> a@x`.

cleanup(8) expands a result again and again until it is not found or expands to itself
(cleanup_map1n.c:114-180); a circle ends at 1000 expansions, and the whole message is deferred each time.
"""

from __future__ import annotations

from collections.abc import Mapping


def circles(leads_to: Mapping[str, set[str]]) -> list[list[str]]:
    """One circle of each knot, its smallest key first.

    Keys that expand to themselves are not in `leads_to`: there an expansion ends.
    """
    left = _peeled(leads_to)
    found: dict[frozenset[str], list[str]] = {}
    done: set[str] = set()
    for start in sorted(left):
        path: dict[str, int] = {}
        at = start
        while at not in path and at not in done:
            path[at] = len(path)
            at = min(left[at])
        if at not in done:
            circle = list(path)[path[at] :]
            first = circle.index(min(circle))
            found.setdefault(frozenset(circle), circle[first:] + circle[:first])
        done.update(path)
    return list(found.values())


def _peeled(leads_to: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """What is left when all that leads out is taken away, again and again."""
    left = {key: {target for target in targets if target in leads_to} for key, targets in leads_to.items()}
    before: dict[str, set[str]] = {}
    for key, targets in left.items():
        for target in targets:
            before.setdefault(target, set()).add(key)
    ends = [key for key, targets in left.items() if not targets]
    while ends:
        end = ends.pop()
        del left[end]
        for key in before.get(end, ()):
            left[key].discard(end)
            if not left[key]:
                ends.append(key)
    return left


def drawn(circle: list[str]) -> str:
    """For people; a long one is cut."""
    shown = circle if len(circle) <= LONGEST else [*circle[:LONGEST], "..."]
    return " -> ".join([*shown, circle[0]])


# Keys of a circle that are shown.
LONGEST = 6
