"""The Postfixes of one site with one choice of settings, and the daemon that two of them ask.

Contract: `Instances` has `postfixes` by name: A asks PostgreSQL itself, B mailmaps by tcp, C mailmaps by
socketmap. Where mailmaps has views, there is D: it reads lmdb: files that `mailmaps filemaps` has written
once from the same mailmaps.toml, with the `.queued` file for cleanup(8). Nothing else differs: main.cf, files
and database are the same, and all mail ends at the same sinks. All is gone after `async with`.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

import asyncpg
from tests.system.daemon import Daemon, Value
from tests.system.differential.settings import Settings
from tests.system.differential.sink import Sinks
from tests.system.postfix import SEARCH_PATH, PrivatePostfix
from tests.system.sasl_stub import SaslStub
from tests.system.sites import SERVICES, Login, Site

SINKS = (*SERVICES, "local", "default", "second", "other", "star", "relayhost")

SESSIONS = 2
"""SMTP sessions at a time on each Postfix: two cores have no more to give."""

SMTPD_LIMIT, REWRITE_LIMIT = SESSIONS + 1, 2
"""Each process of A has a connection for each `.cf` file that it reads, at most 9 with iRedMail's. There are
as many cleanup(8) as smtpd(8), so that is below the 100 that PostgreSQL takes."""

FILES = "files"
"""The folder of D's files, beside its main.cf."""

TROUBLE = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b", re.IGNORECASE)
"""Lines of the daemon's log that no healthy one writes."""
SHOWN = 5
"""Complaints of each that are shown."""

MASTER_CF = """\
127.0.0.1:{port} inet n - n - {smtpd_limit} smtpd
cleanup  unix  n  -  n  -    0  cleanup {cleanup_options}
qmgr     unix  n  -  n  300  1  qmgr
rewrite  unix  -  -  n  -    {rewrite_limit}  trivial-rewrite
bounce   unix  -  -  n  -    0  bounce
defer    unix  -  -  n  -    0  bounce
trace    unix  -  -  n  -    0  bounce
pickup   unix  n  -  n  60   1  pickup
flush    unix  n  -  n  1000? 0 flush
lmtp     unix  -  -  n  -    -  lmtp
error    unix  -  -  n  -    -  error
retry    unix  -  -  n  -    -  error
postlog  unix-dgram n - n -  1  postlogd
"""


@dataclass(frozen=True)
class Bench:
    """What all sites and settings share."""

    sinks: Sinks
    sasl: SaslStub
    mail_version: str


class SitePostfix(PrivatePostfix):
    """A private Postfix with the transports that the rows name, each an LMTP client."""

    def __init__(
        self, settings: Mapping[str, str], ports: Mapping[str, int], cleanup: Mapping[str, str] | None = None
    ) -> None:
        """`cleanup` are settings of cleanup(8) alone."""
        super().__init__(settings)
        self._ports = ports
        self.cleanup = dict(cleanup or {})

    def configure(self, settings: Mapping[str, str]) -> None:
        super().configure(settings)
        services = [f"{name} unix - - n - - lmtp -o lmtp_tcp_port={self._ports[name]}" for name in SERVICES]
        options = " ".join(f"-o {name}={value}" for name, value in self.cleanup.items())
        text = MASTER_CF.format(
            port=self.port,
            smtpd_limit=SMTPD_LIMIT,
            rewrite_limit=REWRITE_LIMIT,
            cleanup_options=options,
        )
        self.write("master.cf", text + "\n".join(services) + "\n")


class Instances:
    """A, B and C, and D if the site has views.

    `named` is what `mailmaps filemaps` says of keys that are not in D's files as the database has them.
    """

    def __init__(
        self, bench: Bench, site: Site, dsn: str, settings: Settings, daemon_settings: Settings | None = None
    ) -> None:
        """`daemon_settings` are the settings that mailmaps is told, when these are to be wrong."""
        self.site = site
        self.settings = settings
        main_cf = {**_main_cf(bench), **settings.main_cf(), **site.main_cf}
        ports = bench.sinks.ports
        fixed = SitePostfix(main_cf, ports)
        for name in site.files:
            fixed.write(name, site.file(name, _login(dsn)))
        paths = {
            table: [f"pgsql:{fixed.folder}/{name}" for name in site.sources(table)] for table in site.tables
        }
        fixed.settings |= {table: site.main_cf_value(table, items) for table, items in paths.items()}
        files = SitePostfix(main_cf, ports)
        self.daemon = Daemon(
            _daemon(bench, daemon_settings or settings, dsn, files.folder / FILES if site.views else None),
            tables=site.views or paths,
        )
        by_network = {
            map_type: {
                table: site.main_cf_value(table, [self.daemon.map(map_type, table)]) for table in paths
            }
            for map_type in ("tcp", "socketmap")
        }
        self.postfixes = {
            "A": fixed,
            "B": SitePostfix({**main_cf, **by_network["tcp"]}, ports),
            "C": SitePostfix({**main_cf, **by_network["socketmap"]}, ports),
        }
        self.named: list[str] = []
        self._dsn = dsn
        if site.views:
            read = {table: f"lmdb:{files.folder}/{FILES}/{table}" for table in paths}
            files.settings |= {table: site.main_cf_value(table, [item]) for table, item in read.items()}
            files.cleanup = {"virtual_alias_maps": f"{read['virtual_alias_maps']}.queued"}
            self.postfixes["D"] = files

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.callback(self.daemon.close)
            for postfix in self.postfixes.values():
                stack.push_async_exit(postfix)
            await self._adapt()
            await asyncio.to_thread(self.daemon.start)
            if "D" in self.postfixes:
                await asyncio.to_thread(self._write_files)
            await asyncio.gather(*(postfix.__aenter__() for postfix in self.postfixes.values()))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def _adapt(self) -> None:
        """Have the schema know the settings that its views need."""
        if self.site.adapt is None:
            return
        connection = await asyncpg.connect(self._dsn)
        try:
            await self.site.adapt(
                connection, self.settings.recipient_delimiter, self.settings.owner_request_special
            )
        finally:
            await connection.close()

    def _write_files(self) -> None:
        done = self.daemon.run("filemaps")
        self.named = done.stderr.splitlines()
        if done.returncode != (1 if self.named else 0):
            raise RuntimeError(f"mailmaps filemaps: exit code {done.returncode}\n{done.stdout}{done.stderr}")

    def explain(self, address: str) -> str:
        """What mailmaps says about an address: for each table the candidates and the answer."""
        domain = address.rpartition("@")[2]
        keys = {table: domain if table.endswith("_domains") else address for table in self.site.tables}
        keys["virtual_alias_maps, for a domain"] = domain
        return "\n".join(f"  {name}: {self._explain(name, key)}" for name, key in keys.items())

    def complaints(self) -> str:
        """What the daemon and the Postfixes have complained of last."""
        said = {"mailmaps": [line for line in self.daemon.log().splitlines() if TROUBLE.search(line)]}
        said |= {name: postfix.complaints() for name, postfix in self.postfixes.items()}
        return "\n".join(f"  {name}: {line}" for name, lines in said.items() for line in lines[-SHOWN:])

    def _explain(self, name: str, key: str) -> str:
        told = self.daemon.explain(name.partition(",")[0], key)
        if "error" in told:
            return f"{key!r}: {told['error']}"
        answer = " ".join(filter(None, (told["answer"], told["value"], told["reason"])))
        return f"{key!r} asks {told['candidates']}: {answer}"

    async def drained(self) -> None:
        """Wait until nobody has mail to deliver. Raises `AssertionError` with the log of who still does."""
        await asyncio.gather(*(self._drained(name) for name in self.postfixes))

    async def _drained(self, name: str) -> None:
        try:
            await self.postfixes[name].drained()
        except AssertionError as error:
            raise AssertionError(f"{name}, which the others may not be: {error}") from None


def mail_version() -> str:
    """The version of the Postfix that is installed."""
    words = ["postconf", "-h", "mail_version"]
    done = subprocess.run(words, env={"PATH": SEARCH_PATH}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def speaks_utf8(version: str) -> bool:
    """Whether this Postfix's `pgsql:` speaks UTF-8; before 3.8 it is LATIN1 (RELEASE_NOTES-3.8)."""
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= (3, 8)


def _main_cf(bench: Bench) -> dict[str, str]:
    sink = {name: f"lmtp:inet:127.0.0.1:{port}" for name, port in bench.sinks.ports.items()}
    return {
        **bench.sasl.settings,
        "virtual_transport": sink["virtual"],
        "local_transport": sink["local"],
        "relay_transport": sink["relay"],
        # Without a host, so that sender_dependent_relayhost_maps has a say (trivial-rewrite/resolve.c).
        "default_transport": "lmtp",
        "relayhost": f"[127.0.0.1]:{bench.sinks.ports['default']}",
        "local_recipient_maps": "",
        "smtpd_relay_restrictions": "permit_sasl_authenticated, reject_unauth_destination",
        # a@b@c is refused as a relay attempt otherwise, and would not reach a table.
        "allow_untrusted_routing": "yes",
        "lmtp_host_lookup": "native",
        # No notice to the postmaster about a message that could not be queued.
        "notify_classes": "",
        "max_use": "1000",
    }


def _daemon(
    bench: Bench, settings: Settings, dsn: str, files: Path | None
) -> dict[str, Mapping[str, Value] | Value]:
    """mailmaps.toml; `files` is where they are written, where there are any."""
    rules: dict[str, Mapping[str, Value] | Value] = {
        "postfix": {**settings.rules(), "mail_version": bench.mail_version}
    }
    if files is None:
        return rules
    return {**rules, "database": {"dsn": dsn}, "filemaps": {"directory": str(files), "type": "lmdb"}}


def _login(dsn: str) -> Login:
    parts = urlsplit(dsn)
    hosts = f"{parts.hostname}:{parts.port}"
    return Login(hosts, unquote(parts.username or ""), unquote(parts.password or ""), parts.path[1:])
