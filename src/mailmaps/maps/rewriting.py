"""What Postfix makes of an address before it asks smtpd_sender_login_maps: complete, and resolved.

smtpd(8) has trivial-rewrite(8) rewrite and resolve the sender (src/smtpd/smtpd_resolve.c:118-128) and asks
for the result; a policy service gets the sender as the client typed it. The rules are those of rewrite_tree()
(src/trivial-rewrite/rewrite.c:95-230) and of the first half of resolve_addr() (resolve.c:181-420), which work
on the tokens of src/global/tok822_parse.c, as here: `user%site` is a route, and in `"a user%site"` it is one
only since resolve_dequoted_address says so.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mailmaps.maps.address import quote, unquote
from mailmaps.maps.search import Rules
from mailmaps.maps.tokens import Kind, Token, joined, scan, text_of

# What stands for the sender <> inside an address (empty_address_recipient).
EMPTY_ADDRESS = "MAILER-DAEMON"

# Routing characters that are taken off one address. Postfix goes on as long as the address has some; nobody
# needs that, and each step costs as much as the address is long, in the one thread that answers everybody.
MOST_STEPS = 10

# Characters of an address that is not plain: one has at most 254 octets (RFC 5321 4.5.3.1.3), and a route
# before it about as many.
LONGEST_ROUTE = 512

# Addresses whose result is kept: each recipient of a mail asks for the same sender.
MOST_KEPT = 1000

# An address that stays as it is, and nearly every one is such: words with dots between, no routing character.
_WORD = r'[^\x00-\x20\x7f()<>@,;:\\".\[\]!%|]+'
_PLAIN = re.compile(rf"{_WORD}(?:\.{_WORD})*@{_WORD}(?:\.{_WORD})+")


def resolved(address: str, rules: Rules) -> str:
    """The address in internal form as Postfix resolves it; `address` is in internal form too, and not empty.

    Raises `ValueError` for one with more routing characters than `MOST_STEPS`, or a longer one.
    """
    if _PLAIN.fullmatch(address):
        return address
    if len(address) > LONGEST_ROUTE:
        raise ValueError("the address is too long")
    return _long_way(address, rules)


@lru_cache(MOST_KEPT)
def _long_way(address: str, rules: Rules) -> str:
    rewritten = unquote(quote(text_of(_rewritten(scan(quote(address)), rules))))
    return text_of(_resolved(scan(quote(rewritten)), rules))


def _resolved(tree: list[Token], rules: Rules) -> list[Token]:
    """Take our own domains off, and whatever they hide, until a domain is left that is not ours."""
    ours: list[Token] = []
    for _ in range(MOST_STEPS):
        if _rfind(tree, "@") >= 0:
            tree = _without_dot(tree)
            at = _rfind(tree, "@")
            if tree[at + 1 :] and not rules.resolves_here(text_of(tree[at + 1 :])):
                return tree
            tree, ours = tree[:at], tree[at:]
        if _has_route(tree, rules):
            tree = _rewritten(tree, rules)
        elif (opened := _opened(tree, rules)) is not None:
            tree = _rewritten(opened, rules)
        elif not tree or tree == [_NOTHING]:
            tree = scan(EMPTY_ADDRESS)
        elif ours:
            return tree + ours
        elif rules.myhostname:
            tree = [*tree, _AT, *scan(rules.myhostname)]
        else:  # unknown to us; Postfix always has one
            return tree
    raise ValueError("too many routing characters")


def _has_route(tree: list[Token], rules: Rules) -> bool:
    """Whether what is left without our domain says where it goes itself."""
    return any(_rfind(tree, sign) >= 0 for sign in "@" + _signs(rules))


def _opened(tree: list[Token], rules: Rules) -> list[Token] | None:
    """A quoted local part with a route in it, taken apart; None: it is none (resolve.c:308-330)."""
    if not rules.resolve_dequoted_address or len(tree) != 1 or tree[0].kind is not Kind.QUOTED:
        return None
    text = tree[0].text
    for sign in "@" + "".join(reversed(_signs(rules))):
        before, found, after = text.rpartition(sign)
        if found:
            return scan(text if sign == "!" else quote(f"{before}@{after}"))
    return None


def _signs(rules: Rules) -> str:
    """The routing characters besides `@`, in the order in which rewrite_tree() looks for them."""
    return ("!" if rules.swap_bangpath else "") + ("%" if rules.allow_percent_hack else "")


def _rewritten(tree: list[Token], rules: Rules) -> list[Token]:
    """rewrite_tree(): the address with its domain in the right place, and complete."""
    if tree == [_NOTHING]:
        return tree
    if tree == [_AT]:
        return [_NOTHING]
    if tree[0] == _AT and -1 < (colon := _find(tree, ":")) < len(tree) - 1:  # a source route
        tree = tree[colon + 1 :]
    tree = _with_domain(tree, rules)
    at = _rfind(tree, "@")
    domain = tree[at + 1 :] if at >= 0 else []
    whole = any(one == _DOT or one.kind is Kind.LITERAL for one in domain)
    if rules.append_dot_mydomain and rules.mydomain and domain and not whole:
        tree = [*tree, _DOT, *scan(rules.mydomain)]
    return _without_dot(tree)


def _with_domain(tree: list[Token], rules: Rules) -> list[Token]:
    if _rfind(tree, "@") >= 0:
        return tree
    if rules.swap_bangpath and (bang := _find(tree, "!")) >= 0:
        user = [*tree[bang + 1 :], _AT]
        # In `!a b` the tree is empty before `a b` is put back into it, and then it is `ab`.
        return user + tree[:bang] if bang else joined(user)
    if rules.allow_percent_hack and (percent := _rfind(tree, "%")) >= 0:
        return [*tree[:percent], _AT, *tree[percent + 1 :]]
    if rules.append_at_myorigin and rules.myorigin:
        return [*tree, _AT, *scan(rules.myorigin)]
    return tree


def _without_dot(tree: list[Token]) -> list[Token]:
    """Without a dot at its end, unless there is another dot or the `@` before it."""
    ends_in_dot = len(tree) > 1 and tree[-1] == _DOT and tree[-2] not in (_DOT, _AT)
    return tree[:-1] if ends_in_dot else tree


def _find(tree: list[Token], sign: str) -> int:
    wanted = Token(Kind.OPERATOR, sign)
    return tree.index(wanted) if wanted in tree else -1


def _rfind(tree: list[Token], sign: str) -> int:
    wanted = Token(Kind.OPERATOR, sign)
    return len(tree) - 1 - tree[::-1].index(wanted) if wanted in tree else -1


_AT = Token(Kind.OPERATOR, "@")
_DOT = Token(Kind.OPERATOR, ".")
_NOTHING = Token(Kind.QUOTED, "")
