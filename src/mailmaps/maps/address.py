"""Addresses as Postfix takes them apart: quoting, folding, extensions, lists.

*Internal form* is unquoted (`john doe@example.com`), *external form* has an RFC 822 quoted local
part where one is needed (`"john doe"@example.com`). Every function here is a port of the Postfix
function it names (source of 3.12, src/global), because a difference is a bounce.
"""

from __future__ import annotations

import re

# quote_822_local.c is_822_dot_string(): what a local part may not hold without quotes. Bytes above
# 127 are left alone (QUOTE_FLAG_8BITCLEAN), so that SMTPUTF8 addresses keep their shape.
_NEEDS_QUOTES = re.compile(r'^\.|\.\.|\.$|^$|[\x00-\x20\x7f()<>@,;:\\"\[\]]')
_QUOTED_PAIR = re.compile(r'(["\\\r])')


def fold(text: str, smtputf8: bool = True) -> str:
    """Fold the case of a key as Postfix does before it asks a FIXED table.

    ASCII text has A-Z lowered; other text gets full Unicode case folding, or, with
    `smtputf8_enable = no`, still only its ASCII letters (src/util/casefold.c:157-201).
    """
    if text.isascii():
        return text.lower()
    if smtputf8:
        return text.casefold()
    return text.translate(_ASCII_LOWER)


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def is_well_formed(text: str) -> bool:
    """Tell whether text came from well-formed UTF-8; other bytes are escaped in it (PEP 383)."""
    return text.isascii() or not any("\udc80" <= char <= "\udcff" for char in text)


def quote_local_part(local: str) -> str:
    """Give a local part its external form (quote_822_local.c)."""
    if _NEEDS_QUOTES.search(local) is None:
        return local
    return '"' + _QUOTED_PAIR.sub(r"\\\1", local) + '"'


def quote(internal: str) -> str:
    """Give an address in internal form its external form (quote_822_local.c:quote_822_local_flags)."""
    route, rest = _split_route(internal)
    local, at, domain = rest.rpartition("@")
    if not at:
        return route + quote_local_part(rest)
    return route + quote_local_part(local) + at + domain


def unquote(external: str) -> str:
    """Give an address in external form its internal form (quote_822_local.c:unquote_822_local).

    Text after the last `@` outside quotes is the domain and stays as it is.
    """
    if '"' not in external and "\\" not in external:
        return external
    route, rest = _split_route(external)
    out: list[str] = []
    in_quote = False
    at_in_out = at_in_rest = -1
    position = 0
    while position < len(rest):
        char = rest[position]
        if char == '"':
            in_quote = not in_quote
            position += 1
            continue
        if char == "@" and not in_quote:
            at_in_out, at_in_rest = len(out), position
        elif char == "\\":
            position += 1
            if position == len(rest):
                break
            char = rest[position]
        out.append(char)
        position += 1
    if at_in_out >= 0:
        return route + "".join(out[:at_in_out]) + rest[at_in_rest:]
    return route + "".join(out)


def is_external(address: str) -> bool:
    """Tell whether Postfix itself could have written `address` as an external form."""
    return quote(unquote(address)) == address


def _split_route(address: str) -> tuple[str, str]:
    """Split off an RFC 822 source route (`@relay:user@dom`), which Postfix leaves alone."""
    if address.startswith("@") and ":" in address:
        route, colon, rest = address.partition(":")
        return route + colon, rest
    return "", address


# MAIL_ADDR_POSTMASTER, MAIL_ADDR_MAIL_DAEMON (src/global/mail_addr.h).
_NEVER_SPLIT = ("postmaster", "mailer-daemon")


def split_extension(
    local: str,
    delimiters: str,
    *,
    owner_request_special: bool = True,
    double_bounce_sender: str = "double-bounce",
) -> tuple[str, str]:
    """Split an unquoted local part at the first delimiter (split_addr.c:68-103).

    Returns `(user, extension)`; the extension keeps its delimiter (`+ext`) and is empty where Postfix
    does not split: postmaster and its like, `owner-x` and `x-request` when `-` is a delimiter, and a
    delimiter at the very front.
    """
    lowered = local.lower()
    if not delimiters or lowered in _NEVER_SPLIT or lowered == double_bounce_sender.lower():
        return local, ""
    if owner_request_special and "-" in delimiters and _is_owner_or_request(lowered):
        return local, ""
    cut = min((at for at in map(local.find, delimiters) if at >= 0), default=0)
    return (local[:cut], local[cut:]) if cut else (local, "")


def _is_owner_or_request(lowered: str) -> bool:
    return lowered.startswith("owner-") or (lowered.endswith("-request") and lowered != "-request")
