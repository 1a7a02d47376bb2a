"""What Postfix's own settings are, as `postconf` tells them, in the types of our [postfix] section.

`postconf -x` gives the value in force with `$name` expanded; `postconf -P` the `-o name=value` of
master.cf, which one service may have to itself.
"""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mailmaps.maps.cf_text import logical_lines
from mailmaps.maps.pgsql_cf import default_encoding, read_text

# On root's PATH, but not on that of everybody's cron, nor of Debian's `su`.
SBIN = ("/usr/sbin", "/sbin")

SECONDS = 20.0  # postconf answers in milliseconds; NSS or a dead mount may not


class PostconfError(Exception):
    """postconf is not there or refuses; the text says which."""


@dataclass(frozen=True, slots=True)
class PostfixValues:
    """`values` by parameter in the types of our settings, and `notes` on what could not be taken over."""

    values: dict[str, Value]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Override:
    """`-o parameter=value` of one master.cf service ("submission/inet")."""

    service: str
    parameter: str
    value: str


def read(config_dir: Path | None = None) -> PostfixValues:
    """The parameters that a search needs. Raises `PostconfError`."""
    raw = _parse(_postconf(config_dir, "-x", *_CONVERTERS))
    notes: list[str] = []
    converted = {name: _CONVERTERS[name](raw[name], notes) for name in _CONVERTERS if name in raw}
    return PostfixValues({name: v for name, v in converted.items() if v is not None}, notes)


def overrides(config_dir: Path | None = None) -> list[Override]:
    """Where master.cf gives one service another value for such a parameter. Raises `PostconfError`."""
    found: list[Override] = []
    for name, value in _parse(_postconf(config_dir, "-P")).items():
        service, _, parameter = name.rpartition("/")
        if parameter in _CONVERTERS:
            found.append(Override(service, parameter, value))
    return found


@dataclass(frozen=True, slots=True)
class Service:
    """One entry of master.cf: its name ("submission/inet"), its daemon program, and the entry as one line."""

    name: str
    program: str
    line: str


def parameters(
    config_dir: Path, *, all_of_them: bool = False, expanded: bool = False, local: Sequence[Override] = ()
) -> dict[str, str]:
    """What main.cf sets, as it is written there (`postconf -n`), or, with `all_of_them`, all that is in
    force, for a service with the overrides `local`; `expanded` puts values in the place of `$name`.
    Raises `PostconfError`."""
    options = [*([] if all_of_them else ["-n"]), *(["-x"] if expanded else []), *_options(local)]
    found = _parse(_postconf(config_dir, *options))
    # `postconf -c` reports its own option as a setting.
    return {name: value for name, value in found.items() if all_of_them or name != "config_directory"}


@cache
def builtin_names() -> frozenset[str]:
    """The parameters that Postfix itself knows (`postconf -d`). Raises `PostconfError`."""
    return frozenset(_parse(_postconf(None, "-d")))


def all_overrides(config_dir: Path, *, expanded: bool = False) -> list[Override]:
    """Every `-o name=value` of master.cf (`postconf -P`). Raises `PostconfError`."""
    found = _parse(_postconf(config_dir, "-P", *(["-x"] if expanded else [])))
    split = ((name.rpartition("/"), value) for name, value in found.items())
    return [Override(service, parameter, value) for (service, _, parameter), value in split]


def services(config_dir: Path) -> dict[str, Service]:
    """The entries of master.cf (`postconf -M`), by name and type. Raises `PostconfError`."""
    found = {}
    for line in _postconf(config_dir, "-M").splitlines():
        words = line.split()
        if len(words) > _COMMAND:
            name = f"{words[0]}/{words[1]}"
            found[name] = Service(name, words[_COMMAND], line)
    return found


_COMMAND = 7  # master(5): service type private unpriv chroot wakeup maxproc command


def expand(config_dir: Path, text: str, local: Sequence[Override] = ()) -> str:
    """`text` with values in the place of `$name`; `local` are the overrides of the service that reads it.

    Postfix's own expansion decides: the text is lent to a parameter that nothing else names.
    """
    return _postconf(config_dir, *_options(local), "-o", f"{_LENT}={text}", "-x", "-h", _LENT).rstrip("\n")


def _options(local: Sequence[Override]) -> list[str]:
    return [word for one in local for word in ("-o", f"{one.parameter}={one.value}")]


_LENT = "mail_name"


# The parameters of a pgsql_table(5); in main.cf each has the table's name and `_` before it.
CF_PARAMETERS = (
    "hosts user password dbname encoding query result_format domain expansion_limit retry_interval "
    "idle_interval select_function table select_field where_field additional_conditions"
).split()


def table_settings(name: str, config_dir: Path) -> dict[str, str]:
    """What main.cf sets for `pgsql:name`, by the names pgsql_table(5) has. Raises `PostconfError`.

    postconf takes NAME_query for known only while some parameter names the table, so one is made to.
    """
    names = [f"{name}_{parameter}" for parameter in CF_PARAMETERS]
    found = _parse(_postconf(config_dir, "-x", "-o", f"virtual_alias_maps=pgsql:{name}", *names))
    return {full.removeprefix(f"{name}_"): value for full, value in found.items()}


def map_types(config_dir: Path) -> list[str]:
    """The types of tables that this Postfix can read (`postconf -m`). Raises `PostconfError`."""
    return _postconf(config_dir, "-m").split()


def edit(config_dir: Path, *arguments: str) -> None:
    """Run a `postconf` that changes main.cf or master.cf. Raises `PostconfError`."""
    _postconf(config_dir, *arguments)


def environment() -> dict[str, str]:
    """For Postfix's programs: su(1) and cron leave their folders out of PATH."""
    return {**os.environ, "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), *SBIN])}


def _postconf(config_dir: Path | None, *arguments: str) -> str:
    where = ["-c", str(config_dir)] if config_dir is not None else []
    try:
        done = subprocess.run(
            ["postconf", *where, *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env=environment(),
        )
    except FileNotFoundError:
        raise PostconfError("postconf is not installed here") from None
    except subprocess.TimeoutExpired:
        raise PostconfError(f"postconf gave no answer within {SECONDS:g} s") from None
    if done.returncode != 0:
        raise PostconfError(f"postconf failed: {done.stderr.strip()}")
    return done.stdout


def _parse(output: str) -> dict[str, str]:
    pairs = (line.partition(" =") for line in output.splitlines())
    return {name: value.strip() for name, equals, value in pairs if equals}


def _words(value: str) -> list[str]:
    return list(dict.fromkeys(value.replace(",", " ").split()))


def _text(value: str, notes: list[str]) -> str:
    return value


def _number(value: str, notes: list[str]) -> int | None:
    return int(value) if value.isdecimal() else None


def _yes(value: str, notes: list[str]) -> bool:
    return value == "yes"


def _list(value: str, notes: list[str]) -> list[str]:
    return _words(value)


def _origin(value: str, notes: list[str]) -> str:
    """myorigin may name a file whose first line is the domain (postconf(5), Debian's /etc/mailname)."""
    if not value.startswith("/"):
        return value
    try:
        lines = Path(value).read_text().split()
    except OSError as error:
        notes.append(f"myorigin is in {value}, which cannot be read: {error.strerror}")
        return ""
    return lines[0] if lines else ""


def _destinations(value: str, notes: list[str]) -> list[str]:
    """The names of a match list (util/match_list.c), files and their files read; the first match decides."""
    lost: list[str] = []
    found: dict[str, tuple[str, bool]] = {}
    for name, matches in _members(value, True, (), lost):
        found.setdefault(name.casefold(), (name, matches))
    if lost:
        notes.append(f"mydestination names what cannot be taken over: {', '.join(dict.fromkeys(lost))}")
    return [name for name, matches in found.values() if matches]


def _members(text: str, wanted: bool, inside: tuple[str, ...], lost: list[str]) -> Iterator[tuple[str, bool]]:
    """The literal names of a match list, each with whether it is in or excluded; to `lost` what is none."""
    for word in re.findall(r"(?:\{[^{}]*\}|[^\s,])+", text, re.ASCII):
        name = word.lstrip("!")
        matches = wanted == ((len(word) - len(name)) % 2 == 0)
        if ":" in name and not name.startswith(("[", "/")):
            lost.append(f"{word} (a table)")
        elif not name.startswith("/"):
            yield name, matches
        elif name in inside:
            lost.append(f"{name} (names itself)")
        else:
            try:
                lines = list(logical_lines(read_text(Path(name))))
            except OSError as error:
                lost.append(f"{name} ({error.strerror})")
                continue
            for line in lines:
                yield from _members(line.value, matches, (*inside, name), lost)


def _addresses(value: str, notes: list[str]) -> list[str] | None:
    """None for "all" and host names: only bare local parts of user@[address] depend on them."""
    try:
        return [str(ipaddress.ip_address(word)) for word in _words(_LOOPBACK.get(value, value))]
    except ValueError:
        return None


_LOOPBACK = {"loopback-only": "127.0.0.1 ::1"}

Value = str | bool | int | list[str]

_CONVERTERS: dict[str, Callable[[str, list[str]], Value | None]] = {
    "mail_version": _text,
    "config_directory": _text,
    "recipient_delimiter": _text,
    "owner_request_special": _yes,
    "double_bounce_sender": _text,
    "propagate_unmatched_extensions": _list,
    "myorigin": _origin,
    "mydestination": _destinations,
    "inet_interfaces": _addresses,
    "proxy_interfaces": _addresses,
    "parent_domain_matches_subdomains": _list,
    "smtputf8_enable": _yes,
    "virtual_mailbox_base": _text,
    "virtual_minimum_uid": _number,
    "myhostname": _text,
    "mydomain": _text,
    "append_at_myorigin": _yes,
    "append_dot_mydomain": _yes,
    "swap_bangpath": _yes,
    "allow_percent_hack": _yes,
    "resolve_dequoted_address": _yes,
}

# What virtual(8) delivers with.
DELIVERY = ("virtual_mailbox_base", "virtual_minimum_uid")

# What completes a sender (trivial-rewrite(8)); the policy service wants to know it.
SENDERS = (
    "myhostname",
    "mydomain",
    "append_at_myorigin",
    "append_dot_mydomain",
    "swap_bangpath",
    "allow_percent_hack",
    "resolve_dequoted_address",
)

# The parameters that decide how a table is searched.
SEARCH = tuple(
    name for name in _CONVERTERS if name not in ("mail_version", "config_directory", *DELIVERY, *SENDERS)
)


def difference(parameter: str, ours: object, theirs: object) -> str | None:
    """Say how our setting differs from Postfix's, or None. Order does not matter in lists."""
    if isinstance(ours, list) and isinstance(theirs, list):
        same = {word.lower() for word in ours} == {word.lower() for word in theirs}
    elif parameter == "mail_version":
        # What of it matters; an upgrade within these bounds is no difference.
        same = default_encoding(str(ours)) == default_encoding(str(theirs))
    elif parameter == "myorigin":
        same = str(ours).lower() == str(theirs).lower()
    else:
        same = ours == theirs
    return None if same else f"Postfix has {_show(theirs)}, mailmaps {_show(ours)}"


def convert(parameter: str, value: str) -> Value | None:
    """A raw value of postconf in the type of our setting; None where it cannot be taken over."""
    return _CONVERTERS[parameter](value, [])


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(value) if isinstance(value, list) and value else f'"{value}"' if value else "nothing"
