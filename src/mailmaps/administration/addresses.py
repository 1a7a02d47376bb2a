"""Addresses of accounts, and forwards.

One that is disabled is put aside with whose it is: to Postfix it is not there (a catch-all of the domain
then gets its mail, which is said), and nobody else can take it by these commands meanwhile. An account's own
email is not disabled alone: that is what the account's `disable` is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mailmaps.administration import names
from mailmaps.administration.accounts import may_have, there
from mailmaps.administration.circle import circle
from mailmaps.administration.files import Probe
from mailmaps.administration.step import Change, Prepare
from mailmaps.database.administration import CannotWrite
from mailmaps.database.administration_rows import find_domain, holders

if TYPE_CHECKING:
    from mailmaps.administration.boxes import Boxes
    from mailmaps.administration.names import Spelt
    from mailmaps.database.administration import Work

_FOLDED = 'mailmaps.fold({column}) COLLATE "C" = $1'
_ALIAS = _FOLDED.format(column="alias")
_OFF = _FOLDED.format(column="address")


def add(typed: str, addresses: Sequence[str]) -> Prepare:
    """Give an account more addresses, or all others of a domain (@domain)."""
    username, more = names.username(typed), [names.address(one) for one in addresses]

    async def prepare(work: Work, _: Boxes | None) -> Change:
        account = await there(work, username.value)
        change = Change({"username": account["username"], "addresses": []}, notes=_notes(more))
        for one in more:
            change.notes += await may_have(work, one.value, account["username"])
            await work.insert("public.user_addresses", username=account["username"], alias=one.value)
            change.result["addresses"].append(one.value)
            change.said.append(f"{one.value} is an address of {account['username']}")
            change.probes.append(Probe("virtual_alias_maps", one.value))
        return change

    return prepare


def show(typed: str) -> Prepare:
    """Whose it is. Nothing is written."""
    spelt = names.address(typed)

    async def prepare(work: Work, _: Boxes | None) -> Change:
        found = [one for one in await holders(work, spelt.value) if one.kind != "username"]
        if not found:
            raise CannotWrite(f"{spelt.value} is an address of no account")
        kinds = {one.kind for one in found}
        result = {
            "address": found[0].name,
            "username": found[0].whose,
            "own": "email" in kinds,
            "disabled": kinds == {"disabled address"},
            "forwards": await _targets(work, "mailmaps.forwards", spelt.value),
        }
        return Change(result)

    return prepare


def remove(addresses: Sequence[str]) -> Prepare:
    """Take addresses from their accounts."""
    return _each(addresses, _remove)


def disable(addresses: Sequence[str]) -> Prepare:
    """Have addresses not be there, for now."""
    return _each(addresses, _disable)


def enable(addresses: Sequence[str]) -> Prepare:
    """Have them back."""
    return _each(addresses, _enable)


def _each(typed: Sequence[str], do: Any) -> Prepare:
    spelt = [names.address(one) for one in typed]

    async def prepare(work: Work, _: Boxes | None) -> Change:
        change = Change({"addresses": [one.value for one in spelt]}, notes=_notes(spelt))
        for one in spelt:
            await do(work, change, one.value)
        return change

    return prepare


async def _listed(work: Work, address: str) -> tuple[str, str]:
    """Whose it is, and how it is written. Raises `CannotWrite`: nobody's, or the account's own."""
    found = await holders(work, address)
    listed = [one for one in found if one.kind == "address"]
    for own in (one for one in found if one.kind == "email"):
        raise CannotWrite(
            f"{own.name} is where the mail of {own.whose} goes: disable or remove the account as a whole"
        )
    if not listed:
        held = "; it is disabled" if any(one.kind == "disabled address" for one in found) else ""
        raise CannotWrite(f"{address} is an address of no account{held}")
    return listed[0].whose, listed[0].name


async def _remove(work: Work, change: Change, address: str) -> None:
    if await work.delete("mailmaps.disabled_addresses", _ALIAS, address):
        change.said.append(f"removed {address}, which was disabled")
        return
    whose, written = await _listed(work, address)
    await work.delete("public.user_addresses", _ALIAS, address)
    change.said.append(f"removed {written} from {whose}")
    await _gone(work, change, address)


async def _disable(work: Work, change: Change, address: str) -> None:
    if await work.value(f"SELECT true FROM mailmaps.disabled_addresses WHERE {_ALIAS}", address):  # noqa: S608
        change.said.append(f"{address} was disabled already")
        return
    whose, written = await _listed(work, address)
    await work.delete("public.user_addresses", _ALIAS, address)
    await work.insert("mailmaps.disabled_addresses", alias=written, username=whose)
    change.said.append(f"disabled {written} of {whose}")
    await _gone(work, change, address)


async def _enable(work: Work, change: Change, address: str) -> None:
    records = await work.fetch(
        f"SELECT alias, username FROM mailmaps.disabled_addresses WHERE {_ALIAS}",  # noqa: S608
        address,
    )
    if not records:
        raise CannotWrite(f"{address} is no address that is disabled")
    alias, username = records[0]
    await work.delete("mailmaps.disabled_addresses", _ALIAS, address)
    account = await work.fetch("SELECT 1 FROM public.user_accounts WHERE username = $1", username)
    if not account:
        raise CannotWrite(f"{alias} was an address of {username}, who is gone: remove it")
    change.notes += await may_have(work, address, username)
    await work.insert("public.user_addresses", username=username, alias=alias)
    change.said.append(f"enabled {alias} of {username}")
    change.probes.append(Probe("virtual_alias_maps", address))


async def _gone(work: Work, change: Change, address: str) -> None:
    """Say who gets its mail now; it is refused if that is nobody."""
    domain = f"@{names.domain_of(address)}"
    if address != domain and await _targets(work, "mailmaps.forwards", address):
        change.notes.append(f"there is a forward of {address}, which goes on")
        return
    whose = [one.whose for one in await holders(work, domain) if one.kind == "address"]
    whose += await _targets(work, "mailmaps.forwards", domain)
    if whose and address != domain:
        change.notes.append(f"mail for {address} now goes to the catch-all {domain}: {', '.join(whose)}")
    else:
        change.probes.append(Probe("virtual_alias_maps", address, there=False))


def add_forward(typed: str, targets: Sequence[str]) -> Prepare:
    """Have mail for an address go to these as well."""
    address, to = names.address(typed), [names.address(one) for one in targets]

    async def prepare(work: Work, _: Boxes | None) -> Change:
        domain = await find_domain(work, names.domain_of(address.value))
        if domain is None:
            raise CannotWrite(
                f"{address.value}: {names.domain_of(address.value)} is no domain of ours, nor one we pass on"
            )
        change = Change({"address": address.value}, notes=_notes([address, *to]))
        for one in to:
            await _add_target(work, change, address.value, one.value)
        await _no_circle(work, address.value)
        for holder in await holders(work, address.value):
            if holder.kind == "disabled address":
                change.notes.append(f"{holder}")
            elif holder.kind != "username":
                change.notes.append(f"{holder}: the mailbox keeps a copy")
                break
        change.result["targets"] = await _targets(work, "mailmaps.forwards", address.value)
        return change

    return prepare


async def _add_target(work: Work, change: Change, address: str, target: str) -> None:
    if address == target:
        raise CannotWrite(f"{address} to itself: a mailbox keeps its copy without that")
    if target in await _targets(work, "mailmaps.forwards", address):
        change.said.append(f"{address} went to {target} already")
        return
    await work.delete("mailmaps.disabled_forwards", f"{_OFF} AND target = $2", address, target)
    await work.insert("mailmaps.forwards", address=address, target=target)
    change.said.append(f"{address} goes to {target}")
    domain = await find_domain(work, names.domain_of(target))
    is_ours = domain is not None and domain.kind != "relay" and target[0] != "@"
    if is_ours and not await work.value("SELECT mailmaps.can_receive($1)", target):
        change.notes.append(f"nobody gets mail for {target}, so this target does not count")
        return
    change.probes.append(Probe("virtual_alias_maps", address))


async def _no_circle(work: Work, address: str) -> None:
    if way := await circle(work, address):
        raise CannotWrite(f"a circle, which no mail gets out of: {' -> '.join(way)}")


def show_forward(typed: str) -> Prepare:
    """Where it goes. Nothing is written."""
    spelt = names.address(typed)

    async def prepare(work: Work, _: Boxes | None) -> Change:
        on = await _targets(work, "mailmaps.forwards", spelt.value)
        off = await _targets(work, "mailmaps.disabled_forwards", spelt.value)
        if not on and not off:
            raise CannotWrite(f"there is no forward of {spelt.value}")
        return Change({"address": spelt.value, "targets": on, "disabled_targets": off})

    return prepare


def remove_forward(typed: str, targets: Sequence[str]) -> Prepare:
    """Remove these targets, or all."""
    return _move(typed, targets, "mailmaps.forwards", None, "removed")


def disable_forward(typed: str, targets: Sequence[str]) -> Prepare:
    """Put these targets aside, or all."""
    return _move(typed, targets, "mailmaps.forwards", "mailmaps.disabled_forwards", "disabled")


def enable_forward(typed: str, targets: Sequence[str]) -> Prepare:
    """Have them back."""
    return _move(typed, targets, "mailmaps.disabled_forwards", "mailmaps.forwards", "enabled")


def _move(typed: str, targets: Sequence[str], source: str, goal: str | None, word: str) -> Prepare:
    spelt, some = names.address(typed), [names.address(one).value for one in targets]

    async def prepare(work: Work, _: Boxes | None) -> Change:
        there_now = await _targets(work, source, spelt.value)
        both = [*there_now, *(await _targets(work, "mailmaps.disabled_forwards", spelt.value))]
        wanted = some or (both if word == "removed" else there_now)
        if missing := [one for one in wanted if one not in both]:
            raise CannotWrite(f"{spelt.value} does not go to {', '.join(missing)}")
        if not wanted:
            state = {"enabled": "disabled", "disabled": "enabled"}.get(word, "there")
            raise CannotWrite(f"no forward of {spelt.value} is {state}")
        change = Change({"address": spelt.value, word: wanted}, notes=list(spelt.notes))
        for target in wanted:
            for table in (source, "mailmaps.disabled_forwards") if goal is None else (source,):
                await work.delete(table, f"{_OFF} AND target = $2", spelt.value, target)
            if goal is not None:
                await work.insert(goal, address=spelt.value, target=target)
            change.said.append(f"{word} {spelt.value} to {target}")
        if word == "enabled":
            await _no_circle(work, spelt.value)
        if not await _targets(work, "mailmaps.forwards", spelt.value):
            await _forward_gone(work, change, spelt.value)
        return change

    return prepare


async def _forward_gone(work: Work, change: Change, address: str) -> None:
    found = [one for one in await holders(work, address) if one.kind in ("address", "email")]
    if found:
        change.notes.append(f"mail for {address} goes to the mailbox of {found[0].whose} alone now")
    else:
        await _gone(work, change, address)


async def _targets(work: Work, table: str, address: str) -> list[str]:
    records = await work.fetch(
        f"SELECT target FROM {table} WHERE {_OFF} ORDER BY 1",  # noqa: S608  # ours
        address,
    )
    return [record["target"] for record in records]


def _notes(spelt: Sequence[Spelt]) -> list[str]:
    return [note for one in spelt for note in one.notes]
