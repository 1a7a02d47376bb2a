"""The tables that main.cf names, for `mailmaps check`: is each asked where it is, by who may, and alone?

Opening a network table never fails (dict_tcp.c, dict_sockmap.c), so a wrong port shows only when mail comes,
and then mail waits or bounces. `postfix check` and `postmap -q` see nothing of all this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mailmaps.cli.main_cf import LOOPBACK, Endpoints, Reader, listens
from mailmaps.cli.our_tables import WORD, OurTable, OurTables
from mailmaps.cli.postfix import FILE_TYPES
from mailmaps.config import Settings
from mailmaps.findings import Finding, Level
from mailmaps.maps.tables import KINDS

# Parameters whose default is another parameter's tables, and which are right to ask there (postconf(5)).
_SAME = {
    "address_verify_transport_maps": "transport_maps",
    "fast_flush_domains": "relay_domains",
}

# What local(8) refuses to have from the network (local.c:914, mailbox.c:341).
_OF_LOCAL = ("alias_maps", "mailbox_command_maps")


def table_list_findings(settings: Settings, readers: Sequence[Reader]) -> list[Finding]:
    """What is wrong with the lists of tables of any service."""
    endpoints, ours = Endpoints(settings), OurTables(settings)
    findings: list[Finding] = []
    for reader in readers:
        findings += _refused_by_local(reader)
        findings += _left_at_default(reader, ours, settings)
        findings += _mixed(reader, endpoints)
        findings += _by_proxy(reader)
        findings += _at_another(reader, ours)
    return findings + list(_nobody_listens(settings, readers, endpoints))


def _lists(reader: Reader) -> Iterator[tuple[str, str]]:
    """The parameters that name tables of addresses or domains, with their tables, where somebody set them."""
    for name in reader.written:
        if name in KINDS:
            yield name, reader.values.get(name, "")


def _refused_by_local(reader: Reader) -> Iterator[Finding]:
    if reader.program != "local":
        return
    for parameter in _OF_LOCAL:
        if tables := Endpoints.any_in(reader.values.get(parameter, "")):
            yield Finding(
                Level.ERROR,
                reader.service,
                f"{parameter} has {tables[0]}, which local(8) refuses: mail for local users is deferred",
                f"{parameter} stays a file (postalias)",
            )


def _left_at_default(reader: Reader, ours: OurTables, settings: Settings) -> Iterator[Finding]:
    """Their defaults are $virtual_alias_maps and $virtual_mailbox_maps (mail_params.h:489, 2755)."""
    if reader.program != "trivial-rewrite":  # who asks for domains (resolve.c:489-558)
        return
    written = reader.written.get("virtual_alias_domains")
    tables = [
        one
        for one in ours.in_value(reader.values.get("virtual_alias_domains", ""))
        if one.parameter == "virtual_alias_maps"
    ]
    if tables and (written is None or "$" in written):
        exactly = [
            source
            for one in settings.tables.values()
            if one.parameter == "virtual_alias_maps"
            for source in one.sources
            if source != "builtin"
        ]
        risk = f"; a row of {exactly[0]} whose key is a domain makes it one" if exactly else ""
        so = "is not set" if written is None else f"is {written}"
        yield Finding(
            Level.WARNING,
            "postfix virtual_alias_domains",
            f"{so}, so Postfix asks {tables[0].word} about every domain, whether it is a virtual alias "
            f"domain{risk}",
            "postconf -e virtual_alias_domains=",
        )
    if "virtual_mailbox_domains" not in reader.written and (
        tables := ours.in_value(reader.values.get("virtual_mailbox_maps", ""))
    ):
        yield Finding(
            Level.ERROR,
            "postfix virtual_mailbox_domains",
            f"is not set, so Postfix asks {tables[0].word}, which has addresses: no domain of ours is known, "
            "and mail for it is refused",
            "mailmaps postfix-config prints the line",
        )


def _mixed(reader: Reader, endpoints: Endpoints) -> Iterator[Finding]:
    """A network table is asked for the whole address only, its neighbours for each part (maps.c:187)."""
    for parameter, value in _lists(reader):
        if not parameter.endswith("_maps"):
            continue
        tables = WORD.findall(value)
        ours = [table for table in tables if endpoints.ours_in(table)]
        others = [table for table in tables if table not in ours]
        if ours and others:
            yield Finding(
                Level.WARNING,
                reader.service,
                f"{parameter} has {others[0]} beside ours: where ours has a catch-all, it counts before what "
                "the other has for an address without its extension",
                f"{parameter} = {ours[0]} alone; what the other knows belongs into one of its sources",
            )


def _by_proxy(reader: Reader) -> Iterator[Finding]:
    for parameter, value in _lists(reader):
        if found := re.search(r"\bproxy:((?:tcp|socketmap):[^\s,{}]+)", value):
            yield Finding(
                Level.WARNING,
                reader.service,
                f"{parameter} asks by proxymap(8), which serves one client after the other: a daemon that is "
                "away then stalls all of Postfix",
                f"{parameter} = {found[1]}",
            )


def _at_another(reader: Reader, ours: OurTables) -> Iterator[Finding]:
    """A table asked at the port, by the name, or in the file of another table."""
    for parameter, value in _lists(reader):
        if "$" in reader.written[parameter] and parameter != "virtual_mailbox_domains":
            continue  # another's tables on purpose
        for table in ours.in_value(value):
            if not table.name and _is_file(table):
                continue  # a file that nobody writes (`postfix_checks`)
            if not table.name:
                _, _, name = table.word.rpartition(":")
                what = "has another protocol there" if "tcp:" in table.word else f"has no table {name}"
                yield Finding(
                    Level.ERROR,
                    reader.service,
                    f"{parameter} asks {table.word}, and mailmaps {what}: mail waits",
                    "mailmaps postfix-config prints the right lines",
                )
            elif table.parameter != _SAME.get(parameter, parameter) and table.name != parameter:
                yield Finding(
                    Level.ERROR,
                    reader.service,
                    f"{parameter} asks {table.word}, which is {table.name}: its answers mean something else",
                    "mailmaps postfix-config prints the right lines",
                )


def _is_file(table: OurTable) -> bool:
    return table.word.removeprefix("proxy:").startswith(tuple(f"{kind}:" for kind in FILE_TYPES))


def _nobody_listens(settings: Settings, readers: Sequence[Reader], endpoints: Endpoints) -> Iterator[Finding]:
    """Network tables on this machine that are none of ours, and nobody's."""
    seen: set[str] = set()
    for reader in readers:
        for parameter, value in _lists(reader):
            for table in Endpoints.any_in(value):
                where = _inet(table)
                if not where or where in seen or endpoints.is_ours(table):
                    continue
                seen.add(where)
                host, _, port = where.rpartition(":")
                if host in LOOPBACK and not listens(host.strip("[]"), int(port)):
                    yield Finding(
                        Level.ERROR,
                        reader.service,
                        f"{parameter} asks {table}, where nobody listens, and mailmaps does not either: "
                        "mail waits",
                        "mailmaps postfix-config prints the right lines",
                    )


def _inet(table: str) -> str:
    """HOST:PORT of a network table; empty for a unix socket, and for what is no address."""
    family, _, rest = table.partition(":")
    if family == "socketmap":
        kind, _, rest = rest.partition(":")
        rest = rest.rpartition(":")[0] if kind == "inet" else ""
    host, _, port = rest.rpartition(":")
    return rest if host and port.isdecimal() and int(port) < 1 << 16 else ""
