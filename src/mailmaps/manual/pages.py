"""The four manual pages: texts in man(7) beside this module, with what the program knows put in.

Contract: `{{name}}` in a text is a value of the program, or a default of the settings by its path; a name
that is neither is an error, so that no page can speak of what does not exist. The pages are the same wherever
and whenever they are made: no time, no host, no terminal goes into them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from mailmaps import __version__, daemon
from mailmaps.cli import main, options
from mailmaps.cli.serve import serve
from mailmaps.config import Settings, secrets
from mailmaps.config.load import DEFAULT_PATH
from mailmaps.config.section import Unix
from mailmaps.dovecot import checkpassword
from mailmaps.dovecot.configuration import LIBRARY, Site, Version
from mailmaps.dovecot.configuration import text as dovecot_conf
from mailmaps.manual import roff, settings
from mailmaps.manual.commands import Commands
from mailmaps.manual.kinds import toml

PROGRAM = "mailmaps"

# When the texts were last gone through by a person: with each release.
DATE = "2026-11-23"

# Each page, by the folder it goes to.
PAGES = {
    "mailmaps.1": "man1",
    "mailmaps.toml.5": "man5",
    "mailmaps.8": "man8",
    "mailmaps-checkpassword.8": "man8",
}

# Columns for an endpoint in the list of them.
ENDPOINT = 18

# What the sections of the settings speak at their endpoints.
PROTOCOLS = {
    "tables": "tcp_table(5)",
    "socketmap": "socketmap_table(5), all tables by name",
    "policy": "policy delegation (check_policy_service)",
    "metrics": "HTTP, for Prometheus",
    "control": "the commands of mailmaps(1)",
    "login": "Dovecot's logins and lookups, by mailmaps-checkpassword(8) or mailmaps.lua",
    "dovecot_auth": "Dovecot's auth protocol, for Postfix's SMTP AUTH",
    "saslauthd": "saslauthd(8), for programs with Cyrus SASL",
}

# sysexits.h, by the name in mailmaps.cli.options.
EXITS = {
    "EX_DATAERR": "What was given, or what is in the database, does not do.",
    "EX_UNAVAILABLE": "Something that is needed is not there, or refuses us for good.",
    "EX_TEMPFAIL": "Nobody can say now: the daemon, the database or another server is away. Try again.",
    "EX_CONFIG": "The settings do not do; each problem is named with its line.",
}

_PLACE = re.compile(r"\{\{([\w.]+)\}\}")


def render(page: str) -> str:
    """The source of one of `PAGES`. Raises `KeyError` for a place in it that nothing is known of."""
    text = files(__package__).joinpath(f"{page}.in").read_text(encoding="utf-8")
    blocks, values = _blocks(), _values()
    lines = []
    for line in text.splitlines():
        alone = _PLACE.fullmatch(line)
        if alone and alone[1] in blocks:
            lines += blocks[alone[1]]
        else:
            lines.append(_PLACE.sub(lambda place: _value(place[1], values), line))
    return "\n".join(_without_empty_paragraphs(lines)) + "\n"


def _without_empty_paragraphs(lines: list[str]) -> list[str]:
    """A header begins a paragraph, so that one more would be a mistake to mandoc."""
    after = zip(["", *lines], lines, strict=False)
    return [line for before, line in after if line != ".PP" or not before.startswith((".SH", ".SS"))]


def _value(name: str, values: Mapping[str, str]) -> str:
    if name == "date":
        return DATE  # for the macro TH, which reads it
    if name in values:
        return roff.escape(values[name])
    found: object = Settings()
    for part in name.split("."):
        try:
            found = found[part] if isinstance(found, dict) else getattr(found, part)
        except (AttributeError, KeyError):
            raise KeyError(f"{{{{{name}}}}}: neither a value nor a setting") from None
    return roff.escape(found if isinstance(found, str) else toml(found).removesuffix(".0"))


@cache
def _values() -> dict[str, str]:
    """What stands within a line."""
    config = next(one for one in serve.params if one.name == "config")
    values = {
        "version": __version__,
        "config.path": str(DEFAULT_PATH),
        "config.variable": str(config.envvar),
        "config.store": str(secrets.STORE),
        "credential": secrets.CREDENTIAL,
        "library": LIBRARY,
        "daemon.drain": f"{daemon.DRAIN:g}",
    }
    values |= {f"exit.{name}": str(value) for name, value in vars(options).items() if name.startswith("EX_")}
    for name, value in vars(checkpassword).items():
        if name.isupper() and isinstance(value, int | float | bytes):
            text = value.decode() if isinstance(value, bytes) else f"{value:g}"
            values[f"checkpassword.{name}"] = text
    return values


@cache
def _blocks() -> dict[str, list[str]]:
    """What takes lines of its own."""
    commands = Commands(main, PROGRAM)
    return {
        "commands.overview": commands.overview(),
        "commands.options": commands.options(),
        "commands.each": commands.each(),
        "settings": settings.page(),
        "exits": _exits(),
        "passwords": _passwords(),
        "endpoints": _endpoints(),
        "checkpassword.doors": _doors(),
    }


def _exits() -> list[str]:
    codes = sorted((value, name) for name, value in vars(options).items() if name.startswith("EX_"))
    return [
        line
        for value, name in codes
        for line in roff.item(roff.bold(str(value)), roff.filled(EXITS.get(name, "As sysexits.h has it.")))
    ]


def _passwords() -> list[str]:
    """The variables with passwords: secrets.ENVIRONMENT, and AUTH_ENVIRONMENT and its like with a prefix."""
    lines = []
    for name, variable in vars(secrets).items():
        prefix, found, rest = name.partition("ENVIRONMENT")
        if found and not rest:
            credential, dsn = getattr(secrets, f"{prefix}CREDENTIAL"), f"database.{prefix.lower()}dsn"
            text = f"The password for `{dsn}`. The credential, and the file: `{credential}`."
            lines += roff.item(roff.bold(variable), roff.filled(text))
    return lines


def _endpoints() -> list[str]:
    shipped = Settings()
    open_at = {path.rpartition(".")[0]: place for path, place in shipped.inet_endpoints().items()}
    closed = []
    for name in Settings.model_fields:
        section = getattr(shipped, name)
        if isinstance(section, Unix) and section.unix:
            open_at[name] = section.unix
        elif isinstance(section, Unix) and not getattr(section, "inet", ""):
            closed.append(name)
    lines = [(f".TP {ENDPOINT}", place, f"`{name}`: {_protocol(name)}") for name, place in open_at.items()]
    listed = roff.close([[tp, roff.bold(place), *roff.filled(text)] for tp, place, text in lines])
    unset = [roff.item(roff.bold(f"{name}.unix"), roff.filled(_protocol(name))) for name in closed]
    return [*listed, ".PP", "Nobody is listened to here until the setting has a path:", *roff.close(unset)]


def _protocol(name: str) -> str:
    section = name.partition(".")[0]
    return PROTOCOLS.get(section, f"the section [{section}] of mailmaps.toml(5)")


def _doors() -> list[str]:
    """The blocks of Dovecot's configuration that name the program."""
    site = Site("/var/vmail", 100, "/run/mailmaps/login.sock", "", None)
    text = dovecot_conf(site, Version.parse("2.3"), "checkpassword")
    blocks = re.findall(r"^(?:passdb|userdb) \{\n.*?^\}", text, re.MULTILINE | re.DOTALL)
    return [roff.escape(line) for block in blocks for line in block.split("\n")]
