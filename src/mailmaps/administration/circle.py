"""Whether mail for an address would come back to it: then Postfix can deliver to none of its targets.

cleanup(8) expands virtual_alias_maps until nothing new comes (cleanup_map1n.c); an address that leads to
itself by way of another ends at virtual_alias_recursion_limit, and the mail waits until it bounces. One
among its own targets is no circle: that is where its own mailbox gets a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailmaps.maps.address import fold

if TYPE_CHECKING:
    from mailmaps.database.administration import Work

# Addresses that are followed; Postfix gives up after 1000, too (virtual_alias_expansion_limit).
MOST = 1000

_ASK = "SELECT key, value FROM mailmaps.virtual_alias_maps WHERE key = ANY ($1) AND value IS NOT NULL"


async def circle(work: Work, address: str) -> list[str]:
    """The way from an address (folded) back to itself as the view has it now; empty if there is none."""
    came_from: dict[str, str] = {}
    front = [address]
    while front and len(came_from) < MOST:
        following: list[str] = []
        for one, targets in (await _targets(work, front)).items():
            for target in targets:
                if target == address and one != address:
                    return [*_way(came_from, one), address]
                if target not in came_from and target != address:
                    came_from[target] = one
                    following.append(target)
        front = following
    return []


def _way(came_from: dict[str, str], end: str) -> list[str]:
    way = [end]
    while (before := came_from.get(way[-1])) is not None:
        way.append(before)
    return way[::-1]


async def _targets(work: Work, addresses: list[str]) -> dict[str, list[str]]:
    """Of each address, by itself or by its domain's catch-all."""
    domains = {one: f"@{one.rpartition('@')[2]}" for one in addresses}
    rows: dict[str, list[str]] = {}
    for key, value in await work.fetch(_ASK, [*addresses, *set(domains.values())]):
        rows.setdefault(key, []).append(fold(value))
    found = {}
    for one, domain in domains.items():
        local = one.rpartition("@")[0]
        values = rows[one] if one in rows else rows.get(domain, [])
        found[one] = [f"{local}{value}" if value.startswith("@") else value for value in values]
    return found
