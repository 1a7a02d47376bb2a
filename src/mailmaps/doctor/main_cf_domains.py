"""The classes of our domains by main.cf itself, for `mailmaps check`: names and files in it, not our tables.

trivial-rewrite(8) takes the first class that has a domain: mydestination, virtual_alias_domains,
virtual_mailbox_domains, relay_domains (resolve.c:400-560). A domain with mailboxes that an earlier one has
gets no mail; a class that matches everything makes this host an open relay, or swallows all mail.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mailmaps import postconf
from mailmaps.doctor.counted import Counted
from mailmaps.doctor.match_list import MatchList, NotAsked
from mailmaps.findings import Finding, Level
from mailmaps.maps.search import Rules
from mailmaps.postconf import PostconfError

# Nobody's, for ever (RFC 6761): a list that has it has everything.
NOBODYS = "no-such-domain-of-ours.invalid"

_CLASSES = ("mydestination", "virtual_alias_domains", "virtual_mailbox_domains", "relay_domains")
_SERVICE = "rewrite/unix"


def class_findings(
    domains: Sequence[str],
    rules: Rules,
    counted: Counted,
    config_dir: Path,
    relays: Sequence[str] = (),
) -> Iterator[Finding]:
    """What main.cf itself says of our domains, and of the `relays`; of each kind `counted` shows some.

    Where Postfix cannot be asked for its settings, nothing: the comparison of the settings says so.
    """
    try:
        local = [one for one in postconf.all_overrides(config_dir) if one.service == _SERVICE]
        values = postconf.parameters(config_dir, all_of_them=True, expanded=True, local=local)
    except PostconfError:
        return
    parents = values.get("parent_domain_matches_subdomains", "").replace(",", " ").split()
    for name in _CLASSES:
        by_parent = "relay_domains" in parents if name == "relay_domains" else None
        asked = MatchList(values.get(name, ""), config_dir, subdomains=by_parent)
        try:
            found = asked.matching([*domains, NOBODYS])
            if name == "relay_domains" and relays and asked.is_asked_whole:
                _not_relayed(sorted(set(relays).difference(asked.matching(relays))), counted)
        except (NotAsked, OSError, UnicodeDecodeError) as error:
            text = f"not looked at: {error}"
            yield Finding(Level.WARNING, f"postfix {name}", text, "mend it: Postfix cannot read it either")
            continue
        if everything := found.pop(NOBODYS, ""):
            yield _everything(name, everything)
            continue
        for domain, word in found.items():
            _of_two(domain, word, name, rules, counted)


def _everything(name: str, word: str) -> Finding:
    does = {
        "relay_domains": "this host is an open relay",
        "mydestination": "every domain is this machine's, so no mail leaves it, and no mailbox gets any",
        "virtual_alias_domains": "mail for every mailbox and for every other host bounces",
        "virtual_mailbox_domains": "no mail leaves this host",
    }
    return Finding(
        Level.ERROR,
        f"postfix {name}",
        f"{word} has every domain there is: {does[name]}",
        f"{name} as mailmaps postfix-config prints it, or the names themselves",
    )


def _not_relayed(domains: Sequence[str], counted: Counted) -> None:
    """Domains of our table that Postfix does not ask it for."""
    for domain in domains:
        text = f"{domain} is to be passed on, and relay_domains does not have it: its mail is refused"
        remedy = "relay_domains and relay_recipient_maps as mailmaps postfix-config prints them"
        counted.add(Level.WARNING, "domains", "not passed on", text, remedy)


def _of_two(domain: str, word: str, name: str, rules: Rules, counted: Counted) -> None:
    """A domain with mailboxes that main.cf puts into another class."""
    if name == "relay_domains":
        text = (
            f"{domain} is in virtual_mailbox_domains and, by {word}, in {name}: Postfix warns with each mail"
        )
        counted.add(Level.WARNING, "domains", f"in {name} too", text, f"take it out of {name}")
    elif name == "virtual_alias_domains" or (name == "mydestination" and not rules.resolves_here(domain)):
        text = (
            f"{domain} is in virtual_mailbox_domains and, by {word}, in {name}, which counts: mail for its "
        )
        text += "mailboxes bounces"
        counted.add(Level.ERROR, "domains", f"in {name}, which counts", text, f"take it out of {name}")
