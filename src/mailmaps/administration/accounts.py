"""Accounts: who logs in, and where the mail goes.

Whoever comes later must not read what an account left behind. So numbers are never given twice (a table
remembers the old ones), and a mailbox that was somebody's, or that has mail on disk, goes to a new account
only where the postmaster says so (`adopt`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailmaps.administration import names
from mailmaps.administration.files import Probe
from mailmaps.administration.numbers import uid_taken
from mailmaps.administration.step import Change, NewBox, Prepare
from mailmaps.database.administration import CannotWrite
from mailmaps.database.administration_rows import (
    DomainRow,
    Holder,
    find_account,
    find_domain,
    former_owner,
    free_uid,
    holders,
    honours_active,
    uid_owner,
)
from mailmaps.maps.address import fold

if TYPE_CHECKING:
    from mailmaps.administration.boxes import Boxes
    from mailmaps.database.administration import Record, Work

RIGHTS = ("imap", "pop3", "smtp", "sieve", "receive")

_NOT_HONOURED = (
    "`active` is not honoured here, so nobody can be disabled: set database.honour_active = true and run "
    "`mailmaps schema upgrade`, which says whom that would hit"
)


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What is asked for. `password` is a hash, None: nobody logs in. `rights` has those that are off."""

    username: str
    email: str
    password: str | None
    addresses: Sequence[str] = ()
    mailbox: str | None = None
    quota: int = 0
    uid: int | None = None
    without: Sequence[str] = ()
    adopt: bool = False
    folder: bool = False


def add(new: NewAccount, minimum_uid: int) -> Prepare:
    """Make it, with its addresses and its mailbox folder."""
    username, email = names.username(new.username), names.address(new.email, catch_all=False)
    more = [names.address(one) for one in new.addresses]
    path = names.mailbox(new.mailbox) if new.mailbox is not None else names.mailbox_of(email.value)
    if new.uid is not None and new.uid < max(minimum_uid, 1):
        raise names.BadName(f"the uid {new.uid} is below postfix.virtual_minimum_uid ({minimum_uid})")

    async def prepare(work: Work, boxes: Boxes | None) -> Change:
        domain = await _domain_for(work, username.value, email.value)
        notes = [note for one in (username, email, *more) for note in one.notes]
        every = list(dict.fromkeys([email.value, *(one.value for one in more)]))
        for address in every:
            notes += await may_have(work, address, username.value)
        uid = await _uid(work, boxes, new, path, minimum_uid)
        gid = domain.gid
        await work.insert(
            "public.user_accounts",
            username=username.value, uid=uid, gid=gid, password=new.password, email=email.value,
            mailbox=path, quota=new.quota, active="1",
        )  # fmt: skip
        for address in every:
            await work.insert("public.user_addresses", username=username.value, alias=address)
        if new.without:
            off = dict.fromkeys(new.without, False)
            await work.insert("mailmaps.rights", username=username.value, **off)
        if domain.held is not None:
            notes.append(f"{domain.domain} is disabled: its mail waits")
        record = await find_account(work, username.value)
        change = Change({} if record is None else account_object(record), notes=notes)
        change.result["addresses"] = every
        change.said.append(f"added {username.value} (uid {uid}, gid {gid}), mailbox {path}")
        if new.folder and gid is not None:
            change.boxes.append(NewBox(path, uid, gid, email.value))
        change.probes += [Probe("virtual_alias_maps", address) for address in every]
        return change

    return prepare


async def _domain_for(work: Work, username: str, email: str) -> DomainRow:
    """The domain of a new account. Raises `CannotWrite`: it cannot be called so."""
    if await find_account(work, username):
        raise CannotWrite(f"there is an account {username} already")
    for holder in await holders(work, username):
        raise CannotWrite(f"{holder}: two would log in as {username}")
    domain = await find_domain(work, names.domain_of(email))
    if domain is None or domain.kind != "domain":
        where = f": it is an alias of {domain.target}" if domain and domain.kind == "alias" else ""
        raise CannotWrite(
            f"{names.domain_of(email)} is no domain for accounts{where} (`mailmaps domain add`)"
        )
    return domain


async def _uid(work: Work, boxes: Boxes | None, new: NewAccount, path: str, minimum: int) -> int:
    """The number that the mailbox's files shall have. Raises `CannotWrite`: it would be another's mail."""
    former = await former_owner(work, path, "")
    found = boxes.found(path) if boxes is not None else None
    has_mail = found is not None and found.has_mail
    was = f"; it was {former.username}'s (uid {former.uid}) until {former.until}" if former else ""
    if (has_mail or (former and boxes is None)) and not new.adopt:
        what = "there is mail in" if has_mail else "there may be mail in"
        raise CannotWrite(
            f"{what} {path} already{was}: --adopt gives it to the new account, --mailbox names another folder"
        )
    if new.adopt:
        if found is None and former is None:
            raise CannotWrite(f"there is no mail in {path} to adopt")
        uid = found.uid if found is not None and has_mail else (former.uid if former else 0)
        if uid < max(minimum, 1):
            raise CannotWrite(f"{path} is of uid {uid}, which no mailbox may have: chown it first")
        if new.uid not in (None, uid):
            raise CannotWrite(f"the mail in {path} is of uid {uid}: leave --uid out")
        if (owner := await uid_owner(work, uid)).startswith("is "):
            raise CannotWrite(f"{path} is of uid {uid}, which {owner}: chown it first")
        return uid
    if new.uid is None:
        return (await free_uid(work, minimum, uid_taken))[0]
    if owner := await uid_owner(work, new.uid):
        raise CannotWrite(f"{new.uid} {owner}")
    return new.uid


async def may_have(work: Work, address: str, username: str) -> list[str]:
    """Whether this account may have an address; what is to be said of it. Raises `CannotWrite`."""
    domain = await find_domain(work, names.domain_of(address))
    if domain is None or domain.kind == "relay":
        raise CannotWrite(
            f"{address}: {names.domain_of(address)} is no domain of ours (`mailmaps domain add`)"
        )
    for holder in await holders(work, address):
        if not _is_own(holder, username):
            raise CannotWrite(str(holder))
    notes = []
    if await work.value("SELECT true FROM mailmaps.forwards WHERE key = $1 LIMIT 1", address):
        notes.append(f"there is a forward of {address}: it goes on, and the mailbox keeps a copy")
    return notes


def _is_own(holder: Holder, username: str) -> bool:
    return holder.kind in ("username", "email") and holder.whose == username


def show(typed: str) -> Prepare:
    """What there is of it. Nothing is written."""
    spelt = names.username(typed)

    async def prepare(work: Work, _: Boxes | None) -> Change:
        account = await there(work, spelt.value)
        found = account_object(account)
        found["addresses"] = await _column(
            work,
            "SELECT alias FROM public.user_addresses WHERE username = $1 ORDER BY 1",
            account["username"],
        )
        found["disabled_addresses"] = await _column(
            work,
            "SELECT alias FROM mailmaps.disabled_addresses WHERE username = $1 ORDER BY 1",
            account["username"],
        )
        return Change(found)

    return prepare


def change(typed: str, *, password: str | None, quota: int | None, rights: dict[str, bool]) -> Prepare:
    """Set what is given; None and what is left out stays. `password` is a hash."""
    spelt = names.username(typed)

    async def prepare(work: Work, _: Boxes | None) -> Change:
        account = await there(work, spelt.value)
        name = account["username"]
        said = []
        if password is not None:
            await work.update("public.user_accounts", {"password": password}, "username = $1", name)
            said.append(f"the password of {name} is changed")
        if quota is not None:
            await work.update("public.user_accounts", {"quota": quota}, "username = $1", name)
            said.append(f"the quota of {name} is {f'{quota} MB' if quota else 'none'}")
        if rights:
            now = {right: account[right] for right in RIGHTS} | rights
            await work.delete("mailmaps.rights", "username = $1", name)
            await work.insert("mailmaps.rights", username=name, **now)
            said.append(f"{name} may: {', '.join(right for right in RIGHTS if now[right]) or 'nothing'}")
        probes = _probes([account]) if "receive" in rights else []
        return Change(account_object(await there(work, spelt.value)), said, probes=probes)

    return prepare


def set_active(typed: Sequence[str], domain: str | None, *, active: bool) -> Prepare:
    """Have these, or all of a domain, get mail, log in and send, or do none of that."""
    spelt = [names.username(one) for one in typed]
    where = names.domain(domain) if domain is not None else None
    word = "enabled" if active else "disabled"

    async def prepare(work: Work, _: Boxes | None) -> Change:
        if not active and not await honours_active(work):
            raise CannotWrite(_NOT_HONOURED)
        accounts = [await there(work, one.value) for one in spelt]
        if where is not None:
            row = await find_domain(work, where.value)
            if row is None or row.kind != "domain":
                raise CannotWrite(f"{where.value} is no domain with accounts")
            found = await work.fetch(
                """SELECT username, mailmaps.fold(email) AS email,
                          active COLLATE "C" IN ('1', 't', 'T', 'y', 'Y') AS active
                   FROM public.user_accounts WHERE gid = $1 ORDER BY 1""",
                row.gid,
            )
            accounts += found
        wrong = [account["username"] for account in accounts if account["active"] is not active]
        values = {"active": "1" if active else "0"}
        await work.update("public.user_accounts", values, "username = ANY ($1::text[])", wrong)
        said = [f"{word} {name}" for name in wrong]
        said += [
            f"{account['username']} was {word} already" for account in accounts if account["active"] is active
        ]
        probes = _probes(accounts)
        if not active:
            said.append(
                "their mail is refused, nobody logs in or sends as them; what they have stays on disk"
            )
        return Change({word: wrong}, said, probes=probes)

    return prepare


def remove(typed: str, *, with_mail: bool) -> Prepare:
    """Remove it and its addresses."""
    spelt = names.username(typed)

    async def prepare(work: Work, boxes: Boxes | None) -> Change:
        account = await there(work, spelt.value)
        found = Change(account_object(account))
        await _remove(work, boxes, found, account, with_mail=with_mail)
        found.result["removed"] = True
        found.notes.append(
            f"grants and limits of the login {account['username']} stay, for the next one of this name "
            "(`mailmaps limits clear`, mailpolicy.sender_grants)"
        )
        return found

    return prepare


async def remove_all(
    work: Work, boxes: Boxes | None, change: Change, gid: int | None, *, with_mail: bool
) -> None:
    """Remove the accounts of a domain."""
    for record in await work.fetch(
        "SELECT username FROM public.user_accounts WHERE gid = $1 ORDER BY 1", gid
    ):
        account = await find_account(work, record["username"], exactly=True)
        assert account is not None  # in our transaction
        await _remove(work, boxes, change, account, with_mail=with_mail)


async def _remove(
    work: Work, boxes: Boxes | None, change: Change, account: Record, *, with_mail: bool
) -> None:
    name, path = account["username"], account["mailbox"].strip("/")
    addresses = await _column(
        work, "SELECT alias FROM public.user_addresses WHERE username = $1 ORDER BY 1", name
    )
    await work.delete("mailmaps.rights", "username = $1", name)
    await work.delete("mailmaps.disabled_addresses", "username = $1", name)
    await work.delete("public.user_addresses", "username = $1", name)
    await work.delete("public.user_accounts", "username = $1", name)
    change.said.append(f"removed {name}" + (f" with {', '.join(addresses)}" if addresses else ""))
    where = (
        f"{boxes.base.rstrip('/')}/{path}" if boxes is not None else f"{path}, below the base of mailboxes"
    )
    if not with_mail:
        change.said.append(f"its mail stays in {where}")
    elif boxes is None:
        raise CannotWrite(
            "--with-mail: no postfix.virtual_mailbox_base is set, the mail is not here to delete"
        )
    else:
        await former_owner(work, names.mailbox(path), name)  # nobody else's is in it or around it
        change.gone.append(names.mailbox(path))
        change.said.append(f"its mail in {where} is deleted")
    targets = await _column(
        work,
        """SELECT DISTINCT address FROM mailmaps.forwards WHERE target_key = ANY (
              SELECT mailmaps.fold(k) FROM unnest($1::text[]) AS k) ORDER BY 1""",
        addresses,
    )
    if targets:
        change.notes.append(f"forwards that led to {name}, and stay: {', '.join(targets)}")
    change.probes += [Probe("virtual_mailbox_maps", address, there=False) for address in addresses]


def _probes(accounts: Sequence[Record]) -> list[Probe]:
    """Where it shows whether they get mail: what smtpd(8) accepts by."""
    return [
        Probe(table, fold(account["email"]))
        for account in accounts
        for table in ("virtual_alias_maps", "virtual_mailbox_maps")
    ]


async def there(work: Work, username: str) -> Record:
    """The account of this name. Raises `CannotWrite`: there is none."""
    account = await find_account(work, username)
    if account is None:
        raise CannotWrite(f"there is no account {username}")
    return account


def account_object(account: Record) -> dict[str, Any]:
    """As JSON has it."""
    return dict(account)


async def _column(work: Work, query: str, *arguments: object) -> list[str]:
    return [record[0] for record in await work.fetch(query, *arguments)]
