"""Domains: our own, aliases of these, and domains that are only passed on (relays).

A domain that is disabled waits: its transport is "retry:", so that Postfix takes mail for it and keeps it in
the queue (transport(5), error(8)) for maximal_queue_lifetime, five days unless set otherwise. Nothing
bounces before that, and enabling it delivers all of it. Its accounts log in as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mailmaps.administration import accounts, names
from mailmaps.administration.files import Probe
from mailmaps.administration.numbers import gid_taken
from mailmaps.administration.step import Change, Prepare
from mailmaps.database.administration import CannotWrite
from mailmaps.database.administration_rows import DomainRow, find_domain, free_gid, gid_owner
from mailmaps.maps.address import fold

if TYPE_CHECKING:
    from mailmaps.administration.boxes import Boxes
    from mailmaps.database.administration import Work

HOLD = "retry:4.3.2 mail for this domain is on hold"

_FOLDED = {"domain": "public.domains", "alias": "mailmaps.domain_aliases", "relay": "mailmaps.relays"}
_SAME = 'mailmaps.fold(domain) COLLATE "C" = $1'
_IN_DOMAIN = 'mailmaps.domain_of(mailmaps.fold({column})) COLLATE "C" = $1'


def add(typed: str, transport: str | None, gid: int | None) -> Prepare:
    """One of our own."""
    spelt = names.domain(typed)
    route = names.transport(transport) if transport is not None else "virtual:"

    async def prepare(work: Work, _: Boxes | None) -> Change:
        await _is_new(work, spelt.value)
        if gid is None:
            (number,) = await free_gid(work, gid_taken)
        elif owner := await gid_owner(work, gid):
            raise CannotWrite(f"{gid} {owner}")
        else:
            number = gid
        await work.insert("public.domains", gid=number, domain=spelt.value, transport=route)
        result = {"kind": "domain", "domain": spelt.value, "gid": number, "transport": route}
        said = [f"added the domain {spelt.value} (gid {number}, transport {route})"]
        notes = [*spelt.notes, f"nobody has postmaster@{spelt.value} yet, which every domain must (RFC 5321)"]
        return Change(result, said, notes, probes=[Probe("virtual_mailbox_domains", spelt.value)])

    return prepare


def add_alias(typed: str, target: str) -> Prepare:
    """Every address of `target` is one of the domain too."""
    spelt, of = names.domain(typed), names.domain(target).value

    async def prepare(work: Work, _: Boxes | None) -> Change:
        await _is_new(work, spelt.value)
        row = await find_domain(work, of)
        if row is None or row.kind != "domain":
            is_what = (
                f"is an alias of {row.target}" if row and row.kind == "alias" else "is no domain of ours"
            )
            raise CannotWrite(f"{of} {is_what}")
        await work.insert("mailmaps.domain_aliases", domain=spelt.value, target=row.domain)
        result = {"kind": "alias", "domain": spelt.value, "target": row.domain}
        said = [f"added {spelt.value}: every address of {row.domain} is one of it too"]
        return Change(result, said, [*spelt.notes], probes=[Probe("virtual_mailbox_domains", spelt.value)])

    return prepare


def add_relay(typed: str, transport: str | None, recipients: Sequence[str]) -> Prepare:
    """A domain that is only passed on, to `recipients` (addresses); none: to everybody there."""
    spelt = names.domain(typed, subdomains=True)
    route = names.transport(transport) if transport is not None else "relay:"
    who = [names.address(one) for one in recipients]
    for one in who:
        if names.domain_of(one.value) != spelt.value:
            raise names.BadName(f"{one.value} is not in {spelt.value}")

    async def prepare(work: Work, _: Boxes | None) -> Change:
        await _is_new(work, spelt.value)
        await work.insert("mailmaps.relays", domain=spelt.value, transport=route)
        addresses = [one.value for one in who]
        notes = [*spelt.notes, *(note for one in who for note in one.notes)]
        if not addresses and not spelt.value.startswith("."):
            addresses = [f"@{spelt.value}"]
            notes.append(
                "every address there is taken; what the host behind refuses then bounces to senders that may "
                "be forged: name those that exist with --recipient"
            )
        for address in addresses:
            await work.insert("mailmaps.relay_recipients", address=address)
        result = {"kind": "relay", "domain": spelt.value, "transport": route, "recipients": addresses}
        said = [f"added {spelt.value}, which is passed on by {route}"]
        notes.append(
            "Postfix takes its mail only where relay_domains, relay_recipient_maps, transport_maps are ours "
            "(`mailmaps postfix-config` has the lines)"
        )
        return Change(result, said, notes, probes=[Probe("relay_domains", spelt.value)])

    return prepare


def show(typed: str) -> Prepare:
    """What there is of it. Nothing is written."""
    spelt = names.domain(typed, subdomains=True)

    async def prepare(work: Work, _: Boxes | None) -> Change:
        row = await _there(work, spelt.value)
        return Change({**_object(row), **await _counts(work, row)})

    return prepare


def disable(typed: str) -> Prepare:
    """Have its mail wait."""
    spelt = names.domain(typed, subdomains=True)

    async def prepare(work: Work, _: Boxes | None) -> Change:
        row = await _there(work, spelt.value)
        if row.kind == "alias":
            raise CannotWrite(
                f"{row.domain} is an alias of {row.target}, where its mail goes: disable that, or remove it"
            )
        if row.held is not None:
            return Change(_object(row), [f"{row.domain} was disabled already"])
        await work.insert("mailmaps.disabled_domains", domain=row.domain, transport=row.transport)
        await work.update(_FOLDED[row.kind], {"transport": HOLD}, _SAME, spelt.value)
        said = [
            f"disabled {row.domain}: its mail waits in Postfix's queue, as long as maximal_queue_lifetime "
            "says (5 days unless set), and bounces after that; enable it before"
        ]
        result = _object(row) | {"disabled": True}
        return Change(result, said, probes=[Probe("transport_maps", spelt.value, value=HOLD)])

    return prepare


def enable(typed: str) -> Prepare:
    """Have its mail delivered again."""
    spelt = names.domain(typed, subdomains=True)

    async def prepare(work: Work, _: Boxes | None) -> Change:
        row = await _there(work, spelt.value)
        if row.held is None:
            return Change(_object(row), [f"{row.domain} was not disabled"])
        await work.delete("mailmaps.disabled_domains", _SAME, spelt.value)
        notes = []
        if row.transport == HOLD:
            await work.update(_FOLDED[row.kind], {"transport": row.held}, _SAME, spelt.value)
            probes = [Probe("transport_maps", spelt.value, value=row.held)] if row.held != "virtual:" else []
        else:
            probes = []
            notes.append(f"its transport was changed to {row.transport} meanwhile, and stays that")
        said = [f"enabled {row.domain}; `postqueue -s {row.domain}` delivers what waits at once"]
        return Change(_object(row) | {"disabled": False}, said, notes, probes=probes)

    return prepare


def remove(typed: str, *, with_accounts: bool, with_mail: bool) -> Prepare:
    """Remove it, with all addresses and forwards there. Accounts only `with_accounts`."""
    spelt = names.domain(typed, subdomains=True)

    async def prepare(work: Work, boxes: Boxes | None) -> Change:
        row = await _there(work, spelt.value)
        change = Change(_object(row))
        counts = await _counts(work, row)
        await work.delete("mailmaps.disabled_domains", _SAME, spelt.value)
        if row.kind == "relay":
            where = _IN_DOMAIN.format(column="address")
            await work.delete("mailmaps.relay_recipients", where, spelt.value)
            change.probes.append(Probe("relay_domains", spelt.value, there=False))
        if row.kind == "domain":
            if counts["accounts"] and not with_accounts:
                raise CannotWrite(
                    f"{row.domain} has {counts['accounts']} accounts: remove them, or say --with-accounts"
                )
            await accounts.remove_all(work, boxes, change, row.gid, with_mail=with_mail)
            for (alias,) in await work.fetch(
                "SELECT domain FROM mailmaps.domain_aliases WHERE target = $1 ORDER BY 1", row.domain
            ):
                await _remove_addresses(work, change, fold(alias))
                await work.delete("mailmaps.domain_aliases", "domain = $1", alias)
                change.said.append(f"removed its alias {alias}")
        # Also of a domain that was passed on, or an alias: what stayed would be mail that others are sent.
        await _remove_addresses(work, change, spelt.value)
        await work.delete(_FOLDED[row.kind], _SAME, spelt.value)
        if row.kind != "relay":
            change.probes.append(Probe("virtual_mailbox_domains", spelt.value, there=False))
        change.said.append(f"removed the domain {row.domain}")
        change.result |= {"removed": True, **counts}
        leading = await work.value(
            f"SELECT count(*) FROM mailmaps.forwards WHERE {_IN_DOMAIN.format(column='target')}",  # noqa: S608
            spelt.value,
        )
        if leading:
            change.notes.append(
                f"{leading} forwards elsewhere lead to {row.domain}: that mail leaves for another host now "
                f"(`mailmaps forward list --like '%@{row.domain}'`)"
            )
        return change

    return prepare


async def _remove_addresses(work: Work, change: Change, domain: str) -> None:
    """Those of other domains' accounts, and forwards."""
    where = _IN_DOMAIN.format(column="alias")
    for record in await work.fetch(
        f"SELECT username, alias FROM public.user_addresses WHERE {where} ORDER BY 2",  # noqa: S608
        domain,
    ):
        change.said.append(f"removed the address {record['alias']} of {record['username']}, who stays")
    emails = await work.fetch(
        "SELECT username FROM public.user_accounts WHERE " + _IN_DOMAIN.format(column="email") + " LIMIT 1",  # noqa: S608
        domain,
    )
    if emails:
        raise CannotWrite(
            f"{emails[0]['username']}, of another domain, has its email there: remove it, or change that"
        )
    await work.delete("public.user_addresses", where, domain)
    await work.delete("mailmaps.disabled_addresses", where, domain)
    where = _IN_DOMAIN.format(column="address")
    forwards = await work.delete("mailmaps.forwards", where, domain)
    forwards += await work.delete("mailmaps.disabled_forwards", where, domain)
    if forwards:
        change.said.append(f"removed {forwards} targets of forwards there")


async def _is_new(work: Work, domain: str) -> None:
    row = await find_domain(work, domain)
    if row is not None:
        what = {"domain": "a domain of ours", "alias": f"an alias of {row.target}", "relay": "a relay domain"}
        raise CannotWrite(f"{row.domain} is {what[row.kind]} already")


async def _there(work: Work, domain: str) -> DomainRow:
    row = await find_domain(work, domain)
    if row is None:
        raise CannotWrite(f"there is no domain {domain}")
    return row


def _object(row: DomainRow) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": row.kind, "domain": row.domain}
    if row.kind == "alias":
        return found | {"target": row.target}
    transport = row.transport if row.held is None or row.transport != HOLD else row.held
    if row.kind == "domain":
        found["gid"] = row.gid
    return found | {"transport": transport, "disabled": row.held is not None}


async def _counts(work: Work, row: DomainRow) -> dict[str, int]:
    query = f"""SELECT (SELECT count(*) FROM public.user_accounts WHERE gid = $2) AS accounts,
       (SELECT count(*) FROM public.user_addresses WHERE {_IN_DOMAIN.format(column="alias")}) AS addresses,
       (SELECT count(*) FROM mailmaps.forwards WHERE {_IN_DOMAIN.format(column="address")}) AS forwards,
       (SELECT count(*) FROM mailmaps.domain_aliases WHERE target = $3) AS aliases, (SELECT count(*) FROM
       mailmaps.relay_recipients WHERE {_IN_DOMAIN.format(column="address")}) AS recipients
    """  # noqa: S608  # names are ours
    (record,) = await work.fetch(query, fold(row.domain), row.gid, row.domain)
    return dict(record)
