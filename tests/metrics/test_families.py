"""Every metric has its sentence in the documentation, and a place in the daemon's state."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mailmaps.maps.answer import NOT_FOUND, Found, Unavailable
from mailmaps.maps.counts import BOUNDS, LookupCounts
from mailmaps.metrics.exposition import Exposition
from mailmaps.metrics.families import FAMILIES, Family, Histogram

DOCS = (Path(__file__).parent.parent.parent / "docs" / "metrics.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", re.MULTILINE)


def state(**tables: LookupCounts) -> dict[str, object]:
    return {
        "version": "1.2",
        "started": 1.0,
        "settings_read": 2.0,
        "reloads": {"ok": 3, "kept_old": 0},
        "tables": {name: counts.state for name, counts in tables.items()},
        "mirrors": {
            "a.view": {"proven": True, "age": 0.5, "keys": 7, "bytes": 4096, "pending": 0, "drift": 0},
            "not.read": {"proven": False, "age": None, "keys": None, "bytes": None, "pending": 1, "drift": 0},
        },
        "changes": {"tables": {"trouble": None, "lag": 0.001}, "logins": {"trouble": "away", "lag": None}},
        "databases": {"database.dsn": {"size": 4, "open": 3, "idle": 1, "waiting": 2, "away": None}},
        "clients": {"tcp_table": {"open": 5, "accepted": 9}},
        "logins": {"counts": {"login accepted": 4}},
        "sending": {"answers": {"DUNNO": 6}, "limits": {"trouble": None}},
        "notices": {"waiting": 0, "dropped": 1},
    }


def samples(**tables: LookupCounts) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a client reads, by name and labels."""
    page = Exposition(lambda: state(**tables)).page("")[1].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.exposed)
def test_its_sentence_is_in_the_documentation(family: Family | Histogram) -> None:
    rows = {name: (labels, sentence) for name, labels, sentence in ROW.findall(DOCS)}
    assert rows[family.exposed] == (", ".join(f"`{label}`" for label in family.labels), family.sentence)


def test_the_documentation_has_no_others() -> None:
    assert {name for name, _, _ in ROW.findall(DOCS)} == {family.exposed for family in FAMILIES}


def test_each_is_exposed() -> None:
    names = {name for name, _ in samples(t=LookupCounts())}
    for family in FAMILIES:
        wanted = f"{family.exposed}_count" if isinstance(family, Histogram) else family.exposed
        assert wanted in names, family.exposed


def test_lookups_by_result_and_the_histogram_of_misses() -> None:
    counts = LookupCounts()
    for answer in (Found("x"), Found("y"), NOT_FOUND, Unavailable("away")):
        counts.answered(answer)
    for seconds in (0.0001, BOUNDS[0], 3.0, 1000.0):
        counts.missed(seconds)
    found = samples(t=counts)

    def value(name: str, **labels: str) -> float:
        return found[(name, frozenset(labels.items() | {("table", "t")}))]

    results = [value("mailmaps_lookups_total", result=word) for word in ("found", "not_found", "cannot_say")]
    assert results == [2, 1, 1]
    assert value("mailmaps_lookup_misses_total") == 4
    assert value("mailmaps_lookup_miss_seconds_bucket", le=str(BOUNDS[0])) == 2
    assert value("mailmaps_lookup_miss_seconds_bucket", le="2.5") == 2
    assert value("mailmaps_lookup_miss_seconds_bucket", le="5.0") == 3
    assert value("mailmaps_lookup_miss_seconds_bucket", le="+Inf") == 4
    assert value("mailmaps_lookup_miss_seconds_sum") == 1003.0001 + BOUNDS[0]


def test_hits_never_go_back() -> None:
    """Prometheus takes a counter that does for one of another process."""
    counts = LookupCounts()
    for _ in range(3):
        counts.answered(NOT_FOUND)
    assert counts.hits == 3
    counts.missed(0.1)  # its reply goes out in a moment
    assert counts.hits == 3
    counts.answered(NOT_FOUND)
    assert counts.hits == 3


def test_openmetrics_for_those_who_ask_for_it() -> None:
    exposition = Exposition(state)
    content_type, body = exposition.page("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert exposition.page("text/html")[0].startswith("text/plain")
    assert exposition.page("application/openmetrics-text; version=abc")[0].startswith("text/plain")
