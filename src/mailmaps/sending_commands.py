"""The commands of the control socket about sending: who may send as whom, and how much was sent.

Each takes and gives a JSON object. Where there is no database that is written to, they tell what this daemon
has in memory, and say so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from ipaddress import ip_address
from time import time
from typing import Any, cast

from mailmaps.control import Command, CommandError
from mailmaps.database.policy_rows import PolicyRows
from mailmaps.maps.address import fold, is_well_formed
from mailmaps.maps.answer import Answer, CannotSay, Found, NotFound, Unavailable
from mailmaps.policy.limit_book import Override
from mailmaps.policy.limits import LONGEST_NAME
from mailmaps.policy.sums import Scope, Sums
from mailmaps.sending import Sending

# Lines of one listing.
MOST = 1000

# Where a listing comes from.
MEMORY, DATABASE = "memory", "database"

NEEDS_DATABASE = "this needs database.write_dsn, where other limits than those of mailmaps.toml are kept"

FIELDS = ("messages_hour", "messages_day", "recipients_hour", "recipients_day")


class SendingCommands:
    """`sending` gives the one in use now."""

    def __init__(self, sending: Callable[[], Sending]) -> None:
        self._sending = sending

    @property
    def commands(self) -> dict[str, Command]:
        """By the names they have on the control socket."""
        return {
            "senders explain": _said(self.explain),
            "senders observed": _said(self.observed),
            "limits list": _said(self.list),
            "limits show": _said(self.show),
            "limits set": _said(self.set),
            "limits clear": _said(self.clear),
            "limits release": _said(self.release),
        }

    async def explain(self, request: dict[str, Any]) -> dict[str, Any]:
        """Who may send as what, and why: `login` (empty: nobody is logged in), `address`, `client`."""
        sending = self._sending()
        explained = await sending.senders.explain(
            _text(request, "login"), _text(request, "address"), _client(request)
        )
        verdict, in_map = explained.verdict, explained.in_map
        cannot = isinstance(verdict, Unavailable)
        return {
            "resolved": explained.resolved,
            "candidates": explained.candidates,
            "allowed": None if isinstance(verdict, Unavailable) else verdict.allowed,
            "by": cast(Unavailable, verdict).reason if cannot else verdict.by,  # type: ignore[union-attr]
            "needed": "" if isinstance(verdict, Unavailable) else verdict.needed,
            "mode": sending.senders.mode_of(_text(request, "login")),
            "in_map": in_map.value if isinstance(in_map, Found) else None,
            "map_says": _map_says(in_map),
        }

    async def observed(self, request: dict[str, Any]) -> dict[str, Any]:
        """Whom the sender check refused, or would have, in the last `since` seconds."""
        sending, since = self._sending(), time() - _number(request, "since", 86400.0)
        await sending.write_observed()
        found, kept = list(sending.observed.held(since).items()), MEMORY
        if sending.rows is not None:
            try:
                found, kept = [*found, *await sending.rows.observed(since, MOST)], DATABASE
            except CannotSay as error:
                kept = f"{MEMORY} ({error})"
        return {"kept": kept, "observed": [{**event._asdict(), **asdict(times)} for event, times in found]}

    async def list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Who has sent how much, and whose limits are others."""
        sending, counted = self._sending(), MEMORY
        overrides = sending.book.overrides()
        found = [(cast(Scope, name[0]), name[1], sums) for name, sums in sending.limits.sums_here().items()]
        if sending.rows is not None:
            try:
                overrides = await sending.rows.overrides()
                found, counted = await sending.rows.sent(None, MOST), DATABASE
            except CannotSay as error:
                counted = f"{MEMORY} ({error})"
        return {
            "counted": counted,
            "sent": [self._of_name(scope, name, sums) for scope, name, sums in found],
            "overrides": [_override(one) for one in overrides],
        }

    async def show(self, request: dict[str, Any]) -> dict[str, Any]:
        """What `name` has sent and may send."""
        sending, scope, name = self._sending(), _scope(request), fold(_text(request, "name"))
        sums, counted = sending.limits.sums_here().get((scope, name), Sums()), MEMORY
        if sending.rows is not None:
            try:
                await sending.read_written()
                found = {one[0]: one[2] for one in await sending.rows.sent(name, MOST)}
                sums, counted = found.get(scope, Sums()), DATABASE
            except CannotSay as error:
                counted = f"{MEMORY} ({error})"
        override = sending.book.override(scope, name)
        return {
            "counted": counted,
            **self._of_name(scope, name, sums),
            "override": None if override is None else _override(override),
        }

    async def set(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give `name` limits of its own: numbers, `exempt`, `reason`, `until` (seconds since the epoch)."""
        rows, scope, name = self._rows(), _scope(request), fold(_text(request, "name"))
        numbers = tuple(_limit(request, field) for field in FIELDS)
        reason = _text(request, "reason")
        if not reason:
            raise CommandError("a limit of its own needs a reason")
        if not _flag(request, "exempt") and numbers == (None,) * len(FIELDS):
            raise CommandError("say at least one limit, or that it is exempt")
        until = None if request.get("until") is None else _number(request, "until", 0.0)
        await rows.set(
            Override(
                scope,
                name,
                cast(Any, numbers),
                _flag(request, "exempt"),
                reason,
                until,
            )
        )
        await self._sending().read_written()
        return await self.show(request)

    async def clear(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take the limits of its own from `name`; the settings apply again."""
        scope, name = _scope(request), fold(_text(request, "name"))
        cleared = await self._rows().clear(scope, name)
        await self._sending().read_written()
        return {"cleared": cleared}

    async def release(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget what `name` has sent, so that it may send again at once."""
        sending, scope, name = self._sending(), _scope(request), fold(_text(request, "name"))
        here = sending.limits.sums_here().get((scope, name), Sums())
        there = 0 if sending.rows is None else await sending.rows.release(scope, name)
        sending.limits.forget(scope, name)  # last: what cannot be released there is not half released
        return {"messages": max(here.messages_day, there)}

    def _rows(self) -> PolicyRows:
        rows = self._sending().rows
        if rows is None:
            raise CommandError(NEEDS_DATABASE)
        return rows

    def _of_name(self, scope: Scope, name: str, sums: Sums) -> dict[str, Any]:
        book = self._sending().book
        exempt = scope == "login" and book.is_exempt(name)
        return {
            "scope": scope,
            "name": name,
            "sent": sums._asdict(),
            "allowed": book.of(scope, name)._asdict(),
            "exempt": exempt,
        }


def _map_says(answer: Answer | None) -> str:
    if isinstance(answer, Found):
        return f"has {answer.value}"
    return "does not have it" if isinstance(answer, NotFound) else "cannot say now either"


def _said(command: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> Command:
    """The command with its failures in words for the person who gave it."""

    async def carry_out(request: dict[str, Any]) -> dict[str, Any]:
        try:
            return await command(request)
        except CannotSay as error:
            raise CommandError(f"cannot say now: {error}") from error

    return carry_out


def _override(one: Override) -> dict[str, Any]:
    return {
        "scope": one.scope,
        "name": one.name,
        **dict(zip(FIELDS, one.numbers, strict=True)),
        "exempt": one.exempt,
        "reason": one.reason,
        "until": one.until,
        "ended": one.is_over(time()),
    }


def _text(request: dict[str, Any], name: str) -> str:
    value = request.get(name, "")
    if not isinstance(value, str):
        raise CommandError(f"{name} is not text")
    if not is_well_formed(value) or any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 for char in value):
        raise CommandError(f"{name} has characters that no address and no login has")
    return value


def _client(request: dict[str, Any]) -> str:
    client = _text(request, "client")
    try:
        return str(ip_address(client)) if client else "unknown"
    except ValueError:
        raise CommandError("client is no address such as 192.0.2.7") from None


def _flag(request: dict[str, Any], name: str) -> bool:
    value = request.get(name, False)
    if not isinstance(value, bool):
        raise CommandError(f"{name} is true or false")
    return value


def _number(request: dict[str, Any], name: str, usual: float) -> float:
    value = request.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e11:
        raise CommandError(f"{name} is not a number of seconds")
    return float(value)


def _limit(request: dict[str, Any], name: str) -> int | None:
    value = request.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**9:
        raise CommandError(f"{name} is not a number from 0 to {10**9}")
    return value


def _scope(request: dict[str, Any]) -> Scope:
    scope = request.get("scope", "login")
    if scope not in ("login", "domain"):
        raise CommandError('scope is "login" or "domain"')
    if not 0 < len(_text(request, "name")) <= LONGEST_NAME:
        raise CommandError(f"whose limits? A name has 1 to {LONGEST_NAME} characters")
    return cast(Scope, scope)
