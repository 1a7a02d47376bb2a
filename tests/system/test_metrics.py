"""The running daemon's figures: exact, kept over a reload, and read by Debian's own Prometheus."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.system.daemon import Daemon, Value
from tests.system.ports import steady_ports
from tests.system.processes import eventually

from mailmaps.client import SocketmapClient, open_inet
from mailmaps.demo.postgres import EmbeddedPostgres
from mailmaps.http_connection import MOST
from mailmaps.maps.answer import NOT_FOUND, Found, Unavailable
from mailmaps.observing import FRESH

LIMIT = 60.0
DOCS = Path(__file__).parent.parent.parent / "docs" / "metrics.md"


@pytest.fixture(scope="module")
def server(mail_postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    asyncio.run(_make(mail_postgres.dsn()))
    return mail_postgres


async def _make(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE plain (key text, value text); CREATE INDEX ON plain (key)")
    await connection.execute("INSERT INTO plain VALUES ('known@a.test', 'd@x.test'), ('a.test', 'lmtp:x')")
    await connection.close()


@pytest.fixture
def daemon(server: EmbeddedPostgres) -> Iterator[Daemon]:
    tables = {"virtual_alias_maps": ["view:public.plain"], "transport_maps": ["view:public.plain"]}
    settings: dict[str, Value | Mapping[str, Value]] = {
        "database": {"dsn": server.dsn(), "lookup_deadline": 1.0, "connect_timeout": 1.0},
        "cache": {"ttl": 0.0, "negative_ttl": 0.0, "max_stale": 3600.0, "max_stale_not_found": 0.0},
    }
    with Daemon(settings, tables=tables) as daemon:
        watched = daemon.run_group("schema", "watch", "--dsn", server.dsn())
        assert watched.returncode == 0, watched.stderr
        proven = "mailmaps_mirror_proven", frozenset({"public.plain"})
        assert eventually(lambda: figures(daemon)[proven] == 1, LIMIT)
        yield daemon
    if server.pid is None:
        server.start()


def page(daemon: Daemon, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{daemon.ports['metrics']}{path}"
    try:
        with urllib.request.urlopen(url, timeout=LIMIT) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


Figures = Mapping[tuple[str, frozenset[str]], float]


def figures(daemon: Daemon) -> Figures:
    """By name and the values of the labels, as of now and not of a moment ago."""
    time.sleep(FRESH)
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page(daemon, "/metrics")[1])
        for sample in family.samples
    }


def lookups(found: Figures, table: str) -> tuple[float, ...]:
    """Found, not found, cannot say; hits, misses, stale."""
    results = [
        found["mailmaps_lookups_total", frozenset({table, result})]
        for result in ("found", "not_found", "cannot_say")
    ]
    kinds = [
        found[f"mailmaps_lookup_{kind}_total", frozenset({table})] for kind in ("hits", "misses", "stale")
    ]
    return (*results, *kinds)


def test_every_answer_counts_once_by_whichever_way(daemon: Daemon) -> None:
    for _ in range(3):  # the second and third out of what is kept of the first
        assert daemon.ask("virtual_alias_maps", "known@a.test").startswith("200 ")
        assert daemon.ask("virtual_alias_maps", "nobody@a.test").startswith("500 ")
    with open_inet("127.0.0.1", daemon.ports["socketmap"]) as sock:
        client = SocketmapClient(sock, "virtual_alias_maps")
        assert [client.ask("known@a.test") for _ in range(5)] == [Found("d@x.test")] * 5
        assert client.ask("nobody@a.test") == NOT_FOUND
        for _ in range(2):
            assert isinstance(SocketmapClient(sock, "no_such_table").ask("x"), Unavailable)
    daemon.explain("virtual_alias_maps", "known@a.test")
    assert page(daemon, "/readyz") == (200, "ok\n")
    found = figures(daemon)
    seen = lookups(found, "virtual_alias_maps")
    assert seen[:3] == (8, 4, 0)
    assert seen[3] + seen[4] == 12
    assert lookups(found, "transport_maps") == (0, 0, 0, 0, 0, 0)
    assert found["mailmaps_connections", frozenset({"http"})] == 1
    assert found["mailmaps_connections_accepted_total", frozenset({"tcp_table"})] >= 6
    told = daemon.status()["tables"]["virtual_alias_maps"]
    assert (told["found"], told["not_found"]) == seen[:2]


def test_an_outage_shows_and_a_reload_goes_on_counting(daemon: Daemon, server: EmbeddedPostgres) -> None:
    assert daemon.ask("virtual_alias_maps", "known@a.test").startswith("200 ")
    assert daemon.run("reload").returncode == 0
    server.stop()
    assert eventually(
        lambda: figures(daemon)["mailmaps_database_up", frozenset({"database.dsn"})] == 0, LIMIT
    )
    assert eventually(
        lambda: figures(daemon)["mailmaps_mirror_proven", frozenset({"public.plain"})] == 0, LIMIT
    )
    before = lookups(figures(daemon), "virtual_alias_maps")
    assert before[0] == 1
    assert daemon.ask("virtual_alias_maps", "known@a.test").startswith("200 ")
    assert daemon.ask("virtual_alias_maps", "nobody@a.test").startswith("400 ")
    found = figures(daemon)
    seen = lookups(found, "virtual_alias_maps")
    assert (seen[0] - before[0], seen[1] - before[1], seen[2] - before[2]) == (1, 0, 1)
    assert seen[5] - before[5] == 1  # what was held was said
    assert found["mailmaps_changes_heard", frozenset({"tables"})] == 0
    assert found["mailmaps_reloads_total", frozenset({"ok"})] == 1
    status, text = page(daemon, "/readyz")
    assert status == 503
    assert text.startswith("virtual_alias_maps: ")
    assert page(daemon, "/healthz") == (200, "ok\n")
    daemon.config.write_text(daemon.config.read_text() + "\n[nonsense]\n")
    os.kill(daemon.pid, signal.SIGHUP)
    kept = "mailmaps_reloads_total", frozenset({"kept_old"})
    assert eventually(lambda: figures(daemon)[kept] == 1, LIMIT)
    server.start()
    assert eventually(lambda: page(daemon, "/readyz")[0] == 200, LIMIT)
    assert lookups(figures(daemon), "virtual_alias_maps")[:3] == seen[:3]


def test_a_crowd_leaves_room_for_lookups(daemon: Daemon) -> None:
    with ExitStack() as stack:
        for _ in range(4 * MOST):
            where = ("127.0.0.1", daemon.ports["metrics"])
            stack.enter_context(socket.create_connection(where, timeout=LIMIT))
        assert eventually(lambda: daemon.status()["clients"]["http"]["open"] == MOST, LIMIT)
        assert daemon.ask("virtual_alias_maps", "known@a.test").startswith("200 ")
    assert eventually(lambda: daemon.status()["clients"]["http"]["open"] == 0, LIMIT)
    assert page(daemon, "/healthz") == (200, "ok\n")


@pytest.mark.postfix
def test_prometheus_reads_it(daemon: Daemon, tmp_path: Path) -> None:
    assert daemon.ask("virtual_alias_maps", "known@a.test").startswith("200 ")
    lint = subprocess.run(
        ["promtool", "check", "metrics"], input=page(daemon, "/metrics")[1], text=True, capture_output=True
    )
    ours = [line for line in (lint.stdout + lint.stderr).splitlines() if line.startswith("mailmaps")]
    assert (lint.returncode in (0, 3), ours) == (True, [])  # 3: it dislikes python_gc_objects_collected
    port = steady_ports(1)[0]
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: mailmaps\n  static_configs:\n"
        f'  - targets: ["127.0.0.1:{daemon.ports["metrics"]}"]\n'
    )
    with ExitStack() as stack:
        output = stack.enter_context((tmp_path / "output").open("wb"))
        words = [
            "prometheus",
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        process = subprocess.Popen(words, stdout=output, stderr=output)
        stack.callback(process.wait)
        stack.callback(process.kill)

        def query(words: str) -> list[str]:
            asked = urllib.parse.urlencode({"query": words})
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{asked}") as response:
                    told = json.load(response)
            except OSError:
                return []
            return [one["value"][1] for one in told["data"]["result"]]

        assert eventually(lambda: query('up{job="mailmaps"}') == ["1"], LIMIT), output
        assert query('mailmaps_lookups_total{table="virtual_alias_maps",result="found"}') == ["1"]
        assert query("mailmaps_mirror_proven") == ["1"]


@pytest.mark.postfix
def test_prometheus_can_load_the_alerts_of_the_documentation(tmp_path: Path) -> None:
    text = DOCS.read_text()
    block = re.search(r"^    groups:\n(?:    .*\n)+", text, re.MULTILINE)
    assert block
    rules = tmp_path / "rules.yml"
    rules.write_text(re.sub(r"^    ", "", block[0], flags=re.MULTILINE))
    checked = subprocess.run(["promtool", "check", "rules", str(rules)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    names = set(re.findall(r"mailmaps_\w+", block[0]))
    documented = set(re.findall(r"^\| `(mailmaps\w*)` ", text, re.MULTILINE))
    assert names <= documented
