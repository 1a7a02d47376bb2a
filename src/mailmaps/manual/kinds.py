"""What a setting may be, in words, and its default: from the types that the settings have."""

from __future__ import annotations

import json
import sys
import types
import typing
from collections.abc import Iterable

from mailmaps.config.section import Section

# What the names of types in mailmaps.config say to a person. One that is missing here is called what it is to
# TOML.
WORDS = {
    "AddressOrDomain": "address or @domain",
    "Delivery": '"virtual" or TRANSPORT:NEXTHOP',
    "DirectoryPath": "directory, absolute",
    "Dsn": "PostgreSQL URI",
    "DsnOrNone": "PostgreSQL URI",
    "HomeBase": "directory, absolute",
    "HostAndPort": "HOST:PORT",
    "Inet": "ADDRESS:PORT",
    "LoginSource": '"builtin" or "view:SCHEMA.NAME"',
    "MailAddress": "mail address",
    "LimitText": "text",
    "MailVersion": "version",
    "Mode": "octal mode",
    "Network": "network",
    "PamService": "name of a file",
    "Parameter": "Postfix parameter",
    "Refusal": "text",
    "RelationName": "table",
    "Scheme": "scheme of hashes",
    "Seconds": "seconds",
    "SecondsOrOff": "seconds",
    "SourceName": "source",
    "UnixPath": "absolute path",
}

_TOML = {str: "string", bool: "true or false", int: "number", float: "number"}


def kind(model: type[Section], name: str) -> str:
    """The type of a setting in words, with what it may be: "number, 1 to 100"."""
    hint = typing.get_type_hints(model, include_extras=True)[name]
    return _in_words(hint) + _bounds([*getattr(hint, "__metadata__", ()), *model.model_fields[name].metadata])


def _in_words(hint: typing.Any) -> str:
    if (alias := _alias(hint)) in WORDS:
        return WORDS[alias]
    if typing.get_origin(hint) is typing.Annotated:
        return _in_words(typing.get_args(hint)[0])
    if typing.get_origin(hint) is typing.Literal:
        return _either([json.dumps(value) for value in typing.get_args(hint)])
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return _in_words(next(one for one in typing.get_args(hint) if one is not types.NoneType))
    if typing.get_origin(hint) is list:
        return f"list of: {_in_words(typing.get_args(hint)[0])}"
    return _TOML.get(hint, "value")


def _alias(hint: object) -> str:
    """The name under which the modules of the settings know a type."""
    modules = {name: module for name, module in sys.modules.items() if name.startswith("mailmaps.config.")}
    found = [name for module in modules.values() for name, value in vars(module).items() if value is hint]
    return next((name for name in found if name in WORDS), "")


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _bounds(notes: Iterable[object]) -> str:
    """What a number's annotations (annotated_types: Ge, Gt, Le, Lt) say of it."""
    limits: dict[str, float] = {}
    for note in notes:
        for one in (note, *getattr(note, "metadata", ())):
            for bound in ("ge", "gt", "le", "lt"):
                if isinstance(value := getattr(one, bound, None), int | float):
                    limits[bound] = value
    low, high = limits.get("ge"), limits.get("le")
    if low is not None and high is not None:
        return f", {low:.15g} to {high:.15g}"
    words = {
        "gt": "more than {:.15g}",
        "ge": "{:.15g} or more",
        "lt": "less than {:.15g}",
        "le": "at most {:.15g}",
    }
    said = [text.format(limits[bound]) for bound, text in words.items() if bound in limits]
    return "".join(f", {one}" for one in said)


def default(model: type[Section], name: str) -> str:
    """The default as mailmaps.toml would have it; empty where the setting is unset."""
    value = model.model_fields[name].get_default(call_default_factory=True)
    return "" if value is None else toml(value)


def toml(value: object) -> str:
    """A value as TOML writes it, of those that settings have."""
    return json.dumps(value, ensure_ascii=False)  # the same for strings, numbers, booleans and lists of these
