"""Which targets can receive, against a model of its own: small random worlds, every key compared.

The model reads the raw rows and walks as Postfix would; it shares no code and no SQL with the views.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailmaps.demo.postgres import EmbeddedPostgres

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

    def reaches(self, key: str, target: str) -> bool:
        """Whether this one target arrives; an account's own email is its mailbox."""
        owner = self.owner(key)
        if target == key and owner is not None and self.world.accounts[owner] == (key, True):
            return True
        return self.arrives(target)


async def _views(postgres: EmbeddedPostgres, name: str, world: World) -> dict[str, set[str]]:
    connection = await asyncpg.connect(postgres.dsn(name))
    try:
        transaction = connection.transaction()
        await transaction.start()
        await _fill(connection, world)
        rows = await connection.fetch("SELECT key, value FROM mailmaps.virtual_alias_maps")
        await transaction.rollback()
    finally:
        await connection.close()
    found: dict[str, set[str]] = {}
    for key, value in rows:
        found.setdefault(key, set()).update([value] if value else [])
    return found


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

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(worlds())
    def agree(world: World) -> None:
        assert asyncio.run(_views(postgres, name, world)) == Model(world).aliases()

    try:
        agree()
    finally:
        asyncio.run(_execute(postgres, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(postgres: EmbeddedPostgres, statement: str) -> None:
    connection = await asyncpg.connect(postgres.dsn())
    await connection.execute(statement)
    await connection.close()
