"""Every metric: its name, kind, labels, its sentence, and where the daemon's state has it.

The daemon's state is the JSON object of `mailmaps status --json`, so a figure is never one thing here and
another there. docs/metrics.md has each of the sentences (tested). No label has an address, a login or
anything else that a client said: their number would be without bound, and they are nobody's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from mailmaps.maps.counts import BOUNDS
from mailmaps.policy.action import Word

# Of logins; every pair is there from the beginning, since rate() sees no counter that begins with 1.
DOORS = ("login", "dovecot_auth", "saslauthd")
RESULTS = ("accepted", "rejected", "unavailable")

State = Mapping[str, Any]
Samples = Iterable[tuple[tuple[str, ...], float]]
Buckets = Iterable[tuple[tuple[str, ...], list[int], float]]  # labels, counts of each bucket, sum


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `read` gives its samples out of the state; a counter's name gets `_total` besides."""

    name: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    sentence: str
    read: Callable[[State], Samples]

    def metric(self, state: State) -> Metric:
        """What is exposed now."""
        family = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        made = family(self.name, self.sentence, labels=self.labels)
        for labels, value in self.read(state):
            made.add_metric(labels, value)
        return made

    @property
    def exposed(self) -> str:
        """The name that queries use."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


@dataclass(frozen=True, slots=True)
class Histogram:
    """A metric of times, with the bounds of `LookupCounts`."""

    name: str
    labels: tuple[str, ...]
    sentence: str
    read: Callable[[State], Buckets]

    def metric(self, state: State) -> Metric:
        """What is exposed now."""
        made = HistogramMetricFamily(self.name, self.sentence, labels=self.labels)
        for labels, counts, total in self.read(state):
            sums = [sum(counts[: number + 1]) for number in range(len(counts))]
            bounds = [*map(str, BOUNDS), "+Inf"]
            made.add_metric(labels, list(zip(bounds, map(float, sums), strict=True)), total)
        return made

    @property
    def exposed(self) -> str:
        """The name that queries use."""
        return self.name


def _of_tables(field: str) -> Callable[[State], Samples]:
    return lambda state: (((table,), counts[field]) for table, counts in state["tables"].items())


def _results(state: State) -> Samples:
    for table, counts in state["tables"].items():
        for result in ("found", "not_found", "cannot_say"):
            yield (table, result), counts[result]


def _of_mirrors(field: str) -> Callable[[State], Samples]:
    return lambda state: (
        ((mirror,), float(values[field]))
        for mirror, values in state["mirrors"].items()
        if values[field] is not None
    )


def _pools(state: State) -> Samples:
    for database, pool in state["databases"].items():
        yield (database, "idle"), pool["idle"]
        yield (database, "in_use"), pool["open"] - pool["idle"]


def _of_pools(value: Callable[[Mapping[str, Any]], float]) -> Callable[[State], Samples]:
    return lambda state: (((database,), value(pool)) for database, pool in state["databases"].items())


def _of_clients(field: str) -> Callable[[State], Samples]:
    return lambda state: (((protocol,), counts[field]) for protocol, counts in state["clients"].items())


def _of_listening(value: Callable[[Mapping[str, Any]], float | None]) -> Callable[[State], Samples]:
    return lambda state: (
        ((of,), found)
        for of, listening in state["changes"].items()
        if (found := value(listening)) is not None
    )


def _logins(state: State) -> Samples:
    if "logins" in state:
        counts = dict.fromkeys((f"{door} {result}" for door in DOORS for result in RESULTS), 0)
        for words, count in (counts | state["logins"]["counts"]).items():
            door, _, result = words.partition(" ")
            yield (door, result), count


def _actions(state: State) -> Samples:
    counts = dict.fromkeys((word.value.split()[0] for word in Word), 0)
    return (((action,), count) for action, count in (counts | state["sending"]["answers"]).items())


FAMILIES: tuple[Family | Histogram, ...] = (
    Family(
        "mailmaps",
        "gauge",
        ("version",),
        "The version that runs; always 1.",
        lambda state: [((state["version"],), 1.0)],
    ),
    Family(
        "mailmaps_started_timestamp_seconds",
        "gauge",
        (),
        "When the daemon started, in Unix time.",
        lambda state: [((), state["started"])],
    ),
    Family(
        "mailmaps_settings_read_timestamp_seconds",
        "gauge",
        (),
        "When the settings in use were read, in Unix time.",
        lambda state: [((), state["settings_read"])],
    ),
    Family(
        "mailmaps_reloads",
        "counter",
        ("result",),
        "Reloads: ok, or kept_old where something was wrong and the settings before stay in use.",
        lambda state: [((result,), count) for result, count in state["reloads"].items()],
    ),
    Family(
        "mailmaps_lookups",
        "counter",
        ("table", "result"),
        "Lookups answered: found, not_found, or cannot_say (mail waits).",
        _results,
    ),
    Family(
        "mailmaps_lookup_hits",
        "counter",
        ("table",),
        "Lookups answered out of memory, without asking a database.",
        _of_tables("hits"),
    ),
    Family(
        "mailmaps_lookup_misses",
        "counter",
        ("table",),
        "Lookups for which a database was asked.",
        _of_tables("misses"),
    ),
    Family(
        "mailmaps_lookup_stale",
        "counter",
        ("table",),
        "Lookups answered with what was held once, while nobody could say whether it still holds.",
        _of_tables("stale"),
    ),
    Histogram(
        "mailmaps_lookup_miss_seconds",
        ("table",),
        "How long lookups took for which a database was asked.",
        lambda state: (
            ((table,), counts["buckets"], counts["seconds"]) for table, counts in state["tables"].items()
        ),
    ),
    Family(
        "mailmaps_mirror_proven",
        "gauge",
        ("mirror",),
        "1 while the rows held are known to be those of the database.",
        _of_mirrors("proven"),
    ),
    Family(
        "mailmaps_mirror_age_seconds",
        "gauge",
        ("mirror",),
        "Seconds since the rows held were last known to be those of the database.",
        _of_mirrors("age"),
    ),
    Family(
        "mailmaps_mirror_keys",
        "gauge",
        ("mirror",),
        "Keys held.",
        _of_mirrors("keys"),
    ),
    Family(
        "mailmaps_mirror_bytes",
        "gauge",
        ("mirror",),
        "Bytes on disk.",
        _of_mirrors("bytes"),
    ),
    Family(
        "mailmaps_mirror_pending_keys",
        "gauge",
        ("mirror",),
        "Keys known to have changed in the database that are not read again yet.",
        _of_mirrors("pending"),
    ),
    Family(
        "mailmaps_mirror_drift",
        "counter",
        ("mirror",),
        "Rows found changed of which no notification told; anything but 0 wants a look at the triggers.",
        _of_mirrors("drift"),
    ),
    Family(
        "mailmaps_changes_heard",
        "gauge",
        ("of",),
        "1 while changes in the database are heard of, for tables and for logins.",
        _of_listening(lambda listening: float(listening["trouble"] is None)),
    ),
    Family(
        "mailmaps_changes_lag_seconds",
        "gauge",
        ("of",),
        "How long a notification took from us through the database and back, or takes already.",
        _of_listening(lambda listening: listening["lag"]),
    ),
    Family(
        "mailmaps_database_up",
        "gauge",
        ("database",),
        "1 while connections to the database that this setting names can be had.",
        _of_pools(lambda pool: float(pool["away"] is None)),
    ),
    Family(
        "mailmaps_pool_connections",
        "gauge",
        ("database", "state"),
        "Connections to a database: in_use or idle.",
        _pools,
    ),
    Family(
        "mailmaps_pool_size",
        "gauge",
        ("database",),
        "Connections to a database that there should be.",
        _of_pools(lambda pool: pool["size"]),
    ),
    Family(
        "mailmaps_pool_waiting",
        "gauge",
        ("database",),
        "Queries that wait for a connection.",
        _of_pools(lambda pool: pool["waiting"]),
    ),
    Family(
        "mailmaps_connections",
        "gauge",
        ("protocol",),
        "Connections of clients.",
        _of_clients("open"),
    ),
    Family(
        "mailmaps_connections_accepted",
        "counter",
        ("protocol",),
        "Connections of clients since the start.",
        _of_clients("accepted"),
    ),
    Family(
        "mailmaps_logins",
        "counter",
        ("door", "result"),
        "Questions of login doors by what they came to: accepted, rejected, unavailable (cannot say now); "
        "unknown and listed for lookups of users.",
        _logins,
    ),
    Family(
        "mailmaps_policy_actions",
        "counter",
        ("action",),
        "Answers of the policy service: DUNNO, 553 (not his sender address), 450, 554 and HOLD (over a "
        "limit), DEFER_IF_PERMIT and 451 (cannot say now).",
        _actions,
    ),
    Family(
        "mailmaps_limits_in_memory",
        "gauge",
        (),
        "1 while sending should be counted in the database, and is in the memory of this host alone.",
        lambda state: [((), float(state["sending"]["limits"]["trouble"] is not None))],
    ),
    Family(
        "mailmaps_notices_waiting",
        "gauge",
        (),
        "Mails to the postmaster that are not handed over yet.",
        lambda state: [((), state["notices"]["waiting"])],
    ),
    Family(
        "mailmaps_notices_dropped",
        "counter",
        (),
        "Mails to the postmaster that were lost.",
        lambda state: [((), state["notices"]["dropped"])],
    ),
)
