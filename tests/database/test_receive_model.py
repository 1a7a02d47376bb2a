"""Which targets can receive, and who may send as what, against a model: random worlds, every key compared.

The model reads the raw rows and walks as Postfix would; it shares no code and no SQL with the views.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailmaps.demo.postgres import EmbeddedPostgres

# A longer run by hand: EXAMPLES=3000.
EXAMPLES = int(os.environ.get("EXAMPLES", "150"))

OURS = ("a.test", "b.test")
ALIASED = "alias.test"
LOCALS = ("x", "y", "z")
ADDRESSES = [f"{local}@{domain}" for domain in (*OURS, ALIASED, "out.test") for local in LOCALS]
CATCH_ALLS = [f"@{domain}" for domain in (*OURS, ALIASED, "out.test")]
EXTENDED = [f"{local}+e@{domain}" for domain in OURS for local in LOCALS]

addresses = st.sampled_from(ADDRESSES)


@dataclass(frozen=True)
class World:
    """Raw rows: accounts by number (email, live), their addresses, forwards, ALIASED's target."""

    accounts: list[tuple[str, bool]]
    listed: dict[str, int]
    forwards: set[tuple[str, str]]
    aliased: str | None


@st.composite
def worlds(draw: st.DrawFn) -> World:
    accounts = draw(st.lists(st.tuples(addresses, st.booleans()), max_size=4))
    numbers = st.integers(0, len(accounts) - 1) if accounts else st.nothing()
    return World(
        accounts,
        draw(st.dictionaries(st.sampled_from(ADDRESSES + CATCH_ALLS), numbers, max_size=5)),
        draw(
            st.sets(
                st.tuples(
                    st.sampled_from(ADDRESSES + CATCH_ALLS),
                    st.sampled_from(ADDRESSES + CATCH_ALLS + EXTENDED),
                ),
                max_size=6,
            )
        ),
        draw(st.none() | st.sampled_from(OURS)),
    )


class Model:
    """What Postfix would do with an address, from the raw rows."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ours = {*OURS} | ({ALIASED} if world.aliased else set())

    def owner(self, key: str) -> int | None:
        if key in self.world.listed:
            return self.world.listed[key]
        mine = [n for n, (email, _) in enumerate(self.world.accounts) if email == key]
        return min(mine, key=lambda n: (not self.world.accounts[n][1], n), default=None)

    def raw(self, key: str) -> list[str] | None:
        """The raw targets of exactly this key; None: unknown, []: known and dead, [key]: a mailbox."""
        owner = self.owner(key)
        if owner is not None and not self.world.accounts[owner][1]:
            return []
        targets = [target for address, target in self.world.forwards if address == key]
        if owner is not None:
            targets.append(self.world.accounts[owner][0])
        if targets:
            return targets
        local, _, domain = key.partition("@")
        if domain == ALIASED and self.world.aliased and self.raw(f"{local}@{self.world.aliased}") is not None:
            return [f"{local}@{self.world.aliased}"]
        return None

    def arrives(self, key: str, seen: frozenset[str] = frozenset()) -> bool:
        if key in seen:
            return False
        local, _, domain = key.partition("@")
        if domain not in self.ours:
            return True
        candidates = [key, f"{local.partition('+')[0]}@{domain}"] + ([f"@{domain}"] if local else [])
        for candidate in dict.fromkeys(candidates):
            targets = self.raw(candidate)
            if targets is not None:
                owner = self.owner(candidate)
                if (
                    owner is not None
                    and candidate in targets
                    and self.world.accounts[owner] == (candidate, True)
                ):
                    return True
                return any(
                    self.arrives(local + target if target.startswith("@") else target, seen | {key})
                    for target in targets
                )
        return False

    def aliases(self) -> dict[str, set[str]]:
        """The whole of virtual_alias_maps: known keys with the targets that can receive."""
        known = {email for email, _ in self.world.accounts} | {*self.world.listed}
        known |= {address for address, _ in self.world.forwards}
        if self.world.aliased:
            known |= {
                f"{k.partition('@')[0]}@{ALIASED}" for k in known if k.endswith("@" + self.world.aliased)
            }
        return {
            key: {
                target
                for target in self.raw(key) or []
                if self.reaches(key, key.partition("@")[0] + target if target.startswith("@") else target)
            }
            for key in known
        }

    def own(self, key: str) -> list[int]:
        """The accounts that have exactly this key."""
        if key in self.world.listed:
            return [self.world.listed[key]]
        return [n for n, (email, _) in enumerate(self.world.accounts) if email == key]

    def forwarded(self, key: str) -> list[str]:
        """The targets of exactly this forward."""
        local = key.partition("@")[0]
        return [
            local + target if target.startswith("@") else target
            for address, target in self.world.forwards
            if address == key
        ]

    def behind(self, key: str) -> str | None:
        """The key that a domain alias stands for, if any table has that."""
        local, _, domain = key.partition("@")
        if domain != ALIASED or self.world.aliased is None:
            return None
        target = f"{local}@{self.world.aliased}"
        return target if self.own(target) or self.forwarded(target) else None

    def readers(self, key: str, seen: set[str]) -> set[int]:
        """The accounts that mail to this key reaches; what they forward is not followed."""
        if key in seen:
            return set()
        seen.add(key)
        local, _, domain = key.partition("@")
        candidates = [key]
        if local and domain in self.ours:
            candidates += [f"{local.partition('+')[0]}@{domain}", f"@{domain}"]
        for candidate in candidates:
            if mine := self.own(candidate):
                return set(mine)
            behind = self.behind(candidate)
            if targets := self.forwarded(candidate) or ([behind] if behind else []):
                onward = (local + target if target.startswith("@") else target for target in targets)
                return set().union(*(self.readers(target, seen) for target in onward))
        return set()

    def ways(self, key: str) -> set[tuple[str, int]] | None:
        """Who may send as exactly this key, with the rule; None: it is unknown."""
        if mine := self.own(key):
            return {("o" if self.world.accounts[n][0] == key else "a", n) for n in mine}
        if key.partition("@")[2] in self.ours and (targets := self.forwarded(key)):
            plain = [
                target for target in targets if not target.startswith("@")
            ]  # not of a catch-all to @other
            found = {("f", n) for target in plain for n in self.readers(target, {key})}
            behind = self.behind(key)  # what today's owners have, forward or not
            return (
                found | {(rule + "d", n) for rule, n in self.ways(behind) or () if rule != "f"}
                if behind
                else found
            )
        behind = self.behind(key)
        return {(rule + "d", n) for rule, n in self.ways(behind) or ()} if behind else None

    def rights(self) -> dict[str, set[str]]:
        """The whole of sender_rights; an empty set for a key that is nobody's."""
        domains = (*OURS, ALIASED, "out.test")
        return {
            key: {f"{rule} u{n}" if self.world.accounts[n][1] else f"{rule} !inactive" for rule, n in found}
            for key in (*(f"{local}@{domain}" for local in LOCALS for domain in domains), *CATCH_ALLS)
            if (found := self.ways(key)) is not None
        }

    def reaches(self, key: str, target: str) -> bool:
        """Whether this one target arrives; an account's own email is its mailbox."""
        owner = self.owner(key)
        if target == key and owner is not None and self.world.accounts[owner] == (key, True):
            return True
        return self.arrives(target)


TABLES = ("virtual_alias_maps", "sender_rights", "smtpd_sender_login_maps")


async def _views(postgres: EmbeddedPostgres, name: str, world: World) -> list[dict[str, set[str]]]:
    connection = await asyncpg.connect(postgres.dsn(name))
    try:
        transaction = connection.transaction()
        await transaction.start()
        await _fill(connection, world)
        listings = [await connection.fetch(f"SELECT key, value FROM mailmaps.{table}") for table in TABLES]
        await transaction.rollback()
    finally:
        await connection.close()
    views: list[dict[str, set[str]]] = [{} for _ in TABLES]
    for found, rows in zip(views, listings, strict=True):
        for key, value in rows:
            found.setdefault(key, set()).update([value] if value else [])
    return views


async def _fill(connection: asyncpg.Connection[asyncpg.Record], world: World) -> None:
    await connection.execute("INSERT INTO domains (gid, domain) VALUES (1, 'a.test'), (2, 'b.test')")
    await connection.executemany(
        """INSERT INTO user_accounts (username, uid, gid, email, mailbox, active)
           VALUES ($1, $2, 1, $3, 'm', $4)""",
        [(f"u{n}", n, email, "1" if live else "0") for n, (email, live) in enumerate(world.accounts)],
    )
    if world.aliased:
        await connection.execute(
            "INSERT INTO mailmaps.domain_aliases VALUES ($1, $2)", ALIASED, world.aliased
        )
    await connection.executemany(
        "INSERT INTO user_addresses VALUES ($1, $2)", [(f"u{n}", key) for key, n in world.listed.items()]
    )
    await connection.executemany("INSERT INTO mailmaps.forwards VALUES ($1, $2)", sorted(world.forwards))


def test_the_views_agree_with_the_model(postgres: EmbeddedPostgres, template: str) -> None:
    name = "receive_model"
    asyncio.run(_execute(postgres, f"CREATE DATABASE {name} TEMPLATE {template}"))

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(worlds())
    def agree(world: World) -> None:
        aliases, rights, logins = asyncio.run(_views(postgres, name, world))
        model = Model(world)
        assert aliases == model.aliases()
        assert rights == model.rights()
        assert logins == {key: {one.split()[1] for one in values} for key, values in rights.items()}

    try:
        agree()
    finally:
        asyncio.run(_execute(postgres, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(postgres: EmbeddedPostgres, statement: str) -> None:
    connection = await asyncpg.connect(postgres.dsn())
    await connection.execute(statement)
    await connection.close()
