"""What the postmaster is told, in words: what happened, what follows, which command shows more and undoes it.

The rule they keep: whatever a client said is printable and short (`shown`), and in a command it is one word
of the shell (`shlex.quote`), since a postmaster copies it into root's terminal. The user's own copy names no
command: he has none of them.

A line of a notice is a paragraph, which the message wraps; a line that begins with two blanks is a command or
an example, which it leaves as it is.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mailmaps.policy.texts import shown

Kind = Literal["limit", "senders", "database", "back", "test"]
Action = Literal["defer", "reject", "hold", "observe"]

# What becomes of mail over a limit (limits.action), for the postmaster and for the user.
_FOLLOWS: dict[Action, str] = {
    "defer": "Mail over the limit is put off: the program that sends it is told to try again later.",
    "reject": "Mail over the limit is refused for good: its sender gets an error at once.",
    "hold": "Mail over the limit is accepted and kept in Postfix's hold queue: mailq lists it with a !, "
    "postsuper -H releases it and postsuper -d deletes it.",
    "observe": 'Nothing is held up: limits.action is "observe".',
}
_FOLLOWS_FOR_USER: dict[Action, str] = {
    "defer": "Until then your mail program may say that it could not send; it can try again later.",
    "reject": "Until then further mail of yours is refused.",
    "hold": "Further mail of yours waits until the postmaster has looked at it.",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell. `kind` and `about` are the subject that has at most one mail in a period.

    `also_to` is the address of the user who is told too, or ""; he gets `also_title` and `also_lines`.
    """

    kind: Kind
    about: str
    title: str
    lines: tuple[str, ...]
    also_to: str = ""
    also_title: str = ""
    also_lines: tuple[str, ...] = ()


def limit_reached(
    scope: Literal["login", "domain"],
    name: str,
    limit: int,
    unit: Literal["messages", "recipients"],
    window: Literal["an hour", "a day"],
    action: Action,
    user_address: str = "",
) -> Notice:
    """A login or domain has sent `limit` messages or recipients; `action` is that of [limits].

    The user at `user_address` is told too, unless nothing happens to his mail (`observe`).
    """
    much = f"{limit} {unit} {window}"
    each = window.split()[1]
    name_words = _words(name) if scope == "login" else f"--domain {_words(name)}"
    lines = (
        f"The {scope} {shown(name)} has reached its limit of {much}.",
        "",
        f"{_FOLLOWS[action]} It lifts by itself: only what was sent in the last {each} counts.",
        "",
        "A newsletter looks like this, and so does a stolen password. What was sent, and the limits that "
        "apply:",
        "",
        f"  mailmaps limits show {name_words}",
        "",
        "To count from nothing again, which lets it send at once:",
        "",
        f"  mailmaps limits release {name_words}",
        "",
        "To give it a limit of its own, for a week say:",
        "",
        f"  mailmaps limits set --{unit}-{each} {2 * limit} --for 7d --reason newsletter {name_words}",
    )
    told = user_address if action in _FOLLOWS_FOR_USER else ""
    return Notice(
        kind="limit",
        about=f"{scope} {name}",
        title=f"Sending limit reached: {shown(name)} ({much})",
        lines=lines,
        also_to=told,
        also_title=f"Your sending limit is reached ({much})" if told else "",
        also_lines=_limit_for_user(scope, name, much, action) if told else (),
    )


def _limit_for_user(scope: str, name: str, much: str, action: Action) -> tuple[str, ...]:
    whose = f"Your account {shown(name)} has" if scope == "login" else f"Your domain {shown(name)} has"
    return (
        f"{whose} sent as much mail as it may: {much}. This lifts by itself when some time has passed.",
        "",
        _FOLLOWS_FOR_USER[action],
        "",
        "If it was not you who sent that much, somebody else may know your password: change it now, and "
        "tell the postmaster. An answer to this mail reaches him.",
    )


def foreign_senders(login: str, count: int, examples: Sequence[tuple[str, str]]) -> Notice:
    """A login sent as others `count` times within an hour; `examples` are (sender, client's address)."""
    address = examples[-1][0] if examples else "ADDRESS"
    some = [f"  from <{shown(sender)}>, client {shown(client)}" for sender, client in examples]
    lines = (
        f"Within an hour the login {shown(login)} tried {count} times to send as somebody as whom it may not "
        'send. That mail was refused; with senders.mode = "observe" it was let through and noted.',
        "",
        *(("The last of it:", "", *some, "") if some else ()),
        "A mail program that is set up wrongly looks like this, and so does a stolen password. What was "
        "refused, to whom:",
        "",
        "  mailmaps senders observed --since 1h",
        "",
        "Which rule refused it, and what would allow it:",
        "",
        f"  mailmaps senders explain {_words(login, address)}",
    )
    title = f"{shown(login)} sends as others ({count} times within an hour)"
    return Notice(kind="senders", about=login, title=title, lines=lines)


def database_away(name: str, minutes: float, reason: str) -> Notice:
    """The database `name` has not been reached for so many minutes; `reason` is why, as the log has it."""
    lines = (
        f"mailmaps has not reached the database {shown(name)} for {_time(minutes)}:",
        "",
        f"  why: {shown(reason)}",
        "",
        "For a time mailmaps goes on with what it holds. What it cannot say makes mail wait, and refuses "
        "none. What it holds, and what is away:",
        "",
        "  mailmaps status",
        "",
        "What is wrong with the connection, tried now:",
        "",
        "  mailmaps check",
        "",
        "mailmaps comes back by itself when the database does, and then says so.",
    )
    title = f"The database {shown(name)} has been away for {_time(minutes)}"
    return Notice(kind="database", about=name, title=title, lines=lines)


def database_back(name: str, minutes: float) -> Notice:
    """The database `name` is there again after so many minutes."""
    lines = (
        f"mailmaps reaches the database {shown(name)} again; it was away for {_time(minutes)}. Nothing is to "
        "be done: mail that waited is tried again by those who sent it, and Postfix's own queue by Postfix.",
        "",
        "What mailmaps holds now, and how far it trusts it:",
        "",
        "  mailmaps status",
    )
    title = f"The database {shown(name)} is back after {_time(minutes)}"
    return Notice(kind="back", about=name, title=title, lines=lines)


def test() -> Notice:
    """What `mailmaps notices test` sends."""
    lines = (
        "This is a test: `mailmaps notices test` was called, and notices of mailmaps reach you. Nothing "
        "happened, and nothing is to be done.",
        "",
        "They come from [notices] in mailmaps.toml; nobody gets any while notices.to is empty.",
    )
    return Notice(kind="test", about="test", title="Test of notices", lines=lines)


def _words(*names: str) -> str:
    """Names as arguments of a command; a login such as "-x" must not be an option."""
    shell = shlex.join(map(shown, names))
    return f"-- {shell}" if any(name.startswith("-") for name in names) else shell


def _time(minutes: float) -> str:
    whole = max(1, round(minutes))
    if whole < 120:
        return "1 minute" if whole == 1 else f"{whole} minutes"
    return f"{whole // 60} h {whole % 60} min"
