"""The schema mailpolicy: grants, limits, what was sent, senders that were observed.

All of it as the role mailwriter, by `database.write_dsn`. Statements are such that one whose connection broke
may be tried again: counting has numbered batches, the rest says what shall be, not what shall change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_network
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import asyncpg

from mailmaps.database.connect import reason
from mailmaps.maps.address import fold
from mailmaps.maps.answer import CannotSay
from mailmaps.policy.counting import Counted, Entry
from mailmaps.policy.grants import Grant
from mailmaps.policy.limit_book import Override
from mailmaps.policy.observed import Event, Times
from mailmaps.policy.sums import Scope, Sums

if TYPE_CHECKING:
    from mailmaps.database.pool import Pool

# Classes of errors that are about what was given, not about the server: data exception, constraint, a value
# too long for an index (PostgreSQL, appendix A).
_ABOUT_VALUES = {"22", "23", "54"}

_COUNT = "SELECT * FROM mailpolicy.count_sent($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"

_GRANTS = """SELECT id, login, address, extract(epoch FROM expires)::float8 AS expires, networks, reason
   FROM mailpolicy.sender_grants ORDER BY id"""

_LIMITS = """SELECT scope, name, messages_hour, messages_day, recipients_hour, recipients_day, exempt, reason,
                    extract(epoch FROM until)::float8 AS until
   FROM mailpolicy.sending_limits ORDER BY scope, name"""

_OBSERVE = """INSERT INTO mailpolicy.observed_senders AS o
      (hour, login, sender, client, verdict, why, times, first_seen, last_seen)
   SELECT to_timestamp(hour), login, sender, client, verdict, why, times,
          to_timestamp(first), to_timestamp(last)
   FROM unnest($1::float8[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
               $8::float8[], $9::float8[])
      AS u (hour, login, sender, client, verdict, why, times, first, last)
   ON CONFLICT (hour, login, sender, client, verdict, why) DO UPDATE
      SET times = o.times + excluded.times, first_seen = least(o.first_seen, excluded.first_seen),
          last_seen = greatest(o.last_seen, excluded.last_seen)"""

_OBSERVED = """SELECT login, sender, client, verdict, why, sum(times)::bigint AS times,
                      extract(epoch FROM min(first_seen))::float8 AS first,
                      extract(epoch FROM max(last_seen))::float8 AS last
   FROM mailpolicy.observed_senders
   WHERE hour >= to_timestamp($1) - interval '1 hour' AND last_seen >= to_timestamp($1)
   GROUP BY login, sender, client, verdict, why ORDER BY sum(times) DESC, login, sender LIMIT $2"""

_SENT = """SELECT scope, name, coalesce(sum(messages) FILTER (WHERE minute >= m.now - 60), 0)::bigint AS mh,
                  sum(messages)::bigint AS md,
                  coalesce(sum(recipients) FILTER (WHERE minute >= m.now - 60), 0)::bigint AS rh,
                  sum(recipients)::bigint AS rd
   FROM mailpolicy.sent, (SELECT floor(extract(epoch FROM now()) / 60)::integer AS now) AS m
   WHERE minute BETWEEN m.now - 1440 AND m.now + 1 AND ($1::text IS NULL OR name = $1)
   GROUP BY scope, name ORDER BY rd DESC, scope, name LIMIT $2"""

_SET = """INSERT INTO mailpolicy.sending_limits
      (scope, name, messages_hour, messages_day, recipients_hour, recipients_day, exempt, reason, until)
   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, to_timestamp($9))
   ON CONFLICT (scope, name) DO UPDATE
      SET messages_hour = excluded.messages_hour, messages_day = excluded.messages_day,
          recipients_hour = excluded.recipients_hour, recipients_day = excluded.recipients_day,
          exempt = excluded.exempt, reason = excluded.reason, until = excluded.until, since = now()"""


class Written(NamedTuple):
    """What people wrote: all grants and all limits, and the number of the change they are of."""

    number: int
    grants: list[Grant]
    overrides: list[Override]


class PolicyRows:
    """Everything that is asked of mailpolicy. A question takes at most `deadline` seconds."""

    def __init__(self, pool: Pool, deadline: float) -> None:
        self._pool = pool
        self._deadline = deadline

    @property
    def away(self) -> str | None:
        """Why it cannot be reached, while that is so."""
        return self._pool.away

    async def count(self, counter: UUID, batch: int, entries: Sequence[Entry]) -> list[list[Counted]]:
        """Decide and count one batch (`mailmaps.policy.limits`). Raises `CannotSay`."""
        parts = [(number, entry, part) for number, entry in enumerate(entries) for part in entry.parts]
        now = monotonic()
        records = await self._fetch(
            _COUNT,
            counter,
            batch,
            [number for number, _, _ in parts],
            [part.scope for _, _, part in parts],
            [part.name for _, _, part in parts],
            [int(now - entry.since) if entry.since is not None else 0 for _, entry, _ in parts],
            [entry.since is not None for _, entry, _ in parts],
            [entry.messages for _, entry, _ in parts],
            [entry.recipients for _, entry, _ in parts],
            [part.allowed.messages_hour for _, _, part in parts],
            [part.allowed.messages_day for _, _, part in parts],
            [part.allowed.recipients_hour for _, _, part in parts],
            [part.allowed.recipients_day for _, _, part in parts],
        )
        counted: list[list[Counted]] = [[] for _ in entries]
        for one in records:
            sums = Sums(
                one["messages_hour"], one["messages_day"], one["recipients_hour"], one["recipients_day"]
            )
            counted[one["item"]].append(Counted(one["passed"], sums))
        return counted

    async def number(self) -> int:
        """Of the last change of what people wrote. Raises `CannotSay`."""
        ((number,),) = await self._fetch("SELECT number FROM mailpolicy.changes")
        return int(number)

    async def written(self) -> Written:
        """All grants and limits. Raises `CannotSay`."""
        number = await self.number()  # first: a change from here on is another number
        grants = [_grant(dict(record)) for record in await self._fetch(_GRANTS)]
        return Written(number, grants, await self.overrides())

    async def overrides(self) -> list[Override]:
        """All limits. Raises `CannotSay`."""
        return [_override(dict(record)) for record in await self._fetch(_LIMITS)]

    async def observe(self, events: Mapping[Event, Times]) -> None:
        """Write down what was observed. Raises `CannotSay`; what is written twice counts twice."""
        rows = [(*event, times.times, times.first, times.last) for event, times in events.items()]
        await self._fetch(_OBSERVE, *map(list, zip(*rows, strict=True)))

    async def observed(self, since: float, most: int) -> list[tuple[Event, Times]]:
        """What was observed since a time (seconds since the epoch), the most frequent first. Raises
        `CannotSay`.
        """
        return [
            (
                Event(0, one["login"], one["sender"], one["client"], one["verdict"], one["why"]),
                Times(one["times"], one["first"], one["last"]),
            )
            for one in await self._fetch(_OBSERVED, since, most)
        ]

    async def sent(self, name: str | None, most: int) -> list[tuple[Scope, str, Sums]]:
        """Who has sent how much, or only `name`; who sent most in a day comes first. Raises `CannotSay`."""
        return [
            (one["scope"], one["name"], Sums(one["mh"], one["md"], one["rh"], one["rd"]))
            for one in await self._fetch(_SENT, name, most)
        ]

    async def set(self, one: Override) -> None:
        """Write a limit in the place of what there was for the name. Raises `CannotSay`."""
        await self._fetch(_SET, one.scope, one.name, *one.numbers, one.exempt, one.reason, one.until)

    async def clear(self, scope: Scope, name: str) -> bool:
        """Remove the limits of a name (folded), however it is written; whether there were any.

        Raises `CannotSay`.
        """
        written = [one.name for one in await self.overrides() if (one.scope, fold(one.name)) == (scope, name)]
        query = "DELETE FROM mailpolicy.sending_limits WHERE scope = $1 AND name = ANY ($2) RETURNING 1"
        return bool(await self._fetch(query, scope, written))

    async def release(self, scope: Scope, name: str) -> int:
        """Forget what a name has sent; how many messages of the last day that were. Raises `CannotSay`."""
        query = """WITH gone AS (DELETE FROM mailpolicy.sent WHERE scope = $1 AND name = $2 RETURNING
        messages)
                   SELECT coalesce(sum(messages), 0)::bigint FROM gone"""
        ((messages,),) = await self._fetch(query, scope, name)
        return int(messages)

    async def forget(self) -> bool:
        """Drop some of what is of no use any more; whether there is more of it. Raises `CannotSay`."""
        ((more,),) = await self._fetch("SELECT mailpolicy.forget()")
        return bool(more)

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Raises `CannotSay`; `about_key`: the database is well, and refuses what it was given."""
        try:
            async with asyncio.timeout(self._deadline):
                return await self._pool.run(lambda connection: connection.fetch(query, *arguments))
        except TimeoutError:
            raise CannotSay(f"database: no answer within {self._deadline:g} s") from None
        except asyncpg.PostgresError as error:
            about_key = str(error.sqlstate)[:2] in _ABOUT_VALUES
            raise CannotSay(f"database: {reason(error)}", about_key=about_key) from error
        except (asyncpg.InterfaceError, ValueError, OverflowError) as error:
            raise CannotSay(f"database: {reason(error)}", about_key=True) from error


def when(seconds: float) -> datetime:
    """Seconds since the epoch as people read them."""
    return datetime.fromtimestamp(seconds, UTC)


def _grant(record: Mapping[str, Any]) -> Grant:
    networks = tuple(ip_network(network) for network in record["networks"] or ())
    return Grant(
        record["id"], record["login"], record["address"], record["expires"], networks, record["reason"]
    )


def _override(record: Mapping[str, Any]) -> Override:
    numbers = (
        record["messages_hour"],
        record["messages_day"],
        record["recipients_hour"],
        record["recipients_day"],
    )
    return Override(
        record["scope"], record["name"], numbers, record["exempt"], record["reason"], record["until"]
    )
