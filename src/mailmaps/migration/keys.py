"""Which keys a table is asked: from addresses, domains and hosts to what Postfix would send it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mailmaps.maps.address import quote, unquote
from mailmaps.migration import maillog
from mailmaps.migration.readers import MATCH_LISTS

DOMAIN_TABLES = frozenset(
    "virtual_mailbox_domains virtual_alias_domains mydestination relay_domains fast_flush_domains".split()
)
_OF_HOSTS = ("check_client_", "check_reverse_client_", "check_helo_", "check_etrn_")
# Keys of Postfix's own: `*` of transport(5), smtpd_null_access_lookup_key of access(5).
SPECIAL = {
    "transport_maps": ("*",),
    "address_verify_transport_maps": ("*",),
    "check_sender_access": ("<>",),
}


@dataclass
class Keys:
    """What to ask, each once and in order. `bare` is what has no `@`: domains, hosts, network addresses."""

    addresses: dict[str, None] = field(default_factory=dict)
    bare: dict[str, None] = field(default_factory=dict)
    hosts: dict[str, None] = field(default_factory=dict)

    def add(self, key: str) -> None:
        """Take a key as it is written in a file."""
        if not key or "\0" in key or "\n" in key:
            return
        (self.addresses if "@" in key else self.bare)[key] = None

    def of_table(self, parameter: str) -> list[str]:
        """What a table with the search order of `parameter` is asked."""
        if parameter in DOMAIN_TABLES:
            domains = (address.rpartition("@")[2] for address in self.addresses)
            return list(dict.fromkeys([*filter(None, domains), *self.bare]))
        if parameter.startswith(_OF_HOSTS) or parameter in MATCH_LISTS:
            return list(self.hosts | self.bare)
        return list(dict.fromkeys([*self.addresses, *self.bare, *SPECIAL.get(parameter, ())]))


def from_file(path: Path) -> Keys:
    """A key a line; blanks around it do not count, and `#` begins a line of comment. Raises `OSError`."""
    keys = Keys()
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            if not line.startswith("#"):
                keys.add(line.strip())
    return keys


def from_maillog(path: Path) -> Keys:
    """What the log names. Raises `OSError`, `EOFError`, `zlib.error`.

    The log has addresses in internal form, the tables are asked in external form first.
    """
    keys = Keys()
    for found in maillog.read(path):
        for address in filter(None, found.addresses):
            keys.add(quote(unquote(address)))
        keys.hosts.update(dict.fromkeys(found.hosts))
    return keys


def with_extension(addresses: Iterable[str], delimiters: str) -> list[str]:
    """The addresses with an extension that nobody has, where recipient_delimiter allows one."""
    if not delimiters:
        return []
    split = (address.rpartition("@") for address in addresses if '"' not in address)
    return [f"{local}{delimiters[0]}mailmaps@{domain}" for local, _, domain in split if local]
